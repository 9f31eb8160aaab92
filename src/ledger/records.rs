//! The records of jobs, for people who ask. They are found as a worker finds them, and nothing is changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Script;

use super::dial::Dialer;
use super::fingerprint::{Fingerprint, Keyring};
use super::home::Home;
use super::link::{Link, Step};
use super::redis::RedisSettings;
use super::store::StoreError;
use crate::job::progress::Progress;
use crate::job::request::OtpRequest;
use crate::job::result::ResultEvent;
use crate::job::state::State;

/// The most jobs that are asked for in one step: more would hold up the workers' steps.
const AT_ONCE: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Records {
    link: Link,
    keyring: Arc<Keyring>,
    script: Script,
}

/// What is recorded under an id.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that is not understood.
    Unreadable,
    /// A job.
    Job(Box<Record>),
}

/// The record of a job.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where the job is.
    pub stage: Stage,
    /// How often it was tried anew, because its producer published it again.
    pub reruns: u32,
    /// After this long the record is forgotten, unless it changes. `None`: never.
    pub kept_for: Option<Duration>,
    fingerprint: String,
}

/// Where a recorded job is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// It has ended.
    Ended(ResultEvent),
    /// It has not.
    Held(Held),
}

/// A job that has not ended.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its state.
    pub state: State,
    /// The worker that has it, or had it last, and the number of this holding: `worker:number`.
    pub owner: String,
    /// How long the lease still lasts. `None`: it is over.
    pub lease: Option<Duration>,
    /// How long ago the last attempt began, where one did.
    pub began: Option<Duration>,
    /// What it has been through.
    pub progress: Progress,
}

impl Records {
    /// The records there.
    pub fn new(settings: &RedisSettings) -> Self {
        let RedisSettings { source, prefix, deployment } = settings.clone();
        let keyring = Arc::new(Keyring::default());
        let home = Home::to_visit(prefix, deployment, Arc::clone(&keyring));
        Self { link: Link::new(Dialer::new(source, home)), keyring, script: Script::new(include_str!("records.lua")) }
    }

    /// Reaches the Redis. Only then is the key of fingerprints known.
    ///
    /// # Errors
    /// [`StoreError`]. It is [`StoreError::NotOurs`] also where no worker has ever been.
    pub async fn open(&self) -> Result<(), StoreError> {
        self.link.connected().await
    }

    /// What is recorded under each of these ids, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, ids: &[&str]) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            let mut call = self.script.prepare_invoke();
            for id in some {
                call.key(self.link.home().prefix.job(id));
            }
            let said: Vec<Vec<Bytes>> = self.link.step(Step::Script(&call)).await?;
            if said.len() != some.len() {
                return Err(StoreError::Unreadable("what it says is not understood".into()));
            }
            found.extend(said.into_iter().map(read));
        }
        Ok(found)
    }

    /// Whether the record certainly is that of another job, as a worker would find.
    pub fn is_of_another(&self, record: &Record, request: &OtpRequest) -> bool {
        let (ours, theirs) = (self.keyring.fingerprint(request).text(), &record.fingerprint);
        let is_same_key = theirs.get(..Fingerprint::KEY_LENGTH) == ours.get(..Fingerprint::KEY_LENGTH);
        is_same_key && *theirs != ours
    }
}

#[cfg(test)]
impl Record {
    /// A record that is kept for an hour.
    pub(crate) fn for_test(stage: Stage, reruns: u32) -> Self {
        Self { stage, reruns, kept_for: Some(Duration::from_secs(3_600)), fingerprint: String::new() }
    }
}

fn read(said: Vec<Bytes>) -> Found {
    match said.first().map(AsRef::as_ref) {
        Some(b"none") => Found::Nothing,
        Some(b"record") => record(&said).map_or(Found::Unreadable, |record| Found::Job(Box::new(record))),
        Some(_) | None => Found::Unreadable,
    }
}

/// A record as this version writes them.
fn record(said: &[Bytes]) -> Option<Record> {
    let [_, fingerprint, state, owner, lease, began, progress, result, reruns, kept] = said else { return None };
    let (fingerprint, owner) = (text(fingerprint)?.to_owned(), text(owner)?.to_owned());
    let reruns = number(reruns)?.unwrap_or_default().try_into().ok()?;
    let stage = match State::parse(state)? {
        State::Done => Stage::Ended(ResultEvent::read(result.clone(), u32::saturating_add(reruns, 1))?),
        state @ (State::Claimed | State::Sending | State::Waiting | State::Released) => Stage::Held(Held {
            state,
            owner,
            lease: number(lease)?.and_then(ahead),
            began: number(began)?.map(|began| ahead(began).unwrap_or_default()),
            progress: if progress.is_empty() {
                Progress::anew(reruns)
            } else {
                serde_json::from_slice(progress).ok()?
            },
        }),
        // These are states of a job without a record.
        State::Delivered | State::Dropped => return None,
    };
    let is_whole = !fingerprint.is_empty() && (matches!(stage, Stage::Ended(_)) || !lease.is_empty());
    is_whole.then(|| Record { stage, reruns, kept_for: number(kept).flatten().and_then(ahead), fingerprint })
}

fn text(bytes: &Bytes) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A number; nothing stands for none.
fn number(bytes: &Bytes) -> Option<Option<i64>> {
    let text = text(bytes)?;
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

/// Milliseconds from now, if they are not over.
fn ahead(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: &[&str]) -> Found {
        read(said.iter().map(|part| Bytes::copy_from_slice(part.as_bytes())).collect())
    }

    const RESULT: &str = r#"{"JobId":"a","Outcome":"accepted","Attempts":1,"MayBeDuplicate":false}"#;

    #[test]
    fn a_record_is_read_as_a_worker_writes_it() {
        assert!(matches!(found(&["none"]), Found::Nothing));
        let Found::Job(held) = found(&["record", "f", "sending", "w:1", "9000", "20", "", "", "2", "1000"]) else {
            panic!("no record")
        };
        assert_eq!((held.reruns, held.kept_for), (2, Some(Duration::from_secs(1))));
        let Stage::Held(held) = held.stage else { panic!("it has not ended") };
        assert_eq!((held.state, held.owner.as_str(), held.progress.reruns), (State::Sending, "w:1", 2));
        assert_eq!((held.lease, held.began), (Some(Duration::from_secs(9)), Some(Duration::from_millis(20))));
        let Found::Job(ended) = found(&["record", "f", "done", "", "", "", "", RESULT, "", "-1"]) else {
            panic!("no record")
        };
        assert!(matches!(ended.stage, Stage::Ended(event) if event.run == 1) && ended.kept_for.is_none());
    }

    #[test]
    fn a_lease_that_is_over_is_none() {
        for over in ["0", "-5"] {
            let Found::Job(record) = found(&["record", "f", "claimed", "w:1", over, "", "", "", "", "1"]) else {
                panic!("no record")
            };
            assert!(matches!(record.stage, Stage::Held(held) if held.lease.is_none()), "{over}");
        }
    }

    #[test]
    fn what_no_worker_writes_is_not_taken_for_a_record() {
        for said in [
            &[][..],
            &["unreadable"],
            &["record"],
            &["record", "f", "done", "", "", "", "", "", "", "1"],
            &["record", "f", "done", "", "", "", "", "no JSON", "", "1"],
            &["record", "f", "gone", "w:1", "1", "", "", "", "", "1"],
            &["record", "f", "dropped", "w:1", "1", "", "", "", "", "1"],
            &["record", "f", "sending", "w:1", "", "", "", "", "", "1"],
            &["record", "", "sending", "w:1", "1", "", "", "", "", "1"],
            &["record", "f", "sending", "w:1", "1", "", "no JSON", "", "", "1"],
            &["record", "f", "sending", "w:1", "1", "", "", "", "x", "1"],
        ] {
            assert!(matches!(found(said), Found::Unreadable), "{said:?}");
        }
    }
}

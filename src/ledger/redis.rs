//! The ledger in Redis. All workers share it, and it is still there after each of them has ended.
//!
//! A job is one hash. A step is one script, so each step is one round trip and atomic. The clock is that of
//! Redis, so the workers' clocks need not agree. Nothing personal is stored: see [`super::fingerprint`], and a
//! result holds no phone number.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use redis::{Script, ScriptInvocation};

use super::address::Source;
use super::dial::Dialer;
use super::fingerprint::Fingerprint;
use super::fingerprint::Keyring;
use super::home::{Deployment, Home, Prefix};
use super::link::{Link, Step};
use super::places::{self, Places, millis};
use super::store::{Ask, Claim, End, Finish, Finished, Left, Note, Reply, Stage, Store, StoreError};
use crate::job::envelope::DeliveryCount;
use crate::job::progress::Progress;
use crate::job::result::{Ending, Outcome, ResultEvent};
use crate::job::state::State;
use crate::limits::{Limits, Place};

/// Where the Redis is, and what there is this deployment's.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is.
    pub source: Source,
    /// What every key begins with.
    pub prefix: Prefix,
    /// Whose the prefix is.
    pub deployment: Deployment,
}

impl RedisSettings {
    /// The same for the workers of this broker.
    #[must_use]
    pub fn of_broker(mut self, cluster: Option<String>) -> Self {
        self.deployment.broker = cluster;
        self
    }
}

/// See the module.
#[derive(Debug)]
pub struct Redis {
    link: Arc<Link>,
    places: Places,
    lease: Duration,
    ttl: Duration,
    claim: Script,
    note: Script,
    finish: Script,
    correct: Script,
}

/// The answer of a script: a word, and its arguments.
type Said = Vec<Bytes>;

impl Redis {
    /// The store at this place. A lease lasts for `lease`, and a record for `ttl` after its last change. The key
    /// of fingerprints that is kept there goes to `keyring`.
    pub fn new(
        settings: &RedisSettings,
        limits: Arc<Limits>,
        keyring: Arc<Keyring>,
        lease: Duration,
        ttl: Duration,
    ) -> Self {
        let RedisSettings { source, prefix, deployment } = settings.clone();
        Self {
            places: Places::new(limits, prefix.clone(), Arc::clone(&keyring)),
            link: Arc::new(Link::new(Dialer::new(source, Home::new(prefix, deployment, keyring)))),
            lease,
            ttl,
            claim: Script::new(concat!(include_str!("places.lua"), include_str!("claim.lua"))),
            note: Script::new(include_str!("note.lua")),
            finish: Script::new(concat!(include_str!("places.lua"), include_str!("finish.lua"))),
            correct: Script::new(include_str!("correct.lua")),
        }
    }

    /// The connection, for what else is kept there.
    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    fn key(&self, id: &str) -> String {
        self.link.home().prefix.job(id)
    }

    async fn run<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.link.step(Step::Script(call)).await
    }

    /// A number must not be counted under a key that this process made for itself before it had reached the store.
    async fn know_key(&self, place: Option<&Place>) -> Result<(), StoreError> {
        if place.is_some() { self.link.ready().await } else { Ok(()) }
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Claim, StoreError> {
        self.know_key(ask.place).await?;
        let mut call = self.claim.key(self.key(ask.id));
        call.arg(ask.fingerprint.text())
            .arg(Fingerprint::KEY_LENGTH)
            .arg(ask.owner)
            .arg(millis(self.lease))
            .arg(millis(self.ttl))
            .arg(ask.first_delivered.map(|at| millis(at.elapsed()).to_string()).unwrap_or_default());
        self.places.add(&mut call, ask.place);
        let said: Said = self.run(&call).await?;
        let mut said = said.into_iter();
        let (word, more) = (said.next().unwrap_or_default(), said.next().unwrap_or_default());
        let count = said.next().and_then(|count| DeliveryCount::parse(std::str::from_utf8(&count).ok()?));
        let reruns = said.next().map_or(Some(0), |reruns| number(&reruns)).ok_or_else(unreadable)?;
        let left = match word.as_ref() {
            b"new" => return Ok(Claim::New),
            b"anew" => return Ok(Claim::Anew(reruns)),
            b"another" => return Ok(Claim::AnotherJob),
            b"limited" => return self.places.held_back(ask.place, &more, reruns),
            b"held" => return lease_left(&more).map(Claim::HeldByAnother),
            state => match State::parse(state) {
                Some(State::Done) => return event(more, reruns).map(Claim::Done),
                Some(State::Released) => Left::Released(count),
                Some(State::Claimed | State::Waiting) => Left::Lapsed,
                Some(State::Sending) => Left::Sending,
                // These are states of a job without a record.
                Some(State::Delivered | State::Dropped) | None => return Err(unreadable()),
            },
        };
        let written = progress(&more)?;
        Ok(Claim::Left(left, Progress { reruns: reruns.max(written.reruns), ..written }))
    }

    async fn write(&self, note: Note<'_>) -> Result<bool, StoreError> {
        let (state, lease, count) = match note.stage {
            Stage::Sending => (State::Sending, self.lease, None),
            Stage::Waiting(wait) => (State::Waiting, self.lease + wait, None),
            Stage::Released(count) => (State::Released, Duration::ZERO, count),
        };
        self.run(
            self.note
                .key(self.key(note.id))
                .arg(note.fingerprint.text())
                .arg(note.owner)
                .arg(note.step)
                .arg(state.as_str())
                .arg(written(note.progress))
                .arg(millis(lease))
                .arg(millis(self.ttl))
                .arg(count.map(|count| count.to_string()).unwrap_or_default()),
        )
        .await
    }

    async fn end(&self, end: End<'_>) -> Result<Finished, StoreError> {
        self.know_key(end.place).await?;
        let result = end.event;
        let mut call = self.finish.key(self.key(end.id));
        call.arg(end.fingerprint.text())
            .arg(Fingerprint::KEY_LENGTH)
            .arg(end.owner.unwrap_or_default())
            .arg(result.body.as_ref())
            .arg(millis(self.ttl))
            .arg(u8::from(result.outcome.may_be_tried_anew()))
            .arg(result.run.saturating_sub(1))
            .arg(u8::from(result.may_have_sent()))
            .arg(end.attempted.map(|at| millis(at.elapsed()).to_string()).unwrap_or_default());
        self.places.add(&mut call, end.place);
        let said: Said = self.run(&call).await?;
        let mut said = said.into_iter();
        let (word, more) = (said.next().unwrap_or_default(), said.next().unwrap_or_default());
        match word.as_ref() {
            b"recorded" => Ok((Finish::Recorded, places::seen(&more))),
            b"held" => {
                let is_marked = more.as_ref() == b"1";
                let may_have_sent = is_marked || progress(&said.next().unwrap_or_default())?.ambiguous_attempts > 0;
                Ok((Finish::HeldByAnother { may_have_sent }, None))
            }
            b"already" => {
                let reruns = number(&said.next().unwrap_or_default()).ok_or_else(unreadable)?;
                event(more, reruns).map(|recorded| (Finish::Already(recorded), None))
            }
            _ => Err(unreadable()),
        }
    }

    async fn replace(&self, id: &str, recorded: &ResultEvent, says_more: &ResultEvent) -> Result<(), StoreError> {
        let mut call = self.correct.key(self.key(id));
        self.run(call.arg(recorded.body.as_ref()).arg(says_more.body.as_ref())).await
    }

    async fn result_of(&self, id: &str, fingerprint: Fingerprint) -> Result<Option<ResultEvent>, StoreError> {
        let mut read = redis::cmd("HMGET");
        read.arg(self.key(id)).arg("fingerprint").arg("result").arg("reruns");
        let (found, result, reruns): (Option<String>, Option<Bytes>, Option<u32>) =
            self.link.step(Step::Command(&read)).await?;
        let same = found.is_some_and(|found| found == fingerprint.text());
        result.filter(|_| same).map(|result| event(result, reruns.unwrap_or_default())).transpose()
    }
}

impl Store for Redis {
    fn open(&self) -> Reply<'_, ()> {
        self.link.connected().boxed()
    }

    fn belongs_to<'a>(&'a self, broker: &'a str) -> Reply<'a, ()> {
        self.link.home().set_broker(broker);
        self.link.connected().boxed()
    }

    fn claim<'a>(&'a self, ask: Ask<'a>) -> Reply<'a, Claim> {
        self.ask(ask).boxed()
    }

    fn note<'a>(&'a self, note: Note<'a>) -> Reply<'a, bool> {
        self.write(note).boxed()
    }

    fn finish<'a>(&'a self, end: End<'a>) -> Reply<'a, Finished> {
        self.end(end).boxed()
    }

    fn correct<'a>(&'a self, id: &'a str, recorded: &'a ResultEvent, says_more: &'a ResultEvent) -> Reply<'a, ()> {
        self.replace(id, recorded, says_more).boxed()
    }

    fn recorded<'a>(&'a self, id: &'a str, fingerprint: Fingerprint) -> Reply<'a, Option<ResultEvent>> {
        self.result_of(id, fingerprint).boxed()
    }
}

/// What matters to a ledger of what a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    version: String,
    is_written_to_disk: bool,
    forgets_when_full: bool,
}

impl Server {
    /// What could make it forget a job, and what to do about it.
    pub const fn risk(&self) -> Option<(&'static str, &'static str)> {
        if !self.is_written_to_disk {
            return Some((
                "it forgets every job when it restarts",
                "set appendonly yes and appendfsync always there, or accept that a crash of it may cost a second OTP",
            ));
        }
        if self.forgets_when_full {
            return Some(("it forgets jobs when its memory is full", "set maxmemory-policy noeviction there"));
        }
        None
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis {} answers and takes a record", self.version)
    }
}

/// Takes each kind of step with a record that expires at once, and asks the server about itself.
///
/// # Errors
/// [`StoreError`].
pub async fn inspect(settings: &RedisSettings) -> Result<Server, StoreError> {
    let (keyring, second) = (Arc::new(Keyring::default()), Duration::from_secs(1));
    let store = Redis::new(settings, Arc::default(), keyring, second, second);
    store.link.connected().await?;
    let id = format!("check-{}", uuid::Uuid::new_v4());
    let (owner, fingerprint) = ("check", Fingerprint::NONE);
    store.ask(Ask { id: &id, fingerprint, owner, first_delivered: None, place: None }).await?;
    let progress = &Progress::default();
    store.write(Note { id: &id, fingerprint, owner, step: 1, stage: Stage::Released(None), progress }).await?;
    let event = Ending::without_attempt(Outcome::Invalid, "a check").into_event(&id, SystemTime::now());
    store.end(End::uncounted(&id, fingerprint, Some(owner), &event)).await?;
    let info = redis::cmd("INFO");
    let told: Result<String, _> = store.link.step(Step::Command(&info)).await;
    // A server may forbid `INFO`. It takes records, and that is what counts.
    Ok(server(&told.unwrap_or_default()))
}

fn server(info: &str) -> Server {
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Server {
        version: value("valkey_version").or(value("redis_version")).unwrap_or("of an unknown version").to_owned(),
        is_written_to_disk: value("aof_enabled").is_none_or(|enabled| enabled == "1"),
        forgets_when_full: value("maxmemory").is_some_and(|most| most != "0")
            && value("maxmemory_policy").is_some_and(|policy| policy != "noeviction"),
    }
}

/// Strings, numbers and parsed JSON always have a JSON form.
fn written(progress: &Progress) -> Vec<u8> {
    serde_json::to_vec(progress).unwrap_or_default()
}

/// Nothing is written of a job before its first attempt.
fn progress(written: &[u8]) -> Result<Progress, StoreError> {
    if written.is_empty() {
        return Ok(Progress::default());
    }
    serde_json::from_slice(written).map_err(|_| unreadable())
}

fn event(body: Bytes, reruns: u32) -> Result<ResultEvent, StoreError> {
    ResultEvent::read(body, reruns.saturating_add(1)).ok_or_else(unreadable)
}

/// A number as Redis stores it; nothing stands for 0.
fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

fn lease_left(text: &[u8]) -> Result<Duration, StoreError> {
    let millis = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    millis.map(Duration::from_millis).ok_or_else(unreadable)
}

fn unreadable() -> StoreError {
    StoreError::Unreadable(
        "its record cannot be read: another program, or another version of this one, wrote it".into(),
    )
}

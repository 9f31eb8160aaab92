//! What has been sent, or may have been: a job known here is not sent as if it were new.
//!
//! In memory: it is this process's knowledge, bounded and expiring, and it goes with the process.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::job::OtpRequest;
use crate::result::ResultEvent;
use crate::send::retry::Progress;

/// The most jobs remembered; about 100 MB of results. The oldest are forgotten first.
const MOST_JOBS: usize = 200_000;

/// Tells one job from another under the same id. Keyed by this process and not reversible in
/// practice: it is made from a phone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

/// What the ledger knows of a job.
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// The job has ended; this is its result.
    Done(ResultEvent),
    /// It was left between two attempts.
    Unsettled(Left),
    /// The id belongs to another job.
    AnotherJob,
}

/// A job that was left between two attempts.
#[derive(Clone, Debug)]
pub struct Left {
    /// What it has been through.
    pub progress: Progress,
    /// Its delivery count when it was left, where its queue counts.
    pub delivery_count: Option<u64>,
}

impl Left {
    /// The progress of the job when it comes again with `delivery_count`. The broker counts every
    /// delivery it takes back: a count that grew by our own alone shows that no other worker lost
    /// the job meanwhile, and so that none sent it unseen.
    pub fn resumed_by(self, delivery_count: Option<u64>) -> Progress {
        let only_ours = follows(self.delivery_count, delivery_count);
        if only_ours { self.progress } else { self.progress.after_an_unseen_attempt() }
    }
}

/// Whether `later` is the delivery right after `earlier`. RabbitMQ 4 gives no count with a first
/// delivery, where 3.10 gives 0; every later one has a count, unless its queue counts none.
pub fn follows(earlier: Option<u64>, later: Option<u64>) -> bool {
    later.is_some_and(|later| later.checked_sub(1) == Some(earlier.unwrap_or_default()))
}

#[derive(Debug)]
enum State {
    Done(ResultEvent),
    Unsettled(Left),
}

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    state: State,
    expires: Instant,
}

#[derive(Debug, Default)]
struct Entries {
    jobs: HashMap<String, Entry>,
    /// Ids in the order of expiry, which is the order of recording since all live equally long. An
    /// id recorded twice is here twice; only the place that matches its entry counts.
    order: VecDeque<(Instant, String)>,
}

/// Jobs that have ended, and jobs left unsettled.
#[derive(Debug)]
pub struct Ledger {
    ttl: Duration,
    most_jobs: usize,
    keys: RandomState,
    entries: Mutex<Entries>,
}

impl Ledger {
    /// A ledger that remembers each job for `ttl`.
    pub fn in_memory(ttl: Duration) -> Self {
        Self { ttl, most_jobs: MOST_JOBS, keys: RandomState::new(), entries: Mutex::default() }
    }

    /// The fingerprint of a job.
    pub fn fingerprint(&self, request: &OtpRequest) -> Fingerprint {
        Fingerprint(self.keys.hash_one(request))
    }

    /// What is known of the job `id`.
    pub fn look_up(&self, id: &str, fingerprint: Fingerprint) -> Known {
        let entries = self.entries();
        match entries.jobs.get(id).filter(|entry| entry.expires > Instant::now()) {
            None => Known::Nothing,
            Some(entry) if entry.fingerprint != fingerprint => Known::AnotherJob,
            Some(Entry { state: State::Done(event), .. }) => Known::Done(event.clone()),
            Some(Entry { state: State::Unsettled(left), .. }) => Known::Unsettled(left.clone()),
        }
    }

    /// The job `id` has ended with this result.
    pub fn record_done(&self, id: &str, fingerprint: Fingerprint, event: ResultEvent) {
        self.record(id, fingerprint, State::Done(event));
    }

    /// The job `id` was left between two attempts.
    pub fn record_unsettled(&self, id: &str, fingerprint: Fingerprint, left: Left) {
        self.record(id, fingerprint, State::Unsettled(left));
    }

    fn record(&self, id: &str, fingerprint: Fingerprint, state: State) {
        let now = Instant::now();
        let expires = now + self.ttl;
        let mut entries = self.entries();
        entries.jobs.insert(id.to_owned(), Entry { fingerprint, state, expires });
        entries.order.push_back((expires, id.to_owned()));
        entries.forget(now, self.most_jobs);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // No code panics while it holds this lock, and the map is whole even if some did.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((expires, _)) = self.order.front() {
            if *expires > now && self.order.len() <= most {
                return;
            }
            let Some((expires, id)) = self.order.pop_front() else { return };
            if self.jobs.get(&id).is_some_and(|entry| entry.expires == expires) {
                self.jobs.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::decode;
    use crate::result::{Ending, Outcome};
    use std::time::SystemTime;

    fn request(phone: &str) -> OtpRequest {
        decode(format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#).as_bytes(), None).unwrap()
    }

    fn event() -> ResultEvent {
        Ending::without_attempt(Outcome::Expired, "a test").into_event("a", SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_job_done_is_known_with_its_result_and_another_under_its_id_is_told_apart() {
        let ledger = Ledger::in_memory(Duration::from_secs(60));
        let (one, other) = (ledger.fingerprint(&request("0901888484")), ledger.fingerprint(&request("0901888485")));
        assert!(matches!(ledger.look_up("a", one), Known::Nothing));
        ledger.record_done("a", one, event());
        assert!(matches!(ledger.look_up("a", one), Known::Done(found) if found == event()));
        assert!(matches!(ledger.look_up("a", other), Known::AnotherJob));
    }

    #[test]
    fn only_the_very_next_count_follows() {
        for (earlier, later) in [(Some(0), Some(1)), (Some(7), Some(8)), (None, Some(1))] {
            assert!(follows(earlier, later), "{earlier:?} {later:?}");
        }
        let most = Some(u64::MAX);
        for (earlier, later) in [
            (Some(0), Some(0)),
            (Some(0), Some(2)),
            (Some(2), Some(1)),
            (None, Some(0)),
            (None, Some(2)),
            (None, None),
            (Some(0), None),
            (most, most),
            (most, Some(0)),
            (most, None),
        ] {
            assert!(!follows(earlier, later), "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn a_job_nobody_had_meanwhile_is_resumed_as_it_was_left() {
        let left = |delivery_count| Left { progress: Progress { attempts: 2, ..Progress::default() }, delivery_count };
        for (before, now) in [(Some(3), Some(4)), (None, Some(1))] {
            let progress = left(before).resumed_by(now);
            assert_eq!((progress.attempts, progress.ambiguous), (2, false));
        }
    }

    #[test]
    fn a_job_another_worker_may_have_sent_meanwhile_is_resumed_as_ambiguous() {
        for (before, now) in [(Some(3), Some(5)), (Some(3), Some(3)), (None, None), (Some(3), None)] {
            let left = Left { progress: Progress { attempts: 2, ..Progress::default() }, delivery_count: before };
            let mut progress = left.resumed_by(now);
            assert!(progress.ambiguous && !progress.may_be_duplicate, "{before:?} {now:?}");
            progress.begin_attempt();
            assert!(progress.may_be_duplicate);
        }
    }

    #[test]
    fn what_was_ambiguous_when_it_was_left_stays_so() {
        let progress = Progress { attempts: 1, ambiguous: true, ..Progress::default() };
        assert!(Left { progress, delivery_count: Some(0) }.resumed_by(Some(1)).ambiguous);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_left_unsettled_is_known_until_its_result_takes_its_place() {
        let ledger = Ledger::in_memory(Duration::from_secs(60));
        let print = ledger.fingerprint(&request("0901888484"));
        let other = ledger.fingerprint(&request("0901888485"));
        ledger.record_unsettled("a", print, Left { progress: Progress::default(), delivery_count: Some(4) });
        assert!(matches!(ledger.look_up("a", print), Known::Unsettled(left) if left.delivery_count == Some(4)));
        assert!(matches!(ledger.look_up("a", other), Known::AnotherJob));
        tokio::time::advance(Duration::from_secs(40)).await;
        ledger.record_done("a", print, event());
        // The first record's time is up, the second's is not.
        tokio::time::advance(Duration::from_secs(40)).await;
        ledger.record_done("b", print, event());
        assert!(matches!(ledger.look_up("a", print), Known::Done(_)));
        assert_eq!(ledger.entries().order.len(), 2);
    }

    #[test]
    fn the_fingerprint_tells_every_field_of_a_job() {
        let ledger = Ledger::in_memory(Duration::from_secs(60));
        let print = |body: &str| ledger.fingerprint(&decode(body.as_bytes(), None).unwrap());
        let job = print(r#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#);
        assert_eq!(job, print(r#"{"TypeId":2,"MultiChannelTempId":1,"Phone":"0901.888.484","Extra":true}"#));
        for other in [
            r#"{"Phone":"0901888485","MultiChannelTempId":"1"}"#,
            r#"{"Phone":"0901888484","MultiChannelTempId":"2"}"#,
            r#"{"Phone":"0901888484","MultiChannelTempId":"1","TypeId":"1"}"#,
            r#"{"Phone":"0901888484","MultiChannelTempId":"1","TimeAlive":"5"}"#,
        ] {
            assert_ne!(job, print(other), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_forgotten_after_its_time_and_its_memory_given_back() {
        let ledger = Ledger::in_memory(Duration::from_secs(60));
        let print = ledger.fingerprint(&request("0901888484"));
        ledger.record_done("a", print, event());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(matches!(ledger.look_up("a", print), Known::Nothing));
        ledger.record_done("b", print, event());
        assert_eq!(ledger.entries().jobs.len(), 1);
    }

    #[test]
    fn the_oldest_jobs_are_forgotten_when_there_are_too_many() {
        let ledger = Ledger { most_jobs: 10, ..Ledger::in_memory(Duration::from_secs(60)) };
        let print = ledger.fingerprint(&request("0901888484"));
        for n in 0..100 {
            ledger.record_done(&n.to_string(), print, event());
        }
        assert!(matches!(ledger.look_up("89", print), Known::Nothing));
        assert!(matches!(ledger.look_up("90", print), Known::Done(_)));
        assert_eq!(ledger.entries().jobs.len(), 10);
        assert_eq!(ledger.entries().order.len(), 10);
    }
}

//! The ledger in this process's memory. It is bounded, its records expire, and it ends with the process.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use super::store::{Ask, Claim, Finish, Left, Note, Reply, Stage, Store};
use crate::job::envelope::DeliveryCount;
use crate::job::progress::Progress;
use crate::job::result::ResultEvent;

/// The most jobs that the ledger in memory holds: docs/ledger.md says what they cost. The oldest are forgotten
/// first.
pub const MOST_JOBS: usize = 200_000;

#[derive(Debug)]
enum State {
    Done(ResultEvent),
    /// Left between two attempts, at this delivery count.
    Left(Progress, Option<DeliveryCount>),
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
    /// Ids in the order in which they expire. All records live equally long, so this is the order of recording.
    /// An id that was recorded twice is here twice. Only the place whose time matches its entry counts.
    order: VecDeque<(Instant, String)>,
}

/// Jobs that have ended, and jobs that were left between two attempts.
#[derive(Debug)]
pub struct Memory {
    ttl: Duration,
    most_jobs: usize,
    entries: Mutex<Entries>,
}

impl Memory {
    /// A store that remembers each job for `ttl`, and at most so many jobs.
    pub fn new(ttl: Duration, most_jobs: usize) -> Self {
        Self { ttl, most_jobs, entries: Mutex::default() }
    }

    /// What is known of a job. The worker knows its own jobs in flight, so that no job is ever held by
    /// another here.
    pub fn look_up(&self, ask: &Ask<'_>) -> Claim {
        let entries = self.entries();
        match entries.jobs.get(ask.id).filter(|entry| entry.expires > Instant::now()) {
            None => Claim::New,
            Some(entry) if entry.fingerprint.differs(&ask.fingerprint) => Claim::AnotherJob,
            Some(Entry { state: State::Done(event), .. }) => Claim::Done(event.clone()),
            Some(Entry { state: State::Left(progress, count), .. }) => {
                Claim::Left(Left::Released(*count), progress.clone())
            }
        }
    }

    /// The same for this asker: a job of which nothing was sent may be tried anew.
    pub fn known(&self, ask: &Ask<'_>) -> Claim {
        let ended = self.entries().jobs.get(ask.id).map(|entry| entry.expires - self.ttl);
        let is_repeat = ask.first_delivered.is_some_and(|came| ended.is_some_and(|ended| came >= ended));
        match self.look_up(ask) {
            Claim::Done(event) if is_repeat && event.outcome.may_be_tried_anew() => Claim::Anew(event.run),
            known => known,
        }
    }

    /// The same, and a job that may be tried anew is forgotten: the asker has it now.
    pub fn claim_known(&self, ask: &Ask<'_>) -> Claim {
        let known = self.known(ask);
        if let Claim::Anew(_) = known {
            self.forget(ask.id);
        }
        known
    }

    /// The job has ended with this result. An earlier result stays, unless this one says more.
    pub fn record_done(&self, id: &str, fingerprint: Fingerprint, event: &ResultEvent) -> Finish {
        let mut entries = self.entries();
        match entries.jobs.get(id).filter(|entry| entry.expires > Instant::now()) {
            Some(Entry { state: State::Done(earlier), .. }) if !event.says_more_than(earlier) => {
                Finish::Already(earlier.clone())
            }
            _ => {
                entries.record(id, fingerprint, State::Done(event.clone()), self);
                Finish::Recorded
            }
        }
    }

    /// The job has ended with this result, whatever was known before.
    pub fn record_latest(&self, id: &str, fingerprint: Fingerprint, event: &ResultEvent) {
        self.entries().record(id, fingerprint, State::Done(event.clone()), self);
    }

    /// The job is forgotten.
    pub fn forget(&self, id: &str) {
        self.entries().jobs.remove(id);
    }

    /// The job was left between two attempts.
    pub fn record_left(
        &self,
        id: &str,
        fingerprint: Fingerprint,
        progress: &Progress,
        delivery_count: Option<DeliveryCount>,
    ) {
        let mut entries = self.entries();
        // Also of a job to which nothing happened: its next delivery says that another worker may have had it,
        // and the delivery count says that none had. A result stays.
        if !entries.is_done(id) {
            entries.record(id, fingerprint, State::Left(progress.clone(), delivery_count), self);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // No code panics while it holds this lock, and the map is whole even if some did.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn open(&self) -> Reply<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn belongs_to<'a>(&'a self, _broker: &'a str) -> Reply<'a, ()> {
        ready(Ok(())).boxed()
    }

    fn claim<'a>(&'a self, ask: Ask<'a>) -> Reply<'a, Claim> {
        ready(Ok(self.claim_known(&ask))).boxed()
    }

    fn note<'a>(&'a self, note: Note<'a>) -> Reply<'a, bool> {
        // An attempt under way need not be written down: the note would be lost with the process, too.
        if let Stage::Released(delivery_count) = note.stage {
            self.record_left(note.id, note.fingerprint, note.progress, delivery_count);
        }
        ready(Ok(true)).boxed()
    }

    fn finish<'a>(
        &'a self,
        id: &'a str,
        fingerprint: Fingerprint,
        _owner: Option<&'a str>,
        event: &'a ResultEvent,
    ) -> Reply<'a, Finish> {
        ready(Ok(self.record_done(id, fingerprint, event))).boxed()
    }

    fn correct<'a>(&'a self, id: &'a str, recorded: &'a ResultEvent, says_more: &'a ResultEvent) -> Reply<'a, ()> {
        if let Some(Entry { state: State::Done(event), .. }) = self.entries().jobs.get_mut(id)
            && event == recorded
        {
            *event = says_more.clone();
        }
        ready(Ok(())).boxed()
    }

    fn recorded<'a>(&'a self, id: &'a str, fingerprint: Fingerprint) -> Reply<'a, Option<ResultEvent>> {
        let ask = Ask { id, fingerprint, owner: "", first_delivered: None };
        let Claim::Done(event) = self.look_up(&ask) else { return ready(Ok(None)).boxed() };
        ready(Ok(Some(event))).boxed()
    }
}

impl Entries {
    fn is_done(&self, id: &str) -> bool {
        matches!(self.jobs.get(id), Some(Entry { state: State::Done(_), expires, .. }) if *expires > Instant::now())
    }

    fn record(&mut self, id: &str, fingerprint: Fingerprint, state: State, limits: &Memory) {
        let now = Instant::now();
        let expires = now + limits.ttl;
        self.jobs.insert(id.to_owned(), Entry { fingerprint, state, expires });
        self.order.push_back((expires, id.to_owned()));
        self.forget(now, limits.most_jobs);
    }

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
    use crate::job::request::decode;
    use crate::job::result::{Ending, Outcome};
    use crate::ledger::fingerprint::Fingerprints;
    use std::time::SystemTime;

    fn print(phone: &str) -> Fingerprint {
        let body = format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#);
        Fingerprints::new("secret").of(&decode(body.as_bytes(), None).unwrap())
    }

    fn job() -> Fingerprint {
        print("0901888484")
    }

    fn event() -> ResultEvent {
        Ending::without_attempt(Outcome::Expired, "a test").into_event("a", SystemTime::UNIX_EPOCH)
    }

    fn memory() -> Memory {
        Memory::new(Duration::from_secs(60), MOST_JOBS)
    }

    fn found(memory: &Memory, id: &str) -> Claim {
        memory.look_up(&Ask { id, fingerprint: job(), owner: "", first_delivered: None })
    }

    #[test]
    fn a_job_done_is_known_with_its_result_and_another_under_its_id_is_told_apart() {
        let memory = memory();
        assert!(matches!(found(&memory, "a"), Claim::New));
        memory.record_done("a", job(), &event());
        assert!(matches!(found(&memory, "a"), Claim::Done(found) if found == event()));
        let other = Ask { id: "a", fingerprint: print("0901888485"), owner: "", first_delivered: None };
        assert!(matches!(memory.look_up(&other), Claim::AnotherJob));
    }

    #[test]
    fn the_first_result_stays() {
        let memory = memory();
        assert!(matches!(memory.record_done("a", job(), &event()), Finish::Recorded));
        let other = Ending::without_attempt(Outcome::Failed, "a test").into_event("a", SystemTime::UNIX_EPOCH);
        assert!(matches!(memory.record_done("a", job(), &other), Finish::Already(found) if found == event()));
    }

    #[test]
    fn a_result_by_which_nothing_was_sent_gives_way_to_one_that_says_more() {
        use Outcome::{Accepted, Expired, Failed, Rejected, Unknown};
        for (earlier, later, run, gives_way) in [
            (Failed, Accepted, 1, true),
            (Failed, Unknown, 1, true),
            (Expired, Rejected, 1, true),
            (Failed, Failed, 2, true),
            (Failed, Expired, 1, false),
            (Accepted, Failed, 2, false),
            (Unknown, Accepted, 1, false),
        ] {
            let memory = memory();
            let event = |outcome, run| {
                let ending = Ending { run, ..Ending::without_attempt(outcome, "a test") };
                ending.into_event("a", SystemTime::UNIX_EPOCH)
            };
            memory.record_done("a", job(), &event(earlier, 1));
            let said = memory.record_done("a", job(), &event(later, run));
            assert_eq!(matches!(said, Finish::Recorded), gives_way, "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn only_a_first_delivery_of_a_job_of_which_nothing_was_sent_tries_it_anew() {
        let long_ago = Instant::now();
        let (after, before, later) = (|| Some(Instant::now()), || Some(long_ago), || None);
        for (outcome, came, anew) in [
            (Outcome::Failed, &after as &dyn Fn() -> _, true),
            (Outcome::Expired, &after, true),
            // The job ended elsewhere while this delivery was on its way.
            (Outcome::Failed, &before, false),
            (Outcome::Failed, &later, false),
            (Outcome::Accepted, &after, false),
            (Outcome::Rejected, &after, false),
            (Outcome::Unknown, &after, false),
        ] {
            let memory = memory();
            let ending = Ending { run: 4, ..Ending::without_attempt(outcome, "a test") };
            memory.record_done("a", job(), &ending.into_event("a", SystemTime::UNIX_EPOCH));
            let ask = Ask { id: "a", fingerprint: job(), owner: "", first_delivered: came() };
            match memory.claim_known(&ask) {
                Claim::Anew(reruns) => assert!(anew && reruns == 4, "{outcome:?}"),
                Claim::Done(_) => assert!(!anew, "{outcome:?}"),
                other => panic!("{other:?}"),
            }
            // It is this asker's now.
            assert_eq!(matches!(found(&memory, "a"), Claim::New), anew, "{outcome:?}");
        }
    }

    #[test]
    fn the_latest_result_takes_the_place_of_an_earlier_one_and_a_job_forgotten_is_new() {
        let memory = memory();
        memory.record_done("a", job(), &event());
        let other = Ending::without_attempt(Outcome::Failed, "a test").into_event("a", SystemTime::UNIX_EPOCH);
        memory.record_latest("a", job(), &other);
        assert!(matches!(found(&memory, "a"), Claim::Done(found) if found == other));
        memory.forget("a");
        assert!(matches!(found(&memory, "a"), Claim::New));
        memory.record_done("a", job(), &event());
        assert!(matches!(found(&memory, "a"), Claim::Done(_)));
    }

    #[test]
    fn a_job_that_is_left_after_its_end_keeps_its_result() {
        let memory = memory();
        memory.record_done("a", job(), &event());
        memory.record_left("a", job(), &Progress { attempts: 1, ..Progress::default() }, None);
        assert!(matches!(found(&memory, "a"), Claim::Done(found) if found == event()));
    }

    #[test]
    fn a_job_left_is_found_with_what_it_went_through_and_its_delivery_count() {
        let progress = Progress { attempts: 2, ..Progress::default() };
        for count in [Some(DeliveryCount::Returned(3)), None] {
            let memory = memory();
            memory.record_left("a", job(), &progress, count);
            let Claim::Left(how, found) = found(&memory, "a") else { panic!("{count:?}") };
            assert_eq!((how, found.attempts), (Left::Released(count), 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_left_is_known_until_its_result_takes_its_place() {
        let memory = memory();
        memory.record_left(
            "a",
            job(),
            &Progress { attempts: 1, ..Progress::default() },
            Some(DeliveryCount::Returned(4)),
        );
        assert!(matches!(found(&memory, "a"), Claim::Left(Left::Released(Some(DeliveryCount::Returned(4))), _)));
        tokio::time::advance(Duration::from_secs(40)).await;
        memory.record_done("a", job(), &event());
        // The first record's time is up, the second's is not.
        tokio::time::advance(Duration::from_secs(40)).await;
        memory.record_done("b", job(), &event());
        assert!(matches!(found(&memory, "a"), Claim::Done(_)));
        assert_eq!(memory.entries().order.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_forgotten_after_its_time_and_its_memory_given_back() {
        let memory = memory();
        memory.record_done("a", job(), &event());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(matches!(found(&memory, "a"), Claim::New));
        memory.record_done("b", job(), &event());
        assert_eq!(memory.entries().jobs.len(), 1);
    }

    #[test]
    fn the_oldest_jobs_are_forgotten_when_there_are_too_many() {
        let memory = Memory { most_jobs: 10, ..memory() };
        for n in 0..100 {
            memory.record_done(&n.to_string(), job(), &event());
        }
        assert!(matches!(found(&memory, "89"), Claim::New));
        assert!(matches!(found(&memory, "90"), Claim::Done(_)));
        assert_eq!(memory.entries().jobs.len(), 10);
        assert_eq!(memory.entries().order.len(), 10);
    }
}

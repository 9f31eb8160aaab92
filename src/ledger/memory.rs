//! The ledger in this process's memory. It is bounded, its records expire, and it ends with the process.

mod name;
mod squeezed;

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use super::store::{Ask, Claim, End, Finish, Finished, Left, Note, Reply, Stage, Store};
use crate::job::envelope::DeliveryCount;
use crate::job::progress::Progress;
use crate::job::result::{Outcome, ResultEvent};
use name::Name;
use squeezed::Squeezed;

/// The most jobs that the ledger in memory holds: docs/ledger.md says what they cost. The oldest are forgotten
/// first.
pub const MOST_JOBS: usize = 200_000;

#[derive(Debug)]
enum State {
    Done(Done),
    /// Left between two attempts, at this delivery count. On the heap: few jobs are left, and those that have ended
    /// need not have room for it.
    Left(Box<(Progress, Option<DeliveryCount>)>),
}

/// A result, as small as it goes.
#[derive(Debug)]
struct Done {
    outcome: Outcome,
    may_be_duplicate: bool,
    attempts: u32,
    run: u32,
    body: Squeezed,
}

impl Done {
    fn new(event: &ResultEvent, id: &str) -> Self {
        let ResultEvent { outcome, attempts, may_be_duplicate, run, body } = event;
        let (outcome, may_be_duplicate, attempts, run) = (*outcome, *may_be_duplicate, *attempts, *run);
        Self { outcome, may_be_duplicate, attempts, run, body: Squeezed::new(body, id) }
    }

    fn event(&self, id: &str) -> ResultEvent {
        let Self { outcome, may_be_duplicate, attempts, run, body } = self;
        let (outcome, may_be_duplicate, attempts, run) = (*outcome, *may_be_duplicate, *attempts, *run);
        ResultEvent { outcome, attempts, may_be_duplicate, run, body: body.body(id) }
    }
}

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    state: State,
    expires: Moment,
}

/// Nanoseconds since the store was made, from 1 on; 0 is any time before. Half as long as an [`Instant`].
type Moment = u64;

#[derive(Debug, Default)]
struct Entries {
    jobs: HashMap<Name, Entry>,
    /// Names in the order in which they expire. All records live equally long, so this is the order of recording.
    /// A name that was recorded twice is here twice. Only the place whose time matches its entry counts.
    order: VecDeque<(Moment, Name)>,
}

/// Jobs that have ended, and jobs that were left between two attempts.
#[derive(Debug)]
pub struct Memory {
    began: Instant,
    ttl: Moment,
    most_jobs: usize,
    entries: Mutex<Entries>,
}

impl Memory {
    /// A store that remembers each job for `ttl`, and at most so many jobs.
    pub fn new(ttl: Duration, most_jobs: usize) -> Self {
        Self { began: Instant::now(), ttl: nanoseconds(ttl), most_jobs, entries: Mutex::default() }
    }

    /// What is known of a job. The worker knows its own jobs in flight, so that no job is ever held by
    /// another here.
    pub fn look_up(&self, ask: &Ask<'_>) -> Claim {
        let entries = self.entries();
        match entries.jobs.get(&Name::of(ask.id)).filter(|entry| entry.expires > self.now()) {
            None => Claim::New,
            Some(entry) if entry.fingerprint.differs(&ask.fingerprint) => Claim::AnotherJob,
            Some(Entry { state: State::Done(done), .. }) => Claim::Done(done.event(ask.id)),
            Some(Entry { state: State::Left(left), .. }) => {
                let (progress, count) = left.as_ref();
                Claim::Left(Left::Released(*count), progress.clone())
            }
        }
    }

    /// The same for this asker: a job of which nothing was sent may be tried anew.
    pub fn known(&self, ask: &Ask<'_>) -> Claim {
        match self.look_up(ask) {
            Claim::Done(event) if event.outcome.may_be_tried_anew() && self.is_repeat(ask) => Claim::Anew(event.run),
            known => known,
        }
    }

    /// Whether the asker's message came first after the job had ended.
    fn is_repeat(&self, ask: &Ask<'_>) -> bool {
        let ended = self.entries().jobs.get(&Name::of(ask.id)).map(|entry| entry.expires.saturating_sub(self.ttl));
        ask.first_delivered.is_some_and(|came| ended.is_some_and(|ended| self.moment(came) >= ended))
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
        let earlier = match entries.jobs.get(&Name::of(id)).filter(|entry| entry.expires > self.now()) {
            Some(Entry { state: State::Done(earlier), .. }) => Some(earlier.event(id)),
            Some(Entry { state: State::Left(_), .. }) | None => None,
        };
        match earlier {
            Some(earlier) if !event.says_more_than(&earlier) => Finish::Already(earlier),
            Some(_) | None => {
                entries.record(id, fingerprint, State::Done(Done::new(event, id)), self);
                Finish::Recorded
            }
        }
    }

    /// The job has ended with this result, whatever was known before.
    pub fn record_latest(&self, id: &str, fingerprint: Fingerprint, event: &ResultEvent) {
        self.entries().record(id, fingerprint, State::Done(Done::new(event, id)), self);
    }

    /// The job is forgotten.
    pub fn forget(&self, id: &str) {
        self.entries().jobs.remove(&Name::of(id));
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
        if !entries.is_done(id, self.now()) {
            let left = Box::new((progress.clone(), delivery_count));
            entries.record(id, fingerprint, State::Left(left), self);
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        at.checked_duration_since(self.began).map_or(0, |since| nanoseconds(since).saturating_add(1))
    }

    fn now(&self) -> Moment {
        self.moment(Instant::now())
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

    fn finish<'a>(&'a self, end: End<'a>) -> Reply<'a, Finished> {
        ready(Ok((self.record_done(end.id, end.fingerprint, end.event), None))).boxed()
    }

    fn correct<'a>(&'a self, id: &'a str, recorded: &'a ResultEvent, says_more: &'a ResultEvent) -> Reply<'a, ()> {
        if let Some(Entry { state: State::Done(done), .. }) = self.entries().jobs.get_mut(&Name::of(id))
            && done.event(id) == *recorded
        {
            *done = Done::new(says_more, id);
        }
        ready(Ok(())).boxed()
    }

    fn recorded<'a>(&'a self, id: &'a str, fingerprint: Fingerprint) -> Reply<'a, Option<ResultEvent>> {
        let ask = Ask { id, fingerprint, owner: "", first_delivered: None, place: None };
        let Claim::Done(event) = self.look_up(&ask) else { return ready(Ok(None)).boxed() };
        ready(Ok(Some(event))).boxed()
    }
}

impl Entries {
    fn is_done(&self, id: &str, now: Moment) -> bool {
        matches!(self.jobs.get(&Name::of(id)), Some(Entry { state: State::Done(_), expires, .. }) if *expires > now)
    }

    fn record(&mut self, id: &str, fingerprint: Fingerprint, state: State, limits: &Memory) {
        let now = limits.now();
        let expires = now.saturating_add(limits.ttl);
        let name = Name::of(id);
        self.jobs.insert(name.clone(), Entry { fingerprint, state, expires });
        self.order.push_back((expires, name));
        self.forget(now, limits.most_jobs);
    }

    fn forget(&mut self, now: Moment, most: usize) {
        while let Some((expires, _)) = self.order.front() {
            if *expires > now && self.order.len() <= most {
                return;
            }
            let Some((expires, name)) = self.order.pop_front() else { return };
            if self.jobs.get(&name).is_some_and(|entry| entry.expires == expires) {
                self.jobs.remove(&name);
            }
        }
    }
}

fn nanoseconds(time: Duration) -> Moment {
    Moment::try_from(time.as_nanos()).unwrap_or(Moment::MAX)
}

#[cfg(test)]
mod tests;

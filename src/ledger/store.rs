//! What a store of the ledger must do. Each call is one step, and one round trip.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use crate::job::envelope::DeliveryCount;
use crate::job::progress::Progress;
use crate::job::result::ResultEvent;
use crate::limits::{HeldBack, Place, Seen};

/// Where the ledger is kept. Each step may be taken twice: where its answer was lost, it is asked again.
pub trait Store: fmt::Debug + Send + Sync {
    /// Reaches the store for the first time. This may take some seconds.
    fn open(&self) -> Reply<'_, ()>;

    /// The broker's cluster name is known now: it tells this deployment from another of the same names. The
    /// store is reached anew, so that it says whether it is another's.
    fn belongs_to<'a>(&'a self, broker: &'a str) -> Reply<'a, ()>;

    /// Asks for a job. Asking again with the same owner gives the same answer.
    fn claim<'a>(&'a self, ask: Ask<'a>) -> Reply<'a, Claim>;

    /// Writes down how far a job has come. False if another worker has the job now.
    fn note<'a>(&'a self, note: Note<'a>) -> Reply<'a, bool>;

    /// Writes down how a job ended. An earlier result stays, unless nothing was sent by it and this one is of a later
    /// run or says more.
    fn finish<'a>(&'a self, end: End<'a>) -> Reply<'a, Finished>;

    /// Puts a result that says more in the place of the recorded one, if that one still is.
    fn correct<'a>(&'a self, id: &'a str, recorded: &'a ResultEvent, says_more: &'a ResultEvent) -> Reply<'a, ()>;

    /// The result of this job (not of another with the same id), if it has ended.
    fn recorded<'a>(&'a self, id: &'a str, fingerprint: Fingerprint) -> Reply<'a, Option<ResultEvent>>;
}

/// A store's answer, or why there is none.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Why a store did not answer. It is then not known whether it took the step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or does not take the step now. This mends itself.
    #[error("{0}")]
    Unreachable(String),
    /// It refused, and would refuse again until a person has mended it.
    #[error("{why}")]
    Refused {
        /// What it said.
        why: String,
        /// What a person must do.
        hint: &'static str,
    },
    /// It is another deployment's.
    #[error("{0}")]
    NotOurs(String),
    /// The store works, and the record of this one job cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl StoreError {
    /// What a person must do, where it does not mend itself.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            StoreError::Unreachable(_) => None,
            StoreError::Refused { hint, .. } => Some(hint),
            StoreError::NotOurs(_) => Some(
                "set OTP_LEDGER_PREFIX to a prefix that no other deployment on this Redis has, or OTP_LEDGER_URL to another Redis or database; if only the names have changed, delete the record OTP_LEDGER_PREFIX + home",
            ),
            StoreError::Unreadable(_) => {
                Some("the job counts as one that may have been sent; find out what wrote the record, and delete it")
            }
        }
    }

    /// What is wrong, and what a person must do.
    pub fn with_hint(&self) -> String {
        self.hint().map_or_else(|| self.to_string(), |hint| format!("{self}\nTo mend it: {hint}"))
    }

    /// The one of the two that says more: what a person must mend, before what may mend itself.
    pub(super) fn or_worse(self, later: Self) -> Self {
        if self.hint().is_some() && later.hint().is_none() { self } else { later }
    }

    /// The same with another text.
    pub(super) fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            StoreError::Unreachable(why) => StoreError::Unreachable(change(why)),
            StoreError::Refused { why, hint } => StoreError::Refused { why: change(why), hint },
            StoreError::NotOurs(why) => StoreError::NotOurs(change(why)),
            StoreError::Unreadable(why) => StoreError::Unreadable(change(why)),
        }
    }
}

/// Who asks for which job.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The job.
    pub id: &'a str,
    /// What tells it from another under the same id.
    pub fingerprint: Fingerprint,
    /// A name for this one holding of the job, never used before.
    pub owner: &'a str,
    /// When it came, if this is the first delivery of a message. Then it is a producer's repeat, if the job had ended
    /// before.
    pub first_delivered: Option<Instant>,
    /// The place that it takes under the limits, unless it is not to be sent.
    pub place: Option<&'a Place>,
}

/// The answer to a claim.
#[derive(Clone, Debug)]
pub enum Claim {
    /// Nobody had the job. The asker has it now.
    New,
    /// The job had ended without anything sent, and its producer has published it again. The asker has it now, to
    /// try it anew, for so many times.
    Anew(u32),
    /// Another worker had it and left it. The asker has it now.
    Left(Left, Progress),
    /// Another worker has it, for this long at most unless it renews its lease.
    HeldByAnother(Duration),
    /// It has ended.
    Done(ResultEvent),
    /// The id belongs to another job.
    AnotherJob,
    /// Nobody has the job, and a limit holds it back. It was tried anew so many times before.
    Limited(HeldBack, u32),
}

/// How a job was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Given back, at this delivery count, where its queue counts.
    Released(Option<DeliveryCount>),
    /// Its lease ran out, and no attempt was marked as under way.
    Lapsed,
    /// Its lease ran out during an attempt.
    Sending,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    /// The job.
    pub id: &'a str,
    /// What tells it from another under the same id.
    pub fingerprint: Fingerprint,
    /// Who had it when the note was written.
    pub owner: &'a str,
    /// The number of the note. Numbers grow, so that a note that was delayed on its way cannot undo a later one.
    pub step: u32,
    /// What is about to happen to the job.
    pub stage: Stage,
    /// What has happened to it, an attempt about to begin included.
    pub progress: &'a Progress,
}

/// What is about to happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// An attempt.
    Sending,
    /// No attempt for this long.
    Waiting(Duration),
    /// It goes back to the broker, at this delivery count.
    Released(Option<DeliveryCount>),
}

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The job.
    pub id: &'a str,
    /// What tells it from another under the same id.
    pub fingerprint: Fingerprint,
    /// Who had it. Without an owner it does not matter who holds the job.
    pub owner: Option<&'a str>,
    /// The result.
    pub event: &'a ResultEvent,
    /// The place that it had under the limits.
    pub place: Option<&'a Place>,
    /// When its last attempt by this worker began.
    pub attempted: Option<Instant>,
}

impl<'a> End<'a> {
    /// The end of a job that counts for nothing.
    pub const fn uncounted(
        id: &'a str,
        fingerprint: Fingerprint,
        owner: Option<&'a str>,
        event: &'a ResultEvent,
    ) -> Self {
        Self { id, fingerprint, owner, event, place: None, attempted: None }
    }
}

/// What became of a result, and whether the job's number had been sent an OTP before.
pub type Finished = (Finish, Option<Seen>);

/// What became of a result.
#[derive(Clone, Debug)]
pub enum Finish {
    /// It is the job's result now.
    Recorded,
    /// The job had another already.
    Already(ResultEvent),
    /// Another worker has the job now.
    HeldByAnother {
        /// Whether its record shows an attempt that may have sent it.
        may_have_sent: bool,
    },
}

impl Finish {
    /// The result that the job had already.
    pub const fn recorded(&self) -> Option<&ResultEvent> {
        match self {
            Finish::Already(recorded) => Some(recorded),
            Finish::Recorded | Finish::HeldByAnother { .. } => None,
        }
    }
}

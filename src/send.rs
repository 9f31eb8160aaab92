//! From a job to its ending: attempts, what each means, and when to try again.
//!
//! Pieces that never mix: what was seen ([`crate::esms::client`]), what it means ([`mod@crate::esms::classify`]), what follows
//! ([`retry`]), when to hold back ([`circuit`], [`rate`]), and, here, the loop.

pub mod circuit;
pub mod rate;
pub mod retry;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Policy;
use crate::config::{OnAmbiguous, PaceConfig, RetryConfig};
use crate::esms::classify::{Class, ClassName, classify};
use crate::esms::client::Esms;
use crate::esms::codes;
use crate::job::phone::Phone;
use crate::job::progress::Progress;
use crate::job::request::OtpRequest;
use crate::job::result::{Answer, Ending, Outcome};
use crate::ledger::Marked;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Span;
use circuit::{Circuit, Pass};
use rate::Rate;
use retry::{Limits, Next};

/// Sends jobs to eSMS.
#[derive(Debug)]
pub struct Sender {
    esms: Esms,
    circuit: Circuit,
    rate: Rate,
    retry: RetryConfig,
    metrics: Arc<Metrics>,
}

/// One job to send.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// The job's id, for the log.
    pub id: &'a str,
    /// What eSMS is asked.
    pub request: &'a OtpRequest,
    /// From here on it is not sent.
    pub deadline: Instant,
    /// What its calls are traced under.
    pub span: &'a Span,
}

/// Who holds a job: what can end its attempts from outside, between two of them and never during one,
/// and what is written down of them.
pub trait Holder: Sync {
    /// Cancelled when the worker is told to stop.
    fn stopping(&self) -> &CancellationToken;

    /// In whose hands the job is now.
    fn custody(&self) -> Custody;

    /// Writes down that an attempt begins, before its first byte. `begun` counts it.
    fn mark(&self, begun: &Progress) -> impl Future<Output = Marked> + Send;

    /// Writes down that no attempt is under way for `wait`.
    fn pause(&self, progress: &Progress, wait: Duration) -> impl Future<Output = ()> + Send;

    /// Whether what is written down is there after this process's end.
    fn is_remembered(&self) -> bool;
}

/// In whose hands a job is, asked before each attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The broker waits for this worker to settle it.
    Ours,
    /// The same, but another worker had it meanwhile and may have sent it.
    OursAfterAnother,
    /// The broker has put it back on the queue.
    Lost,
    /// The broker gave it up meanwhile, after whatever another worker did with it.
    GivenUp,
}

/// How sending a job stopped.
#[derive(Debug)]
pub enum Sent {
    /// The job has ended.
    Ended(Ending),
    /// The job was not settled, and another delivery of it will be. Nothing was ambiguous, unless
    /// the progress says so.
    LeftToAnother(Progress),
    /// Another worker has the job, as the ledger knows.
    TakenOver,
}

impl Sender {
    /// A sender of these parts.
    pub fn new(esms: Esms, pace: PaceConfig, retry: RetryConfig, metrics: Arc<Metrics>) -> Self {
        let circuit = Circuit::new(pace.circuit, Arc::clone(&metrics));
        let rate = Rate::new(pace.interval, Arc::clone(&metrics));
        Self { esms, circuit, rate, retry, metrics }
    }

    /// Attempts a job until it has ended or must be left. `progress` is what happened before.
    pub async fn send(&self, errand: Errand<'_>, mut progress: Progress, holder: &impl Holder) -> Sent {
        let body = self.esms.body(errand.request);
        let (mut waits, mut polls) = (self.retry.backoff.waits(), Policy::POLL.waits());
        let mut give_up_at = None;
        loop {
            // Everything else is asked after the waiting, just before the call.
            let turn = self.turn(errand.deadline, holder.stopping()).await;
            progress = match self.still_to_send(progress, &errand, holder) {
                ControlFlow::Continue(progress) => progress,
                ControlFlow::Break(sent) => return sent,
            };
            // Without a turn the deadline has passed or the worker stops: seen above.
            let Some(turn) = turn else { continue };
            if give_up_at.is_some_and(|at| Instant::now() > at) {
                return Sent::Ended(progress.end_unsettled(Outcome::Failed, "retries ran out"));
            }
            match begin(progress, &errand, holder).await {
                Begun::Attempt(begun) => progress = begun,
                Begun::Not(sent) => return sent,
                Begun::AskAgain(now) => {
                    progress = now;
                    continue;
                }
                Begun::NotYet(now) => {
                    progress = now;
                    drop(turn);
                    self.wait(Instant::now() + polls.next_wait(), holder.stopping()).await;
                    continue;
                }
            }
            // Counted from the first attempt: waiting before it uses nothing up.
            let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + self.retry.max_elapsed);
            let class = self.attempt(&errand, body.clone(), progress.attempts).await;
            turn.report(class.name() == ClassName::Answered);
            self.log_failure(&errand, &class, progress.attempts);
            let limits = Limits { deadline: errand.deadline, give_up_at, on_ambiguous: self.retry.on_ambiguous };
            let at = match retry::after(class, progress, limits, Instant::now(), waits.next_wait()) {
                Next::End(ending) => return Sent::Ended(ending),
                Next::AttemptAt(at, next) => {
                    progress = next;
                    at
                }
            };
            holder.pause(&progress, at.saturating_duration_since(Instant::now())).await;
            self.wait(at, holder.stopping()).await;
        }
    }

    /// Whether a job may be attempted now, as far as is known without asking anybody.
    fn still_to_send(
        &self,
        mut progress: Progress,
        errand: &Errand<'_>,
        holder: &impl Holder,
    ) -> ControlFlow<Sent, Progress> {
        if Instant::now() >= errand.deadline {
            return ControlFlow::Break(past_deadline(progress));
        }
        if holder.stopping().is_cancelled() {
            return ControlFlow::Break(stopped(progress, holder.is_remembered()));
        }
        match holder.custody() {
            Custody::Ours => {}
            Custody::OursAfterAnother => progress = progress.after_unseen_work(self.retry.on_ambiguous),
            // Whoever has it next may know nothing of it, and a second OTP must not go unsaid.
            Custody::Lost if progress.may_be_duplicate && !holder.is_remembered() => {
                let ending = progress.end_unsettled(Outcome::Unknown, "the broker took the job back");
                return ControlFlow::Break(Sent::Ended(ending));
            }
            Custody::Lost => return ControlFlow::Break(Sent::LeftToAnother(progress)),
            Custody::GivenUp => {
                let progress = progress.after_unseen_work(self.retry.on_ambiguous);
                let ending = progress.end_unsettled(Outcome::Expired, "the broker gave the job up");
                return ControlFlow::Break(Sent::Ended(ending));
            }
        }
        if progress.ambiguous && self.retry.on_ambiguous == OnAmbiguous::GiveUp {
            let ending = progress.end_unsettled(Outcome::Unknown, "not sent, because OTP_ON_AMBIGUOUS=give-up");
            return ControlFlow::Break(Sent::Ended(ending));
        }
        ControlFlow::Continue(progress)
    }

    /// Waits until the circuit and the rate limit let a call through; none if it may not be made any
    /// more.
    async fn turn(&self, deadline: Instant, stopping: &CancellationToken) -> Option<Pass<'_>> {
        tokio::select! {
            biased;
            () = stopping.cancelled() => None,
            () = sleep_until(deadline) => None,
            pass = self.pass() => Some(pass),
        }
    }

    async fn pass(&self) -> Pass<'_> {
        loop {
            let pass = self.circuit.pass().await;
            self.rate.turn().await;
            // The circuit may have opened meanwhile.
            if pass.still_holds() {
                return pass;
            }
        }
    }

    /// One call, measured and traced; its class, with eSMS's words masked.
    async fn attempt(&self, errand: &Errand<'_>, body: Bytes, number: u32) -> Class {
        let (began, span) = (Instant::now(), errand.span.call(self.esms.url(), number));
        let seen = self.esms.attempt(body, &span).await;
        let status = seen.status();
        let mut class = classify(seen, &self.retry.codes, SystemTime::now());
        span.called(status, &class);
        self.metrics.attempt(class.name(), began.elapsed());
        if let Class::Answered(answer) | Class::AnsweredTryLater(answer) = &mut class {
            self.metrics.code_result(&answer.code);
            self.mask(answer, &errand.request.phone);
        }
        class
    }

    /// eSMS repeats numbers in its messages; a result event must not, in no field.
    fn mask(&self, answer: &mut Answer, phone: &Phone) {
        let masked = |text: String| phone.masked_in(&self.esms.without_credentials(text));
        answer.error_message = answer.error_message.take().map(&masked);
        answer.code = masked(std::mem::take(&mut answer.code));
        answer.sms_id = answer.sms_id.take().map(&masked);
        let json = answer.count_regenerate.take().map(|json| masked(json.get().to_owned()));
        // What is no JSON once masked was no count.
        answer.count_regenerate = json.and_then(|json| RawValue::from_string(json).ok());
    }

    /// Waits for the next attempt's time, or until the worker is told to stop.
    async fn wait(&self, at: Instant, stopping: &CancellationToken) {
        let _waiting = self.metrics.waiting_retry();
        tokio::select! {
            () = sleep_until(at) => {}
            () = stopping.cancelled() => {}
        }
    }

    fn log_failure(&self, errand: &Errand<'_>, class: &Class, attempt: u32) {
        let (why, hint) = match class {
            Class::Answered(answer) if answer.code == codes::ACCEPTED => return,
            Class::Answered(answer) | Class::AnsweredTryLater(answer) => {
                let known = codes::documented(&answer.code);
                (format!("CodeResult {}: {}", answer.code, known.meaning), known.scope.hint())
            }
            Class::NotSent { why, .. } => {
                (why.clone(), Some("nothing was sent; check the network to eSMS and its status"))
            }
            Class::Ambiguous { why } => (why.clone(), Some("the OTP may have gone out; OTP_ON_AMBIGUOUS decides")),
            Class::Refused { why } => (why.clone(), Some("check ESMS_URL and what stands between here and eSMS")),
        };
        warn!(
            job_id = errand.id,
            phone = %errand.request.phone,
            attempt,
            class = class.name().as_str(),
            why,
            hint,
            "attempt failed"
        );
    }
}

/// Whether an attempt begins.
enum Begun {
    /// It does, and is counted.
    Attempt(Progress),
    /// Something is known now that was not: whether it may is to be asked again.
    AskAgain(Progress),
    /// It is to be tried again a little later.
    NotYet(Progress),
    /// It does not, and none will.
    Not(Sent),
}

/// Writes down that an attempt begins; from then on it may have been made, whatever happens to this process.
async fn begin(progress: Progress, errand: &Errand<'_>, holder: &impl Holder) -> Begun {
    let mut begun = progress.clone();
    begun.begin_attempt();
    match holder.mark(&begun).await {
        // Marking takes a moment, and the deadline has the last word before the first byte.
        Marked::Ours if Instant::now() >= errand.deadline => Begun::Not(past_deadline(progress)),
        Marked::Ours => Begun::Attempt(begun),
        Marked::Unseen => Begun::AskAgain(progress.after_an_unseen_attempt()),
        Marked::NotYet => Begun::NotYet(progress),
        Marked::Elsewhere => Begun::Not(Sent::TakenOver),
    }
}

fn past_deadline(progress: Progress) -> Sent {
    Sent::Ended(progress.end_unsettled(Outcome::Expired, "the deadline passed"))
}

/// A job that must be left because the worker stops. What is not remembered after that and was
/// ambiguous would be sent again unmarked: it ends here instead.
fn stopped(progress: Progress, is_remembered: bool) -> Sent {
    if progress.ambiguous && progress.attempts > 0 && !is_remembered {
        return Sent::Ended(progress.end_unsettled(Outcome::Unknown, "the worker was stopped before another attempt"));
    }
    Sent::LeftToAnother(progress)
}

#[cfg(test)]
mod tests;

//! From a job to its ending: attempts, what each means, and when to try again.
//!
//! Pieces that never mix: what was seen ([`crate::esms::client`]), what it means ([`crate::esms::classify`]),
//! what follows ([`retry`]), when to hold back ([`circuit`], [`rate`]), whose turn it is ([`slots`]), and, here, the
//! loop.

mod attempt;
mod breaker;
pub mod circuit;
mod fair;
pub mod held;
pub mod rate;
pub mod retry;
mod series;
pub mod settings;
pub mod share;
pub mod slots;
pub mod throttle;
pub mod together;

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Policy;
use crate::deliveries::in_flight::Custody;
use crate::deliveries::job::Job;
use crate::esms::classify::Class;
use crate::esms::client::Esms;
use crate::job::progress::{OnAmbiguous, Past, Progress};
use crate::job::result::{Ending, Outcome};
use crate::ledger::Marked;
use crate::ledger::pace::Pace;
use crate::telemetry::metrics::Metrics;
use attempt::Attempts;
use circuit::{Circuit, Pass, Shown};
use held::Held;
use rate::{Rate, Turn as RateTurn};
use retry::{Limits, Next};
use series::Series;
use settings::SendSettings;
use slots::{Slot, Slots, without};
use throttle::Throttled;
use together::Together;

/// Sends jobs to eSMS.
#[derive(Debug)]
pub struct Sender {
    attempts: Attempts,
    circuit: Circuit,
    slots: Slots,
    rate: Arc<Rate>,
    backoff: Policy,
    max_elapsed: Duration,
    on_ambiguous: OnAmbiguous,
    resend_limit: u32,
    metrics: Arc<Metrics>,
}

/// How sending a job stopped.
#[derive(Debug)]
pub enum Sent {
    /// The job has ended.
    Ended(Ending),
    /// The job has not ended, and another delivery of it comes. Whether an attempt was ambiguous is in the
    /// progress.
    LeftToAnother(Progress),
    /// Another worker has the job, as the ledger knows.
    TakenOver,
}

/// Whether a call may be made now.
enum Turn<'a> {
    /// It may, and has a slot and a turn.
    Now(Slot<'a>, Pass<'a>, RateTurn),
    /// The deadline passed while the job waited.
    DeadlinePassed,
    /// The worker was told to stop while the job waited.
    Stopping,
}

/// What a round of the loop ends in: the job's end here, or its progress for the next round.
type Round = ControlFlow<Sent, Progress>;

impl Sender {
    /// A sender of these parts, with so many calls under way at most. `pace` is what the workers tell each other, where
    /// they share a ledger.
    pub fn new(
        esms: Esms,
        concurrency: u16,
        settings: SendSettings,
        pace: Option<Pace>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let SendSettings { backoff, max_elapsed, on_ambiguous, resend_limit, retry_codes, circuit, .. } = settings;
        let circuit = Circuit::new(circuit, Arc::clone(&metrics));
        let throttled = Arc::new(Throttled::new(Arc::clone(&metrics)));
        let together =
            pace.map(|pace| Together::new(pace, settings.shared_limit, Arc::clone(&throttled), Arc::clone(&metrics)));
        let rate = Rate::new(settings.interval, Arc::clone(&throttled), together, Arc::clone(&metrics));
        let rate = Arc::new(rate);
        let attempts = Attempts::new(esms, retry_codes, throttled, Arc::clone(&metrics));
        let slots = Slots::new(concurrency);
        Self { attempts, circuit, slots, rate, backoff, max_elapsed, on_ambiguous, resend_limit, metrics }
    }

    /// What limits the rate of calls. Somebody must run [`Rate::keep`].
    pub fn rate(&self) -> Arc<Rate> {
        Arc::clone(&self.rate)
    }

    /// Waits for a slot among the calls under way: one for the job's first attempt, so that it need not be claimed
    /// before.
    pub async fn slot<'a>(&'a self, job: &'a Job) -> Slot<'a> {
        self.slots.take(&job.request.template_id).await
    }

    /// Attempts a job until it has ended or must be left. `progress` is what happened before; `slot` is for the
    /// first attempt, if there is one already.
    pub async fn send<'a>(&'a self, held: &'a Held<'_>, mut progress: Progress, slot: Option<Slot<'a>>) -> Sent {
        let mut series = Series { slot, waits: self.backoff.waits(), give_up_at: None, let_go: false };
        loop {
            match self.round(held, &mut series, progress).await {
                ControlFlow::Continue(next) => progress = next,
                ControlFlow::Break(sent) => return sent,
            }
        }
    }

    /// One attempt and the wait after it, or the reason why none begins.
    async fn round<'a>(&'a self, held: &'a Held<'_>, series: &mut Series<'a>, progress: Progress) -> Round {
        // Whatever may forbid the attempt is asked after waiting for its turn, just before the call.
        let (slot, pass, turn) = match self.turn(held, series.slot.take(), progress.attempts == 0).await {
            Turn::Now(slot, pass, turn) => (slot, pass, turn),
            Turn::DeadlinePassed => return ControlFlow::Break(past_deadline(progress, held.job)),
            Turn::Stopping => return ControlFlow::Break(stopped(progress, held.is_kept_after_exit())),
        };
        let progress = self.may_attempt(progress, held)?;
        if series.is_over(turn.held) {
            return ControlFlow::Break(Sent::Ended(progress.end_without_answer(Outcome::Failed, "retries ran out")));
        }
        let before = progress.clone();
        let progress = match begin(progress, held).await {
            Begun::Attempt(_) if turn.is_over() && !std::mem::replace(&mut series.let_go, true) => {
                // The mark was held up, and so were others perhaps: their calls must not come all at once.
                drop((slot, pass));
                held.pause(&before, Duration::ZERO).await;
                return ControlFlow::Continue(before);
            }
            Begun::Attempt(begun) => begun,
            Begun::Ended(sent) => return ControlFlow::Break(sent),
            Begun::AskAgain(now) => return ControlFlow::Continue(self.after_another(now)),
            Begun::NotYet(now) => {
                drop((slot, pass));
                self.wait_for_ledger(held, &now).await;
                return ControlFlow::Continue(now);
            }
        };
        // Counted from the first attempt: waiting before it uses nothing up.
        let give_up_at = *series.give_up_at.get_or_insert_with(|| Instant::now() + self.max_elapsed);
        let class = self.attempts.make(held.job, progress.attempts).await;
        let is_the_templates = slot.over(matches!(class, Class::Answered(_)));
        // A job that has failed comes again and again, and those that succeed do not: only its first attempt tells.
        pass.report(Shown::by(&class), is_the_templates || progress.attempts > 1);
        let limits = self.limits(held, give_up_at);
        match retry::after(class, progress, limits, Instant::now(), series.waits.next_wait()) {
            Next::End(ending) => ControlFlow::Break(Sent::Ended(ending)),
            Next::AttemptAt(at, next) => {
                held.pause(&next, at.saturating_duration_since(Instant::now())).await;
                self.wait_until(at, held).await;
                ControlFlow::Continue(next)
            }
        }
    }

    fn limits(&self, held: &Held<'_>, give_up_at: Instant) -> Limits {
        let (on_ambiguous, resend_limit) = (self.on_ambiguous, self.resend_limit);
        Limits { deadline: held.job.deadline, give_up_at, on_ambiguous, resend_limit }
    }

    /// Whether a job may be attempted now, as far as is known without asking the ledger.
    fn may_attempt(&self, progress: Progress, held: &Held<'_>) -> Round {
        if Instant::now() >= held.job.deadline {
            return ControlFlow::Break(past_deadline(progress, held.job));
        }
        if held.stop.draining().is_cancelled() {
            return ControlFlow::Break(stopped(progress, held.is_kept_after_exit()));
        }
        let progress = self.in_custody(progress, held)?;
        if !progress.may_attempt(self.on_ambiguous, self.resend_limit) {
            let ending = progress.end_without_answer(Outcome::Unknown, retry::no_resend(self.on_ambiguous));
            return ControlFlow::Break(Sent::Ended(ending));
        }
        ControlFlow::Continue(progress)
    }

    /// Whether the job is still this worker's to send.
    fn in_custody(&self, progress: Progress, held: &Held<'_>) -> Round {
        match held.custody() {
            Custody::Ours => ControlFlow::Continue(progress),
            Custody::OursAfterAnother => ControlFlow::Continue(self.after_another(progress)),
            // Whoever has it next may know nothing of it, and a second OTP must be reported.
            Custody::Lost if progress.may_be_duplicate && !held.is_kept_after_exit() => ControlFlow::Break(
                Sent::Ended(progress.end_without_answer(Outcome::Unknown, "the broker took the job back")),
            ),
            Custody::Lost => ControlFlow::Break(Sent::LeftToAnother(progress)),
            Custody::Dropped => {
                let progress = self.after_another(progress);
                let ending = progress.end_without_answer(Outcome::Expired, "the broker dropped the job");
                ControlFlow::Break(Sent::Ended(ending))
            }
        }
    }

    fn after_another(&self, progress: Progress) -> Progress {
        progress.with_past(Past::AnyUnknown, self.on_ambiguous)
    }

    /// Waits until a result could be published, and the circuit and the rate limit let a call through, or until it may not be made any more.
    async fn turn<'a>(&'a self, held: &'a Held<'_>, slot: Option<Slot<'a>>, is_new: bool) -> Turn<'a> {
        let mut pass = pin!(self.pass(held, slot, is_new));
        // Mostly nothing is in the way, and then nothing needs to be waited for beside it.
        if Instant::now() < held.job.deadline
            && !held.stop.draining().is_cancelled()
            && let Some((slot, pass, turn)) = pass.as_mut().now_or_never()
        {
            return Turn::Now(slot, pass, turn);
        }
        tokio::select! {
            biased;
            () = sleep_until(held.job.deadline) => Turn::DeadlinePassed,
            () = held.stop.draining().cancelled() => Turn::Stopping,
            (slot, pass, turn) = pass => Turn::Now(slot, pass, turn),
        }
    }

    /// A job that waits for results or the circuit has no slot; one that waits for the rate limit has, so that
    /// slots decide who uses it.
    async fn pass<'a>(
        &'a self,
        held: &'a Held<'_>,
        mut slot: Option<Slot<'a>>,
        is_new: bool,
    ) -> (Slot<'a>, Pass<'a>, RateTurn) {
        let mut throttled_for = Duration::ZERO;
        loop {
            without(&mut slot, held.health.until_publishing()).await;
            let pass = without(&mut slot, self.circuit.pass(is_new)).await;
            let (began, was_slow) = (Instant::now(), self.rate.is_slow());
            let taken = match slot.take() {
                Some(slot) => slot,
                None => self.slot(held.job).await,
            };
            let turn = self.rate.turn().await;
            // Those before it in the line for a slot were held, too.
            throttled_for += if was_slow { began.elapsed() } else { turn.held };
            // The circuit may have opened meanwhile, or the way for results may have closed.
            if pass.still_holds() && held.health.is_publishing() {
                return (taken, pass, turn.held_for(throttled_for));
            }
            slot = Some(taken);
        }
    }

    /// Waits until the ledger answers again, so that no slot of the rate limit is taken without a call. A
    /// stop and the deadline end the waiting; the next round sees them.
    async fn wait_for_ledger(&self, held: &Held<'_>, progress: &Progress) {
        let mut polls = Policy::POLL.waits();
        let answered = async {
            loop {
                sleep(polls.next_wait()).await;
                if held.is_ledger_back(progress).await || !held.is_ours() {
                    return;
                }
            }
        };
        let _waiting = self.metrics.waiting_retry();
        tokio::select! {
            () = answered => {}
            () = sleep_until(held.job.deadline) => {}
            () = held.stop.draining().cancelled() => {}
        }
    }

    /// Waits for the next attempt's time, or until the worker is told to stop.
    async fn wait_until(&self, at: Instant, held: &Held<'_>) {
        let _waiting = self.metrics.waiting_retry();
        tokio::select! {
            () = sleep_until(at) => {}
            () = held.stop.draining().cancelled() => {}
        }
    }
}

/// Whether an attempt begins.
enum Begun {
    /// It does, and is counted.
    Attempt(Progress),
    /// Another worker may have sent the job, which was not known before: whether it may begin is to be decided again.
    AskAgain(Progress),
    /// The ledger must be waited for.
    NotYet(Progress),
    /// It does not, and none will.
    Ended(Sent),
}

/// Writes down that an attempt begins. From then on it may have been made, whatever happens to this process.
async fn begin(progress: Progress, held: &Held<'_>) -> Begun {
    let mut begun = progress.clone();
    begun.begin_attempt();
    match held.mark(&begun).await {
        // Marking takes a moment, and the deadline has the last word before the first byte.
        Marked::MayBegin if Instant::now() >= held.job.deadline => Begun::Ended(past_deadline(progress, held.job)),
        Marked::MayBegin => Begun::Attempt(begun),
        Marked::PastUnknown => Begun::AskAgain(progress),
        Marked::NotYet => Begun::NotYet(progress),
        Marked::HeldByAnother => Begun::Ended(Sent::TakenOver),
    }
}

fn past_deadline(progress: Progress, job: &Job) -> Sent {
    Sent::Ended(progress.end_without_answer(Outcome::Expired, &job.why_expired()))
}

/// A job that must be left because the worker stops. Where an attempt was ambiguous and this is not kept,
/// the next worker would send again without saying so: the job ends here instead.
fn stopped(progress: Progress, is_kept: bool) -> Sent {
    if progress.is_ambiguous() && progress.attempts > 0 && !is_kept {
        return Sent::Ended(
            progress.end_without_answer(Outcome::Unknown, "the worker was stopped before another attempt"),
        );
    }
    Sent::LeftToAnother(progress)
}

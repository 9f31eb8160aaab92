//! One delivery's life from top to bottom: decode, look up, send, record, publish, acknowledge. The
//! only file that sees every stage.

pub mod answers;
pub mod dead_letter;
pub mod in_flight;
pub mod receipt;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use lapin::message::Delivery;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::backoff::Policy;
use crate::broker::consumer::{Origin, Taker};
use crate::config::Config;
use crate::crash::{self, Point};
use crate::job::{self, Arrival, Envelope, OtpRequest};
use crate::ledger::{self, Claimed, Fingerprint, Finish, Hold, Ledger, Marked};
use crate::result::{Ending, Outcome, ResultEvent};
use crate::send::codes;
use crate::send::retry::Progress;
use crate::send::{Custody, Errand, Holder, Sender, Sent};
use crate::telemetry::metrics::{Found, Metrics};
use answers::Answers;
use dead_letter::{Death, Original};
use in_flight::{Entered, InFlight};
use receipt::Receipt;

/// The parts a worker works with.
pub struct Parts {
    /// Sends jobs.
    pub sender: Sender,
    /// Remembers jobs done.
    pub ledger: Ledger,
    /// Publishes what becomes of jobs, and acknowledges them.
    pub answers: Answers,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Works deliveries.
pub struct Worker {
    parts: Parts,
    config: Config,
    in_flight: InFlight,
    permits: Semaphore,
    tasks: TaskTracker,
    unfinished: Arc<AtomicUsize>,
    stopping: CancellationToken,
    abort: CancellationToken,
}

/// A job that is in flight in this process.
struct Job {
    id: String,
    request: OtpRequest,
    fingerprint: Fingerprint,
    deadline: Instant,
    delivered: Arrival,
    made: Option<SystemTime>,
    redelivered: bool,
    delivery_count: Option<u64>,
    /// Why the broker gave it up, for a delivery that came from the queue of dropped jobs.
    death: Option<Death>,
    original: Original,
}

/// How a job stopped being worked.
enum Settled {
    /// It has ended; its result is to be published.
    Ended(ResultEvent),
    /// It goes back to the broker.
    GoesBack,
    /// Its id belongs to another job.
    AnotherJob,
}

impl Taker for Worker {
    fn take(self: &Arc<Self>, delivery: Delivery, origin: Origin) {
        let arrival = Arrival::now();
        let envelope = Envelope::read(&delivery.properties, arrival, self.config.job_ttl);
        if origin == Origin::Jobs && !delivery.redelivered {
            let age = envelope.made.and_then(|made| arrival.wall.duration_since(made).ok());
            age.inspect(|age| self.parts.metrics.delivered_after(*age));
        }
        let receipt = Receipt::new(delivery.acker, origin, delivery.redelivered, &envelope, arrival);
        let death = (origin == Origin::Dropped).then(|| Death::read(&delivery.properties));
        let original = Original { body: delivery.data, properties: delivery.properties };
        match self.decode(&envelope, &original) {
            Err(why) => self.spawn_refusal(envelope.id, receipt, original, why),
            Ok(request) => {
                let fingerprint = self.parts.ledger.fingerprint(&request);
                let job = Job {
                    id: envelope.id,
                    request,
                    fingerprint,
                    deadline: envelope.deadline,
                    delivered: arrival,
                    made: envelope.made,
                    redelivered: delivery.redelivered,
                    delivery_count: envelope.delivery_count,
                    death,
                    original,
                };
                match &job.death {
                    Some(Death::Other(why)) => self.spawn_burial(why.clone(), job, receipt),
                    Some(Death::Expired) | None => self.enter(job, receipt),
                }
            }
        }
    }

    async fn finished(&self) {
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.abort.cancelled() => {}
        }
    }
}

impl Worker {
    /// A worker of these parts. From the cancelling of `stopping` on it begins nothing new; from that
    /// of `abort` on it finishes nothing either.
    pub fn new(parts: Parts, config: Config, stopping: CancellationToken, abort: CancellationToken) -> Self {
        Self {
            parts,
            in_flight: InFlight::default(),
            permits: Semaphore::new(usize::from(config.concurrency)),
            config,
            tasks: TaskTracker::new(),
            unfinished: Arc::default(),
            stopping,
            abort,
        }
    }

    /// Deliveries that are being dealt with, or were when `abort` was cancelled.
    pub fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    fn decode(&self, envelope: &Envelope, original: &Original) -> Result<OtpRequest, String> {
        if let Some(problem) = envelope.id_problem {
            return Err(problem.to_owned());
        }
        let template = self.config.esms.template_id.as_deref();
        job::decode(&original.body, template).map_err(|error| error.to_string())
    }

    fn enter(self: &Arc<Self>, job: Job, receipt: Receipt) {
        match self.in_flight.enter(&job.id, job.fingerprint, receipt) {
            Entered::Joined => {
                self.parts.metrics.redelivered(Found::InFlight);
                debug!(job_id = job.id, "delivered again while in flight; it gets the same result");
            }
            Entered::AnotherJob(receipt) => self.spawn_contested(job, receipt),
            Entered::Started => {
                let worker = Arc::clone(self);
                self.spawn(async move { worker.work(job).await });
            }
        }
    }

    /// The id belongs to a job in flight; whether it is this one's by right, the ledger knows.
    fn spawn_contested(self: &Arc<Self>, job: Job, receipt: Receipt) {
        let worker = Arc::clone(self);
        self.spawn(async move {
            match worker.parts.ledger.recorded(worker.ledgers(&job)).await {
                Some(event) => {
                    worker.parts.metrics.redelivered(Found::Done);
                    worker.parts.answers.answer(&job.id, &event, &receipt).await;
                }
                None => worker.refuse(&job.id, &receipt, &job.original, ANOTHER_JOB).await,
            }
        });
    }

    /// A job that may have killed its workers is kept for people, before anything else is done.
    fn spawn_burial(self: &Arc<Self>, why: String, job: Job, receipt: Receipt) {
        let worker = Arc::clone(self);
        self.spawn(async move {
            worker.parts.answers.dead_letter(&job.original, &given_up(&why)).await;
            worker.enter(job, receipt);
        });
    }

    /// Runs a task that ends when the grace is over, however far it came: what it had not
    /// acknowledged is delivered again.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        let unfinished = Arc::clone(&self.unfinished);
        unfinished.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {
                    unfinished.fetch_sub(1, Ordering::Relaxed);
                }
                () = abort.cancelled() => {}
            }
        });
    }

    async fn work(&self, job: Job) {
        let _counted = self.parts.metrics.in_flight();
        let _guarded = self.in_flight.end_on_panic(&job.id);
        match self.settle(&job).await {
            Settled::Ended(event) => self.answer(&job.id, &event).await,
            Settled::GoesBack => self.give_back(&job.id).await,
            Settled::AnotherJob => self.refuse_all(job).await,
        }
    }

    /// From a job to its result: recorded, sent, or found not to be this worker's any more.
    async fn settle(&self, job: &Job) -> Settled {
        let (mut polls, mut counted) = (Policy::POLL.waits(), false);
        loop {
            let Some(place) = self.place(job).await else { return Settled::GoesBack };
            let Some(met) = self.claim(job).await else { return Settled::GoesBack };
            if !std::mem::replace(&mut counted, true) {
                self.count_redelivery(job, &met);
            }
            let settled = match met {
                Claimed::Done(event) => Some(Settled::Ended(event)),
                Claimed::AnotherJob => Some(Settled::AnotherJob),
                Claimed::Ours(hold, progress) => self.settle_held(job, &hold, progress).await,
                Claimed::Elsewhere(lease) => {
                    // Others may be worked meanwhile.
                    drop(place);
                    self.wait_for_another(job, lease.min(polls.next_wait())).await
                }
            };
            if let Some(settled) = settled {
                return settled;
            }
        }
    }

    /// A place among the jobs in flight, or none if the worker stops first. A job that is not to be
    /// sent needs none.
    async fn place(&self, job: &Job) -> Option<Option<SemaphorePermit<'_>>> {
        if job.death.is_some() {
            return Some(None);
        }
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            place = self.permits.acquire() => place.ok().map(Some),
        }
    }

    /// Asks the ledger for the job; nothing if the worker stops first.
    async fn claim(&self, job: &Job) -> Option<Claimed> {
        tokio::select! {
            claimed = self.parts.ledger.claim(self.ledgers(job)) => Some(claimed),
            () = self.stopping.cancelled() => None,
        }
    }

    fn count_redelivery(&self, job: &Job, met: &Claimed) {
        let found = match met {
            Claimed::Done(_) => Found::Done,
            Claimed::Elsewhere(_) => Found::InFlight,
            Claimed::Ours(..) | Claimed::AnotherJob if job.redelivered => Found::New,
            Claimed::Ours(..) | Claimed::AnotherJob => return,
        };
        self.parts.metrics.redelivered(found);
    }

    /// Another worker has the job: it is asked for again later, unless it is to go back.
    async fn wait_for_another(&self, job: &Job, wait: Duration) -> Option<Settled> {
        debug!(job_id = job.id, "another worker has the job; its result is waited for");
        tokio::select! {
            () = sleep(wait) => {}
            () = self.stopping.cancelled() => return Some(Settled::GoesBack),
        }
        (self.in_flight.custody(&job.id) == Custody::Lost).then_some(Settled::GoesBack)
    }

    /// Works a job that is held; nothing if it is not held any more.
    async fn settle_held(&self, job: &Job, hold: &Hold, progress: Progress) -> Option<Settled> {
        crash::point(Point::AfterClaim);
        let ending = match &job.death {
            Some(death) => end_of_dropped(death, progress),
            None => match self.send(job, hold, progress).await {
                Sent::Ended(ending) => ending,
                Sent::LeftToAnother(progress) => return Some(self.leave(job, hold, &progress).await),
                Sent::TakenOver => return None,
            },
        };
        self.record(job, hold, ending).await.map(Settled::Ended)
    }

    async fn send(&self, job: &Job, hold: &Hold, progress: Progress) -> Sent {
        let errand = Errand { id: &job.id, request: &job.request, deadline: job.deadline };
        self.parts.sender.send(errand, progress, &Held { worker: self, job, hold }).await
    }

    /// Remembers what a job that is left behind has been through, for its next delivery.
    async fn leave(&self, job: &Job, hold: &Hold, progress: &Progress) -> Settled {
        self.parts.ledger.release(self.ledgers(job), hold, progress).await;
        Settled::GoesBack
    }

    /// The ending becomes the result, once: every copy published from here on is this one. Nothing if
    /// another worker has the job, and its result is to be waited for.
    async fn record(&self, job: &Job, hold: &Hold, mut ending: Ending) -> Option<ResultEvent> {
        if ending.attempts > 0 {
            crash::point(Point::AfterCall);
        }
        let now = SystemTime::now();
        let mut event = ending.clone().into_event(&job.id, now);
        let mut finish = self.parts.ledger.finish(self.ledgers(job), hold, &event).await;
        if matches!(finish, Finish::Elsewhere) && ending.is_answered() {
            // What eSMS said is worth more than what the other may find, but it may have sent, too.
            ending.may_be_duplicate = true;
            event = ending.clone().into_event(&job.id, now);
            finish = self.parts.ledger.finish_for_all(self.ledgers(job), &event).await;
        }
        match finish {
            Finish::Recorded => {
                log_ending(job, &ending);
                self.parts.metrics.job_ended(ending.outcome, ending.may_be_duplicate);
                Some(event)
            }
            Finish::Already(event) => Some(event),
            Finish::Elsewhere => None,
        }
    }

    /// The job as the ledger is asked about it. The count is the latest delivery's.
    fn ledgers<'a>(&self, job: &'a Job) -> ledger::Job<'a> {
        ledger::Job {
            id: &job.id,
            fingerprint: job.fingerprint,
            redelivered: job.redelivered && job.death.is_none(),
            delivery_count: self.in_flight.delivery_count(&job.id).or(job.delivery_count),
        }
    }

    /// Publishes the result to every delivery of the job and acknowledges each after its own.
    async fn answer(&self, id: &str, event: &ResultEvent) {
        crash::point(Point::BeforePublish);
        let mut answered = false;
        loop {
            let receipts = self.in_flight.take(id);
            let (live, dead): (Vec<_>, Vec<_>) = receipts.into_iter().partition(Receipt::is_live);
            // A dead delivery is answered only if none ever was: its job comes again, but perhaps to
            // a worker that knows nothing of this result.
            let nobody_else = if live.is_empty() && !answered { dead.last() } else { None };
            for receipt in live.iter().chain(nobody_else) {
                self.parts.answers.answer(id, event, receipt).await;
                answered = true;
            }
            if self.in_flight.land(id) {
                return;
            }
        }
    }

    async fn give_back(&self, id: &str) {
        loop {
            for receipt in self.in_flight.take(id) {
                if receipt.give_back().await {
                    debug!(job_id = id, "given back");
                }
            }
            if self.in_flight.land(id) {
                return;
            }
        }
    }

    fn spawn_refusal(self: &Arc<Self>, id: String, receipt: Receipt, original: Original, why: String) {
        let worker = Arc::clone(self);
        self.spawn(async move { worker.refuse(&id, &receipt, &original, &why).await });
    }

    /// A job that cannot be understood: kept for people, and its producer told.
    async fn refuse(&self, id: &str, receipt: &Receipt, original: &Original, why: &str) {
        warn!(
            job_id = id,
            outcome = Outcome::Invalid.as_str(),
            reason = why,
            hint = "the producer must mend the job; a copy is on the dead-letter queue",
            "job ended"
        );
        self.parts.answers.dead_letter(original, why).await;
        self.parts.metrics.job_ended(Outcome::Invalid, false);
        let event = Ending::without_attempt(Outcome::Invalid, why).into_event(id, SystemTime::now());
        self.parts.answers.answer(id, &event, receipt).await;
    }

    async fn refuse_all(&self, job: Job) {
        loop {
            for receipt in self.in_flight.take(&job.id) {
                self.refuse(&job.id, &receipt, &job.original, ANOTHER_JOB).await;
            }
            if self.in_flight.land(&job.id) {
                return;
            }
        }
    }
}

/// A held job, while it is sent.
struct Held<'a> {
    worker: &'a Worker,
    job: &'a Job,
    hold: &'a Hold,
}

impl Holder for Held<'_> {
    fn stopping(&self) -> &CancellationToken {
        &self.worker.stopping
    }

    fn custody(&self) -> Custody {
        match self.worker.in_flight.custody(&self.job.id) {
            // Had another sent it, the ledger would have said so.
            Custody::OursAfterAnother if self.worker.parts.ledger.sees_every_attempt() => Custody::Ours,
            custody => custody,
        }
    }

    async fn mark(&self, begun: &Progress) -> Marked {
        let marked = self.worker.parts.ledger.mark(self.worker.ledgers(self.job), self.hold, begun).await;
        if marked == Marked::Ours {
            crash::point(Point::AfterMarking);
        }
        marked
    }

    async fn pause(&self, progress: &Progress, wait: Duration) {
        crash::point(Point::AfterCall);
        self.worker.parts.ledger.pause(self.worker.ledgers(self.job), self.hold, progress, wait).await;
    }

    fn is_remembered(&self) -> bool {
        self.worker.parts.ledger.outlives(self.hold)
    }
}

/// A job the broker gave up is never sent; what is known of it is said.
fn end_of_dropped(death: &Death, progress: Progress) -> Ending {
    match death {
        Death::Expired => progress.end_unsettled(Outcome::Expired, "its expiration passed in the queue"),
        Death::Other(why) => progress.end_unsettled(Outcome::Unknown, &given_up(why)),
    }
}

fn given_up(why: &str) -> String {
    format!("the broker gave the job up ({why}); an attempt may have been made")
}

/// What a producer is told whose `message_id` was another job's.
const ANOTHER_JOB: &str = "message_id was used before, for another job";

fn log_ending(job: &Job, ending: &Ending) {
    let code = ending.answer.as_ref().map(|answer| answer.code.as_str());
    let hint = code.and_then(|code| codes::documented(code).scope.hint());
    let queued_ms =
        job.made.and_then(|made| job.delivered.wall.duration_since(made).ok()).map(|age| age.as_millis() as u64);
    let took_ms = job.delivered.instant.elapsed().as_millis() as u64;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                job_id = job.id,
                phone = %job.request.phone,
                outcome = ending.outcome.as_str(),
                code,
                attempts = ending.attempts,
                may_be_duplicate = ending.may_be_duplicate,
                queued_ms,
                took_ms,
                reason = ending.reason,
                hint,
                "job ended"
            )
        };
    }
    if ending.outcome == Outcome::Accepted { line!(info) } else { line!(warn) }
}

//! One delivery's life from top to bottom: decode, look up, send, record, publish, acknowledge. The
//! only file that sees every stage.

pub mod answers;
pub mod dead_letter;
pub mod in_flight;
pub mod receipt;
mod settle;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use lapin::message::Delivery;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::broker::consumer::{Origin, Taker};
use crate::config::Config;
use crate::crash::{self, Point};
use crate::job::envelope::{Envelope, Moment};
use crate::job::request::{self, OtpRequest};
use crate::job::result::{Ending, Outcome, ResultEvent};
use crate::ledger::{Fingerprint, Ledger};
use crate::send::Sender;
use crate::telemetry::metrics::{Found, Metrics};
use crate::telemetry::traces::{Span, Traces};
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
    /// Traces.
    pub traces: Traces,
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
    delivered: Moment,
    made: Option<SystemTime>,
    redelivered: bool,
    delivery_count: Option<u64>,
    /// Whether the producer gave the id.
    is_named: bool,
    /// Whether the ledger showed that another worker had it.
    was_elsewhere: AtomicBool,
    /// Why the broker gave it up, for a delivery that came from the queue of dropped jobs.
    death: Option<Death>,
    original: Original,
    /// The span of the delivery that is worked.
    span: Span,
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
        let arrival = Moment::now();
        let envelope = Envelope::read(&delivery.properties, arrival, self.config.job_ttl);
        if origin == Origin::Jobs && !delivery.redelivered {
            let age = envelope.made.and_then(|made| arrival.wall.duration_since(made).ok());
            age.inspect(|age| self.parts.metrics.delivered_after(*age));
        }
        let span = self.parts.traces.delivery(self.queue(origin), &envelope.id, &envelope.trace);
        let receipt = Receipt::new(delivery.acker, origin, delivery.redelivered, &envelope, arrival, span.clone());
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
                    is_named: envelope.is_named,
                    was_elsewhere: AtomicBool::new(false),
                    death,
                    original,
                    span,
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

    fn queue(&self, origin: Origin) -> &str {
        match origin {
            Origin::Jobs => &self.config.broker.queue,
            Origin::Dropped => &self.config.broker.dropped,
        }
    }

    fn decode(&self, envelope: &Envelope, original: &Original) -> Result<OtpRequest, String> {
        if let Some(problem) = envelope.id_problem {
            return Err(problem.to_owned());
        }
        let template = self.config.esms.template_id.as_deref();
        request::decode(&original.body, template).map_err(|error| error.to_string())
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
        self.spawn(async move { worker.contest(&job, &receipt).await });
    }

    async fn contest(&self, job: &Job, receipt: &Receipt) {
        let recorded = tokio::select! {
            recorded = self.parts.ledger.recorded(self.ledgers(job)) => recorded,
            () = self.stopping.cancelled() => {
                receipt.give_back().await;
                return;
            }
        };
        match recorded {
            Some(event) => {
                self.parts.metrics.redelivered(Found::Done);
                self.parts.answers.answer(&job.id, &event, receipt).await;
            }
            None => self.refuse(&job.id, receipt, &job.original, ANOTHER_JOB).await,
        }
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

fn given_up(why: &str) -> String {
    format!("the broker gave the job up ({why}); an attempt may have been made")
}

/// What a producer is told whose `message_id` was another job's.
const ANOTHER_JOB: &str = "message_id was used before, for another job";

//! One delivery's life from top to bottom: read, claimed, sent, recorded, published, acknowledged. The only
//! room that sees every stage.

mod ending;
pub mod outbox;
mod replies;
mod rescue;
pub mod settings;
mod tasks;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lapin::message::Delivery;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::broker::consumer::{Origin, Taker};
use crate::crash::{self, Point};
use crate::deliveries::dropped::DropReason;
use crate::deliveries::in_flight::{Entered, InFlight};
use crate::deliveries::job::{Came, Job};
use crate::deliveries::original::Original;
use crate::deliveries::receipt::Receipt;
use crate::job::envelope::{Envelope, Moment};
use crate::job::progress::OnAmbiguous;
use crate::job::request::{self, OtpRequest};
use crate::job::result::{Ending, Outcome};
use crate::ledger::Ledger;
use crate::send::Sender;
use crate::stop::Stop;
use crate::telemetry::http::Health;
use crate::telemetry::labels::Found;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use ending::Worked;
use outbox::Outbox;
use tasks::Tasks;

/// The parts a worker works with.
pub struct Parts {
    /// Sends jobs.
    pub sender: Sender,
    /// Remembers jobs.
    pub ledger: Ledger,
    /// Publishes what becomes of jobs, and acknowledges them.
    pub outbox: Outbox,
    /// Knows whether results can be published.
    pub health: Arc<Health>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Traces.
    pub traces: Traces,
}

/// What a worker goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How many jobs are sent at once.
    pub concurrency: u16,
    /// The age at which a job is no longer sent.
    pub job_ttl: Duration,
    /// The template of jobs that name none.
    pub template_id: Option<String>,
    /// What follows an ambiguous attempt.
    pub on_ambiguous: OnAmbiguous,
    /// The queue of jobs.
    pub queue: String,
    /// The queue of dropped jobs.
    pub dropped: String,
}

/// Works deliveries.
pub struct Worker {
    parts: Parts,
    rules: Rules,
    in_flight: InFlight,
    permits: Semaphore,
    tasks: Tasks,
    stop: Stop,
}

/// A delivery, read.
enum Incoming {
    /// A job.
    Job(Box<Job>, Arc<Receipt>),
    /// A message that is no job, and why.
    NoJob { id: String, receipt: Arc<Receipt>, original: Box<Original>, why: String },
}

/// What a producer is told whose `message_id` was another job's.
const ANOTHER_JOB: &str = "message_id was used before, for another job";

impl Taker for Worker {
    fn take(self: &Arc<Self>, delivery: Delivery, origin: Origin) {
        let (received, acker) = (Moment::now(), delivery.acker.clone());
        // A message that cannot even be read without a panic must not end the loop that consumes.
        match catch_unwind(AssertUnwindSafe(|| self.read(delivery, origin, received))) {
            Ok(incoming) => self.begin(incoming),
            Err(_) => {
                let receipt = Arc::new(Receipt::unread(acker, origin, received));
                self.spawn("unread", &Arc::clone(&receipt), async move {
                    receipt.reject().await;
                });
            }
        }
    }

    async fn finished(&self) {
        tokio::select! {
            () = self.tasks.finished() => {}
            () = self.stop.aborting().cancelled() => {}
        }
    }
}

impl Worker {
    /// A worker of these parts.
    pub fn new(parts: Parts, rules: Rules, stop: Stop) -> Self {
        Self {
            parts,
            in_flight: InFlight::default(),
            permits: Semaphore::new(usize::from(rules.concurrency)),
            rules,
            tasks: Tasks::new(stop.clone()),
            stop,
        }
    }

    /// Deliveries that are being dealt with, or were when the worker aborted.
    pub fn unfinished(&self) -> usize {
        self.tasks.unfinished()
    }

    fn read(&self, delivery: Delivery, origin: Origin, received: Moment) -> Incoming {
        let envelope = Envelope::read(&delivery.properties, received, self.rules.job_ttl);
        let queue = match origin {
            Origin::Jobs => &self.rules.queue,
            Origin::Dropped => &self.rules.dropped,
        };
        let span = self.parts.traces.delivery(queue, &envelope.id, &envelope.trace);
        let receipt = Receipt::new(delivery.acker, origin, delivery.redelivered, &envelope, received, span.clone());
        let receipt = Arc::new(receipt);
        let dropped = (origin == Origin::Dropped).then(|| DropReason::read(&delivery.properties));
        let redelivered = delivery.redelivered;
        let original = Original { body: delivery.data, properties: delivery.properties };
        match self.decode(&envelope, &original) {
            Err(why) => Incoming::NoJob { id: envelope.id, receipt, original: Box::new(original), why },
            Ok(request) => {
                let fingerprint = self.parts.ledger.fingerprint(&request);
                let came = Came { received, redelivered, dropped, original, span };
                Incoming::Job(Box::new(Job::new(envelope, request, fingerprint, came)), receipt)
            }
        }
    }

    fn decode(&self, envelope: &Envelope, original: &Original) -> Result<OtpRequest, String> {
        if let Some(problem) = envelope.id_problem {
            return Err(problem.to_owned());
        }
        request::decode(&original.body, self.rules.template_id.as_deref()).map_err(|error| error.to_string())
    }

    fn begin(self: &Arc<Self>, incoming: Incoming) {
        let worker = Arc::clone(self);
        match incoming {
            Incoming::NoJob { id, receipt, original, why } => {
                let (of, unsettled) = (id.clone(), Arc::clone(&receipt));
                self.spawn(&of, &unsettled, async move { worker.refuse(&id, &receipt, &original, &why).await });
            }
            Incoming::Job(job, receipt) => {
                self.measure_queue(&job, &receipt);
                match job.dropped.as_ref().and_then(DropReason::for_people) {
                    None => self.enter(job, receipt),
                    // It may have ended its workers each time, so it is kept for people before anything else.
                    Some(why) => {
                        let (id, unsettled) = (job.id.clone(), Arc::clone(&receipt));
                        self.spawn(&id, &unsettled, async move {
                            worker.parts.outbox.dead_letter(&job.original, &why).await;
                            worker.enter(job, receipt);
                        });
                    }
                }
            }
        }
    }

    /// Only of first deliveries: a later one has waited for its worker, not in the queue.
    fn measure_queue(&self, job: &Job, receipt: &Receipt) {
        if !receipt.is_dropped
            && !job.redelivered
            && let Some(age) = job.age_at_delivery()
        {
            self.parts.metrics.delivered_after(age);
        }
    }

    /// Works the job, unless it is in flight already.
    fn enter(self: &Arc<Self>, job: Box<Job>, receipt: Arc<Receipt>) {
        let worker = Arc::clone(self);
        match self.in_flight.enter(&job.id, job.fingerprint, &receipt) {
            Entered::Joined => {
                self.parts.metrics.redelivered(Found::InFlight);
                logs::job_span(&job.id).in_scope(|| debug!("delivered again while in flight; it gets the same result"));
            }
            Entered::AnotherJob => {
                let (id, unsettled) = (job.id.clone(), Arc::clone(&receipt));
                self.spawn(&id, &unsettled, async move { worker.check_owner(&job, &receipt).await });
            }
            Entered::Started => {
                let job: Arc<Job> = Arc::from(job);
                let (id, panicked, rescuer) = (job.id.clone(), Arc::clone(&job), Arc::clone(self));
                let work = async move { worker.work(&job).await };
                self.tasks.spawn(&id, work, async move { rescuer.after_panic(&panicked).await });
            }
        }
    }

    /// Runs a task about one delivery, which goes back to its queue if the task panics.
    fn spawn(&self, id: &str, receipt: &Arc<Receipt>, task: impl Future<Output = ()> + Send + 'static) {
        let receipt = Arc::clone(receipt);
        self.tasks.spawn(id, task, async move {
            receipt.reject().await;
        });
    }

    async fn work(&self, job: &Job) {
        let _counted = self.parts.metrics.in_flight();
        let worked = self.work_on(job).await;
        self.conclude(job, &worked).await;
    }

    /// Another job with this id is in flight. The ledger knows which of the two owns the id.
    async fn check_owner(&self, job: &Job, receipt: &Receipt) {
        let recorded = self.parts.ledger.recorded(self.in_flight.job_ref(job));
        match self.stop.draining().run_until_cancelled(recorded).await {
            None => {
                receipt.give_back().await;
            }
            Some(Some(event)) => {
                self.parts.metrics.redelivered(Found::Done);
                self.parts.outbox.publish(&job.id, &event, receipt).await;
            }
            Some(None) => self.refuse(&job.id, receipt, &job.original, ANOTHER_JOB).await,
        }
    }

    /// Deals with every delivery of a job that was worked, those that come meanwhile included.
    async fn conclude(&self, job: &Job, worked: &Worked) {
        if let Worked::Ended(_) = worked {
            crash::point(Point::BeforePublish);
        }
        let mut is_concluded = false;
        loop {
            for receipt in to_conclude(self.in_flight.take(&job.id), is_concluded) {
                self.conclude_one(job, worked, &receipt).await;
                is_concluded = true;
            }
            if self.in_flight.end_if_all_are_taken(&job.id) {
                return;
            }
        }
    }

    async fn conclude_one(&self, job: &Job, worked: &Worked, receipt: &Receipt) {
        match worked {
            Worked::Ended(event) => self.parts.outbox.publish(&job.id, event, receipt).await,
            Worked::AnotherJob => self.refuse(&job.id, receipt, &job.original, ANOTHER_JOB).await,
            Worked::GoesBack => {
                if receipt.is_live() {
                    self.release_again(job).await;
                }
                if receipt.give_back().await {
                    debug!("given back");
                }
            }
            Worked::Failed => {
                receipt.reject().await;
            }
        }
    }

    /// Keeps a message that is no job for people, and tells its producer.
    async fn refuse(&self, id: &str, receipt: &Receipt, original: &Original, why: &str) {
        warn!(
            outcome = Outcome::Invalid.as_str(),
            reason = why,
            hint = "the producer must mend the job; a copy is on the dead-letter queue",
            "job ended"
        );
        self.parts.outbox.dead_letter(original, why).await;
        self.parts.metrics.job_ended(Outcome::Invalid, false);
        let event = Ending::without_attempt(Outcome::Invalid, why).into_event(id, SystemTime::now());
        self.parts.outbox.publish(id, &event, receipt).await;
    }
}

/// The deliveries to deal with: those that the broker still waits for. One that it does not wait for any
/// more is dealt with only where there is no other: its job comes again, but perhaps to a worker that knows
/// nothing of this result.
fn to_conclude(receipts: Vec<Arc<Receipt>>, is_concluded: bool) -> Vec<Arc<Receipt>> {
    let (live, dead): (Vec<_>, Vec<_>) = receipts.into_iter().partition(|receipt| receipt.is_live());
    let nobody_else = if live.is_empty() && !is_concluded { dead.last().cloned() } else { None };
    live.into_iter().chain(nobody_else).collect()
}

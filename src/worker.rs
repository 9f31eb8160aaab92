//! One delivery's life from top to bottom: read, claimed, sent, recorded, published, acknowledged. The only
//! room that sees every stage.

mod conclude;
mod ending;
mod limited;
mod line;
pub mod outbox;
mod replies;
mod rescue;
pub mod settings;
mod taken_over;
mod tasks;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::broker::consumer::{Origin, Taker};
use crate::broker::settling::Settle;
use crate::deliveries::dropped::DropReason;
use crate::deliveries::in_flight::{Entered, InFlight};
use crate::deliveries::job::{Came, Job};
use crate::deliveries::original::Original;
use crate::deliveries::receipt::Receipt;
use crate::job::body;
use crate::job::envelope::{Envelope, Moment};
use crate::job::progress::OnAmbiguous;
use crate::job::request::{OtpRequest, logged_id};
use crate::job::result::ResultEvent;
use crate::ledger::{Correct, Ledger};
use crate::limits::Limits;
use crate::send::Sender;
use crate::stop::Stop;
use crate::telemetry::http::Health;
use crate::telemetry::labels::Found;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
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

/// The settings that a worker needs for each job.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The age at which a job is no longer sent.
    pub job_ttl: Duration,
    /// The template of jobs that name none.
    pub template_id: Option<String>,
    /// What follows an ambiguous attempt.
    pub on_ambiguous: OnAmbiguous,
    /// How much is sent.
    pub limits: Arc<Limits>,
    /// The queue of jobs.
    pub queue: String,
    /// The queue of dropped jobs.
    pub dropped: String,
    /// Every queue that belongs to the worker.
    pub own_queues: Vec<String>,
}

/// How many jobs wait at once for the end of a call to their number: a flood for one number must not fill the worker.
/// The others are told at once.
const MOST_WAITING: usize = 64;

/// Works deliveries.
pub struct Worker {
    parts: Parts,
    rules: Rules,
    in_flight: InFlight,
    /// Room for jobs that wait for the end of a call to their number.
    waiting_for_calls: Semaphore,
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

impl Correct for Worker {
    async fn correct(&self, id: &str, event: &ResultEvent) {
        self.parts.outbox.correct(id, event).await;
    }
}

impl Taker for Worker {
    async fn comes_from(&self, cluster: &str) -> Result<(), String> {
        self.parts.ledger.belongs_to(cluster).await.map_err(|error| format!("the ledger: {}", error.with_hint()))
    }

    fn take(self: &Arc<Self>, delivery: Delivery, settle: Arc<Settle>, origin: Origin) {
        let received = Moment::now();
        // A message that cannot even be read without a panic must not end the loop that consumes.
        match catch_unwind(AssertUnwindSafe(|| self.read(delivery, &settle, origin, received))) {
            Ok(incoming) => self.begin(incoming),
            Err(_) => {
                let receipt = Arc::new(Receipt::unread(settle, origin, received));
                warn!("a delivery could not even be read; it goes back to its queue");
                self.spawn(&Arc::clone(&receipt), async move {
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
        let (in_flight, tasks) = (InFlight::default(), Tasks::new(stop.clone()));
        Self { parts, rules, in_flight, waiting_for_calls: Semaphore::new(MOST_WAITING), tasks, stop }
    }

    /// Deliveries that are being dealt with, or were when the worker aborted.
    pub fn unfinished(&self) -> usize {
        self.tasks.unfinished()
    }

    fn read(&self, delivery: Delivery, settle: &Arc<Settle>, origin: Origin, received: Moment) -> Incoming {
        let Delivery { redelivered, data, properties, .. } = delivery;
        let mut envelope = Envelope::read(&properties, received, self.rules.job_ttl);
        self.measure_queue(&envelope, origin, redelivered, received);
        let dropped = (origin == Origin::Dropped).then(|| DropReason::read(&properties));
        let original = Original { body: data, properties };
        let request = self.decode(&envelope, &original);
        let logged_id = logged_id(&envelope.id, request.as_ref().ok());
        self.without_reply_to_our_own(&mut envelope, &logged_id);
        let queue = match origin {
            Origin::Jobs => &self.rules.queue,
            Origin::Dropped => &self.rules.dropped,
        };
        let span = self.parts.traces.delivery(queue, &logged_id, &envelope.trace);
        let settle = Arc::clone(settle);
        let receipt = Receipt::new(settle, origin, redelivered, &envelope, received, span.clone(), logged_id);
        let receipt = Arc::new(receipt);
        match request {
            Err(why) => Incoming::NoJob { id: envelope.id, receipt, original: Box::new(original), why },
            Ok(request) => {
                let fingerprint = self.parts.ledger.fingerprint(&request);
                let place = self.rules.limits.place(&envelope.id, &request, envelope.deadline);
                let came = Came { received, redelivered, dropped, original, span, place };
                Incoming::Job(Box::new(Job::new(envelope, request, fingerprint, came)), receipt)
            }
        }
    }

    /// A reply to one of the worker's own queues would come back as a job, or be taken for a dead letter.
    fn without_reply_to_our_own(&self, envelope: &mut Envelope, logged_id: &str) {
        let is_ours = |queue: &str| self.rules.own_queues.iter().any(|own| own == queue);
        if envelope.reply_to.as_ref().is_some_and(|queue| is_ours(queue.as_str())) {
            envelope.reply_to = None;
            logs::job_span(logged_id).in_scope(|| {
                warn!(
                    hint = "name a queue of the producer's own",
                    "reply_to names a queue of the worker; no reply is sent"
                );
            });
        }
    }

    fn decode(&self, envelope: &Envelope, original: &Original) -> Result<OtpRequest, String> {
        if let Some(problem) = envelope.id_problem {
            return Err(problem.to_owned());
        }
        let properties = &original.properties;
        let encoding = properties.content_encoding().as_ref().map(|encoding| encoding.as_str());
        let kind = properties.kind().as_ref().map(|kind| kind.as_str());
        let template = self.rules.template_id.as_deref();
        body::decode(&original.body, encoding, kind, template).map_err(|error| error.to_string())
    }

    fn begin(self: &Arc<Self>, incoming: Incoming) {
        let worker = Arc::clone(self);
        match incoming {
            Incoming::NoJob { id, receipt, original, why } => {
                let unsettled = Arc::clone(&receipt);
                self.spawn(&unsettled, async move { worker.refuse(&id, &receipt, &original, &why).await });
            }
            Incoming::Job(job, receipt) => {
                match job.dropped.as_ref().and_then(DropReason::for_people) {
                    None => self.enter(job, receipt),
                    // It may have ended its workers each time, so it is kept for people before anything else.
                    Some(why) => {
                        let unsettled = Arc::clone(&receipt);
                        self.spawn(&unsettled, async move {
                            worker.parts.outbox.dead_letter(&job.original, &why).await;
                            worker.enter(job, receipt);
                        });
                    }
                }
            }
        }
    }

    /// Only first deliveries are measured: a later one has waited for its worker, not in the queue.
    fn measure_queue(&self, envelope: &Envelope, origin: Origin, redelivered: bool, received: Moment) {
        let age = envelope.created.and_then(|created| received.wall.duration_since(created).ok());
        if let (Some(age), Origin::Jobs, false) = (age, origin, redelivered) {
            self.parts.metrics.delivered_after(age);
        }
    }

    /// Works the job, unless it is in flight already.
    fn enter(self: &Arc<Self>, job: Box<Job>, receipt: Arc<Receipt>) {
        let worker = Arc::clone(self);
        match self.in_flight.enter(&job.id, job.fingerprint, &receipt) {
            Entered::Joined => {
                self.parts.metrics.redelivered(Found::InFlight);
                logs::job_span(&receipt.logged_id)
                    .in_scope(|| debug!("delivered again while in flight; it gets the same result"));
            }
            Entered::Repeated(over) => {
                let unsettled = Arc::clone(&receipt);
                self.spawn(&unsettled, async move {
                    over.cancelled().await;
                    worker.enter(job, receipt);
                });
            }
            Entered::AnotherJob => {
                let unsettled = Arc::clone(&receipt);
                self.spawn(&unsettled, async move { worker.check_owner(&job, &receipt).await });
            }
            Entered::Started => {
                let job: Arc<Job> = Arc::from(job);
                let (panicked, rescuer) = (Arc::clone(&job), Arc::clone(self));
                let work = async move { worker.work(&job).await };
                let rescue = move || async move { rescuer.after_panic(&panicked).await };
                self.tasks.spawn(&receipt.logged_id, work, rescue);
            }
        }
    }

    /// Runs a task about one delivery, which goes back to its queue if the task panics.
    fn spawn(&self, receipt: &Arc<Receipt>, task: impl Future<Output = ()> + Send + 'static) {
        let receipt = Arc::clone(receipt);
        let logged_id = receipt.logged_id.clone();
        let rescue = move || async move {
            receipt.reject().await;
        };
        self.tasks.spawn(&logged_id, task, rescue);
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
            Some(None) => self.refuse_as_another(job, receipt).await,
        }
    }
}

//! `run`: builds the parts, works jobs until told to stop, then drains.
//!
//! Exit codes: 0 stopped with every delivery settled, 1 could not start, 2 a setting is wrong, 3 the broker's
//! objects differ from those that the worker needs, 4 stopped with jobs unfinished (the broker redelivers them).

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};

use super::shell::{FAILED, RUN_GROUPS, block_on, failed, source, wrong_settings};
use crate::broker::consumer::{ConsumerLoop, NotBegun};
use crate::broker::keeper::Keeper;
use crate::broker::opening::Target;
use crate::broker::settings::BrokerSettings;
use crate::broker::topology::TopologyError;
use crate::config::Config;
use crate::esms::client::{BuildError, Esms};
use crate::job::result::Outcome;
use crate::ledger::Ledger;
use crate::ledger::store::StoreError;
use crate::limits::Limits;
use crate::proxy::is_loopback;
use crate::send::Sender;
use crate::settings::reader::Mistake;
use crate::settings::table;
use crate::stop::Stop;
use crate::telemetry::http::{self, Health};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::telemetry::{balance, logs};
use crate::worker::outbox::{Channels, Outbox};
use crate::worker::{Parts, Rules, Worker};

/// How long the services may take to end, after the last job.
const SERVICES_END_WITHIN: Duration = Duration::from_secs(3);

/// Why `run` ended with an exit code other than 0.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("HTTP_ADDR {0} cannot be listened on: {1}")]
    Http(std::net::SocketAddr, std::io::Error),
    #[error(transparent)]
    Esms(#[from] BuildError),
    #[error("{0}\nDelete what differs, or run with OTP_TOPOLOGY=check or skip if it is meant to be so.")]
    Topology(TopologyError),
    #[error("the ledger: {}", .0.with_hint())]
    Ledger(#[from] StoreError),
    /// Nothing may be taken from this broker.
    #[error("{0}")]
    Refused(String),
    /// The grace ended, or a second signal came, before every delivery was settled.
    #[error("stopped with {0} jobs unfinished; the broker delivers them again")]
    Unfinished(usize),
}

impl From<NotBegun> for RunError {
    fn from(error: NotBegun) -> Self {
        match error {
            NotBegun::Topology(error) => RunError::Topology(error),
            NotBegun::Refused(why) => RunError::Refused(why),
        }
    }
}

impl RunError {
    const fn exit_code(&self) -> u8 {
        match self {
            RunError::Metrics(_)
            | RunError::Http(..)
            | RunError::Esms(_)
            | RunError::Ledger(_)
            | RunError::Refused(_) => FAILED,
            RunError::Topology(_) => 3,
            RunError::Unfinished(_) => 4,
        }
    }
}

/// The command and its flags.
pub(super) fn command() -> Command {
    let command =
        Command::new("run").next_line_help(true).about("Work jobs until told to stop (SIGTERM or SIGINT)").after_help(
            "Every option is an environment variable too. Durations are written 250ms, 5s, 2m.\n\
             A wrong setting is reported, with every other, before anything is connected to.",
        );
    table::add_flags(command, RUN_GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let config = match Config::read(&source(given)) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    let _flushed_at_the_end = match logs::start(&config.telemetry.log) {
        Ok(guard) => guard,
        Err(error) => return failed(&error.to_string()),
    };
    logs::log_panics();
    tell_of_doubts(&config);
    info!(version = env!("CARGO_PKG_VERSION"), broker = ?config.broker, concurrency = config.worker.concurrency, "starting");
    match block_on(run_until_signalled(config)) {
        Ok(Ok(())) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            error!(%error, "ended");
            ExitCode::from(error.exit_code())
        }
        Err(code) => code,
    }
}

async fn run_until_signalled(config: Config) -> Result<(), RunError> {
    let stop = Stop::default();
    tokio::spawn(signals(stop.clone()));
    run(config, stop).await
}

/// SIGTERM comes from Kubernetes, systemd and `docker stop`; SIGINT from Ctrl-C.
async fn signals(stop: Stop) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("signals cannot be listened to; the process ends at once when told to");
        return;
    };
    while !stop.aborting().is_cancelled() {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.signalled();
    }
}

/// Works jobs until `stop` says to drain, then drains within the grace.
async fn run(config: Config, stop: Stop) -> Result<(), RunError> {
    let grace = config.worker.shutdown_grace;
    let app = App::build(config, &stop).await?;
    // A task like those of the jobs. The future that a runtime was begun with has a turn far more often than its tasks:
    // deliveries would pile up before the first of them is worked.
    let consuming = AbortOnDropHandle::new(tokio::spawn(app.consuming.run()));
    let ended = tokio::select! {
        ended = consuming => without_panic(ended).map_err(RunError::from),
        () = out_of_time(&stop, grace, &app.health, &app.worker) => Ok(()),
    };
    // A second signal also ends consuming without an error. Only the count tells whether every delivery was settled.
    let ended = ended.and_then(|()| match app.worker.unfinished() {
        0 => Ok(()),
        unfinished => Err(RunError::Unfinished(unfinished)),
    });
    // It publishes, too, so it ends before the services do.
    app.no_more_jobs.cancel();
    let last_try = timeout(SERVICES_END_WITHIN, app.write_back);
    let _ = stop.aborting().run_until_cancelled(last_try).await;
    stop.close();
    app.services.spawn(app.traces.end());
    app.services.close();
    // No job needs the services any more, so a service that does not end in time may be cut off.
    let _ = timeout(SERVICES_END_WITHIN, app.services.wait()).await;
    ended
}

/// The end of a task that nobody aborts. Its panic is this one's, too.
fn without_panic<E>(ended: Result<Result<(), E>, JoinError>) -> Result<(), E> {
    ended.unwrap_or_else(|error| error.try_into_panic().map_or(Ok(()), |panic| resume_unwind(panic)))
}

/// Returns when draining must end: the grace is over, or a second signal came.
async fn out_of_time(stop: &Stop, grace: Duration, health: &Health, worker: &Worker) {
    stop.draining().cancelled().await;
    health.set_stopping();
    info!(in_flight = worker.unfinished(), grace = %humantime::format_duration(grace), "stopping");
    tokio::select! {
        () = sleep(grace) => {}
        () = stop.aborting().cancelled() => {}
    }
}

/// The parts of a running worker.
struct App {
    consuming: ConsumerLoop<Worker>,
    worker: Arc<Worker>,
    health: Arc<Health>,
    traces: Traces,
    /// Tells the ledger what it did not take, until there are no more jobs.
    write_back: JoinHandle<()>,
    no_more_jobs: CancellationToken,
    /// The services that the jobs need. They end after the last job.
    services: TaskTracker,
}

impl App {
    async fn build(config: Config, stop: &Stop) -> Result<Self, RunError> {
        let metrics = Arc::new(Metrics::new()?);
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let addr = config.telemetry.http_addr;
        let listener = http::listen(addr).await.map_err(|error| RunError::Http(addr, error))?;
        let esms = Esms::new(&config.esms, config.worker.concurrency)?;
        let traces = traces(&config);
        tell_how_esms_is_called(&config, &esms);

        let services = TaskTracker::new();
        services.spawn(http::serve(listener, Arc::clone(&health), stop.clone()));
        services.spawn(stop.closing().clone().run_until_cancelled_owned(config.esms.keys.clone().keep_fresh()));
        if let Some(interval) = config.esms.balance_interval {
            services.spawn(balance::watch(esms.clone(), interval, Arc::clone(&metrics), stop.clone()));
        }
        metrics.limits.expect(&config.limits);
        let (limits, on_ambiguous) = (Arc::new(config.limits.clone()), config.send.on_ambiguous);
        let (ledger, write_back) = Ledger::new(&config.ledger, Arc::clone(&limits), on_ambiguous, Arc::clone(&metrics));
        open(&ledger, stop).await?;
        let sender =
            Sender::new(esms, config.worker.concurrency, config.send.clone(), ledger.pace(), Arc::clone(&metrics));
        services.spawn(sender.rate().keep(stop.clone()));
        let parts = Parts {
            ledger,
            outbox: outbox(&config.broker, &health, &metrics, &services, stop),
            health: Arc::clone(&health),
            sender,
            metrics: Arc::clone(&metrics),
            traces: traces.clone(),
        };
        let worker = Arc::new(Worker::new(parts, rules(&config, limits), stop.clone()));
        let no_more_jobs = CancellationToken::new();
        let write_back = tokio::spawn(write_back.run(no_more_jobs.clone(), Arc::clone(&worker)));
        let consuming = ConsumerLoop {
            broker: config.broker,
            prefetch: config.worker.prefetch,
            taker: Arc::clone(&worker),
            health: Arc::clone(&health),
            metrics,
            stop: stop.clone(),
        };
        Ok(Self { consuming, worker, health, traces, write_back, no_more_jobs, services })
    }
}

/// Reaches the ledger. A worker that is told to stop meanwhile takes no job, and needs none.
async fn open(ledger: &Ledger, stop: &Stop) -> Result<(), StoreError> {
    stop.draining().run_until_cancelled(ledger.open()).await.unwrap_or(Ok(()))
}

fn rules(config: &Config, limits: Arc<Limits>) -> Rules {
    Rules {
        job_ttl: config.worker.job_ttl,
        template_id: config.esms.template_id.clone(),
        on_ambiguous: config.send.on_ambiguous,
        limits,
        queue: config.broker.queue.clone(),
        dropped: config.broker.dropped.clone(),
        own_queues: config.broker.queues(),
    }
}

/// Builds the outbox, which publishes over two connections. [`Channels`] says why.
fn outbox(
    broker: &BrokerSettings,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    services: &TaskTracker,
    stop: &Stop,
) -> Outbox {
    let mut publisher = Keeper::new(broker.clone(), "esms-otp-worker publisher", Arc::clone(metrics));
    let mut replier =
        Keeper::new(broker.clone(), "esms-otp-worker replies", Arc::clone(metrics)).giving_way_to(&publisher);
    let results = Target::Results {
        exchange: broker.reply_exchange.clone(),
        routing_keys: Outcome::ALL.iter().map(|outcome| outcome.routing_key()).collect(),
    };
    let health = Arc::clone(health);
    let channels = Channels {
        results: publisher.lane(results, Box::new(move |up| health.set_publishing(up))),
        dead_letters: publisher.lane(Target::DeadLetters { exchange: broker.dead_letter.clone() }, Box::new(|_| {})),
        replies: replier.lane(Target::Replies, Box::new(|_| {})),
    };
    services.spawn(publisher.run(stop.clone()));
    services.spawn(replier.run(stop.clone()));
    Outbox::new(channels, broker, Arc::clone(metrics))
}

/// Says what could not be understood of the settings that serve seeing, not sending.
fn tell_of_doubts(config: &Config) {
    for Mistake { setting, problem } in &config.doubts {
        warn!(setting, problem, "a setting is not understood; the worker runs without it");
    }
}

/// Traces serve seeing: a worker that cannot export them works all the same.
fn traces(config: &Config) -> Traces {
    Traces::start(&config.telemetry.traces).unwrap_or_else(|error| {
        warn!(%error, hint = "jobs are worked as ever; check the OTEL_ variables", "there are no traces");
        Traces::default()
    })
}

fn tell_how_esms_is_called(config: &Config, esms: &Esms) {
    esms.route().log("ESMS_URL");
    if config.esms.url.scheme() == "http" && !is_loopback(&config.esms.url) {
        let (host, proxy) = (config.esms.url.host_str(), esms.route().proxy());
        let hint = if proxy.is_some() {
            "the proxy reads them, too; use https://, or name the host in NO_PROXY"
        } else {
            "right for a gateway within your own network, wrong for anything else"
        };
        warn!(host, proxy, hint, "ESMS_URL is http://: credentials and phone numbers travel unencrypted");
    }
}

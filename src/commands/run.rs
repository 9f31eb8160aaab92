//! The life of `run`: build the parts, work until told to stop, drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::broker::consumer::ConsumerLoop;
use crate::broker::publisher::Publisher;
use crate::broker::topology::TopologyError;
use crate::config::Config;
use crate::esms::balance;
use crate::esms::client::{BuildError, Esms};
use crate::ledger::Ledger;
use crate::send::Sender;
use crate::telemetry::http::{self, Health};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{self, Traces};
use crate::worker::answers::Answers;
use crate::worker::{Parts, Worker};

/// What the parts that serve the jobs may take to end, once no job needs them.
const GOODBYE: Duration = Duration::from_secs(3);

/// Why `run` ended otherwise than by a stop that left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The metrics cannot be made.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The HTTP port cannot be had.
    #[error("HTTP_ADDR {0} cannot be listened on: {1}")]
    Http(std::net::SocketAddr, std::io::Error),
    /// eSMS cannot be called.
    #[error(transparent)]
    Esms(#[from] BuildError),
    /// Traces are wanted and cannot be exported.
    #[error(transparent)]
    Traces(#[from] traces::StartError),
    /// The broker's objects differ from what is needed.
    #[error("{0}\nDelete what differs, or run with OTP_TOPOLOGY=check or skip if it is meant to be so.")]
    Topology(#[from] TopologyError),
    /// The grace was over, or a second signal came, before all was settled.
    #[error("stopped with {0} jobs unfinished; the broker delivers them again")]
    Unfinished(usize),
}

impl RunError {
    /// The exit code of the process: each kind of failure has its own, settings (2) are reported
    /// before this.
    pub const fn exit_code(&self) -> u8 {
        match self {
            RunError::Metrics(_) | RunError::Http(..) | RunError::Esms(_) | RunError::Traces(_) => 1,
            RunError::Topology(_) => 3,
            RunError::Unfinished(_) => 4,
        }
    }
}

/// Works jobs from `stop`'s being there to its being cancelled, then drains within the grace;
/// `abort` ends the draining at once.
///
/// # Errors
/// [`RunError`]: it could not start, or could not finish.
pub async fn run(config: Config, stop: CancellationToken, abort: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new()?);
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let listener = http::listen(config.http_addr).await.map_err(|error| RunError::Http(config.http_addr, error))?;
    let esms = Esms::new(&config.esms, config.concurrency)?;
    let traces = Traces::start(&config.traces)?;
    warn_of_plain_http(&config);

    let services = Services::default();
    services.spawn(http::serve(listener, Arc::clone(&health), services.stop.clone()));
    let for_results = Arc::clone(&health);
    let results =
        services.publisher(&config, "esms-otp-worker publisher", &metrics, move |up| for_results.set_publishing(up));
    let replies = services.publisher(&config, "esms-otp-worker replies", &metrics, |_| {});

    if let Some(interval) = config.esms.balance_interval {
        services.spawn(balance::watch(esms.clone(), interval, Arc::clone(&metrics), services.stop.clone()));
    }
    let parts = Parts {
        sender: Sender::new(esms, config.pace, config.retry.clone(), Arc::clone(&metrics)),
        ledger: Ledger::new(&config, Arc::clone(&metrics)),
        answers: Answers::new(results, replies, &config.broker, Arc::clone(&metrics)),
        metrics: Arc::clone(&metrics),
        traces: traces.clone(),
    };
    let (broker, prefetch, grace) = (config.broker.clone(), config.concurrency, config.shutdown_grace);
    let worker = Arc::new(Worker::new(parts, config, stop.clone(), abort.clone()));
    let consuming = ConsumerLoop {
        broker,
        prefetch,
        taker: Arc::clone(&worker),
        health: Arc::clone(&health),
        metrics,
        stopping: stop.clone(),
    };

    let ended = tokio::select! {
        ended = consuming.run() => ended.map_err(RunError::from),
        () = out_of_time(&stop, &abort, grace, &health, &worker) => Ok(()),
    };
    // A second signal ends consuming too, so that only the count tells whether all was settled.
    let ended = ended.and_then(|()| match worker.unfinished() {
        0 => Ok(()),
        unfinished => Err(RunError::Unfinished(unfinished)),
    });
    abort.cancel();
    services.spawn(traces.end());
    services.end().await;
    ended
}

fn warn_of_plain_http(config: &Config) {
    if config.esms.url.scheme() == "http" {
        warn!(
            host = config.esms.url.host_str(),
            hint = "right for a sandbox on this machine, wrong for anything else",
            "ESMS_URL is http://: credentials and phone numbers travel unencrypted"
        );
    }
}

/// Ends only if the draining must: with the grace over or a second signal.
async fn out_of_time(
    stop: &CancellationToken,
    abort: &CancellationToken,
    grace: Duration,
    health: &Health,
    worker: &Worker,
) {
    stop.cancelled().await;
    health.set_stopping();
    info!(in_flight = worker.unfinished(), grace = %humantime::format_duration(grace), "stopping");
    tokio::select! {
        () = sleep(grace) => {}
        () = abort.cancelled() => {}
    }
}

/// What serves the jobs and ends after the last of them.
#[derive(Default)]
struct Services {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Services {
    fn spawn<T: Send + 'static>(&self, service: impl Future<Output = T> + Send + 'static) {
        self.tasks.spawn(service);
    }

    fn publisher(
        &self,
        config: &Config,
        name: &'static str,
        metrics: &Arc<Metrics>,
        on_change: impl Fn(bool) + Send + Sync + 'static,
    ) -> Publisher {
        let (publisher, keeper) = Publisher::new(config.broker.clone(), name, Arc::clone(metrics));
        let stop = self.stop.clone();
        self.spawn(async move { keeper.run(stop, on_change).await });
        publisher
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        // Saying goodbye is a courtesy; nothing is lost without it.
        let _ = timeout(GOODBYE, self.tasks.wait()).await;
    }
}

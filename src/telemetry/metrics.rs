//! The metrics. Every handle is looked up once, here, so that the hot path only counts.
//!
//! A label has few values, all fixed in advance. It never holds a phone number, an id or text from outside.

mod limits;
mod maker;

use std::time::Duration;

use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::labels::{Found, Published};
use super::logs;
use crate::esms::classify::ClassName;
use crate::esms::codes;
use crate::job::result::Outcome;
pub use limits::LimitMetrics;
pub use maker::Counted;
use maker::Maker;

/// The revision that was built, if the build says it.
const REVISION: &str = match option_env!("OTP_BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// eSMS answers in tens of milliseconds to seconds; the last bound is above the default timeout.
const ATTEMPT_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];

/// From a job that one quick call finished to a job that was retried for its whole lifetime of minutes.
const JOB_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Every metric of the worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    jobs: Jobs,
    calls: Calls,
    messages: Messages,
    /// The metrics of the limits on what is sent.
    pub limits: LimitMetrics,
}

/// The metrics of jobs.
#[derive(Debug)]
struct Jobs {
    ended: [IntCounter; Outcome::ALL.len()],
    duration: [Histogram; Outcome::ALL.len()],
    queue_seconds: Histogram,
    in_flight: IntGauge,
    waiting_retry: IntGauge,
    redeliveries: [IntCounter; Found::ALL.len()],
    may_be_duplicate: IntCounter,
}

/// The metrics of calls of eSMS, and of the limits that hold them back.
#[derive(Debug)]
struct Calls {
    attempts: [IntCounter; ClassName::ALL.len()],
    duration: [Histogram; ClassName::ALL.len()],
    codes: Vec<IntCounter>,
    other_code: IntCounter,
    circuit_open: IntGauge,
    rate_limited_seconds: Counter,
    rate_found: Gauge,
    /// Has no sample while the balance is not known.
    balance: GaugeVec,
}

/// The metrics of the broker and of the ledger's store.
#[derive(Debug)]
struct Messages {
    published: [IntCounter; Published::ALL.len()],
    dead_lettered: IntCounter,
    connected: IntGauge,
    connections: IntCounter,
    ledger_errors: IntCounter,
}

// A label's index must be its place in `ALL`. Otherwise counts would go to another label.
const _: () = {
    let mut place = 0;
    while place < Outcome::ALL.len() {
        assert!(Outcome::ALL[place].index() == place);
        place += 1;
    }
    place = 0;
    while place < ClassName::ALL.len() {
        assert!(ClassName::ALL[place].index() == place);
        place += 1;
    }
    place = 0;
    while place < Found::ALL.len() {
        assert!(Found::ALL[place].index() == place && Published::ALL[place].index() == place);
        place += 1;
    }
};

impl Jobs {
    fn new(make: &Maker) -> Result<Self, prometheus::Error> {
        let ended = make.counters("otp_jobs_total", "Jobs ended, by outcome.", &["outcome"])?;
        let duration = make.histograms(
            "otp_job_duration_seconds",
            "From a job's delivery to its acknowledgement.",
            "outcome",
            JOB_SECONDS,
        )?;
        let redeliveries = make.counters(
            "otp_redeliveries_total",
            "Deliveries that were not the first of their job, by what was known of it.",
            &["found"],
        )?;
        Ok(Self {
            ended: Outcome::ALL.map(|outcome| ended.with_label_values(&[outcome.as_str()])),
            duration: Outcome::ALL.map(|outcome| duration.with_label_values(&[outcome.as_str()])),
            queue_seconds: make.histogram(
                "otp_job_queue_seconds",
                "From when the producer made a job to its delivery; at least so long, where its time has whole seconds.",
                JOB_SECONDS,
            )?,
            in_flight: make.gauge("otp_jobs_in_flight", "Jobs being worked now.")?,
            waiting_retry: make.gauge("otp_jobs_waiting_retry", "Jobs that wait for their next attempt.")?,
            redeliveries: Found::ALL.map(|found| redeliveries.with_label_values(&[found.as_str()])),
            may_be_duplicate: make.counter("otp_may_be_duplicate_total", "Jobs whose result says MayBeDuplicate.")?,
        })
    }
}

impl Calls {
    fn new(make: &Maker) -> Result<Self, prometheus::Error> {
        let attempts = make.counters("otp_attempts_total", "Calls of eSMS, by what they ended in.", &["class"])?;
        let duration = make.histograms("otp_attempt_duration_seconds", "Calls of eSMS.", "class", ATTEMPT_SECONDS)?;
        let codes =
            make.counters("otp_code_results_total", "CodeResults that eSMS answered with.", &["code", "scope"])?;
        let code = |known: &codes::Code| codes.with_label_values(&[known.code, known.scope.as_str()]);
        Ok(Self {
            attempts: ClassName::ALL.map(|class| attempts.with_label_values(&[class.as_str()])),
            duration: ClassName::ALL.map(|class| duration.with_label_values(&[class.as_str()])),
            codes: codes::DOCUMENTED.iter().map(code).collect(),
            other_code: code(&codes::UNDOCUMENTED),
            circuit_open: make.gauge("otp_circuit_open", "1 while calls are held back: eSMS does not answer.")?,
            rate_limited_seconds: make.add(Counter::new(
                "otp_rate_limited_seconds_total",
                "Time that calls have waited for a rate limit, or because eSMS throttles, summed over jobs.",
            )?)?,
            rate_found: make.add(Gauge::new(
                "otp_rate_found",
                "Calls a second that the worker allows itself because eSMS has throttled it; 0 while it has not.",
            )?)?,
            balance: make
                .add(GaugeVec::new(Opts::new("esms_balance_vnd", "The account's balance at eSMS, in VND."), &[])?)?,
        })
    }
}

impl Messages {
    fn new(make: &Maker) -> Result<Self, prometheus::Error> {
        let published =
            make.counters("otp_results_published_total", "Results published, by what became of it.", &["status"])?;
        Ok(Self {
            published: Published::ALL.map(|status| published.with_label_values(&[status.as_str()])),
            dead_lettered: make.counter("otp_dead_lettered_total", "Jobs copied to the dead-letter exchange.")?,
            connected: make.gauge("otp_broker_connected", "1 while the worker is consuming and able to publish.")?,
            connections: make.counter("otp_broker_connections_total", "Connections made to the broker.")?,
            ledger_errors: make.counter("otp_ledger_errors_total", "Steps that the ledger's store did not take.")?,
        })
    }
}

impl Metrics {
    /// Makes every metric, at zero, in its own registry.
    ///
    /// # Errors
    /// When two metrics clash. A test rules this out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Maker(registry.clone());
        build_info(&make)?;
        make.counted_elsewhere(
            "otp_log_lines_dropped_total",
            "Log lines that were dropped, because what reads them is too slow.",
            logs::dropped_lines,
        )?;
        let (jobs, calls, messages) = (Jobs::new(&make)?, Calls::new(&make)?, Messages::new(&make)?);
        let limits = LimitMetrics::new(&make)?;
        Ok(Self { registry, jobs, calls, messages, limits })
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// A job ended, with this result.
    pub fn job_ended(&self, outcome: Outcome, may_be_duplicate: bool) {
        self.jobs.ended[outcome.index()].inc();
        if may_be_duplicate {
            self.jobs.may_be_duplicate.inc();
        }
    }

    /// A delivery was acknowledged this long after it arrived.
    pub fn acknowledged(&self, outcome: Outcome, after: Duration) {
        self.jobs.duration[outcome.index()].observe(after.as_secs_f64());
    }

    /// A call of eSMS ended.
    pub fn attempt(&self, class: ClassName, took: Duration) {
        self.calls.attempts[class.index()].inc();
        self.calls.duration[class.index()].observe(took.as_secs_f64());
    }

    /// eSMS answered with this code.
    pub fn code_result(&self, code: &str) {
        let known = codes::DOCUMENTED.iter().position(|known| known.code == code);
        known.and_then(|place| self.calls.codes.get(place)).unwrap_or(&self.calls.other_code).inc();
    }

    /// A job was delivered this long after its producer created it.
    pub fn delivered_after(&self, age: Duration) {
        self.jobs.queue_seconds.observe(age.as_secs_f64());
    }

    /// A job is in flight until the returned value is dropped.
    pub fn in_flight(&self) -> Counted {
        Counted::new(&self.jobs.in_flight)
    }

    /// A job waits for its next attempt until the returned value is dropped.
    pub fn waiting_retry(&self) -> Counted {
        Counted::new(&self.jobs.waiting_retry)
    }

    /// A further delivery of a job came. `found` is what the worker already knew about the job.
    pub fn redelivered(&self, found: Found) {
        self.jobs.redeliveries[found.index()].inc();
    }

    /// A publish of a result ended like this.
    pub fn published(&self, status: Published) {
        self.messages.published[status.index()].inc();
    }

    /// Sets the account's balance in VND. `None` means that it is not known.
    pub fn balance(&self, vnd: Option<f64>) {
        match vnd {
            Some(vnd) => self.calls.balance.with_label_values::<&str>(&[]).set(vnd),
            None => self.calls.balance.reset(),
        }
    }

    /// The ledger's store did not take a step of the ledger.
    pub fn ledger_error(&self) {
        self.messages.ledger_errors.inc();
    }

    /// A job was copied to the dead-letter exchange.
    pub fn dead_lettered(&self) {
        self.messages.dead_lettered.inc();
    }

    /// Sets whether the worker is consuming and able to publish.
    pub fn broker_connected(&self, connected: bool) {
        self.messages.connected.set(i64::from(connected));
    }

    /// Sets whether the circuit breaker holds calls back.
    pub fn circuit_open(&self, open: bool) {
        self.calls.circuit_open.set(i64::from(open));
    }

    /// A call waited this long for its turn.
    pub fn rate_limited(&self, waited: Duration) {
        self.calls.rate_limited_seconds.inc_by(waited.as_secs_f64());
    }

    /// Sets how many calls a second are allowed because eSMS throttles; 0 where it does not.
    pub fn rate_found(&self, calls_a_second: f64) {
        self.calls.rate_found.set(calls_a_second);
    }

    /// A connection to the broker was opened.
    pub fn connection_made(&self) {
        self.messages.connections.inc();
    }
}

fn build_info(make: &Maker) -> Result<(), prometheus::Error> {
    let info = make.add(IntGaugeVec::new(
        Opts::new("otp_build_info", "Always 1; what was built is in the labels."),
        &["version", "revision"],
    )?)?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION]).set(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_from_the_start_at_nought() {
        let text = Metrics::new().unwrap().text();
        for sample in [
            "otp_jobs_total{outcome=\"accepted\"} 0",
            "otp_jobs_total{outcome=\"invalid\"} 0",
            "otp_code_results_total{code=\"103\",scope=\"account\"} 0",
            "otp_code_results_total{code=\"other\",scope=\"unknown\"} 0",
            "otp_attempts_total{class=\"ambiguous\"} 0",
            "otp_attempt_duration_seconds_count{class=\"refused\"} 0",
            "otp_job_duration_seconds_count{outcome=\"failed\"} 0",
            "otp_job_queue_seconds_count 0",
            "otp_jobs_in_flight 0",
            "otp_jobs_waiting_retry 0",
            "otp_redeliveries_total{found=\"in_flight\"} 0",
            "otp_may_be_duplicate_total 0",
            "otp_results_published_total{status=\"returned\"} 0",
            "otp_dead_lettered_total 0",
            "otp_broker_connected 0",
            "otp_broker_connections_total 0",
            "otp_circuit_open 0",
            "otp_log_lines_dropped_total 0",
            "otp_rate_limited_seconds_total 0",
            "otp_rate_found 0",
            "otp_build_info{",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(sample), "{sample} is not in:\n{text}");
        }
    }

    #[test]
    fn an_undocumented_code_is_counted_as_other() {
        let metrics = Metrics::new().unwrap();
        metrics.code_result("0901888484");
        metrics.code_result("103");
        let text = metrics.text();
        assert!(text.contains("otp_code_results_total{code=\"other\",scope=\"unknown\"} 1"));
        assert!(text.contains("otp_code_results_total{code=\"103\",scope=\"account\"} 1"));
        assert!(!text.contains("0901888484"));
    }
}

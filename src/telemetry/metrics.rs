//! The metrics. Every handle is resolved once, here, so that the hot path only counts.
//!
//! Labels have few values, all fixed in advance: never a phone, an id or a word from outside.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::esms::classify::ClassName;
use crate::esms::codes;
use crate::job::result::Outcome;

/// The revision that was built, where the build says so.
const REVISION: &str = match option_env!("OTP_BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// eSMS answers in tens of milliseconds to seconds; the last bound is above the default timeout.
const ATTEMPT_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];

/// From a job done in one quick call to one that was retried for its whole lifetime of minutes.
const JOB_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// What a worker knew of a delivery that was not the first of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    New,
    /// It is being worked in this process.
    InFlight,
    /// Its result is recorded.
    Done,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Confirmed by the broker and routed.
    Confirmed,
    /// Confirmed, but no queue took it.
    Returned,
    /// Not confirmed; it is tried again.
    Failed,
}

/// Every metric of the worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    jobs: [IntCounter; 6],
    job_duration: [Histogram; 6],
    codes: Vec<IntCounter>,
    other_code: IntCounter,
    attempts: [IntCounter; 4],
    attempt_duration: [Histogram; 4],
    queue_seconds: Histogram,
    in_flight: IntGauge,
    ledger_errors: IntCounter,
    /// Without a sample while the balance is not known.
    balance: GaugeVec,
    waiting_retry: IntGauge,
    redeliveries: [IntCounter; 3],
    may_be_duplicate: IntCounter,
    published: [IntCounter; 3],
    dead_lettered: IntCounter,
    broker_connected: IntGauge,
    broker_connections: IntCounter,
    circuit_open: IntGauge,
    rate_limited_seconds: Counter,
}

/// A gauge that is one higher while this lives.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        label: &str,
        bounds: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), &[label])?)
    }
}

impl Metrics {
    /// Every metric, at nought, in a registry of its own.
    ///
    /// # Errors
    /// When two metrics clash, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Maker(registry.clone());
        let jobs = make.counters("otp_jobs_total", "Jobs ended, by outcome.", &["outcome"])?;
        let job_duration = make.histograms(
            "otp_job_duration_seconds",
            "From a job's delivery to its acknowledgement.",
            "outcome",
            JOB_SECONDS,
        )?;
        let code_results =
            make.counters("otp_code_results_total", "CodeResults that eSMS answered with.", &["code", "scope"])?;
        let attempts = make.counters("otp_attempts_total", "Calls of eSMS, by what they ended in.", &["class"])?;
        let attempt_duration =
            make.histograms("otp_attempt_duration_seconds", "Calls of eSMS.", "class", ATTEMPT_SECONDS)?;
        let redeliveries = make.counters(
            "otp_redeliveries_total",
            "Deliveries that were not the first of their job, by what was known of it.",
            &["found"],
        )?;
        let published =
            make.counters("otp_results_published_total", "Results published, by what became of it.", &["status"])?;
        build_info(&make)?;
        Ok(Self {
            jobs: Outcome::ALL.map(|outcome| jobs.with_label_values(&[outcome.as_str()])),
            job_duration: Outcome::ALL.map(|outcome| job_duration.with_label_values(&[outcome.as_str()])),
            codes: codes::DOCUMENTED
                .iter()
                .map(|code| code_results.with_label_values(&[code.code, code.scope.as_str()]))
                .collect(),
            other_code: code_results.with_label_values(&[codes::UNDOCUMENTED.code, codes::UNDOCUMENTED.scope.as_str()]),
            attempts: ClassName::ALL.map(|class| attempts.with_label_values(&[class.as_str()])),
            attempt_duration: ClassName::ALL.map(|class| attempt_duration.with_label_values(&[class.as_str()])),
            queue_seconds: make.histogram(
                "otp_job_queue_seconds",
                "From when the producer made a job to its delivery.",
                JOB_SECONDS,
            )?,
            balance: make
                .add(GaugeVec::new(Opts::new("esms_balance_vnd", "The account's balance at eSMS, in VND."), &[])?)?,
            ledger_errors: make.counter("otp_ledger_errors_total", "Steps that the ledger's store did not take.")?,
            in_flight: make.gauge("otp_jobs_in_flight", "Jobs being worked now.")?,
            waiting_retry: make.gauge("otp_jobs_waiting_retry", "Jobs that wait for their next attempt.")?,
            redeliveries: ["new", "in_flight", "done"].map(|found| redeliveries.with_label_values(&[found])),
            may_be_duplicate: make.counter("otp_may_be_duplicate_total", "Jobs whose result says MayBeDuplicate.")?,
            published: ["confirmed", "returned", "failed"].map(|status| published.with_label_values(&[status])),
            dead_lettered: make.counter("otp_dead_lettered_total", "Jobs copied to the dead-letter exchange.")?,
            broker_connected: make
                .gauge("otp_broker_connected", "1 while the worker is consuming and able to publish.")?,
            broker_connections: make.counter("otp_broker_connections_total", "Connections made to the broker.")?,
            circuit_open: make
                .gauge("otp_circuit_open", "1 while calls are held back because eSMS does not answer.")?,
            rate_limited_seconds: make.add(Counter::new(
                "otp_rate_limited_seconds_total",
                "Time that calls have waited for the rate limit, summed over jobs.",
            )?)?,
            registry,
        })
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
        self.jobs[outcome.index()].inc();
        if may_be_duplicate {
            self.may_be_duplicate.inc();
        }
    }

    /// A delivery was acknowledged this long after it came.
    pub fn acknowledged(&self, outcome: Outcome, after: Duration) {
        self.job_duration[outcome.index()].observe(after.as_secs_f64());
    }

    /// A call of eSMS ended.
    pub fn attempt(&self, class: ClassName, took: Duration) {
        self.attempts[class.index()].inc();
        self.attempt_duration[class.index()].observe(took.as_secs_f64());
    }

    /// eSMS answered with this code.
    pub fn code_result(&self, code: &str) {
        let known = codes::DOCUMENTED.iter().position(|known| known.code == code);
        known.and_then(|place| self.codes.get(place)).unwrap_or(&self.other_code).inc();
    }

    /// A job was delivered this long after its producer made it.
    pub fn delivered_after(&self, age: Duration) {
        self.queue_seconds.observe(age.as_secs_f64());
    }

    /// A job is in flight until the returned value is dropped.
    pub fn in_flight(&self) -> Held {
        Held::new(&self.in_flight)
    }

    /// A job waits for its next attempt until the returned value is dropped.
    pub fn waiting_retry(&self) -> Held {
        Held::new(&self.waiting_retry)
    }

    /// A job was delivered again.
    pub fn redelivered(&self, found: Found) {
        self.redeliveries[found as usize].inc();
    }

    /// A result was published, or not.
    pub fn published(&self, status: Published) {
        self.published[status as usize].inc();
    }

    /// The account's balance in VND, or that it is not known.
    pub fn balance(&self, vnd: Option<f64>) {
        match vnd {
            Some(vnd) => self.balance.with_label_values::<&str>(&[]).set(vnd),
            None => self.balance.reset(),
        }
    }

    /// A step of the ledger was not taken by its store.
    pub fn ledger_error(&self) {
        self.ledger_errors.inc();
    }

    /// A job was copied to the dead-letter exchange.
    pub fn dead_lettered(&self) {
        self.dead_lettered.inc();
    }

    /// Whether the worker is consuming and able to publish.
    pub fn broker_connected(&self, connected: bool) {
        self.broker_connected.set(i64::from(connected));
    }

    /// Whether the circuit holds calls back.
    pub fn circuit_open(&self, open: bool) {
        self.circuit_open.set(i64::from(open));
    }

    /// A call waited this long for the rate limit.
    pub fn rate_limited(&self, waited: Duration) {
        self.rate_limited_seconds.inc_by(waited.as_secs_f64());
    }

    /// A connection to the broker was made.
    pub fn connection_made(&self) {
        self.broker_connections.inc();
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
            "otp_rate_limited_seconds_total 0",
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

//! A worker between a real broker and the sandbox, with its own broker objects.

use std::net::SocketAddr;
use std::time::Duration;

use esms_otp_worker::sandbox::{Fault, Sandbox, Settings};
use serde_json::Value;
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::{Client, Job, Received, Results};
use crate::support::metrics::{Scrape, get, wait_for};
use crate::support::wait::{eventually, until};
use crate::support::worker::Worker;

/// The limit for steps that never take long. It is long enough for a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_esms-otp-worker");

/// All tests may use this phone number, because every test has its own sandbox.
pub(crate) const PHONE: &str = "0901888484";

/// The broker objects of one test.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) jobs: String,
    pub(crate) results: String,
    pub(crate) dropped: String,
    pub(crate) dead: String,
    pub(crate) unrouted: String,
}

impl Names {
    fn unique() -> Self {
        let id = Uuid::new_v4().simple().to_string();
        Self {
            jobs: format!("{id}.jobs"),
            results: format!("{id}.results"),
            dropped: format!("{id}.dropped"),
            dead: format!("{id}.dead"),
            unrouted: format!("{id}.results.unrouted"),
        }
    }
}

/// A broker, the sandbox, and the settings of the workers that will be started.
pub(crate) struct Stage {
    pub(crate) names: Names,
    pub(crate) sandbox: Sandbox,
    pub(crate) url: String,
    env: Vec<(String, String)>,
}

/// A worker that runs.
pub(crate) struct Running {
    pub(crate) process: Worker,
    pub(crate) http: SocketAddr,
}

impl Stage {
    /// A stage on the broker that the tests share.
    pub(crate) async fn new() -> Self {
        Self::on(&Broker::shared().await.url()).await
    }

    /// A stage on the broker at this address.
    pub(crate) async fn on(url: &str) -> Self {
        let sandbox = Sandbox::start(Settings::default()).await.expect("a sandbox");
        let names = Names::unique();
        let mut stage = Self { sandbox, url: url.to_owned(), env: Vec::new(), names: names.clone() };
        let esms = stage.sandbox.send_url();
        for (name, value) in [
            ("AMQP_URL", url),
            ("OTP_QUEUE", &names.jobs),
            ("OTP_REPLY_EXCHANGE", &names.results),
            ("OTP_DROPPED_EXCHANGE", &names.dropped),
            ("OTP_DEAD_LETTER_EXCHANGE", &names.dead),
            ("ESMS_URL", &esms),
            ("ESMS_API_KEY", "sandbox-key"),
            ("ESMS_SECRET_KEY", "sandbox-secret"),
            // Quick retries: the tests check whether and when they come, not how long they take.
            ("OTP_RETRY_INITIAL", "20ms"),
            ("OTP_RETRY_MAX_INTERVAL", "100ms"),
        ] {
            stage.set(name, value);
        }
        stage
    }

    /// Sets a setting of the workers that will be started.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a setting.
    pub(crate) fn unset(&mut self, name: &str) -> &mut Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    /// The settings, for a program that is not a worker.
    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Starts a worker without waiting for anything.
    pub(crate) fn spawn(&self) -> Worker {
        Worker::spawn(PROGRAM, &self.env())
    }

    /// Starts a worker and waits until it is ready.
    pub(crate) async fn worker(&self) -> Running {
        let process = self.spawn();
        let http = process.http_addr(LIMIT).await;
        let running = Running { process, http };
        running.until_ready().await;
        running
    }

    /// A worker that serves every metric, including those that are off by default.
    pub(crate) async fn worker_with_every_metric(&mut self) -> Running {
        let running = self.set("ESMS_BALANCE_INTERVAL", "1h").worker().await;
        let balance = async || Scrape::of(running.http).await.value("esms_balance_vnd", &[]);
        eventually("the balance is known", LIMIT, balance).await;
        running
    }

    /// A plain client, connected directly to the broker.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.url).await
    }

    /// A client and every result from now on. A worker must have declared the exchange.
    pub(crate) async fn audience(&self) -> (Client, Results) {
        let client = self.client().await;
        let results = client.results(&self.names.results, "otp.*").await;
        (client, results)
    }

    /// The worker and the result of one job for [`PHONE`], when the next requests meet `faults`.
    pub(crate) async fn play(&self, faults: Vec<Fault>) -> (Running, Received) {
        self.sandbox.script(None, faults);
        let running = self.worker().await;
        let (client, mut results) = self.audience().await;
        client.publish(&self.names.jobs, Job::for_phone(PHONE, "a-job")).await;
        let result = results.next(LIMIT).await;
        (running, result)
    }
}

impl Running {
    /// Waits until `/readyz` is 200.
    pub(crate) async fn until_ready(&self) {
        eventually("the worker is ready", LIMIT, async || (get(self.http, "/readyz").await.0 == 200).then_some(()))
            .await;
    }

    /// Waits until `/readyz` is not 200.
    pub(crate) async fn until_not_ready(&self) {
        eventually("the worker is not ready", LIMIT, async || (get(self.http, "/readyz").await.0 == 503).then_some(()))
            .await;
    }

    /// A sample's value, or 0 when there is none.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        Scrape::of(self.http).await.value(name, labels).unwrap_or_default()
    }

    /// Waits until a sample is `value`.
    pub(crate) async fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        wait_for(self.http, name, labels, |found| found == value, LIMIT).await;
    }

    /// Waits until the broker has every settlement of the worker, so that nothing is unacknowledged any
    /// more. Works only for the shared broker.
    pub(crate) async fn until_settled(&self, names: &Names) {
        let broker = Broker::shared().await;
        until("every job is settled", LIMIT, async || broker.unacked(&names.jobs).await == 0).await;
    }

    /// Tells it to stop and waits for its exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.process.signal("TERM");
        self.process.wait_exit(LIMIT).await
    }
}

/// The parts of a result that say how the job ended.
pub(crate) fn ending(result: &Received) -> (String, u64, bool) {
    let json = result.json();
    let outcome = json["Outcome"].as_str().expect("an Outcome").to_owned();
    assert_eq!(result.routing_key, format!("otp.{outcome}"));
    (outcome, json["Attempts"].as_u64().expect("Attempts"), json["MayBeDuplicate"].as_bool().expect("MayBeDuplicate"))
}

/// A field of a result, as text. It is empty when the field is absent.
pub(crate) fn field(result: &Received, name: &str) -> String {
    match &result.json()[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

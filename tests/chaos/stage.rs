//! The participants: a broker, a Redis, eSMS, and for each worker its own network to them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esms_otp_worker::sandbox::{self, Mix, Sandbox};

use futures_util::future::select_all;
use tokio::time::sleep;

use crate::Failed;
use crate::dice::{Deck, Dice};
use crate::job::{API_KEY, SECRET_KEY};
use crate::journal::Journal;
use crate::limits;
use crate::seat::{self, Wound};
use crate::settings::{Ledger, OnAmbiguous, OnError, Settings};
use crate::support::broker::Broker;
use crate::support::leash::Scratch;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;

/// The faults of eSMS, and how often each happens. The most important is a request that is taken and not
/// answered.
const MIX: [(&str, f64); 37] = [
    ("reset_after", 0.05),
    ("hang_after", 0.02),
    ("reset_before", 0.02),
    ("hang_before", 0.005),
    ("status:503", 0.048),
    // This one and code 160 slow all calls of all workers for some seconds.
    ("status:429:1", 0.001),
    ("status:500", 0.005),
    ("status:403", 0.005),
    ("status:302", 0.005),
    ("status_after:502", 0.01),
    ("html", 0.005),
    ("html_after", 0.01),
    ("cut_json", 0.01),
    ("empty_body", 0.005),
    ("no_code_result", 0.005),
    ("latency:700ms", 0.02),
    ("slow_body:300ms", 0.01),
    ("code:160:too many requests", 0.001),
    ("code:99:blocked", 0.02),
    ("echo_secrets", 0.005),
    ("answer_status:203", 0.004),
    ("byte_order_mark", 0.004),
    ("many_headers:120", 0.004),
    ("control_byte", 0.004),
    ("space_before_colon", 0.004),
    ("folded_header", 0.004),
    ("gzip", 0.004),
    ("deflate", 0.004),
    ("until_close", 0.004),
    ("long_length", 0.004),
    ("open_end", 0.004),
    ("cut_chunks", 0.004),
    ("cut_chunk", 0.004),
    ("trailing_comment", 0.004),
    ("xml_unless_asked", 0.004),
    ("proxy_lost", 0.004),
    ("no_upstream", 0.004),
];

/// Everything except the workers.
pub(crate) struct Stage {
    pub(crate) settings: Settings,
    pub(crate) broker: Arc<Broker>,
    pub(crate) redis: Option<Redis>,
    pub(crate) sandbox: Sandbox,
    pub(crate) networks: Vec<Network>,
    pub(crate) journal: Journal,
    pub(crate) scratch: Scratch,
    wounds: Mutex<(Deck<Wound>, Dice)>,
}

/// What every key of the ledger in Redis begins with.
pub(crate) const LEDGER_PREFIX: &str = "chaos:";

/// One worker's network to the broker, to Redis and to eSMS.
pub(crate) struct Network {
    pub(crate) broker: Proxy,
    pub(crate) redis: Option<Proxy>,
    pub(crate) esms: Proxy,
}

impl Stage {
    pub(crate) async fn new(settings: Settings, broker: Arc<Broker>) -> Result<Arc<Self>, Failed> {
        let scratch = Scratch::new()?;
        let redis = match settings.ledger {
            Ledger::Redis => Some(Redis::start().await),
            Ledger::Memory => None,
        };
        let sandbox = Sandbox::start(sandbox_settings(settings.seed)?).await?;
        let mut networks = Vec::new();
        for _ in 0..settings.workers {
            networks.push(Network::new(&broker, redis.as_ref(), &sandbox).await);
        }
        let wounds = Deck::new(&seat::wounds(&settings));
        let wounds = Mutex::new((wounds, Dice::new(settings.seed, "wounds", 0)));
        let journal = Journal::default();
        Ok(Arc::new(Self { settings, broker, redis, sandbox, networks, journal, scratch, wounds }))
    }

    /// The wound for the next worker. All seats draw from one deck, so even a short campaign has some of
    /// each.
    pub(crate) fn next_wound(&self) -> Option<Wound> {
        let mut wounds = self.wounds.lock().expect("an unpoisoned lock");
        let (deck, dice) = &mut *wounds;
        deck.draw(dice)
    }

    /// A worker's settings, without its crash point.
    pub(crate) fn env(&self, seat: usize) -> Vec<(&'static str, String)> {
        let network = &self.networks[seat];
        let ledger = match (&self.redis, &network.redis) {
            (Some(redis), Some(proxy)) => redis.url_through(proxy.port()),
            _ => "memory:".to_owned(),
        };
        let give_up = self.settings.on_ambiguous == OnAmbiguous::GiveUp;
        let hold = self.settings.on_error == OnError::Hold;
        let esms = format!("http://127.0.0.1:{}{}", network.esms.port(), sandbox::SEND_PATH);
        let told = [
            ("AMQP_URL", self.broker.url_through(network.broker.port())),
            ("OTP_LEDGER_URL", ledger),
            ("ESMS_URL", esms),
            ("OTP_CONCURRENCY", self.settings.concurrency.to_string()),
            ("OTP_ON_AMBIGUOUS", if give_up { "give-up" } else { "resend" }.to_owned()),
            ("OTP_LEDGER_ON_ERROR", if hold { "hold" } else { "send" }.to_owned()),
        ];
        // A result that is only in a worker's memory must be published before the worker ends. If the grace
        // ran out, that would be like a kill.
        let grace = if self.settings.ledger == Ledger::Memory { "50s" } else { "4s" };
        let fixed = [
            ("ESMS_API_KEY", API_KEY),
            ("ESMS_SECRET_KEY", SECRET_KEY),
            ("HTTP_ADDR", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "info,esms_otp_worker=debug"),
            ("OTP_JOB_TTL", "10m"),
            ("OTP_LEDGER_PREFIX", LEDGER_PREFIX),
            // Short limits, so that much goes wrong in little time.
            ("ESMS_TIMEOUT", "1s"),
            ("ESMS_CONNECT_TIMEOUT", "900ms"),
            ("OTP_RETRY_INITIAL", "50ms"),
            ("OTP_RETRY_MAX_INTERVAL", "500ms"),
            ("OTP_RETRY_MAX_ELAPSED", "8s"),
            ("OTP_BREAKER_COOLDOWN", "500ms"),
            ("OTP_SHUTDOWN_GRACE", grace),
        ];
        let most = limits::most_in_all(&self.settings);
        let limits = [
            ("OTP_PHONE_LIMIT", format!("{}/{}", limits::MOST_TO_A_NUMBER, limits::WINDOW)),
            ("OTP_TOTAL_LIMIT", format!("{most}/{}", limits::WINDOW)),
        ];
        let limits = limits.into_iter().filter(|_| self.settings.limits);
        told.into_iter().chain(limits).chain(fixed.map(|(name, value)| (name, value.to_owned()))).collect()
    }

    /// Waits until any worker is connected to the broker. Before that there is nothing to break.
    pub(crate) async fn until_used(&self) {
        select_all(self.networks.iter().map(|network| Box::pin(network.until_used()))).await;
    }

    /// The log file of a seat. All workers of the seat, one after the other, write to it.
    pub(crate) fn log(&self, seat: usize) -> PathBuf {
        self.scratch.file(&format!("worker-{}.log", seat + 1))
    }

    /// Makes everything work again.
    pub(crate) async fn heal(&self) {
        for proxy in self.networks.iter().flat_map(Network::proxies) {
            proxy.resume();
            proxy.accept_again().await;
        }
        self.sandbox.set_mix(Mix::default());
        self.sandbox.release_hangs();
    }
}

impl Network {
    async fn new(broker: &Broker, redis: Option<&Redis>, sandbox: &Sandbox) -> Self {
        let redis = match redis {
            Some(redis) => Some(Proxy::start(redis.port()).await),
            None => None,
        };
        Self { broker: Proxy::start(broker.port()).await, redis, esms: Proxy::start(sandbox.addr().port()).await }
    }

    /// Waits until its worker is connected to the broker.
    pub(crate) async fn until_used(&self) {
        while self.broker.open() == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        [&self.broker, &self.esms].into_iter().chain(&self.redis)
    }
}

fn sandbox_settings(seed: u64) -> Result<sandbox::Settings, Failed> {
    let shares: Result<Vec<_>, Failed> = MIX.iter().map(|(fault, share)| Ok((fault.parse()?, *share))).collect();
    Ok(sandbox::Settings {
        seed,
        mix: Mix::new(shares?)?,
        api_key: API_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        // Long enough that a dying worker has calls in progress.
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(200),
        ..sandbox::Settings::default()
    })
}

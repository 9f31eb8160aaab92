//! What the sandbox knows: the requests of each phone, and the account's balance.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{
    deck::Deck,
    dice::{Dice, Purpose},
    fault::Fault,
    latest::Latest,
    phones::{Phones, Recorded, key},
    rules::{Answer, Asked, Keys, Refusal, Wanted, fields},
    settings::{PRICE_VND, Settings},
    stats::{Gauge, Stats},
};

/// The decisions about a request that has arrived.
pub(crate) struct Arrival {
    pub(crate) fault: Fault,
    pub(crate) answer: Answer,
    /// How long to wait before answering.
    pub(crate) latency: Duration,
}

/// How many requests' times are kept. The oldest are forgotten first.
const TIMES_LIMIT: usize = 200_000;

/// Everything that the sandbox's one lock protects.
pub(crate) struct Records {
    seed: u64,
    latency: Duration,
    jitter: Duration,
    pub(crate) opening_balance: u64,
    pub(crate) keys: Keys,
    pub(crate) balance: u64,
    pub(crate) forced: Option<Refusal>,
    pub(crate) deck: Deck,
    pub(crate) counts: Stats,
    pub(crate) connections: Gauge,
    pub(crate) in_progress: Gauge,
    pub(crate) held: Gauge,
    pub(crate) phones: Phones,
    pub(crate) latest: Latest,
    /// When each V5 request arrived.
    pub(crate) times: VecDeque<Instant>,
}

impl Records {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            seed: settings.seed,
            latency: settings.latency,
            jitter: settings.jitter,
            opening_balance: settings.balance,
            keys: Keys { api: settings.api_key, secret: settings.secret_key },
            balance: settings.balance,
            forced: None,
            deck: Deck::new(settings.mix),
            counts: Stats::default(),
            connections: Gauge::default(),
            in_progress: Gauge::default(),
            held: Gauge::default(),
            phones: Phones::default(),
            latest: Latest::new(),
            times: VecDeque::new(),
        }
    }

    /// Forgets counts, times, phones, messages, codes and scripts, and refills the balance. The mix, the fault of
    /// every request and the forced refusal stay. So do the gauges of open connections, of requests in progress and of held requests.
    pub(crate) fn reset(&mut self) {
        self.counts = Stats::default();
        for gauge in [&mut self.connections, &mut self.in_progress, &mut self.held] {
            gauge.most = gauge.now;
        }
        self.phones = Phones::default();
        self.latest.forget();
        self.times = VecDeque::new();
        self.deck.clear_scripts();
        self.balance = self.opening_balance;
    }

    /// Takes one V5 request and decides everything about it. `None` if its phone is new and there are too
    /// many phones already.
    pub(crate) fn arrive(&mut self, asked: &Asked) -> Option<Arrival> {
        let phone = key(asked.text("Phone"));
        self.counts.requests += 1;
        if self.times.len() == TIMES_LIMIT {
            self.times.pop_front();
        }
        self.times.push_back(Instant::now());
        let dice = Dice { seed: self.seed, phone, nth: self.phones.nth_request(phone)? };
        let fault = self.deck.next(dice);
        self.counts.count_fault(&fault);
        let (answer, code) = self.settle(&fault, asked, dice);
        let recorded = Arc::new(Recorded::now(&fault, &answer, code));
        self.phones.record(phone, &recorded);
        self.latest.push(asked, dice.nth, recorded);
        Some(Arrival { fault, answer, latency: self.latency(dice) })
    }

    /// The answer, and the code if the request was accepted.
    fn settle(&mut self, fault: &Fault, asked: &Asked, dice: Dice<'_>) -> (Answer, Option<String>) {
        match fault {
            Fault::Code { code, message } => {
                return (Answer::Refused(Refusal::new(code, message)), None);
            }
            Fault::EchoSecrets => return (Answer::Refused(asked.echoed()), None),
            fault if !fault.accepts() => return (Answer::NotConsidered, None),
            _ => {}
        }
        match self.consider(asked) {
            Ok(wanted) => {
                let code = format!("{:06}", dice.roll(Purpose::Code) % 1_000_000);
                self.accept(dice.phone, &wanted, &code);
                let sms_id = sms_id(dice);
                (Answer::Accepted { sms_id }, Some(code))
            }
            Err(refusal) => (Answer::Refused(refusal), None),
        }
    }

    fn consider(&self, asked: &Asked) -> Result<Wanted, Refusal> {
        let wanted = asked.judge(&self.keys)?;
        if let Some(forced) = &self.forced {
            return Err(forced.clone());
        }
        if wanted.sent && self.balance < PRICE_VND {
            return Err(Refusal::new("103", "Balance not enough to send message"));
        }
        Ok(wanted)
    }

    fn accept(&mut self, phone: &str, wanted: &Wanted, code: &str) {
        self.counts.accepted += 1;
        if wanted.sent {
            self.balance -= PRICE_VND;
        } else {
            self.counts.generated += 1;
        }
        if self.phones.accept(phone, wanted, code) == 2 {
            self.counts.duplicates += 1;
        }
    }

    /// What CheckCode answers to who has the keys. A right code is used by this.
    pub(crate) fn check_code(&mut self, phone: &str, code: &str) -> Map<String, Value> {
        if self.phones.use_code(phone, code) {
            fields(json!({"CodeResult": "100", "CountRegenerate": 0,
                "ErrorMessage": format!("{phone}, Content: Success!")}))
        } else {
            Refusal::new("171", "Code is used, expired or not for this phone").json()
        }
    }

    fn latency(&self, dice: Dice<'_>) -> Duration {
        let jitter = self.jitter.mul_f64(dice.fraction(Purpose::Jitter));
        self.latency.saturating_add(jitter)
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            phones: self.phones.len(),
            balance: self.balance,
            open_connections: self.connections.now,
            in_progress: self.in_progress.now,
            most_in_progress: self.in_progress.most,
            held: self.held.now,
            ..self.counts.clone()
        }
    }
}

/// 32 hexadecimal digits. It does not look like a UUID, because the provider's own does not.
fn sms_id(dice: Dice<'_>) -> String {
    format!("{:016x}{:016x}", dice.roll(Purpose::SmsIdHigh), dice.roll(Purpose::SmsIdLow))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::phones::{PHONE_BYTES, STORY_LIMIT},
        *,
    };

    const PHONE: &str = "0901888484";

    fn records() -> Records {
        Records::new(Settings::default())
    }

    fn asked(phone: &str) -> Asked {
        let fields = json!({"ApiKey": "sandbox-key", "SecretKey": "sandbox-secret", "Phone": phone,
            "MultiChannelTempId": "1234", "TypeId": "2", "TimeAlive": "3"});
        Asked::read(fields.to_string().as_bytes()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_dies_when_its_time_is_up() {
        let mut records = records();
        records.arrive(&asked(PHONE));
        let code = records.phones.count(PHONE).unwrap().code.unwrap();
        tokio::time::advance(Duration::from_secs(179)).await;
        assert_eq!(records.phones.count(PHONE).unwrap().code.as_ref(), Some(&code));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!records.phones.use_code(PHONE, &code));
        assert_eq!(records.phones.count(PHONE).unwrap().code, None);
    }

    #[test]
    fn counts_stay_exact_when_the_story_is_full() {
        let mut records = records();
        for _ in 0..STORY_LIMIT + 10 {
            records.arrive(&asked(PHONE));
        }
        assert_eq!(records.phones.story(PHONE).len(), STORY_LIMIT);
        assert_eq!(records.phones.accepted(PHONE) as usize, STORY_LIMIT + 10);
        assert_eq!(records.stats().duplicates, 1);
    }

    #[test]
    fn every_acceptance_has_its_own_smsid() {
        let mut records = records();
        for phone in ["0901888484", "0901888485"] {
            records.arrive(&asked(phone));
            records.arrive(&asked(phone));
        }
        let ids: std::collections::BTreeSet<_> = ["0901888484", "0901888485"]
            .iter()
            .flat_map(|phone| records.phones.story(phone))
            .filter_map(|recorded| recorded.sms_id)
            .collect();
        assert_eq!(ids.len(), 4);
        assert!(ids.iter().all(|id| id.len() == 32));
    }

    #[test]
    fn the_times_of_requests_are_kept_in_order_and_not_for_ever() {
        let mut records = records();
        for _ in 0..3 {
            records.arrive(&asked(PHONE));
        }
        assert!(records.times.len() == 3 && records.times.iter().is_sorted());
        records.times = vec![Instant::now(); TIMES_LIMIT].into();
        records.arrive(&asked(PHONE));
        assert_eq!(records.times.len(), TIMES_LIMIT);
        records.reset();
        assert!(records.times.is_empty());
    }

    #[test]
    fn a_nonsense_phone_takes_little_room() {
        let mut records = records();
        let long = "số".repeat(1000);
        records.arrive(&asked(&long));
        let phone = records.phones.count(&long).unwrap().phone;
        assert!(phone.len() <= PHONE_BYTES && long.starts_with(&phone));
    }
}

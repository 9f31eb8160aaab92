//! The jobs of a campaign. Only the seed and the job's number decide what a job is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;

use crate::dice::Dice;
use crate::settings::Settings;

/// Words that no log and no result may hold.
pub(crate) const API_KEY: &str = "canary-api-key";
pub(crate) const SECRET_KEY: &str = "canary-secret-key";

/// How a phone number here begins: forms of the same beginning, of which the workers know that they are one. Six digits
/// of its own follow. Without limits only the first form is used.
pub(crate) const FORMS: [&str; 4] = ["0977", "84977", "0084977", "840977"];

/// One job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// No other job has this phone, written so. So everything that eSMS accepted for it was sent for this job.
    pub(crate) phone: String,
    /// Whether a worker can understand it.
    pub(crate) valid: bool,
    /// How many copies of it its producer publishes in a row.
    pub(crate) copies: u64,
    pub(crate) body: String,
    expiration: Option<Duration>,
}

impl Job {
    /// The job of this number.
    pub(crate) fn new(settings: &Settings, number: u64) -> Self {
        let mut dice = Dice::new(settings.seed, "job", number);
        let forms = if settings.limits { FORMS.len() as u64 } else { 1 };
        let form = FORMS[(number % forms) as usize];
        let (id, phone) = (format!("job-{number:06}"), format!("{form}{:06}", number / forms));
        let valid = !dice.percent(2);
        let sound = format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1234"}}"#);
        let body = if valid { sound } else { misshapen(&phone, &mut dice) };
        let expiration = dice.percent(6).then(|| dice.millis(300..6_000));
        let copies = if settings.repeats_are_known() && dice.percent(10) { 2 } else { 1 };
        Self { id, phone, valid, copies, body, expiration }
    }

    /// The AMQP properties, which are published with the body.
    pub(crate) fn properties(&self) -> BasicProperties {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let persistent = 2;
        let properties = BasicProperties::default()
            .with_message_id(self.id.as_str().into())
            .with_timestamp(now)
            .with_delivery_mode(persistent);
        match self.expiration {
            Some(expiration) => properties.with_expiration(expiration.as_millis().to_string().into()),
            None => properties,
        }
    }
}

/// A body that no worker may send.
fn misshapen(phone: &str, dice: &mut Dice) -> String {
    match dice.of(0..4) {
        0 => "no JSON".to_owned(),
        1 => r#"{"MultiChannelTempId":"1234"}"#.to_owned(),
        2 => format!(r#"{{"Phone":"{phone}x","MultiChannelTempId":"1234"}}"#),
        _ => format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1234","ApiKey":"{API_KEY}"}}"#),
    }
}

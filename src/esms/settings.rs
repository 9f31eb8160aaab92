//! The settings of the provider: its endpoint, the account there, and the limits on a call.

use std::time::Duration;

use reqwest::Url;
use secrecy::ExposeSecret;

use super::keys::Keys;
use crate::settings::reader::{Reader, http_url};
use crate::settings::table as settings;

/// The provider and the account there.
#[derive(Clone, Debug)]
pub struct EsmsSettings {
    /// The V5 endpoint.
    pub url: Url,
    /// The account's key and secret.
    pub keys: Keys,
    /// The template of jobs that name none.
    pub template_id: Option<String>,
    /// The limit on DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// The limit on a whole attempt.
    pub timeout: Duration,
    /// The time between two questions for the account's balance, if it is asked for.
    pub balance_interval: Option<Duration>,
    /// Whether a call carries the trace context.
    pub traced: bool,
}

impl EsmsSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let config = Self {
            url: esms_url(reader),
            keys: keys(reader),
            template_id: reader.given(&settings::ESMS_TEMPLATE_ID),
            connect_timeout: reader.duration(&settings::ESMS_CONNECT_TIMEOUT, Duration::from_millis(1)),
            timeout: reader.duration(&settings::ESMS_TIMEOUT, Duration::from_millis(1)),
            balance_interval: balance_interval(reader),
            traced: traced(reader),
        };
        if config.connect_timeout >= config.timeout {
            reader.mistake(
                &settings::ESMS_CONNECT_TIMEOUT,
                "must be shorter than ESMS_TIMEOUT, or a failure to connect could not be told from a lost answer",
            );
        }
        config
    }

    /// Every word that must never be repeated in anything published or logged.
    pub fn secrets(&self) -> [String; 2] {
        let pair = self.keys.now();
        [&pair.api_key, &pair.secret_key].map(|secret| secret.expose_secret().to_owned())
    }
}

fn keys(reader: &mut Reader<'_>) -> Keys {
    let sources = [
        (&settings::ESMS_API_KEY, &settings::ESMS_API_KEY_FILE),
        (&settings::ESMS_SECRET_KEY, &settings::ESMS_SECRET_KEY_FILE),
    ]
    .map(|(direct, file)| {
        let source = reader.required_secret(direct, file);
        let named = if source.file.is_some() { file } else { direct };
        (named, source)
    });
    let [(api_setting, api_key), (secret_setting, secret_key)] = sources;
    // What is not there was reported already.
    let was_read = [!api_key.text.is_empty(), !secret_key.text.is_empty()];
    Keys::new(api_key, secret_key).unwrap_or_else(|rules| {
        for ((setting, rule), was_read) in [api_setting, secret_setting].into_iter().zip(rules).zip(was_read) {
            if let Some(rule) = rule.filter(|_| was_read) {
                reader.mistake(setting, rule);
            }
        }
        Keys::none()
    })
}

/// Not more often than every second: the call counts against the account's rate.
fn balance_interval(reader: &mut Reader<'_>) -> Option<Duration> {
    let interval = reader.duration(&settings::ESMS_BALANCE_INTERVAL, Duration::ZERO);
    if interval > Duration::ZERO && interval < Duration::from_secs(1) {
        reader.mistake(&settings::ESMS_BALANCE_INTERVAL, "must be 0s (never) or at least 1s");
    }
    (interval > Duration::ZERO).then_some(interval)
}

fn esms_url(reader: &mut Reader<'_>) -> Url {
    let setting = &settings::ESMS_URL;
    let text = reader.text(setting);
    match (http_url(&text), setting.default.and_then(|d| Url::parse(d).ok())) {
        (Some(url), _) => url,
        (None, Some(default)) => {
            reader
                .mistake(setting, "must be an https:// (or, for a sandbox, http://) address without credentials in it");
            default
        }
        (None, None) => unreachable!("the default address parses"),
    }
}

fn traced(reader: &mut Reader<'_>) -> bool {
    reader
        .parsed(&settings::OTP_TRACE_PROPAGATE_TO_ESMS, |text| {
            text.parse::<bool>().map_err(|_| "must be true or false".to_owned())
        })
        .unwrap_or(false)
}

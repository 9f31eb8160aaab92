//! The settings of the broker: its address, its TLS trust and the names of its objects.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::address::Addresses;
use crate::amqp::{ConnectError, Opened};
use crate::settings::reader::{Reader, Source, WrongSettings};
use crate::settings::secret;
use crate::settings::table::{self as settings, Setting};
use crate::tls;

/// The broker: its address and the names of its objects.
#[derive(Clone)]
pub struct BrokerSettings {
    /// Where it is.
    pub addresses: Addresses,
    /// The TLS configuration for `amqps://`.
    pub tls: Arc<rustls::ClientConfig>,
    /// The queue of jobs.
    pub queue: String,
    /// The exchange of results.
    pub reply_exchange: String,
    /// The exchange and the queue of jobs that the broker dropped.
    pub dropped: String,
    /// The exchange and the queue of jobs that a person must look at.
    pub dead_letter: String,
    /// Whether the objects are declared.
    pub topology: TopologyMode,
    /// Held while they are declared. RabbitMQ may close a connection (541) when two declare the same new quorum
    /// queue at the same moment, and a worker has two that do.
    pub(super) declaring: Arc<Mutex<()>>,
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.addresses.first().authority;
        f.debug_struct("BrokerSettings")
            .field("host", &authority.host)
            .field("port", &authority.port)
            .field("queue", &self.queue)
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}

/// How each session treats the broker's objects at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyMode {
    /// Declare them. A difference from an existing object is an error.
    Declare,
    /// Only check that they exist.
    Check,
    /// Assume that they exist.
    Skip,
}

impl BrokerSettings {
    /// Reads the settings of a command that only talks to the broker.
    ///
    /// # Errors
    /// All mistakes in these settings, together.
    pub fn read(source: &Source<'_>) -> Result<Self, WrongSettings> {
        let mut reader = Reader::new(source);
        let config = Self::from_reader(&mut reader);
        reader.finish(config)
    }

    /// Opens a connection, and says to which cluster. RabbitMQ shows it as `name`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, name: &str) -> Result<Opened, ConnectError> {
        self.addresses.connect(&self.tls, name).await
    }

    /// The exchange and the queue of results that no queue is bound for.
    pub fn unrouted(&self) -> String {
        format!("{}.unrouted", self.reply_exchange)
    }

    /// Every queue that belongs to the worker.
    pub fn queues(&self) -> Vec<String> {
        vec![self.queue.clone(), self.dropped.clone(), self.dead_letter.clone(), self.unrouted()]
    }

    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let addresses = addresses(reader);
        let config = Self {
            tls: amqp_tls(reader, &addresses),
            addresses,
            queue: object_name(reader, &settings::OTP_QUEUE),
            reply_exchange: object_name(reader, &settings::OTP_REPLY_EXCHANGE),
            dropped: object_name(reader, &settings::OTP_DROPPED_EXCHANGE),
            dead_letter: object_name(reader, &settings::OTP_DEAD_LETTER_EXCHANGE),
            topology: topology_mode(reader),
            declaring: Arc::default(),
        };
        // If two names were equal, unrouted results could come back as jobs, or be taken for dead letters.
        let unrouted = config.unrouted();
        let names = [&config.queue, &config.reply_exchange, &config.dropped, &config.dead_letter, &unrouted];
        if BTreeSet::from(names).len() < names.len() {
            reader.mistake(
                &settings::OTP_QUEUE,
                "OTP_QUEUE, OTP_REPLY_EXCHANGE, OTP_DROPPED_EXCHANGE and OTP_DEAD_LETTER_EXCHANGE must be four different names, and none OTP_REPLY_EXCHANGE with .unrouted added",
            );
        }
        config
    }
}

fn addresses(reader: &mut Reader<'_>) -> Addresses {
    let setting = &settings::AMQP_URL;
    let text = reader.secret(setting, &settings::AMQP_URL_FILE);
    let text = text.unwrap_or_else(|| secret::Source::fixed(setting.default.unwrap_or_default()));
    Addresses::new(text).unwrap_or_else(|problem| {
        reader.mistake(setting, problem);
        Addresses::default()
    })
}

/// Loads certificates only for `amqps://`, or when a file is given. Plain AMQP must work on a machine without
/// any CA.
fn amqp_tls(reader: &mut Reader<'_>, addresses: &Addresses) -> Arc<rustls::ClientConfig> {
    let setting = &settings::AMQP_CA_FILE;
    let pem =
        reader.given(setting).map(|path| std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}")));
    let trusted = match pem.transpose() {
        Err(problem) => Err(problem),
        Ok(None) if !addresses.may_use_tls() => Ok(tls_for_later(addresses)),
        Ok(pem) => tls::client_config(pem.as_deref()).map_err(|error| error.to_string()),
    };
    trusted.unwrap_or_else(|problem| {
        reader.mistake(setting, problem);
        tls::trusting_nobody()
    })
}

/// An address in a file may become one for TLS. Until then it does not matter whether there are certificates.
fn tls_for_later(addresses: &Addresses) -> Arc<rustls::ClientConfig> {
    let system = if addresses.may_change() { tls::client_config(None).ok() } else { None };
    system.unwrap_or_else(tls::trusting_nobody)
}

/// The longest name an object may have, in bytes. AMQP allows 255, and one name gets a suffix.
const LONGEST_NAME: usize = 200;

fn object_name(reader: &mut Reader<'_>, setting: &Setting) -> String {
    reader
        .parsed(setting, |text| {
            let fits = text.len() <= LONGEST_NAME && !text.starts_with("amq.");
            if fits {
                Ok(text.to_owned())
            } else {
                Err("must be at most 200 bytes long and not start with amq.".into())
            }
        })
        .unwrap_or_default()
}

fn topology_mode(reader: &mut Reader<'_>) -> TopologyMode {
    reader
        .parsed(&settings::OTP_TOPOLOGY, |text| match text {
            "declare" => Ok(TopologyMode::Declare),
            "check" => Ok(TopologyMode::Check),
            "skip" => Ok(TopologyMode::Skip),
            _ => Err("must be declare, check or skip".into()),
        })
        .unwrap_or(TopologyMode::Declare)
}

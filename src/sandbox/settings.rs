//! The settings of a sandbox.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::mix::Mix;

/// What one accepted message costs, in VND: the price in the provider's own examples.
pub const PRICE_VND: u64 = 850;

/// The default seed.
pub const DEFAULT_SEED: u64 = 20_261_123;
/// The default `ApiKey` that is accepted.
pub const DEFAULT_API_KEY: &str = "sandbox-key";
/// The default `SecretKey` that is accepted.
pub const DEFAULT_SECRET_KEY: &str = "sandbox-secret";
/// The account's default balance, in VND: enough for ten million messages.
pub const DEFAULT_BALANCE: u64 = 10_000_000 * PRICE_VND;

/// The settings of a sandbox.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens: a loopback address. Port 0 takes a free port.
    pub addr: SocketAddr,
    /// The seed for the faults of the mix, the jitter, the codes and the SMSIDs.
    pub seed: u64,
    /// How long every V5 answer takes.
    pub latency: Duration,
    /// The most that is added to `latency`. How much is drawn from the seed.
    pub jitter: Duration,
    /// The `ApiKey` that is accepted.
    pub api_key: String,
    /// The `SecretKey` that is accepted.
    pub secret_key: String,
    /// The account's balance, in VND. An accepted message costs [`PRICE_VND`].
    pub balance: u64,
    /// Which faults come, and how often.
    pub mix: Mix,
}

impl Default for Settings {
    /// A free port of 127.0.0.1, no latency, no faults.
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: DEFAULT_SEED,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            api_key: DEFAULT_API_KEY.to_owned(),
            secret_key: DEFAULT_SECRET_KEY.to_owned(),
            balance: DEFAULT_BALANCE,
            mix: Mix::default(),
        }
    }
}

//! How a sandbox plays.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::mix::Mix;

/// What one accepted message costs, in VND: the price in the provider's own examples.
pub const PRICE_VND: u64 = 850;

/// The seed, unless another is given.
pub const DEFAULT_SEED: u64 = 20_261_123;
/// The key that is accepted, unless another is given.
pub const DEFAULT_API_KEY: &str = "sandbox-key";
/// The secret that is accepted, unless another is given.
pub const DEFAULT_SECRET_KEY: &str = "sandbox-secret";
/// The account's balance in VND, unless another is given: enough for ten million messages.
pub const DEFAULT_BALANCE: u64 = 10_000_000 * PRICE_VND;

/// How a sandbox plays.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens: a loopback address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// What the faults of the mix, the codes and the SMSIDs are drawn by.
    pub seed: u64,
    /// How long every V5 answer takes.
    pub latency: Duration,
    /// How much longer it takes at most; how much is drawn by the seed.
    pub jitter: Duration,
    /// The `ApiKey` that is accepted.
    pub api_key: String,
    /// The `SecretKey` that is accepted.
    pub secret_key: String,
    /// What is on the account, in VND; an accepted message takes [`PRICE_VND`].
    pub balance: u64,
    /// What goes wrong, and how often.
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

//! A Redis of our own, kept by `private-redis.sh`, which says how.

use std::process::Command;

use super::kept::{Kept, blocking};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-redis.sh");

/// A server on loopback whose every write is on disk before it is answered. It and its data are gone
/// when this is dropped, and also when this process ends in any way.
pub(crate) struct Redis(Kept);

impl Redis {
    /// Starts a server; a fraction of a second.
    ///
    /// # Panics
    ///
    /// When Redis is not installed, or does not start; with the end of its log.
    pub(crate) async fn start() -> Self {
        Self(Kept::start(SCRIPT, 1).await)
    }

    /// For `OTP_LEDGER_URL`.
    pub(crate) fn url(&self) -> String {
        self.url_through(self.0.port())
    }

    /// The same, through a proxy that listens on `port`.
    pub(crate) fn url_through(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}/0")
    }

    /// Its port on 127.0.0.1; the same after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// Stops the server as an operator would. What was written stays.
    pub(crate) async fn stop(&self) {
        self.0.command("stop").await;
    }

    /// Kills the server with SIGKILL. What was answered stays.
    pub(crate) async fn kill(&self) {
        self.0.command("kill").await;
    }

    /// Starts the server again, with the same port and data.
    pub(crate) async fn start_again(&self) {
        self.0.command("start").await;
    }

    /// What `redis-cli` prints for a command.
    pub(crate) async fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.0.port().to_string()]).args(args);
        let output = blocking(move || command.output().expect("redis-cli")).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8 from redis-cli").trim_end().to_owned()
    }
}

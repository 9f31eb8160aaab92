//! A private Redis server. `private-redis.sh` runs it and explains how.

use std::process::Command;

use super::kept::{Kept, blocking};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-redis.sh");

/// A server on loopback. It writes every change to disk before it answers. The server and its data are
/// removed when this is dropped, and also when this process ends in any way.
pub(crate) struct Redis(Kept);

impl Redis {
    /// Starts a server. That takes a fraction of a second.
    ///
    /// # Panics
    ///
    /// When Redis is not installed or does not start. The message contains the end of its log.
    pub(crate) async fn start() -> Self {
        Self(Kept::start(SCRIPT, 1).await)
    }

    /// The value for `OTP_LEDGER_URL`.
    pub(crate) fn url(&self) -> String {
        self.url_through(self.0.port())
    }

    /// The same URL, through a proxy that listens on `port`.
    pub(crate) fn url_through(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}/0")
    }

    /// The server's port on 127.0.0.1. It is the same after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// Stops the server as an operator would. All written data stays.
    pub(crate) async fn stop(&self) {
        self.0.command("stop").await;
    }

    /// Kills the server with SIGKILL. Every answered write stays.
    pub(crate) async fn kill(&self) {
        self.0.command("kill").await;
    }

    /// Starts the server again, with the same port and data.
    pub(crate) async fn start_again(&self) {
        self.0.command("start").await;
    }

    /// Runs a command with `redis-cli` and returns what it prints.
    pub(crate) async fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.0.port().to_string()]).args(args);
        let output = blocking(move || command.output().expect("redis-cli")).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8 from redis-cli").trim_end().to_owned()
    }
}

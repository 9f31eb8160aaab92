//! The endpoint, pretended.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::Failed;
use crate::stage::Stage;
use crate::support::leash::Program;
use crate::support::metrics::get;
use crate::support::ports;

/// A process of its own. It has no memory of earlier runs.
pub(crate) struct Sandbox {
    addr: SocketAddr,
    _program: Program,
}

impl Sandbox {
    /// Starts one whose answers take this long.
    pub(crate) async fn start(stage: &Stage, latency: Duration) -> Result<Self, Failed> {
        let addr = SocketAddr::from(([127, 0, 0, 1], ports::free_block(1)));
        let (at, latency) = (addr.to_string(), format!("{}ms", latency.as_millis()));
        let args = ["--addr", &at, "--latency", &latency];
        let mut program = Program::start(&stage.settings.programs.sandbox, &args, Stdio::null(), |_| {})?;
        program.line().await?.ok_or("the sandbox has ended")?;
        Ok(Self { addr, _program: program })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.addr, esms_otp_worker::sandbox::SEND_PATH)
    }

    async fn stats(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&get(self.addr, "/_sandbox/stats").await.1)?)
    }

    /// The most calls that were under way at once.
    pub(crate) async fn most_in_progress(&self) -> Result<u64, Failed> {
        Ok(self.stats().await?["most_in_progress"].as_u64().unwrap_or_default())
    }

    /// Fails unless each of `jobs` phones was called exactly once.
    pub(crate) async fn check(&self, jobs: usize) -> Result<(), Failed> {
        let stats = self.stats().await?;
        let count = |name: &str| stats[name].as_u64();
        let wanted = Some(jobs as u64);
        if [count("requests"), count("accepted"), count("phones")] == [wanted; 3] && count("duplicates") == Some(0) {
            return Ok(());
        }
        Err(format!("not one call for each of {jobs} phones: {stats}").into())
    }
}

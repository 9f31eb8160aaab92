//! Where the numbers were measured.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

use crate::contender::Contender;
use crate::stage::Stage;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rabbitmq: String,
    pub(crate) erlang: String,
    pub(crate) redis: String,
    pub(crate) node: Option<String>,
    pub(crate) python: Option<String>,
    pub(crate) commit: Option<String>,
}

impl Machine {
    pub(crate) async fn look(stage: &Stage) -> Self {
        let bare = |text: String| text.trim_matches('"').to_owned();
        let info = stage.redis.cli(&["INFO", "server"]).await;
        let redis = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
        let (python, _) = stage.settings.programs.command(Contender::FastStream);
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Self {
            date: date.split('T').next().unwrap_or_default().to_owned(),
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            rabbitmq: bare(stage.broker.eval("rabbit_misc:version().").await),
            erlang: bare(stage.broker.eval("erlang:system_info(otp_release).").await),
            redis: redis.trim().to_owned(),
            node: said(Path::new("node"), &["--version"]),
            python: said(&python, &["--version"]),
            commit: said(Path::new("git"), &["describe", "--always", "--dirty"]),
        }
    }
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".into(), |(_, name)| name.to_owned())
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// What a program prints; nothing where it is not there.
fn said(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

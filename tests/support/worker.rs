//! The worker as a separate process, as an operator runs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::wait::found;

/// A running `esms-otp-worker run`; killed when dropped.
pub(crate) struct Worker {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    _unread: Option<ChildStderr>,
}

impl Worker {
    /// Starts `program run`. Its environment has PATH, `HTTP_ADDR=127.0.0.1:0`, `LOG_FORMAT=json` and the
    /// variables in `env`, which may override the others. It has nothing else.
    ///
    /// In an integration test, the program's path is `env!("CARGO_BIN_EXE_esms-otp-worker")`. An example
    /// must look for the program beside itself.
    pub(crate) fn spawn(program: impl AsRef<Path>, env: &[(&str, &str)]) -> Self {
        Self::spawn_command(program, &["run"], env)
    }

    /// Starts `program` with any arguments, in the same way.
    pub(crate) fn spawn_command(program: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = start(program.as_ref(), args, env);
        let stderr = child.stderr.take().expect("a piped standard error");
        let log = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lock(&keep).push(line);
            }
        });
        Self { child, log, reader, _unread: None }
    }

    /// Starts `program run` in the same way, with a standard error that stays open and that nobody reads. Its log is not
    /// known, so `HTTP_ADDR` must be set.
    pub(crate) fn spawn_unread(program: impl AsRef<Path>, env: &[(&str, &str)]) -> Self {
        let mut child = start(program.as_ref(), &["run"], env);
        let stderr = child.stderr.take();
        Self { child, log: Arc::default(), reader: std::thread::spawn(|| {}), _unread: stderr }
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every line of standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    /// The log lines that contain `text`.
    pub(crate) fn log_containing(&self, text: &str) -> Vec<String> {
        let mut lines = self.log();
        lines.retain(|line| line.contains(text));
        lines
    }

    /// Waits for the first line that contains `text`.
    ///
    /// # Panics
    ///
    /// When no such line comes within `within`, or when the process ends without one. The message contains
    /// the whole log.
    pub(crate) async fn wait_for_log(&self, text: &str, within: Duration) -> String {
        self.wait_for_line(&format!("a log line with {text:?}"), within, |line| {
            line.contains(text).then(|| line.to_owned())
        })
        .await
    }

    /// The address of `/metrics`, `/livez` and `/readyz`, from the JSON log
    /// line whose message is `http listening`.
    pub(crate) async fn http_addr(&self, within: Duration) -> SocketAddr {
        self.wait_for_line("the log line `http listening`", within, listening).await
    }

    /// Sends `TERM`, `INT` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().expect("kill");
        assert!(status.success(), "kill -s {name}: {status}");
    }

    /// The exit code, or, as in shells, 128 plus the signal's number when a signal ended the process.
    /// `None` when it still runs after `within`.
    pub(crate) async fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        found(within, async || self.exit_code()).await
    }

    fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a child to wait for")?;
        status.code().or(status.signal().map(|signal| 128 + signal))
    }

    async fn wait_for_line<T>(&self, what: &str, within: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let look = async || {
            // Ask this before the look. If the log has ended by now, the look sees all of it.
            let ended = self.reader.is_finished();
            let line = lock(&self.log).iter().find_map(|line| find(line));
            (line.is_some() || ended).then_some(line)
        };
        match found(within, look).await {
            Some(Some(value)) => value,
            Some(None) => panic!("it ended before {what}:\n{}", self.log().join("\n")),
            None => panic!("not within {within:?}: {what}:\n{}", self.log().join("\n")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Child {
    Command::new(program)
        .args(args)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HTTP_ADDR", "127.0.0.1:0")
        .env("LOG_FORMAT", "json")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn lock(log: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address in the log line `http listening`. `tracing-subscriber` writes an
/// event's fields below `fields`, unless it is told to flatten them.
pub(crate) fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    if fields.get("message")? != "http listening" {
        return None;
    }
    fields.get("addr")?.as_str()?.parse().ok()
}

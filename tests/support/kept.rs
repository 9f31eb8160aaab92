//! A private server that a script runs. The script reads one command a line and answers each with one line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::task::spawn_blocking;

use super::ports;

/// A server and the script that runs it. Both end when the last clone of this is dropped, and also when
/// this process ends in any way, SIGKILL included.
#[derive(Clone)]
pub(crate) struct Kept {
    script: &'static str,
    port: u16,
    supervisor: Arc<Mutex<Supervisor>>,
}

impl Kept {
    /// Starts `script` and its server. The server gets `ports` consecutive free ports; the script is told
    /// the first.
    ///
    /// # Panics
    ///
    /// When the server is not installed or does not start. The message contains the end of its log.
    pub(crate) async fn start(script: &'static str, ports: u16) -> Self {
        blocking(move || {
            let (port, supervisor) = Supervisor::start(script, ports);
            Self { script, port, supervisor: Arc::new(Mutex::new(supervisor)) }
        })
        .await
    }

    /// The first port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Gives a command and waits until the script has carried it out.
    pub(crate) async fn command(&self, command: &'static str) {
        let (script, supervisor) = (self.script, Arc::clone(&self.supervisor));
        blocking(move || {
            let answer = supervisor.lock().expect("a working supervisor").ask(command);
            answer.unwrap_or_else(|why| panic!("{command}: {script}: {why}"));
        })
        .await;
    }
}

/// Runs `work` outside the runtime's thread, so that the test's own tasks go on meanwhile.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

struct Supervisor {
    name: &'static str,
    script: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    fn start(script: &'static str, ports: u16) -> (u16, Self) {
        loop {
            let port = ports::free_block(ports);
            let mut supervisor = Self::spawn(script, port);
            match supervisor.ask("start") {
                Ok(_) => return (port, supervisor),
                // Another test process chose the same port at the same time.
                Err(why) if why == "taken" => {}
                Err(why) => panic!("{why}"),
            }
        }
    }

    /// The script gets its own process group. A Ctrl-C or a SIGKILL to the group of the tests does not
    /// reach it, so it can clean up after them.
    fn spawn(name: &'static str, port: u16) -> Self {
        let mut script = Command::new(name)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect(name);
        let commands = script.stdin.take();
        let answers = BufReader::new(script.stdout.take().expect("a piped output"));
        Self { name, script, commands, answers }
    }

    /// The script limits the time of every answer, so this ends too.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        // A failed write is ignored: when the script has ended, its last answer says why.
        if let Some(commands) = &mut self.commands {
            writeln!(commands, "{command}").ok();
        }
        let mut log = String::new();
        for line in (&mut self.answers).lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("log", rest)) => log.extend([rest, "\n"]),
                Some(("error", why)) => return Err(format!("{log}{why}")),
                None if line == "taken" => return Err(line),
                _ => return Ok(line),
            }
        }
        Err(format!("{} has ended", self.name))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.script.wait().ok();
    }
}

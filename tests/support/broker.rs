//! A RabbitMQ node of our own, kept by `private-rabbitmq.sh`, which says how.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::ports;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-rabbitmq.sh");

/// A node on loopback. It, its data and its processes are gone when this is
/// dropped, and also when this process ends in any way, SIGKILL included.
pub(crate) struct Broker {
    port: u16,
    supervisor: Arc<Mutex<Supervisor>>,
}

impl Broker {
    /// Starts a node: 7 to 15 s on two busy cores, most of it processor time.
    /// For tests that stop it or need it empty; all others take
    /// [`Broker::shared`].
    ///
    /// # Panics
    ///
    /// When RabbitMQ is not installed, or the node does not start; with the
    /// end of its log.
    pub(crate) async fn start() -> Self {
        blocking(|| {
            let (port, supervisor) = Supervisor::start();
            let supervisor = Arc::new(Mutex::new(supervisor));
            Self { port, supervisor }
        })
        .await
    }

    /// The one node that the tests of this process share, started by whoever
    /// asks first. Use queue names of your own on it, and do not stop it.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// `amqp://` URL with user and virtual host.
    pub(crate) fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same, through a proxy that listens on `port`.
    pub(crate) fn url_through(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
    }

    /// AMQP port on 127.0.0.1; the same after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops the node as an operator would, about 1 s. Durable data stays.
    pub(crate) async fn stop(&self) {
        self.command("stop").await;
    }

    /// Kills the node with SIGKILL. What it had made durable stays.
    pub(crate) async fn kill(&self) {
        self.command("kill").await;
    }

    /// Starts the node again after [`stop`](Self::stop) or
    /// [`kill`](Self::kill), with the same port and data.
    pub(crate) async fn start_again(&self) {
        self.command("start").await;
    }

    /// Runs `rabbitmqctl` against this node and returns its output. Takes a
    /// second or more; see [`eval`](Self::eval) for a fast way.
    pub(crate) async fn ctl(&self, args: &[&str]) -> String {
        let mut all = vec!["ctl"];
        all.extend(args);
        self.script(&all).await
    }

    /// Evaluates Erlang in the node (`rabbit_networking:force_connection_events().`,
    /// with the full stop) and returns the value as text. Milliseconds.
    pub(crate) async fn eval(&self, code: &str) -> String {
        let answer = self.script(&["eval", code]).await;
        let answer = answer.trim();
        assert!(!answer.starts_with("{error"), "{code}\n{answer}");
        let value = answer.strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}'));
        value.unwrap_or(answer).to_owned()
    }

    /// Messages of a queue that are ready for delivery; `None` when there is
    /// no such queue. What a passive declare says, so it is up to date.
    pub(crate) async fn queue_depth(&self, queue: &str) -> Option<u32> {
        let connection = lapin::Connection::connect(&self.url(), Default::default())
            .await
            .expect("connection to the private RabbitMQ");
        let channel = connection.create_channel().await.expect("channel");
        let passive = QueueDeclareOptions::default().passive();
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        let depth = match declared {
            Ok(queue) => Some(queue.message_count()),
            Err(error) if error.to_string().contains("NOT_FOUND") => None,
            Err(error) => panic!("passive declare of {queue}: {error}"),
        };
        connection.close(200, "done".into()).await.ok();
        depth
    }

    /// Messages of a queue that are delivered and not yet acknowledged.
    pub(crate) async fn unacked(&self, queue: &str) -> u32 {
        self.count(queue, "query_messages_checked_out", "messages_unacknowledged").await
    }

    /// Messages of a queue, delivered or not.
    pub(crate) async fn messages(&self, queue: &str) -> u32 {
        self.count(queue, "query_messages_total", "messages").await
    }

    /// A quorum queue is asked itself: the figures that `list_queues` shows
    /// for it are refreshed every 5 s only.
    async fn count(&self, queue: &str, quorum_question: &str, classic_item: &str) -> u32 {
        let code = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
             case amqqueue:get_type(Q) of \
               rabbit_quorum_queue -> \
                 {{ok, {{_, N}}, _}} = ra:leader_query(amqqueue:get_pid(Q), \
                   fun rabbit_fifo:{quorum_question}/1), N; \
               _ -> \
                 [{{_, N}}] = rabbit_amqqueue:info(Q, [{classic_item}]), N \
             end."
        );
        let answer = self.eval(&code).await;
        answer.parse().unwrap_or_else(|_| panic!("{classic_item} of {queue}: {answer}"))
    }

    async fn command(&self, command: &'static str) {
        let supervisor = Arc::clone(&self.supervisor);
        blocking(move || {
            let answer = supervisor.lock().expect("a working supervisor").ask(command);
            answer.unwrap_or_else(|why| panic!("{command} RabbitMQ: {why}"));
        })
        .await;
    }

    async fn script(&self, args: &[&str]) -> String {
        let mut command = Command::new(SCRIPT);
        command.arg(self.port.to_string()).args(args);
        let run = move || {
            // A node busy with other tests may be too slow to be asked, at first.
            let mut tries = (1..=5).map(|_| command.output().expect(SCRIPT));
            tries.find(|output| !is_busy(output)).expect("a node that can be asked")
        };
        let output = blocking(run).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8 from RabbitMQ's tools")
    }
}

/// What `erl_call` says when the node does not answer in time.
fn is_busy(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && told.contains("failed to connect to node")
}

/// Off the runtime's thread: a test's own tasks must go on meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

struct Supervisor {
    script: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    fn start() -> (u16, Self) {
        loop {
            let port = ports::free_block(3);
            let mut supervisor = Self::spawn(port);
            match supervisor.ask("start") {
                Ok(_) => return (port, supervisor),
                // Another test process had the same idea at the same time.
                Err(why) if why == "taken" => {}
                Err(why) => panic!("{why}"),
            }
        }
    }

    /// In a process group of its own, so that Ctrl-C or a SIGKILL to the
    /// group of the tests leaves it alive to clean up after them.
    fn spawn(port: u16) -> Self {
        let mut script = Command::new(SCRIPT)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect(SCRIPT);
        let commands = script.stdin.take();
        let answers = BufReader::new(script.stdout.take().expect("a piped output"));
        Self { script, commands, answers }
    }

    /// The script bounds every answer in time, so this ends too.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        // Where the script has ended, its last answer says why.
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
        Err(format!("{SCRIPT} has ended"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.script.wait().ok();
    }
}

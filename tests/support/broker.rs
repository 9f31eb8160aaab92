//! A private RabbitMQ node. `private-rabbitmq.sh` runs it and explains how.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::OnceCell;

use super::kept::{Kept, blocking};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-rabbitmq.sh");

/// A node on loopback. The node, its data and its processes are removed when this is dropped, and also when
/// this process ends in any way, SIGKILL included.
pub(crate) struct Broker(Kept);

impl Broker {
    /// Starts a node. That takes 7 to 15 s on two busy cores, most of it processor time. Use it in tests
    /// that stop the node or need it empty. All other tests use [`Broker::shared`].
    ///
    /// # Panics
    ///
    /// When RabbitMQ is not installed or the node does not start. The message contains the end of its log.
    pub(crate) async fn start() -> Self {
        Self(Kept::start(SCRIPT, 3).await)
    }

    /// The one node that the tests of this process share. The first caller starts it. Use your own queue
    /// names on it, and do not stop it.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// An `amqp://` URL with user and virtual host.
    pub(crate) fn url(&self) -> String {
        self.url_through(self.0.port())
    }

    /// The same URL, through a proxy that listens on `port`.
    pub(crate) fn url_through(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
    }

    /// The AMQP port on 127.0.0.1. It is the same after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// Stops the node as an operator would. That takes about 1 s. Durable data stays.
    pub(crate) async fn stop(&self) {
        self.0.command("stop").await;
    }

    /// Kills the node with SIGKILL. Data that was already durable stays.
    pub(crate) async fn kill(&self) {
        self.0.command("kill").await;
    }

    /// Starts the node again after [`stop`](Self::stop) or
    /// [`kill`](Self::kill), with the same port and data.
    pub(crate) async fn start_again(&self) {
        self.0.command("start").await;
    }

    /// Runs `rabbitmqctl` against this node and returns its output. That takes a second or more;
    /// [`eval`](Self::eval) is faster.
    pub(crate) async fn ctl(&self, args: &[&str]) -> String {
        let mut all = vec!["ctl"];
        all.extend(args);
        self.script(&all).await
    }

    /// Evaluates Erlang code in the node and returns the value as text. That takes milliseconds. The code
    /// must end with a full stop, as in `rabbit_networking:force_connection_events().`
    pub(crate) async fn eval(&self, code: &str) -> String {
        let answer = self.script(&["eval", code]).await;
        let answer = answer.trim();
        assert!(!answer.starts_with("{error"), "{code}\n{answer}");
        let value = answer.strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}'));
        value.unwrap_or(answer).to_owned()
    }

    /// How many messages of a queue are ready for delivery, or `None` when there is no such queue. The
    /// number comes from a passive declare, so it is up to date.
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

    /// How many messages of a queue are delivered and not yet acknowledged.
    pub(crate) async fn unacked(&self, queue: &str) -> u32 {
        self.count(queue, "query_messages_checked_out", "messages_unacknowledged").await
    }

    /// How many messages a queue has, delivered or not.
    pub(crate) async fn messages(&self, queue: &str) -> u32 {
        self.count(queue, "query_messages_total", "messages").await
    }

    /// Asks a quorum queue itself, because `list_queues` refreshes its figures only every 5 s.
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

    async fn script(&self, args: &[&str]) -> String {
        let mut command = Command::new(SCRIPT);
        command.arg(self.0.port().to_string()).args(args);
        let run = move || {
            // A node that is busy with other tests may at first be too slow to answer.
            let give_up = Instant::now() + ASKING_LIMIT;
            loop {
                let output = command.output().expect(SCRIPT);
                if !is_busy(&output) || Instant::now() > give_up {
                    return output;
                }
            }
        };
        let output = blocking(run).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8 from RabbitMQ's tools")
    }
}

/// How long to keep asking a node that is too busy to answer.
const ASKING_LIMIT: Duration = Duration::from_secs(60);

/// Whether `erl_call` reports that the node did not answer in time.
fn is_busy(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && told.contains("failed to connect to node")
}

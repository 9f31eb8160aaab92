//! The broker of the demonstration: the one in `AMQP_URL`, or a private node.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use esms_otp_worker::broker::settings::BrokerSettings;
use esms_otp_worker::settings::table::ALL;
use lapin::options::{
    BasicConsumeOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, Consumer};
use tokio::time::timeout;
use uuid::Uuid;

use crate::Failed;
use crate::support::broker::Broker;

const LIMIT: Duration = Duration::from_secs(20);

/// A broker, and the names of the objects on it.
pub(crate) struct Home {
    config: BrokerSettings,
    /// The same as settings for the worker and for `send`.
    settings: HashMap<&'static str, String>,
    private: Option<Broker>,
}

impl Home {
    /// A private node, with the usual names of the objects.
    pub(crate) async fn private() -> Result<Self, Failed> {
        let broker = Broker::start().await;
        let settings = HashMap::from([("AMQP_URL", broker.url())]);
        Ok(Self { config: configured(&settings)?, settings, private: Some(broker) })
    }

    /// Somebody else's broker. The objects get unique names, so nothing that is already there is touched.
    pub(crate) async fn given(url: String) -> Result<Self, Failed> {
        let unique = &Uuid::new_v4().simple().to_string()[..8];
        let mut settings = HashMap::from([
            ("AMQP_URL", url),
            ("OTP_QUEUE", format!("demo.{unique}.jobs")),
            ("OTP_REPLY_EXCHANGE", format!("demo.{unique}.results")),
            ("OTP_DROPPED_EXCHANGE", format!("demo.{unique}.dropped")),
            ("OTP_DEAD_LETTER_EXCHANGE", format!("demo.{unique}.dead")),
        ]);
        if let Ok(file) = std::env::var("AMQP_CA_FILE") {
            settings.insert("AMQP_CA_FILE", file);
        }
        let home = Self { config: configured(&settings)?, settings, private: None };
        home.connect().await?;
        Ok(home)
    }

    /// Gives a program these settings. All other settings of the worker are removed from its environment.
    pub(crate) fn settle(&self, program: &mut Command) {
        for setting in ALL {
            program.env_remove(setting.env);
        }
        program.envs(&self.settings);
    }

    /// `host:port`, without the password.
    pub(crate) fn address(&self) -> String {
        let authority = &self.config.addresses.first().authority;
        format!("{}:{}", authority.host, authority.port)
    }

    pub(crate) const fn is_private(&self) -> bool {
        self.private.is_some()
    }

    pub(crate) fn queue(&self) -> &str {
        &self.config.queue
    }

    /// The flags with which `esms-otp-worker send` finds the queue. The URL of somebody else's broker may
    /// hold a password, so it is not shown: the user has it in the environment.
    pub(crate) fn flags(&self) -> String {
        match &self.private {
            Some(broker) => format!("--amqp-url {}", broker.url()),
            None => format!("--queue {}", self.queue()),
        }
    }

    async fn connect(&self) -> Result<Connection, Failed> {
        let connecting = self.config.connect("esms-otp-worker demo");
        Ok(timeout(LIMIT, connecting).await??.connection)
    }

    /// Every result from now on, through a queue that is deleted with the connection.
    pub(crate) async fn results(&self) -> Result<(Connection, Consumer), Failed> {
        let connection = self.connect().await?;
        let subscribing = async {
            let channel = connection.create_channel().await?;
            let declare = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            let queue = channel.queue_declare("".into(), declare, FieldTable::default()).await?.name().clone();
            let exchange = self.config.reply_exchange.as_str().into();
            let bind = QueueBindOptions::default();
            channel.queue_bind(queue.clone(), exchange, "otp.*".into(), bind, FieldTable::default()).await?;
            let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
            channel.basic_consume(queue, "".into(), options, FieldTable::default()).await
        };
        let consumer = timeout(LIMIT, subscribing).await??;
        Ok((connection, consumer))
    }

    /// How many messages each queue has left.
    pub(crate) async fn left(&self) -> Result<Vec<(String, u32)>, Failed> {
        let connection = self.connect().await?;
        let asking = async {
            let channel = connection.create_channel().await?;
            let mut left = Vec::new();
            for name in self.config.queues() {
                let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
                let queue = channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await?;
                left.push((name, queue.message_count()));
            }
            Ok::<_, lapin::Error>(left)
        };
        let left = timeout(LIMIT, asking).await??;
        close(&connection).await;
        Ok(left)
    }

    /// Deletes everything that the worker declared on somebody else's broker. A private node is removed as
    /// a whole.
    pub(crate) async fn leave(&self) -> Result<(), Failed> {
        if self.is_private() {
            return Ok(());
        }
        let connection = self.connect().await?;
        let deleting = async {
            let channel = connection.create_channel().await?;
            for name in self.config.queues() {
                channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
                channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await?;
            }
            let results = self.config.reply_exchange.as_str().into();
            channel.exchange_delete(results, ExchangeDeleteOptions::default()).await
        };
        timeout(LIMIT, deleting).await??;
        close(&connection).await;
        Ok(())
    }
}

/// Closes a connection at the end. Errors are ignored: the work is done, and the channel may already be
/// closing.
pub(crate) async fn close(connection: &Connection) {
    let _ = timeout(LIMIT, connection.close(200, "done".into())).await;
}

fn configured(settings: &HashMap<&'static str, String>) -> Result<BrokerSettings, Failed> {
    Ok(BrokerSettings::read(&|setting| settings.get(setting.env).cloned())?)
}

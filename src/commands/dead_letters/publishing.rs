//! Publishing with confirms: some messages at a time, each confirmed or known not to be.

use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use indicatif::ProgressBar;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{Failed, refusal};
use crate::broker::alarm::in_words;
use crate::broker::settings::BrokerSettings;
use crate::broker::{REPLY_WITHIN, close};
use crate::commands::shell::say;

/// How long the broker may take to confirm, unless it says that it takes nothing now.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// What a user needs to publish here.
const TO_PUBLISH: &str = "write permission on the default exchange (amq.default)";

/// What the broker said of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A queue has it.
    Taken,
    /// The queue did not take it.
    Refused,
}

/// A connection of its own: the broker stops reading from one that publishes while it is short of memory or disk, and
/// letters must be acknowledged and returned meanwhile.
pub(super) struct Publisher {
    connection: Connection,
    channel: Channel,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    stop: CancellationToken,
    progress: ProgressBar,
}

impl Publisher {
    /// Connects. Waiting for the broker ends with `stop`; what it says of itself is told above `progress`.
    pub(super) async fn open(
        broker: &BrokerSettings,
        stop: CancellationToken,
        progress: ProgressBar,
    ) -> Result<Self, Failed> {
        let connection = broker.connect("esms-otp-worker dead-letters publisher").await?.connection;
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>(channel)
        };
        let channel = timeout(REPLY_WITHIN, opening).await.map_err(|_| Failed::Silent)??;
        // Without an end: a lost connection is told by what waits for it.
        let events = connection.events_listener().chain(stream::pending()).boxed();
        Ok(Self { connection, channel, events, stop, progress })
    }

    /// Publishes to one queue, and waits until the broker has said of each message what became of it.
    ///
    /// # Errors
    /// When that is not known of every message. [`Failed::NoJobs`] where any of them came back as not routed: the protocol does not say
    /// which confirm belongs to it.
    pub(super) async fn publish(
        &mut self,
        queue: &str,
        messages: Vec<(BasicProperties, &[u8])>,
    ) -> Result<Vec<Answer>, Failed> {
        let channel = self.channel.clone();
        let published = async move {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let mut confirms = Vec::with_capacity(messages.len());
            let mut failed = None;
            for (properties, body) in messages {
                let publish = channel.basic_publish("".into(), ShortString::from(queue), options, body, properties);
                match publish.await {
                    Ok(confirm) => confirms.push(confirm),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let mut confirmed = Vec::with_capacity(confirms.len());
            for confirm in confirms {
                // Where the broker has closed the channel, the first says why.
                confirmed.push(confirm.await?);
            }
            failed.map_or(Ok(confirmed), Err)
        };
        let mut answers = Vec::new();
        for confirmation in self.patiently(published).await? {
            answers.push(match confirmation {
                Confirmation::Ack(None) => Answer::Taken,
                Confirmation::Ack(Some(_)) => return Err(Failed::NoJobs(queue.to_owned())),
                Confirmation::Nack(_) | Confirmation::NotRequested => Answer::Refused,
            });
        }
        Ok(answers)
    }

    /// Waits for the broker. There is no limit while it says that it takes nothing now.
    async fn patiently<T>(&mut self, work: impl Future<Output = lapin::Result<T>>) -> Result<T, Failed> {
        let mut work = pin!(work);
        let mut is_blocked = self.connection.status().blocked();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done.map_err(of_publishing),
                () = self.stop.cancelled() => return Err(Failed::Interrupted),
                Some(event) = self.events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        is_blocked = true;
                        self.tell(&in_words(Some(reason.as_str())));
                    }
                    Event::ConnectionUnblocked => {
                        is_blocked = false;
                        self.tell(&in_words(None));
                    }
                    _ => {}
                },
                () = sleep(CONFIRM_WITHIN), if !is_blocked => return Err(Failed::NotConfirmed),
            }
        }
    }

    fn tell(&self, line: &str) {
        self.progress.suspend(|| say(line));
    }

    /// Closes the connection.
    pub(super) async fn close(self) {
        close(&self.connection).await;
    }
}

fn of_publishing(error: lapin::Error) -> Failed {
    match refusal(&error) {
        Some((AMQPSoftError::ACCESSREFUSED, words)) => Failed::Forbidden(words, TO_PUBLISH),
        _ => Failed::Lost(error),
    }
}

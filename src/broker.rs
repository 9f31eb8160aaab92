//! The broker: connections, the objects there, consuming and publishing.

pub mod consumer;
pub mod publisher;
mod session;
pub mod settings;
pub mod topology;

use std::time::Duration;

use lapin::Connection;
use tokio::time::timeout;

/// The limit on the broker's answer to one request. It answers in milliseconds; after this long the
/// connection is taken for lost.
pub const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// RabbitMQ's pseudo-queue that brings a reply straight to the channel that asked
/// (<https://www.rabbitmq.com/docs/direct-reply-to>).
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Closes a connection without waiting long for the broker to say goodbye.
pub(crate) async fn close(connection: &Connection) {
    let goodbye = connection.close(200, "done".into());
    // A connection that is already lost cannot be closed, and need not be.
    let _ = timeout(Duration::from_secs(2), goodbye).await;
}

//! The broker: connections, the broker's objects, consuming and publishing.

pub mod address;
pub mod alarm;
pub mod bounds;
pub mod consumer;
pub mod definitions;
pub mod keeper;
pub mod opening;
pub mod permissions;
pub mod publisher;
mod session;
pub mod settings;
pub mod settling;
mod standing;
pub mod topology;

use std::time::Duration;

use lapin::Connection;
use tokio::time::timeout;

/// How long the broker may take to answer one request. It answers in milliseconds. After this time the
/// connection counts as lost.
pub const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// RabbitMQ's pseudo-queue that brings a reply directly to the channel that asked
/// (<https://www.rabbitmq.com/docs/direct-reply-to>).
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Closes a connection. Waits at most two seconds for the broker's answer.
pub(crate) async fn close(connection: &Connection) {
    let closing = connection.close(200, "done".into());
    // If the connection is already lost, closing it fails, and that does not matter.
    let _ = timeout(Duration::from_secs(2), closing).await;
}

//! The RabbitMQ side of the worker.

pub mod wire;

//! Tests from outside: against a real RabbitMQ, over real sockets.

#[path = "../support/mod.rs"]
mod support;

mod support_works;

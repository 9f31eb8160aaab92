//! What the tests, the demonstration and the fault campaign share: a private RabbitMQ and a private Redis,
//! a proxy that breaks the network to the worker, the worker as a process, and plain clients that look from
//! outside.
//!
//! Everything here panics with a sentence when it cannot do its work: a test
//! that cannot run has failed.

#![allow(dead_code, reason = "each program that includes this module uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken expectation here is a failed test")]

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod kept;
pub(crate) mod leash;
pub(crate) mod metrics;
pub(crate) mod ports;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod terminal;
pub(crate) mod wait;
pub(crate) mod worker;

/// Any error. The only reaction to it is to print it and end the program.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

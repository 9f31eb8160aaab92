//! `esms-otp-worker`: turns a queue of one-time-password jobs into calls of eSMS.vn's
//! `SendMessageAutoGenCode_V5`, and publishes what eSMS said.
//!
//! ```text
//! otp.jobs ──► broker::consumer ──► job ──► ledger ──► send ──► result ──► broker::publisher ──► otp.results
//!    ▲                                                                            │
//!    └───────────────────────── acknowledged after the result is confirmed ◄─────┘
//! ```
//!
//! Everything else follows from one rule: **a job is acknowledged only after the broker has confirmed
//! its result.** [`worker`] is the only room that sees every stage.

pub mod amqp;
pub mod backoff;
pub mod broker;
pub mod commands;
pub mod config;
pub mod crash;
pub mod deliveries;
pub mod esms;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod proxy;
pub mod sandbox;
pub mod send;
pub mod settings;
pub mod stop;
pub mod telemetry;
pub mod tls;
pub mod worker;

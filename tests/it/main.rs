//! Tests from the outside: one program, with one file for each behaviour.

// Clippy takes only functions marked `#[test]` for tests, and not the functions that they call.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod attempts;
mod balance;
mod batches;
mod broker_failures;
mod check;
mod command_line;
mod dead_letters;
mod decoding;
mod documents;
mod dropped;
mod flood;
mod fuzzed;
mod hostile;
mod house;
mod job_command;
mod keys;
mod ledger;
mod limited;
mod limits;
mod limits_command;
mod pace;
mod panics;
mod producers;
mod program;
mod reruns;
mod results;
mod rolling;
mod sandbox;
mod secrecy;
mod sending;
mod settings;
mod slots;
mod stage;
mod stopping;
mod support_works;
mod topology;
mod topology_command;
mod traces;
mod watching;

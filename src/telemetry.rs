//! What an operator sees: metrics, health, logs and traces. They stand beside the logic, never inside it.

pub mod balance;
pub mod http;
pub mod labels;
pub mod logs;
pub mod metrics;
pub mod settings;
pub mod traces;

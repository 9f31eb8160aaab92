//! What an operator sees: metrics, health, logs and traces. Beside the logic, never inside it.

pub mod http;
pub mod logs;
pub mod metrics;
pub mod traces;

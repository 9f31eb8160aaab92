//! What an operator sees: metrics, health and logs. Beside the logic, never inside it.

pub mod http;
pub mod logs;
pub mod metrics;

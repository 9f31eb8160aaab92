//! The words of the domain: what a producer publishes, what became of it, and what is published about it.
//!
//! Everything here is pure: no clock is read, nothing is sent, and nothing else of this program is imported.

pub mod body;
pub mod dead;
pub mod envelope;
pub mod phone;
pub mod progress;
pub mod request;
pub mod result;
pub mod schema;
pub mod state;

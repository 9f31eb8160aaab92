//! The provider: what it is asked, what its answers mean, and what its codes say.

pub mod balance;
pub mod body;
pub mod classify;
pub mod client;
pub mod codes;
pub mod keys;
mod reading;
mod secret_words;
pub mod settings;
mod trouble;
mod written;

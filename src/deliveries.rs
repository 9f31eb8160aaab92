//! Deliveries: what came from the broker, what is needed to answer it, and which jobs are in flight here.
//!
//! A [`receipt::Receipt`] stands for one delivery. A [`job::Job`] is what is worked; after a lost connection
//! it may have several deliveries, and [`in_flight::InFlight`] knows them all.

pub mod dropped;
pub mod in_flight;
pub mod job;
pub mod original;
pub mod receipt;

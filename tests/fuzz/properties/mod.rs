//! What must hold of any input from outside. Each module has one function, `holds`, that panics where
//! it does not: the fuzz targets call it with what they invent, `cargo test` with the corpus.

pub mod amqp_frames;
pub mod esms_answer;
pub mod job_body;
pub mod message_properties;
pub mod retry_after;

mod frame;
mod json;

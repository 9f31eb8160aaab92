//! What must hold for any input from outside. Each module has one function, `holds`, which panics when it
//! does not hold. The fuzz targets call it with inputs that they invent. `cargo test` calls it with the
//! corpus.

pub mod amqp_frames;
pub mod esms_answer;
pub mod job_body;
pub mod message_properties;
pub mod retry_after;

mod frame;
mod json;

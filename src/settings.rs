//! Settings: the table of all settings, and the reader that finds every mistake at once.
//!
//! Each room owns the type of its own settings and reads them with this reader.

pub mod reader;
pub mod secret;
pub mod table;

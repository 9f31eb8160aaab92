use super::*;

mod bodies;
mod hostile;
mod properties;

/// Reads a body where `ESMS_TEMPLATE_ID` is not set.
fn read(body: &str) -> Result<OtpRequest, BodyError> {
    decode(body.as_bytes(), None)
}

/// A job that is right but for the fields of `more`, JSON without its braces.
fn job_with(more: &str) -> String {
    format!(r#"{{"Phone":"0901888484","MultiChannelTempId":"1234",{more}}}"#)
}

/// The refusal of a body, as its producer reads it.
fn refusal(body: &str) -> String {
    read(body).unwrap_err().to_string()
}

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

#[test]
fn an_id_is_logged_as_it_is_unless_it_holds_the_number() {
    for id in ["5f0c2a4e-9d1b-4f6a-8a55-1f2e3d4c5b6a", "order-1234567", "", "a b"] {
        assert_eq!(logged_id(id, Some(&an_otp())), id);
        assert_eq!(logged_id(id, None), id);
    }
    for id in ["0901888484", "+84901888484", "otp-84901888484-1", "login:0901888484"] {
        let logged = logged_id(id, Some(&an_otp()));
        assert!(!logged.contains("901888484") && logged.contains("484"), "{id}: {logged}");
    }
    // A message that is no job: an id that is a number is masked all the same.
    assert_eq!(logged_id("0901888484", None), "*******484");
}

fn an_otp() -> OtpRequest {
    decode(br#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#, None).unwrap()
}

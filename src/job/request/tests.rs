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
    for (id, logged) in [
        ("0901888484", "*******484"),
        ("otp-0901888484-1", "otp-*******484-1"),
        ("user.84901888484", "user.********484"),
        ("login:0901888484:7", "login:*******484:7"),
        ("0901888484|0902888485|", "*******484|*******485|"),
        // Times, counts and random ids.
        ("login-1764154000123", "login-1764154000123"),
        ("order-4711-20261126", "order-4711-20261126"),
        ("batch-0901888484abcdef-1", "batch-0901888484abcdef-1"),
    ] {
        assert_eq!(logged_id(id, None), logged);
    }
}

fn an_otp() -> OtpRequest {
    decode(br#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#, None).unwrap()
}

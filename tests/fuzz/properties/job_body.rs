//! Job decoding: every accepted body is a job as the contract describes it, and no refusal repeats a value.
//!
//! The input is the body.

use super::json::{self, Object};
use esms_otp_worker::job::phone::Phone;
use esms_otp_worker::job::request::{BodyError, LARGEST_BODY, OtpRequest, decode};
use serde_json::json;

const FIELDS: [&str; 6] = ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive", "ApiKey", "SecretKey"];

/// Every text that a refusal can have, with `#` for each run of digits. None of them contains anything from
/// the body.
const REFUSALS: [&str; 15] = [
    "the body is larger than # bytes",
    "the body is not UTF-# text",
    "the body is not valid JSON (line #, column #)",
    "the body must be a JSON object",
    "the body names a field twice",
    "ApiKey must not be in a job: the worker has its own credentials, and this one should be revoked",
    "SecretKey must not be in a job: the worker has its own credentials, and this one should be revoked",
    "Phone is missing",
    "Phone must be a string of digits",
    "Phone must be digits, with one leading + and with spaces, dots, dashes or parentheses between digits at most",
    "Phone must have # to # digits",
    "MultiChannelTempId is missing",
    "MultiChannelTempId must be a non-empty string or a whole number",
    "TypeId must be \"#\" or \"#\"",
    "TimeAlive must be a positive whole number of minutes",
];

/// The most digits in a row: those of a line or column in the largest body. A phone number has at least
/// eight.
const DIGITS_IN_A_ROW: usize = 5;

pub fn holds(body: &[u8]) {
    for template in [None, Some("1234")] {
        match decode(body, template) {
            Ok(job) => {
                is_what_the_body_says(&job, body, template);
                hides_its_phone(&job);
                is_the_same_when_written_again(&job);
            }
            Err(error) => {
                repeats_no_value(&error);
                names_a_field_twice_only_where_one_is(&error, body);
            }
        }
    }
}

fn object(body: &[u8]) -> Option<Object> {
    let text = std::str::from_utf8(body).ok()?;
    // One byte order mark is skipped.
    Object::read(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn is_what_the_body_says(job: &OtpRequest, body: &[u8], template: Option<&str>) {
    let fields = object(body).expect("only an object is a job");
    assert!(fields.all("ApiKey").chain(fields.all("SecretKey")).next().is_none(), "credentials were accepted");
    assert!(FIELDS.iter().all(|name| fields.all(name).count() <= 1), "a field twice was accepted");
    let written = fields.first("Phone").and_then(json::string).expect("a phone is a string");
    let digits: String = written.chars().filter(char::is_ascii_digit).collect();
    assert!((8..=15).contains(&digits.len()), "{} digits", digits.len());
    assert_eq!(job.phone.digits(), digits);
    assert!(!job.template_id.trim().is_empty());
    match fields.first("MultiChannelTempId").filter(|value| *value != "null") {
        None => assert_eq!(Some(job.template_id.as_str()), template),
        // A number may be written with a fraction of nought.
        Some(value) => assert_eq!(job.template_id, json::string(value).unwrap_or_else(|| whole(value))),
    }
    assert_ne!(job.time_alive, Some(0));
}

fn whole(number: &str) -> String {
    number.split('.').next().unwrap_or_default().to_owned()
}

fn hides_its_phone(job: &OtpRequest) {
    let digits = job.phone.digits();
    let (hidden, shown) = digits.split_at(digits.len() - 3);
    let masked = format!("{}{shown}", "*".repeat(hidden.len()));
    assert_eq!(job.phone.to_string(), masked);
    assert_eq!(format!("{:?}", job.phone), format!("Phone({masked})"));
    assert!(format!("{job:?}").contains(&format!("phone: Phone({masked})")));
    assert_eq!(Phone::parse(digits).as_ref(), Ok(&job.phone));
}

fn is_the_same_when_written_again(job: &OtpRequest) {
    let mut body = json!({
        "Phone": job.phone.digits(),
        "MultiChannelTempId": job.template_id,
        "TypeId": job.kind.type_id(),
    });
    if let Some(minutes) = job.time_alive {
        body["TimeAlive"] = json!(minutes);
    }
    let named = OtpRequest { template_is_default: false, ..job.clone() };
    assert_eq!(decode(body.to_string().as_bytes(), None), Ok(named));
}

fn repeats_no_value(error: &BodyError) {
    let told = error.to_string();
    let mut template = String::new();
    for character in told.chars() {
        match character {
            '0'..='9' if template.ends_with('#') => {}
            '0'..='9' => template.push('#'),
            _ => template.push(character),
        }
    }
    assert!(REFUSALS.contains(&template.as_str()), "{told}");
    let longest = |text: &str| text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or_default();
    assert!(longest(&told).max(longest(&format!("{error:?}"))) <= DIGITS_IN_A_ROW, "{told}");
}

fn names_a_field_twice_only_where_one_is(error: &BodyError, body: &[u8]) {
    if let Some(fields) = object(body) {
        let twice = FIELDS.iter().any(|name| fields.all(name).count() > 1);
        let fits = body.len() <= LARGEST_BODY;
        assert_eq!(*error == BodyError::FieldTwice, twice && fits, "{error}");
    }
}

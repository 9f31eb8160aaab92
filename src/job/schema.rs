//! What a job and a result are, as JSON Schemas (draft 2020-12). Tests compare them with the decoder and the encoder.

use serde_json::{Value, json};

use super::request::LARGEST_BODY;
use super::result::Outcome;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A job that the documents show.
pub fn example_job() -> Value {
    json!({"Phone": "0901888484", "MultiChannelTempId": "1234", "TypeId": "2", "TimeAlive": "5"})
}

/// A result that the documents show.
pub fn example_result() -> Value {
    json!({
        "JobId": "5f0c2a4e-3f0e-4b57-9d0c-1a2b3c4d5e6f",
        "Outcome": "accepted",
        "CodeResult": "100",
        "SMSID": "d533459ee42b2b9525ba9eabf6a8156",
        "CountRegenerate": 0,
        "Attempts": 1,
        "MayBeDuplicate": false,
        "CompletedAt": "2026-11-23T01:23:45.678Z",
    })
}

/// The body of a job.
pub fn job() -> Value {
    json!({
        "$schema": DRAFT,
        "title": "Job",
        "description": format!(
            "The body of a message on the queue of jobs: UTF-8, at most {LARGEST_BODY} bytes. Fields that are not named here are ignored."
        ),
        "type": "object",
        "required": ["Phone"],
        "properties": {
            "Phone": {
                "type": "string",
                "description": "8 to 15 digits; one leading +, and spaces, dots, dashes and parentheses between digits, are dropped. A JSON number is refused: it has lost its leading zero.",
                "pattern": r"^\+?[0-9](?:[ .()-]*[0-9]){7,14}$",
            },
            "MultiChannelTempId": {
                "description": "eSMS's id of a pair of Zalo and SMS templates. Required unless the worker has ESMS_TEMPLATE_ID.",
                "anyOf": [{"type": "string", "pattern": r"\S"}, {"type": "integer", "minimum": 0}, {"type": "null"}],
            },
            "TypeId": {
                "description": "1 only generates a code, 2 (the default) sends it.",
                "enum": ["1", "2", 1, 2, null],
            },
            "TimeAlive": {
                "description": "The life of the code in minutes. Not passed on if absent.",
                "anyOf": [{"type": "string", "pattern": "^0*[1-9][0-9]*$"}, {"type": "integer", "minimum": 1}, {"type": "null"}],
            },
            "ApiKey": false,
            "SecretKey": false,
        },
        "examples": [example_job()],
    })
}

/// The body of a result.
pub fn result() -> Value {
    let outcomes = Outcome::ALL.map(Outcome::as_str);
    json!({
        "$schema": DRAFT,
        "title": "Result",
        "description": "How a job ended. Its message_id is the job's id with :result added (:result:2 for a second run, and so on); every copy of it has the same.",
        "type": "object",
        "required": ["JobId", "Outcome", "Attempts", "MayBeDuplicate", "CompletedAt"],
        "properties": {
            "JobId": {"type": "string", "description": "The message_id of the job, or one that the worker gave it."},
            "Outcome": {"enum": outcomes, "description": "Also in the routing key, otp.OUTCOME."},
            "CodeResult": {"type": "string", "description": "eSMS's own, of its last answer."},
            "SMSID": {"type": "string", "description": "eSMS's own."},
            "CountRegenerate": {"description": "eSMS's own, whatever JSON it was."},
            "ErrorMessage": {"type": "string", "description": "eSMS's own, with the number and the credentials masked."},
            "Reason": {"type": "string", "description": "Why, for people. No program should read it."},
            "Attempts": {"type": "integer", "minimum": 0, "description": "Calls of eSMS that were begun."},
            "MayBeDuplicate": {"type": "boolean", "description": "The person may have got one OTP more than Outcome says."},
            "RetryAfter": {"type": "integer", "minimum": 0, "description": "After so many seconds another try can succeed. Of limited only; absent where the number is not served."},
            "CompletedAt": {"type": "string", "format": "date-time", "description": "UTC, with milliseconds."},
        },
        "examples": [example_result()],
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::request::decode;
    use super::super::result::{Answer, Ending};
    use super::*;

    fn validator(schema: &Value) -> jsonschema::Validator {
        jsonschema::validator_for(schema).unwrap()
    }

    /// Values of a field, as JSON.
    const VALUES: &[(&str, &str)] = &[
        (
            "Phone",
            r#"["+84 (90) 188-84.84", "1234567", "12345678", "123456789012345", "1234567890123456", "++84901888484"]"#,
        ),
        ("Phone", r#"["84901888484 ", " 84901888484", "(84) 901888484", "09o1888484", 901888484, null, "", "+", []]"#),
        ("MultiChannelTempId", r#"["x", " ", "", 12, -1, 1.5, 5.0, true, null, []]"#),
        ("TypeId", r#"["1", "2", 1, 2, "3", 0, "02", 2.0, null, false]"#),
        ("TimeAlive", r#"["5", "05", "0", 0, 5, 5.0, 5.5, "5m", -5, null, {}]"#),
        ("ApiKey", r#"["x", null]"#),
        ("SecretKey", r#"["x", null]"#),
        ("another", r#"["x", null, {}]"#),
    ];

    /// The decoder and the schema take the same bodies.
    #[test]
    fn the_schema_of_a_job_takes_what_the_decoder_takes() {
        let schema = validator(&job());
        let mut bodies = vec![example_job(), json!({}), json!([]), json!("x"), json!({"Phone": "0901888484"})];
        for (field, values) in VALUES {
            let values: Vec<Value> = serde_json::from_str(values).unwrap();
            bodies.extend(values.into_iter().map(|value| {
                let mut body = example_job();
                body[*field] = value;
                body
            }));
        }
        for body in bodies {
            let decoded = decode(&serde_json::to_vec(&body).unwrap(), Some("1"));
            assert_eq!(schema.is_valid(&body), decoded.is_ok(), "{body}: {decoded:?}");
        }
    }

    #[test]
    fn the_schema_of_a_result_has_every_field_and_takes_every_ending() {
        let (schema, properties) = (validator(&result()), result()["properties"].clone());
        for outcome in Outcome::ALL {
            let bare = Ending::without_attempt(outcome, "why");
            let answer = Answer {
                code: "100".into(),
                sms_id: Some("id".into()),
                count_regenerate: Some(serde_json::from_str("\"0\"").unwrap()),
                error_message: Some("words".into()),
            };
            let full = Ending { answer: Some(answer), retry_after: Some(3), ..bare.clone() };
            for (ending, fields) in [(bare, 6), (full, 11)] {
                let event = ending.into_event("id", SystemTime::now());
                let body: Value = serde_json::from_slice(&event.body).unwrap();
                let errors: Vec<String> = schema.iter_errors(&body).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{body}: {errors:?}");
                let object = body.as_object().unwrap();
                assert!(object.keys().all(|name| properties.get(name).is_some()), "{body}");
                assert_eq!(object.len(), fields, "{body}");
            }
        }
        assert_eq!(properties.as_object().unwrap().len(), 11);
        for required in result()["required"].as_array().unwrap() {
            let mut body = example_result();
            body.as_object_mut().unwrap().remove(required.as_str().unwrap());
            assert!(!schema.is_valid(&body), "without {required}");
        }
    }

    #[test]
    fn the_examples_are_valid() {
        assert!(validator(&job()).is_valid(&example_job()));
        assert!(validator(&result()).is_valid(&example_result()));
    }
}

use super::*;
use crate::esms::settings::EsmsSettings;
use crate::job::request::decode;
use crate::settings::reader::Reader;
use crate::settings::table::Setting;

/// Attempts with these credentials; none is ever made.
fn attempts(key: &str, secret: &str) -> Attempts {
    let source = |setting: &Setting| match setting.env {
        "ESMS_API_KEY" => Some(key.to_owned()),
        "ESMS_SECRET_KEY" => Some(secret.to_owned()),
        "ESMS_URL" => Some("http://127.0.0.1:1/".to_owned()),
        _ => None,
    };
    let settings = EsmsSettings::from_reader(&mut Reader::new(&source));
    let metrics = Arc::new(Metrics::new().unwrap());
    let throttled = Arc::new(Throttled::new(Arc::clone(&metrics)));
    Attempts::new(Esms::new(&settings, 1).unwrap(), BTreeSet::new(), throttled, metrics)
}

fn masked_with(key: &str, secret: &str, mut answer: Answer) -> Answer {
    let job = br#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#;
    attempts(key, secret).mask(&mut answer, &decode(job, None).unwrap().phone);
    answer
}

fn masked(answer: Answer) -> Answer {
    masked_with("key-canary", "secret-canary", answer)
}

#[test]
fn no_field_of_an_answer_shows_the_number_or_the_credentials() {
    let said = "84901888484 key-canary secret-canary".to_owned();
    let answer = masked(Answer {
        code: said.clone(),
        sms_id: Some(said.clone()),
        count_regenerate: RawValue::from_string(format!("{{\"a\":[\"{said}\"]}}")).ok(),
        error_message: Some(said),
    });
    assert_eq!(answer.count_regenerate.as_ref().unwrap().get(), r#"{"a":["84******484 [removed] [removed]"]}"#);
    let all = format!("{answer:?}");
    assert!(!all.contains("901888484") && !all.contains("canary"), "{all}");
}

#[test]
fn a_count_that_is_the_number_says_nothing() {
    let count = RawValue::from_string("84901888484".into()).ok();
    assert!(masked(Answer { count_regenerate: count, ..Answer::default() }).count_regenerate.is_none());
}

#[test]
fn an_answer_without_number_or_credentials_stays_verbatim() {
    let answer = masked(Answer {
        code: "101".into(),
        sms_id: Some("d533459ee42b2b9525ba9eabf6a8156".into()),
        count_regenerate: RawValue::from_string("0".into()).ok(),
        error_message: Some("Authorize Failed".into()),
    });
    assert_eq!(answer.code, "101");
    assert_eq!(answer.sms_id.as_deref(), Some("d533459ee42b2b9525ba9eabf6a8156"));
    assert_eq!(answer.count_regenerate.unwrap().get(), "0");
    assert_eq!(answer.error_message.as_deref(), Some("Authorize Failed"));
}

#[test]
fn no_credential_is_so_short_that_it_changes_a_documented_code() {
    for known in codes::DOCUMENTED {
        for (key, secret) in [("1", "0"), ("100", "10"), (known.code, known.code), ("e", "[")] {
            let answer = masked_with(key, secret, Answer { code: known.code.into(), ..Answer::default() });
            assert_eq!(answer.code, known.code, "{key} {secret}");
        }
    }
}

#[test]
fn a_number_with_separators_is_masked() {
    for said in ["0901 888 484", "0901.888.484", "(+84) 901-888-484", "+84 (0) 901 - 888 - 484"] {
        let answer = masked(Answer { error_message: Some(format!("{said} is busy")), ..Answer::default() });
        let message = answer.error_message.unwrap();
        assert!(!message.contains("901") && !message.contains("888") && message.ends_with("484 is busy"), "{message}");
    }
}

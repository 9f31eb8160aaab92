use super::*;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

mod rows;

const NOW: fn() -> SystemTime = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);

/// What a reply means where only 160 is a code to retry.
fn reply(status: u16, retry_after: Option<&str>, body: &[u8]) -> Class {
    let retry_codes = BTreeSet::from(["160".to_owned()]);
    let body = Bytes::copy_from_slice(body);
    let retry_after = retry_after.map(str::to_owned);
    classify(Seen::Reply { status, retry_after, body, end: End::Whole }, &retry_codes, NOW())
}

fn ok(body: &str) -> Class {
    reply(200, None, body.as_bytes())
}

/// The answer in a 200, which must be final.
fn final_answer(body: &str) -> Answer {
    match ok(body) {
        Class::Answered(answer) => answer,
        other => panic!("{body}: {other:?}"),
    }
}

/// The wait that a 503 with this header asks for.
fn asked_for(header: &str) -> Option<Duration> {
    match reply(503, Some(header), b"") {
        Class::NotSent { not_before, .. } => not_before,
        other => panic!("{header}: {other:?}"),
    }
}

#[test]
fn every_code_is_kept_verbatim() {
    for code in ["100", "99", "101", "802", "0100", "-1", "abc", "65536", " 100", "10 0", "Mã lỗi"] {
        assert_eq!(final_answer(&format!(r#"{{"CodeResult":"{code}"}}"#)).code, code);
    }
}

#[test]
fn a_code_that_is_a_number_is_read_as_its_digits() {
    for digits in ["100", "0", "99", "99999999999999999999999999"] {
        assert_eq!(final_answer(&format!(r#"{{"CodeResult":{digits}}}"#)).code, digits);
    }
    assert!(matches!(ok(r#"{"CodeResult":160}"#), Class::AnsweredTryLater(answer) if answer.code == "160"));
}

#[test]
fn what_is_neither_string_nor_digits_is_no_code() {
    for value in [
        "null",
        "true",
        "100.0",
        "1e2",
        "-100",
        "{}",
        r#"{"a":"100"}"#,
        "[]",
        r#"["100"]"#,
        r#""""#,
        r#""  ""#,
        r#""\ud800""#,
    ] {
        assert!(matches!(ok(&format!(r#"{{"CodeResult":{value}}}"#)), Class::Unreadable { .. }), "{value}");
    }
}

#[test]
fn esmss_words_are_kept_verbatim() {
    let answer = final_answer(r#"{"CodeResult":"101","CountRegenerate":0,"ErrorMessage":"Authorize Failed"}"#);
    assert_eq!(answer.sms_id, None);
    assert_eq!(answer.count_regenerate.map(|json| json.get().to_owned()), Some("0".into()));
    assert_eq!(answer.error_message.as_deref(), Some("Authorize Failed"));
    let answer =
        final_answer(r#"{"SMSID":"ebe101db-87cd","CodeResult":"100","ErrorMessage":"Th\u00e0nh c\u00f4ng \"\n"}"#);
    assert_eq!(answer.sms_id.as_deref(), Some("ebe101db-87cd"));
    assert_eq!(answer.error_message.as_deref(), Some("Thành công \"\n"));
    assert!(answer.count_regenerate.is_none());
}

#[test]
fn a_slip_in_another_field_does_not_spoil_an_answer() {
    for (slip, said) in
        [("null", None), ("12", Some("12")), (r#"{"a":[1.0]}"#, Some(r#"{"a":[1.0]}"#)), ("true", Some("true"))]
    {
        let answer = final_answer(&format!(
            r#"{{"CodeResult":"100","SMSID":{slip},"ErrorMessage":{slip},"CountRegenerate":{slip},"New":{slip}}}"#
        ));
        assert_eq!(answer.sms_id.as_deref(), said);
        assert_eq!(answer.error_message.as_deref(), said);
        assert_eq!(answer.count_regenerate.as_deref().map(RawValue::get), said);
    }
}

#[test]
fn words_said_twice_do_not_spoil_an_answer() {
    for name in ["SMSID", "ErrorMessage", "CountRegenerate"] {
        let answer = final_answer(&format!(r#"{{"CodeResult":"100","{name}":"a","{name}":"b"}}"#));
        assert_eq!((answer.code.as_str(), answer.sms_id, answer.error_message), ("100", None, None));
    }
}

#[test]
fn a_byte_order_mark_and_spaces_around_an_answer_are_harmless() {
    for body in [
        "\u{feff}{\"CodeResult\":\"100\"}",
        " \r\n{\"CodeResult\":\"100\"}\r\n",
        "\u{feff}\n{ \"CodeResult\" : \"100\" }",
    ] {
        assert_eq!(final_answer(body).code, "100");
    }
}

#[test]
fn no_code_to_retry_is_final_and_every_other_is() {
    let codes: BTreeSet<String> = ["160", "199"].map(str::to_owned).into();
    let class = |code: &str| {
        let body = Bytes::from(format!(r#"{{"CodeResult":"{code}"}}"#));
        classify(Seen::Reply { status: 200, retry_after: None, body, end: End::Whole }, &codes, NOW())
    };
    for code in ["160", "199"] {
        assert!(matches!(class(code), Class::AnsweredTryLater(answer) if answer.code == code));
    }
    for code in ["100", "101", "16", "1600", "0160", " 160"] {
        assert!(matches!(class(code), Class::Answered(answer) if answer.code == code));
    }
}

#[test]
fn an_answer_nested_deeper_than_any_stack_is_read() {
    let deep = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
    let class = move || {
        assert_eq!(final_answer(&format!(r#"{{"CodeResult":"100","New":{deep}}}"#)).code, "100");
        assert!(matches!(ok(&format!(r#"{{"CodeResult":{deep}}}"#)), Class::Unreadable { .. }));
        assert!(matches!(ok(&deep), Class::Unreadable { .. }));
    };
    std::thread::Builder::new().stack_size(128 * 1024).spawn(class).unwrap().join().unwrap();
}

#[test]
fn retry_after_is_read_as_seconds() {
    for (header, seconds) in [("0", 0), ("1", 1), (" 120 ", 120), ("007", 7), ("4294967295", u32::MAX)] {
        assert_eq!(asked_for(header), Some(Duration::from_secs(seconds.into())), "{header}");
    }
}

#[test]
fn more_seconds_than_any_job_lives_are_capped() {
    let most = Some(Duration::from_secs(u32::MAX.into()));
    for header in ["4294967296", "18446744073709551615", "18446744073709551616", &"9".repeat(500)] {
        assert_eq!(asked_for(header), most, "{header}");
    }
}

#[test]
fn retry_after_is_read_as_a_date() {
    let date = |later: u64| httpdate::fmt_http_date(NOW() + Duration::from_secs(later));
    assert_eq!(asked_for(&date(90)), Some(Duration::from_secs(90)));
    assert_eq!(asked_for(&date(0)), Some(Duration::ZERO));
    assert_eq!(asked_for("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
    assert_eq!(asked_for("Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::ZERO));
    assert!(asked_for("Fri, 31 Dec 9999 23:59:59 GMT") > Some(Duration::from_secs(200_000_000_000)));
}

#[test]
fn any_other_retry_after_says_nothing() {
    for header in ["", " ", "-1", "+5", "1.5", "5s", "soon", "1e3", "٥", "2027-01-01T00:00:00Z", "Sun, 06 Nov", "1, 2"]
    {
        assert_eq!(asked_for(header), None, "{header}");
    }
}

/// Whether a second parser finds a `CodeResult` of a string or digits in an object at the beginning.
fn holds_a_code(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    // The object ends at one of its braces.
    let ends = text.match_indices('}').map(|(at, _)| at + 1);
    let mut objects = ends.filter_map(|end| serde_json::from_str::<Value>(&text[..end]).ok());
    match objects.next().as_ref().and_then(Value::as_object).and_then(|object| object.get("CodeResult")) {
        Some(Value::String(code)) => !code.trim().is_empty(),
        Some(Value::Number(code)) => code.is_u64(),
        _ => false,
    }
}

fn body() -> impl Strategy<Value = String> {
    let value = || {
        let words = [
            "\"100\"",
            "\"160\"",
            "\"\"",
            "100",
            "null",
            "1.5",
            "-1",
            "{}",
            "[\"100\"]",
            "\"a",
            "{\"CodeResult\":\"100\"}",
        ];
        prop_oneof![
            select(words.to_vec()).prop_map(str::to_owned),
            any::<String>().prop_map(|text| Value::from(text).to_string())
        ]
    };
    let fields = select(vec!["CodeResult", "CodeResponse", "codeResult", "SMSID", "ErrorMessage", "CountRegenerate"]);
    (vec((fields, value()), 0..5), select(vec!["{}", "[]", "{]", "{}}", "\u{feff}{}", " {} ", "<html>{}"])).prop_map(
        |(fields, around)| {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let (open, close) = around.split_at(around.find(['}', ']']).unwrap_or(around.len()));
            format!("{open}{}{close}", fields.join(","))
        },
    )
}

proptest! {
    #[test]
    fn nothing_but_an_object_with_a_code_is_an_answer(body in body(), cut in 0usize..200) {
        let cut_short = &body.as_bytes()[..cut.min(body.len())];
        for body in [body.as_bytes(), cut_short] {
            match reply(200, None, body) {
                Class::Answered(_) | Class::AnsweredTryLater(_) => prop_assert!(holds_a_code(body), "{body:?}"),
                Class::Unreadable { .. } => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn no_bytes_panic_or_become_an_answer(status in 100u16..600, bytes in vec(any::<u8>(), 0..200), header in any::<String>()) {
        let class = reply(status, Some(&header), &bytes);
        prop_assert!(class.answer().is_none() || holds_a_code(&bytes));
    }

    #[test]
    fn no_body_changes_what_any_other_status_means(status in 300u16..600, body in body()) {
        prop_assert_eq!(reply(status, None, body.as_bytes()).name(), reply(status, None, b"").name());
    }

    #[test]
    fn a_body_cut_short_is_never_an_answer(code in "[0-9]{1,4}", cut in 0usize..40) {
        let whole = format!(r#"{{"CodeResult":"{code}","SMSID":"d533459ee42b"}}"#);
        let class = reply(200, None, &whole.as_bytes()[..cut.min(whole.len() - 1)]);
        prop_assert_eq!(class.name(), ClassName::Ambiguous);
    }
}

//! Each row of the table of what an attempt can end in.

use super::*;

const ACCEPTED: &[u8] = br#"{"CodeResult":"100","SMSID":"d533459ee42b2b9525ba9eabf6a8156","CountRegenerate":0}"#;

/// The table, written a second time.
fn expected(status: u16) -> ClassName {
    match status {
        200 => ClassName::Answered,
        429 | 503 => ClassName::NotSent,
        300..=499 => ClassName::Refused,
        _ => ClassName::Ambiguous,
    }
}

#[test]
fn a_200_with_a_code_result_is_answered_for_good() {
    for body in [ACCEPTED, br#"{"CodeResult":"101","CountRegenerate":0,"ErrorMessage":"Authorize Failed"}"#] {
        let class = reply(200, None, body);
        assert!(matches!(class, Class::Answered(_)), "{class:?}");
        assert_eq!(class.name(), ClassName::Answered);
    }
}

#[test]
fn a_200_with_a_code_to_retry_is_answered_and_not_for_good() {
    let class = reply(200, Some("5"), br#"{"CodeResult":"160"}"#);
    assert!(matches!(class, Class::AnsweredTryLater(_)), "{class:?}");
    assert_eq!(class.name(), ClassName::Answered);
}

#[test]
fn a_failure_to_connect_is_not_sent() {
    let class = classify(Seen::NotConnected("dns error".into()), &BTreeSet::new(), NOW());
    assert!(matches!(&class, Class::NotSent { why, not_before: None } if why == "dns error"), "{class:?}");
}

#[test]
fn a_429_and_a_503_are_not_sent_and_wait_as_long_as_they_ask() {
    for status in [429, 503] {
        let class = reply(status, Some("7"), ACCEPTED);
        assert!(
            matches!(class, Class::NotSent { not_before: Some(wait), .. } if wait == Duration::from_secs(7)),
            "{class:?}"
        );
        assert!(matches!(reply(status, None, b""), Class::NotSent { not_before: None, .. }));
        assert!(matches!(reply(status, Some("soon"), b""), Class::NotSent { not_before: None, .. }));
    }
}

#[test]
fn a_timeout_or_a_reset_after_connecting_or_a_body_cut_short_is_ambiguous() {
    let class = classify(Seen::NoReply("timed out".into()), &BTreeSet::new(), NOW());
    assert!(matches!(&class, Class::Ambiguous { why } if why == "timed out"), "{class:?}");
}

#[test]
fn a_200_that_is_no_such_json_is_ambiguous() {
    for body in [
        "",
        " ",
        "null",
        "100",
        r#""100""#,
        "[]",
        r#"["100","id",0,null]"#,
        r#"[{"CodeResult":"100"}]"#,
        "{}",
        r#"{"CodeResult":"100""#,
        r#"{"CodeResult":"100"}}"#,
        r#"{"CodeResult":"100"}<!-- -->"#,
        r#"{"CodeResponse":"100"}"#,
        r#"{"coderesult":"100"}"#,
        r#"{"d":{"CodeResult":"100"}}"#,
        r#"{"CodeResult":"100","CodeResult":"101"}"#,
        "<html><body>Service</body></html>",
        "CodeResult=100",
    ] {
        assert!(matches!(ok(body), Class::Ambiguous { .. }), "{body}");
    }
    let utf16: Vec<u8> = r#"{"CodeResult":"100"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(matches!(reply(200, None, &utf16), Class::Ambiguous { .. }));
    assert!(matches!(reply(200, None, b"{\"CodeResult\":\"100\",\"a\":\"\xff\"}"), Class::Ambiguous { .. }));
}

#[test]
fn a_500_a_502_a_504_and_other_5xx_are_ambiguous() {
    for status in (500..=599).filter(|status| *status != 503) {
        let class = reply(status, Some("5"), ACCEPTED);
        assert!(matches!(&class, Class::Ambiguous { why } if *why == format!("HTTP {status}")), "{class:?}");
    }
}

#[test]
fn a_redirect_is_refused_and_says_why_it_is_not_followed() {
    for status in 300..=399 {
        let class = reply(status, None, ACCEPTED);
        assert!(
            matches!(&class, Class::Refused { why } if why.contains("not followed") && why.contains("ESMS_URL")),
            "{class:?}"
        );
    }
}

#[test]
fn any_other_4xx_is_refused() {
    for status in (400..=499).filter(|status| *status != 429) {
        let class = reply(status, Some("5"), ACCEPTED);
        assert!(matches!(&class, Class::Refused { why } if why.starts_with(&format!("HTTP {status}"))), "{class:?}");
    }
}

#[test]
fn every_status_is_classed_as_the_table_says() {
    for status in 100..=599 {
        assert_eq!(reply(status, None, ACCEPTED).name(), expected(status), "{status}");
        let without_an_answer = if status == 200 { ClassName::Ambiguous } else { expected(status) };
        assert_eq!(reply(status, None, b"<html>").name(), without_an_answer, "{status}");
    }
}

#[test]
fn only_an_answer_has_words_of_esms() {
    for status in 100..=599 {
        assert_eq!(reply(status, None, ACCEPTED).answer().is_some(), status == 200, "{status}");
    }
}

#[test]
fn the_classes_have_the_names_of_the_metrics() {
    assert_eq!(ClassName::ALL.map(ClassName::as_str), ["answered", "not_sent", "ambiguous", "refused"]);
    assert_eq!(ClassName::ALL.map(ClassName::index), [0, 1, 2, 3]);
}

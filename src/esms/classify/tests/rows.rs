//! Each row of the table of what an attempt can end in.

use super::*;

const ACCEPTED: &[u8] = br#"{"CodeResult":"100","SMSID":"d533459ee42b2b9525ba9eabf6a8156","CountRegenerate":0}"#;

/// The table, written a second time.
fn expected(status: u16) -> ClassName {
    match status {
        200..=299 => ClassName::Answered,
        408 | 425 | 429 | 503 => ClassName::NotSent,
        300..=499 => ClassName::Refused,
        _ => ClassName::Ambiguous,
    }
}

/// What a reply means whose body ended so.
fn ending(status: u16, body: &[u8], end: End) -> Class {
    let body = Bytes::copy_from_slice(body);
    classify(Seen::Reply { status, retry_after: None, body, end }, &BTreeSet::new(), NOW())
}

#[test]
fn any_2xx_with_a_code_result_is_answered_for_good() {
    for status in 200..=299 {
        for body in [ACCEPTED, br#"{"CodeResult":"101","CountRegenerate":0,"ErrorMessage":"Authorize Failed"}"#] {
            let class = reply(status, None, body);
            assert!(matches!(class, Class::Answered(_)), "{class:?}");
            assert_eq!(class.name(), ClassName::Answered);
        }
    }
}

#[test]
fn an_answer_is_an_answer_once_its_object_is_whole_however_the_body_ends() {
    let ends = || [End::Whole, End::TooLong, End::Cut("timed out".into())];
    for end in ends() {
        for rest in [&b""[..], b"\r\n", b"<!-- a proxy was here -->", b"}", b"\0\xff", b"{\"CodeResult\":\"101\"}"] {
            let class = ending(200, &[ACCEPTED, rest].concat(), end.clone());
            assert!(matches!(&class, Class::Answered(answer) if answer.code == "100"), "{class:?}");
        }
    }
    for end in ends() {
        for cut in 0..ACCEPTED.len() {
            assert_eq!(ending(203, &ACCEPTED[..cut], end.clone()).name(), ClassName::Ambiguous, "{cut} {end:?}");
        }
    }
}

#[test]
fn a_body_cut_short_says_why_and_is_no_page_unless_it_began_as_one() {
    let cut = |body: &[u8]| ending(200, body, End::Cut("unexpected end".into()));
    for body in [&ACCEPTED[..20], b"", b"\x1f\x8b\x08"] {
        let class = cut(body);
        let expected = "HTTP 200, and the body was cut short: unexpected end";
        assert!(matches!(&class, Class::Ambiguous { why } if why == expected), "{class:?}");
    }
    for body in [&b"<html><p>down"[..], b"<SendResult>", b"maintenance"] {
        assert!(matches!(cut(body), Class::Unreadable { .. }));
    }
}

#[test]
fn a_200_with_a_code_to_retry_is_answered_and_not_for_good() {
    let class = reply(200, Some("5"), br#"{"CodeResult":"160"}"#);
    assert!(matches!(class, Class::AnsweredTryLater(_)), "{class:?}");
    assert_eq!(class.name(), ClassName::Answered);
}

#[test]
fn a_request_of_which_no_byte_was_written_is_not_sent() {
    let class = classify(Seen::NotWritten("dns error".into()), &BTreeSet::new(), NOW());
    assert!(matches!(&class, Class::NotSent { why, not_before: None } if why == "dns error"), "{class:?}");
}

#[test]
fn a_408_a_425_a_429_and_a_503_are_not_sent_and_wait_as_long_as_they_ask() {
    for status in [408, 425, 429, 503] {
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
fn a_proxy_that_lost_the_request_on_the_way_is_ambiguous() {
    for text in [
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote reset",
        "UPSTREAM CONNECT ERROR OR DISCONNECT/RESET BEFORE HEADERS",
        "<html><head><title>503 Backend fetch failed</title></head><body><h1>Error 503 Backend fetch failed</h1>\
         <h3>Guru Meditation:</h3></body></html>",
        "<h1>Error 503 backend read error</h1><p>Varnish cache server</p>",
        "<h1>Error 503 backend write error</h1>",
        "<h1>Error 503 first byte timeout</h1>",
        "<h1>Error 503 between bytes timeout</h1>",
        "<H1>Service Unavailable - Zero size object</H1>",
    ] {
        for status in [408, 425, 429, 503] {
            let class = reply(status, Some("1"), text.as_bytes());
            assert!(
                matches!(&class, Class::Ambiguous { why } if why.contains("lost the request")),
                "{text}: {class:?}"
            );
        }
    }
}

#[test]
fn a_proxy_that_did_not_pass_the_request_on_is_not_sent() {
    for text in [
        "",
        "no healthy upstream",
        "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>",
        "<html><head><title>503 Service Temporarily Unavailable</title></head><body><hr><center>nginx</center></body>",
        "<h1>Error 503 Backend is unhealthy</h1>",
        "{\"message\":\"failure to get a peer from the ring-balancer\"}",
        "local_rate_limited",
        "The service is unavailable.",
        "Service Unavailable - DNS failure",
    ] {
        assert_eq!(reply(503, None, text.as_bytes()).name(), ClassName::NotSent, "{text}");
    }
}

#[test]
fn a_timeout_or_a_reset_after_connecting_or_a_body_cut_short_is_ambiguous() {
    let class = classify(Seen::NoReply("timed out".into()), &BTreeSet::new(), NOW());
    assert!(matches!(&class, Class::Ambiguous { why } if why == "timed out"), "{class:?}");
}

#[test]
fn a_2xx_that_is_no_such_json_is_ambiguous_and_unreadable() {
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
        r#"{"CodeResponse":"100"}"#,
        r#"{"coderesult":"100"}"#,
        r#"{"d":{"CodeResult":"100"}}"#,
        r#"{"CodeResult":"100","CodeResult":"101"}"#,
        "<html><body>Service</body></html>",
        "CodeResult=100",
    ] {
        for status in [200, 202, 203] {
            let class = reply(status, None, body.as_bytes());
            assert!(matches!(class, Class::Unreadable { .. }), "{body}");
            assert_eq!(class.name(), ClassName::Ambiguous);
        }
    }
}

#[test]
fn what_cannot_be_read_says_what_it_looks_like() {
    for (body, words) in [
        ("", "HTTP 200 without a CodeResult in it: an empty body"),
        ("<html>down</html>", "HTTP 200 without a CodeResult in it: an HTML page"),
        ("<SendResult/>", "HTTP 200 without a CodeResult in it: XML"),
        ("{}", "HTTP 200 without a CodeResult in it: JSON of another form"),
    ] {
        let class = ok(body);
        assert!(matches!(&class, Class::Unreadable { why, .. } if why == words), "{class:?}");
    }
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
    for status in (400..=499).filter(|status| ![408, 425, 429].contains(status)) {
        let class = reply(status, Some("5"), ACCEPTED);
        assert!(matches!(&class, Class::Refused { why } if why.starts_with(&format!("HTTP {status}"))), "{class:?}");
    }
}

#[test]
fn every_status_is_classed_as_the_table_says() {
    for status in 100..=599 {
        assert_eq!(reply(status, None, ACCEPTED).name(), expected(status), "{status}");
        let without_an_answer = if status / 100 == 2 { ClassName::Ambiguous } else { expected(status) };
        assert_eq!(reply(status, None, b"<html>").name(), without_an_answer, "{status}");
    }
}

#[test]
fn only_an_answer_has_words_of_esms() {
    for status in 100..=599 {
        assert_eq!(reply(status, None, ACCEPTED).answer().is_some(), status / 100 == 2, "{status}");
    }
}

#[test]
fn the_classes_have_the_names_of_the_metrics() {
    assert_eq!(ClassName::ALL.map(ClassName::as_str), ["answered", "not_sent", "ambiguous", "refused"]);
    assert_eq!(ClassName::ALL.map(ClassName::index), [0, 1, 2, 3]);
}

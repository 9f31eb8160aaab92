use super::*;
use std::time::Duration;

/// 2026-11-23T01:23:45.678Z, the moment in the contract's example.
fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_397_025_678)
}

fn json(ending: Ending) -> String {
    String::from_utf8(ending.into_event("5f0c", moment()).body.to_vec()).unwrap()
}

fn ending(outcome: Outcome, answer: Option<Answer>, reason: Option<&str>) -> Ending {
    Ending {
        outcome,
        answer,
        reason: reason.map(str::to_owned),
        attempts: 1,
        may_be_duplicate: false,
        retry_after: None,
        run: 1,
    }
}

fn answer(code: &str, sms_id: Option<&str>, count: Option<&str>, message: Option<&str>) -> Option<Answer> {
    Some(Answer {
        code: code.into(),
        sms_id: sms_id.map(str::to_owned),
        count_regenerate: count.map(|json| RawValue::from_string(json.into()).unwrap()),
        error_message: message.map(str::to_owned),
    })
}

#[test]
fn an_accepted_job_has_the_result_of_the_contracts_example() {
    let answer = answer("100", Some("d533459ee42b2b9525ba9eabf6a8156"), Some("0"), None);
    assert_eq!(
        json(ending(Outcome::Accepted, answer, None)),
        concat!(
            r#"{"JobId":"5f0c","Outcome":"accepted","CodeResult":"100","SMSID":"d533459ee42b2b9525ba9eabf6a8156","#,
            r#""CountRegenerate":0,"Attempts":1,"MayBeDuplicate":false,"CompletedAt":"2026-11-23T01:23:45.678Z"}"#
        )
    );
}

#[test]
fn a_rejected_job_repeats_esmss_words_and_has_a_reason() {
    let answer = answer("101", None, Some("0"), Some("Authorize Failed"));
    assert_eq!(
        json(Ending { attempts: 2, may_be_duplicate: true, ..ending(Outcome::Rejected, answer, Some("why")) }),
        concat!(
            r#"{"JobId":"5f0c","Outcome":"rejected","CodeResult":"101","CountRegenerate":0,"#,
            r#""ErrorMessage":"Authorize Failed","Reason":"why","Attempts":2,"MayBeDuplicate":true,"#,
            r#""CompletedAt":"2026-11-23T01:23:45.678Z"}"#
        )
    );
}

#[test]
fn a_job_esms_said_nothing_of_has_none_of_its_fields() {
    for (outcome, word) in [
        (Outcome::Failed, "failed"),
        (Outcome::Unknown, "unknown"),
        (Outcome::Expired, "expired"),
        (Outcome::Invalid, "invalid"),
    ] {
        let rest = r#""Reason":"why","Attempts":0,"MayBeDuplicate":false,"CompletedAt":"2026-11-23T01:23:45.678Z"}"#;
        let expected = format!(r#"{{"JobId":"5f0c","Outcome":"{word}",{rest}"#);
        assert_eq!(json(Ending::without_attempt(outcome, "why")), expected);
    }
}

#[test]
fn a_job_that_a_limit_held_back_says_when_another_try_can_succeed() {
    let ending = Ending { retry_after: Some(47), ..Ending::without_attempt(Outcome::Limited, "why") };
    let rest = r#""Attempts":0,"MayBeDuplicate":false,"RetryAfter":47,"CompletedAt":"2026-11-23T01:23:45.678Z"}"#;
    assert_eq!(json(ending), format!(r#"{{"JobId":"5f0c","Outcome":"limited","Reason":"why",{rest}"#));
}

#[test]
fn a_failed_job_repeats_what_esms_said_last() {
    let answer = answer("160", None, None, Some("too fast"));
    let json = json(ending(Outcome::Failed, answer, Some("retries ran out")));
    assert!(
        json.contains(r#""Outcome":"failed","CodeResult":"160","ErrorMessage":"too fast","Reason":"retries ran out","#)
    );
}

#[test]
fn esmss_words_stay_verbatim_and_the_result_stays_json() {
    let message = "Th\u{e0}nh c\u{f4}ng \"quoted\" \\ \n\t\u{0} \u{1f600}";
    let answer = answer("0100", Some("a\"b"), Some(r#"{"a": [1.50, null]}"#), Some(message));
    let body = ending(Outcome::Rejected, answer, Some("line\nbreak")).into_event("id \"1\"", moment()).body;
    let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&read["JobId"], &read["CodeResult"], &read["SMSID"]),
        (&"id \"1\"".into(), &"0100".into(), &"a\"b".into())
    );
    assert_eq!((&read["ErrorMessage"], &read["Reason"]), (&message.into(), &"line\nbreak".into()));
    assert!(String::from_utf8_lossy(&body).contains(r#""CountRegenerate":{"a": [1.50, null]},"#));
}

#[test]
fn the_time_of_completion_is_utc_with_milliseconds() {
    let at = |milliseconds: u64| {
        let when = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        let body = Ending::without_attempt(Outcome::Expired, "why").into_event("a", when).body;
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        read["CompletedAt"].as_str().unwrap().to_owned()
    };
    assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(1_795_397_025_000), "2026-11-23T01:23:45.000Z");
    assert_eq!(at(1_795_397_025_007), "2026-11-23T01:23:45.007Z");
}

#[test]
fn the_outcome_is_in_the_routing_key() {
    let keys = Outcome::ALL.map(|outcome| Ending::without_attempt(outcome, "").into_event("a", moment()).routing_key());
    let expected =
        ["otp.accepted", "otp.rejected", "otp.failed", "otp.unknown", "otp.expired", "otp.invalid", "otp.limited"];
    assert_eq!(keys, expected);
    assert_eq!(Outcome::ALL.map(Outcome::index), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_event_carries_what_metrics_count() {
    let event =
        Ending { may_be_duplicate: true, ..ending(Outcome::Unknown, None, Some("why")) }.into_event("a", moment());
    assert_eq!((event.outcome, event.may_be_duplicate), (Outcome::Unknown, true));
}

#[test]
fn the_properties_are_those_of_the_contract() {
    let properties = properties("5f0c:result", &"c-1".into(), &Trace::default(), moment());
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
    assert_eq!(text(properties.message_id()), "5f0c:result");
    assert_eq!(text(properties.correlation_id()), "c-1");
    assert_eq!(text(properties.kind()), "otp.result.v1");
    assert_eq!(text(properties.app_id()), "esms-otp-worker");
    assert_eq!(text(properties.content_type()), "application/json");
    assert_eq!((properties.delivery_mode(), properties.timestamp()), (&Some(2), &Some(1_795_397_025)));
    // A result does not expire, and asks for no answer.
    assert_eq!((properties.expiration(), properties.reply_to(), properties.user_id()), (&None, &None, &None));
}

#[test]
fn the_longest_id_fits_a_message_id() {
    let id = "a".repeat(crate::job::envelope::LONGEST_ID);
    for (run, ending) in [(1, ":result"), (2, ":result:2"), (u32::MAX, ":result:4294967295")] {
        let event = Ending { run, ..Ending::without_attempt(Outcome::Failed, "") }.into_event(&id, moment());
        let properties = properties(&event.message_id(&id), &"c".into(), &Trace::default(), moment());
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), format!("{id}{ending}"));
    }
}

#[test]
fn trace_headers_are_there_only_as_far_as_the_job_had_them() {
    let headers = |parent: Option<&str>, state: Option<&str>| {
        let trace = Trace { parent: parent.map(str::to_owned), state: state.map(str::to_owned) };
        properties("a", &"a".into(), &trace, moment()).headers().clone().map(|headers| {
            let of = |(name, value): (&ShortString, &AMQPValue)| match value {
                AMQPValue::LongString(text) => format!("{name}={text}"),
                other => panic!("{other:?}"),
            };
            headers.inner().iter().map(of).collect::<Vec<String>>()
        })
    };
    assert_eq!(headers(None, None), None);
    assert_eq!(headers(Some("00-1"), None).unwrap(), ["traceparent=00-1"]);
    assert_eq!(headers(None, Some("a=1")).unwrap(), ["tracestate=a=1"]);
    assert_eq!(headers(Some("00-1"), Some("a=1")).unwrap(), ["traceparent=00-1", "tracestate=a=1"]);
}

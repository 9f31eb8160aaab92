use super::*;
use crate::job::result::{Answer, Ending};
use bytes::Bytes;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_060)
}

fn told(id: &str, stage: Stage) -> Vec<String> {
    in_words(id, &Record::for_test(stage, 0), now())
}

fn ending(outcome: Outcome) -> Ending {
    Ending::without_attempt(outcome, "why")
}

fn ended_so(ending: Ending) -> Stage {
    Stage::Ended(ending.into_event("a", SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)))
}

fn held(state: State, lease: Option<u64>) -> Stage {
    Stage::Held(Held {
        state,
        owner: "worker-1:17".into(),
        lease: lease.map(Duration::from_secs),
        began: Some(Duration::from_millis(1_500)),
        progress: Progress {
            attempts: 2,
            ambiguous_attempts: 1,
            trouble: Some("a timeout".into()),
            ..Progress::default()
        },
    })
}

#[test]
fn an_accepted_job_is_told_with_what_esms_said() {
    let answer = Answer { code: "100".into(), sms_id: Some("d5".into()), ..Answer::default() };
    let ending = Ending { answer: Some(answer), attempts: 2, may_be_duplicate: true, ..ending(Outcome::Accepted) };
    assert_eq!(
        told("5f0c", ended_so(Ending { reason: None, ..ending })),
        [
            "job        5f0c",
            "state      ended: accepted (eSMS took it)",
            "attempts   2",
            "answer     CodeResult 100, SMSID d5",
            "duplicate  perhaps: an earlier attempt may have sent an OTP, too (MayBeDuplicate)",
            "ended      2023-11-14T22:13:20.000Z, 1m ago",
            "next       nothing. If its producer publishes it again, this result is given again, and nothing is sent",
            "kept       for 1h more; then the ledger forgets it",
        ]
    );
}

#[test]
fn what_happens_to_a_repeat_follows_from_the_outcome() {
    for (outcome, next) in [
        (Outcome::Accepted, "this result is given again"),
        (Outcome::Rejected, "this result is given again"),
        (Outcome::Invalid, "this result is given again"),
        (Outcome::Unknown, "dead-letters requeue --new-id"),
        (Outcome::Failed, "it is tried anew"),
        (Outcome::Expired, "it is tried anew"),
        (Outcome::Limited, "it is tried anew"),
    ] {
        let lines = told("a", ended_so(ending(outcome)));
        assert!(lines.iter().any(|line| line.starts_with("next") && line.contains(next)), "{outcome:?}: {lines:#?}");
        assert!(lines.contains(&"reason     why".to_owned()));
    }
}

#[test]
fn a_job_that_has_not_ended_is_told_with_its_worker_and_lease() {
    assert_eq!(
        told("a", held(State::Sending, Some(9))),
        [
            "job        a",
            "state      sending: an attempt is under way",
            "worker     worker-1 has it; its log says \"worker\":\"worker-1\" at its start",
            "lease      for 9s more, unless the worker renews it",
            "attempts   2, 1 of which may have sent an OTP without a usable answer; the last began 2s ago",
            "trouble    a timeout",
            "next       its worker ends it, and publishes the result. Whoever has published it again by then gets the same; if that worker has died, another takes it over when the lease is over",
            "kept       for 1h more; then the ledger forgets it",
        ]
    );
    for (state, lease, said) in [
        (State::Sending, None, "OTP_ON_AMBIGUOUS decides"),
        (State::Claimed, None, "the next worker goes on with it"),
        (State::Waiting, Some(5), "the next is waited for"),
        (State::Released, None, "the worker has given the job back"),
        (State::Claimed, Some(5), "no attempt is under way"),
    ] {
        let lines = told("a", held(state, lease)).join("\n");
        assert!(lines.contains(said), "{state:?} {lease:?}: {lines}");
    }
}

#[test]
fn times_are_told_without_days_and_with_few_decimals() {
    for (millis, said, json) in [
        (0, "0s", 0.0),
        (1, "1s", 0.001),
        (59_000, "59s", 59.0),
        (3_600_000, "1h", 3_600.0),
        (86_399_001, "24h", 86_399.001),
        (90_061_000, "25h 1m 1s", 90_061.0),
    ] {
        let time = Duration::from_millis(millis) + Duration::from_micros(if millis == 1 { 400 } else { 0 });
        assert_eq!((seconds(time).as_str(), decimals(time)), (said, json));
    }
}

#[test]
fn words_of_others_obey_nothing_and_a_number_is_masked() {
    let lines = told("0901888484", ended_so(ending(Outcome::Failed)));
    assert_eq!(lines[0], "job        *******484");
    assert_eq!(shown("a\u{1b}[2J\u{202e}"), "a\\u{1b}[2J\\u{202e}");
    let body = r#"{"Outcome":"rejected","Attempts":1,"MayBeDuplicate":false,"ErrorMessage":"\u001b[2J","CompletedAt":"\u009b"}"#;
    let event = ResultEvent::read(Bytes::from_static(body.as_bytes()), 1).unwrap();
    let lines = told("a", Stage::Ended(event)).join("\n");
    assert!(
        lines.contains("ErrorMessage \\u{1b}[2J") && !lines.contains(|c: char| c.is_control() && c != '\n'),
        "{lines:?}"
    );
}

#[test]
fn the_story_as_json_has_what_is_known() {
    let story = as_json("0901888484", &Record::for_test(ended_so(ending(Outcome::Failed)), 2));
    assert_eq!((&story["JobId"], &story["State"], &story["Run"]), (&json!("*******484"), &json!("done"), &json!(3)));
    assert_eq!((&story["Result"]["Outcome"], &story["Result"]["JobId"]), (&json!("failed"), &Value::Null));
    let story = as_json("a", &Record::for_test(held(State::Waiting, Some(9)), 0));
    assert_eq!(
        (&story["State"], &story["Worker"], &story["LeaseSeconds"]),
        (&json!("waiting"), &json!("worker-1"), &json!(9.0))
    );
    assert_eq!((&story["Attempts"], &story["AmbiguousAttempts"]), (&json!(2), &json!(1)));
    let lines = in_words("a", &Record::for_test(held(State::Waiting, None), 1), now()).join("\n");
    assert!(lines.contains("run        2: tried anew once"), "{lines}");
}

//! `requeue`: which letters become jobs, what those jobs are, and what is said.

use std::time::Duration;

use esms_otp_worker::sandbox::Fault;
use lapin::options::QueueDeleteOptions;

use super::{
    GIVEN_UP, REFUSED, aged, assert_said, dead_letters, emptied, jobs_waiting, kept, letter, letters_left, phone,
    stage, text, until_letters,
};
use crate::broker_failures::permissions::{Permissions, with_user};
use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{DIRECT_REPLY_TO, Job, Received, Results};
use crate::support::wait::until;

#[tokio::test]
async fn a_letter_becomes_the_job_that_its_producer_published() {
    let (stage, _redis) = stage().await;
    let full = aged(letter(1, "a-job", REFUSED), 5)
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .correlation_id("login-7")
        .reply_to("replies")
        .with(|properties| properties.with_app_id("shop".into()).with_user_id("guest".into()));
    let unnamed =
        || Job::new(serde_json::json!({"Phone": PHONE, "MultiChannelTempId": "1"})).header("x-error", REFUSED);
    let direct = format!("{DIRECT_REPLY_TO}.g1h2AA5yZXBseQ.token");
    kept(&stage, [full, unnamed().reply_to(&direct), unnamed().reply_to(&direct), unnamed().correlation_id("other")])
        .await;
    let ended = dead_letters(&stage, &["requeue", "--all"]).await;
    assert_said(&ended, 0, &["4 letters of 4 chosen", "requeued 4", "4 to be sent: the ledger knows nothing of them"]);
    until_letters(&stage, 0).await;

    let client = stage.client().await;
    let jobs = emptied(&client, &stage.names.jobs).await;
    let ids: Vec<&str> = jobs.iter().map(|job| text(job.properties.message_id())).collect();
    let first = jobs.iter().find(|job| text(job.properties.message_id()) == "a-job").expect("a-job");
    assert_eq!((text(first.properties.correlation_id()), text(first.properties.reply_to())), ("login-7", "replies"));
    assert_eq!((text(first.properties.app_id()), first.properties.delivery_mode()), ("shop", &Some(2)));
    assert!(first.properties.timestamp().is_some());
    let headers = first.properties.headers().clone().expect("headers");
    // RabbitMQ 3 counts deliveries from 0.
    let names = headers.inner().keys().map(|name| name.as_str()).filter(|name| *name != "x-delivery-count");
    assert_eq!(names.collect::<Vec<_>>(), ["traceparent"]);
    // Two letters that are alike are one job.
    let mut derived: Vec<&&str> = ids.iter().filter(|id| id.starts_with("letter-")).collect();
    assert_eq!(derived.len(), 3, "{ids:?}");
    derived.sort_unstable();
    derived.dedup();
    assert_eq!(derived.len(), 2, "{ids:?}");
    let unnamed = jobs.iter().filter(|job| text(job.properties.message_id()) != "a-job");
    assert!(unnamed.into_iter().all(|job| job.properties.reply_to().is_none()), "the asker has gone");
}

#[tokio::test]
async fn only_what_is_chosen_goes() {
    let (stage, _redis) = stage().await;
    let few = [
        letter(1, "a", REFUSED),
        aged(letter(2, "b", REFUSED), 60),
        letter(3, "c", "Phone is missing"),
        letter(4, "d", REFUSED),
    ];
    kept(&stage, few).await;
    assert_said(&dead_letters(&stage, &["requeue", "--id", "a", "--id", "x"]).await, 1, &["requeued 1", "the id x"]);
    assert_said(&dead_letters(&stage, &["requeue", "--reason", "Phone"]).await, 0, &["1 letter of 3 chosen"]);
    assert_said(&dead_letters(&stage, &["requeue", "--older-than", "30s"]).await, 0, &["1 letter of 2 chosen"]);
    assert_said(&dead_letters(&stage, &["requeue", "--newer-than", "30s"]).await, 0, &["0 letters of 1 chosen"]);
    until_letters(&stage, 1).await;
    let client = stage.client().await;
    let ids: Vec<String> = emptied(&client, &stage.names.jobs)
        .await
        .iter()
        .map(|job| text(job.properties.message_id()).to_owned())
        .collect();
    assert_eq!(ids, ["a", "c", "b"]);
}

/// A stage whose ledger knows jobs in every way, and the letters of these jobs.
async fn known() -> (Stage, crate::support::redis::Redis) {
    let (mut stage, redis) = stage().await;
    stage.set("OTP_RESEND_LIMIT", "0").set("OTP_RETRY_MAX_ELAPSED", "0s");
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for (n, id, fault, outcome) in [
        (1, "accepted", None, "accepted"),
        (2, "unknown", Some(Fault::Status { code: 500, retry_after: None }), "unknown"),
        (3, "failed", Some(Fault::Status { code: 404, retry_after: None }), "failed"),
        (4, "other", None, "accepted"),
    ] {
        stage.sandbox.script(Some(&phone(n)), fault.into_iter().collect());
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), id)).await;
        assert_eq!(ending(&results.next(LIMIT).await).0, outcome, "{id}");
    }
    running.until_settled(&stage.names).await;
    assert_eq!(running.stop().await, Some(0));
    kept(
        &stage,
        [
            letter(1, "accepted", REFUSED),
            letter(2, "unknown", GIVEN_UP),
            letter(3, "failed", REFUSED),
            // Its id is that of another job.
            letter(5, "other", REFUSED),
            letter(6, "new", REFUSED),
            aged(letter(7, "late", REFUSED), 3_600),
            // The ledger has forgotten it.
            letter(8, "forgotten", GIVEN_UP),
            Job::bytes("no JSON").id("broken").header("x-error", "the body is not valid JSON"),
        ],
    )
    .await;
    (stage, redis)
}

#[tokio::test]
async fn a_dry_run_says_what_would_become_of_each_letter_and_changes_nothing() {
    let (stage, redis) = known().await;
    let before = redis.cli(&["DBSIZE"]).await;
    let ended = dead_letters(&stage, &["requeue", "--all", "--dry-run"]).await;
    assert_said(
        &ended,
        0,
        &[
            "8 letters of 8 chosen",
            "would be requeued: 4",
            "1 to be sent: the ledger",
            "1 to be tried anew: they ended failed",
            "1 expired: their deadline",
            "1 answered by the ledger: they ended accepted",
            "would stay: 4",
            "1 it ended unknown: --new-id sends it again",
            "1 its message_id is that of another job",
            "1 an OTP may have gone out for it, and the ledger knows nothing of it (any more): --new-id",
            "1 the body is not valid JSON (line 1, column 2)",
            "--fresh gives each a new lifetime",
        ],
    );
    let ended = dead_letters(&stage, &["requeue", "--all", "--dry-run", "--fresh", "--new-id"]).await;
    assert_said(
        &ended,
        0,
        &[
            "would be requeued: 6",
            "2 to be sent: the ledger",
            "1 to be sent, perhaps again",
            "1 to be sent again, each under a new id: they ended unknown",
            "for 2 jobs: these persons may get a second one",
            "would stay: 2",
        ],
    );
    assert_eq!((letters_left(&stage).await, jobs_waiting(&stage).await), (8, 0));
    assert_eq!(redis.cli(&["DBSIZE"]).await, before);
    assert_eq!(redis.cli(&["EXISTS", "nothing"]).await, "0");
}

/// The next result of this job.
async fn result_of(results: &mut Results, id: &str) -> Received {
    loop {
        let result = results.next(LIMIT).await;
        if field(&result, "JobId") == id {
            return result;
        }
    }
}

#[tokio::test]
async fn what_may_have_been_sent_is_answered_or_stays_unless_a_second_otp_is_asked_for() {
    let (stage, _redis) = known().await;
    assert_said(&dead_letters(&stage, &["requeue", "--all"]).await, 1, &["requeued 4", "stayed 4"]);
    let (running, (_client, mut results)) = (stage.worker().await, stage.audience().await);
    until("every job is worked", LIMIT, async || jobs_waiting(&stage).await == 0).await;
    running.until_settled(&stage.names).await;
    for (n, otps) in [(1, 1), (2, 0), (3, 1), (5, 0), (6, 1), (7, 0), (8, 0)] {
        assert_eq!(stage.sandbox.accepted(&phone(n)), otps, "{n}");
    }
    for _ in 0..2 {
        let ended = dead_letters(&stage, &["requeue", "--id", "unknown", "--new-id"]).await;
        assert_said(&ended, 0, &["unknown is sent again as unknown:again", "these persons may get a second one"]);
        // As if it had been killed before it acknowledged the letter.
        kept(&stage, [letter(2, "unknown", GIVEN_UP)]).await;
        let again = result_of(&mut results, "unknown:again").await;
        assert_eq!(ending(&again), ("accepted".into(), 1, false));
        assert_eq!(text(again.properties.correlation_id()), "unknown");
        assert_eq!(stage.sandbox.accepted(&phone(2)), 1);
    }
    let ended = dead_letters(&stage, &["requeue", "--id", "forgotten", "--new-id"]).await;
    assert_said(&ended, 0, &["1 to be sent, perhaps again", "for 1 job: these persons may get a second one"]);
    assert_eq!(ending(&result_of(&mut results, "forgotten").await).0, "accepted");
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_late_job_ends_expired_and_a_fresh_one_is_sent() {
    let (stage, _redis) = stage().await;
    let running = stage.worker().await;
    let (_client, mut results) = stage.audience().await;
    let late = |n: usize| {
        let millis = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("now").as_millis() as i64 - 3_600_000;
        let letter = aged(letter(n, &n.to_string(), REFUSED), 3_600);
        letter.with(|properties| {
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert("timestamp_in_ms".into(), lapin::types::AMQPValue::LongLongInt(millis));
            properties.with_headers(headers)
        })
    };
    kept(&stage, [late(1)]).await;
    let ended = dead_letters(&stage, &["requeue", "--all"]).await;
    assert_said(&ended, 0, &["1 expired: their deadline has passed", "--fresh"]);
    assert_eq!(ending(&results.next(LIMIT).await), ("expired".into(), 0, false));
    kept(&stage, [late(1), late(2)]).await;
    let ended = dead_letters(&stage, &["requeue", "--all", "--fresh"]).await;
    assert_said(&ended, 0, &["1 to be sent: the ledger", "1 to be tried anew: they ended expired"]);
    for _ in 0..2 {
        assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false));
    }
    running.until_settled(&stage.names).await;
}

/// The letters are those of a worker, so that it is seen that it keeps the `expiration`.
#[tokio::test]
async fn past_the_expiration_that_its_producer_gave_it_a_job_is_not_sent() {
    let (stage, _redis) = stage().await;
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for (n, id, age) in [(1, "late", 125), (2, "in-time", 0)] {
        let job = Job::new(serde_json::json!({"Phone": phone(n)})).id(id).expiration(Duration::from_secs(120));
        client.publish(&stage.names.jobs, aged(job, age)).await;
        assert_eq!(ending(&results.next(LIMIT).await).0, "invalid", "{id}");
    }
    running.until_settled(&stage.names).await;
    assert_eq!(running.stop().await, Some(0));
    assert_said(&dead_letters(&stage, &["show", "late"]).await, 0, &["header         x-expiration: 120000"]);
    let requeue = ["requeue", "--all", "--esms-template-id", "1", "--job-ttl", "1h"];
    let said = ["1 to be sent: the ledger", "1 expired: their deadline has passed"];
    let fresh = ["2 to be sent: the ledger"];
    assert_said(&dead_letters(&stage, &[&requeue[..], &["--dry-run"]].concat()).await, 0, &said);
    assert_said(&dead_letters(&stage, &[&requeue[..], &["--dry-run", "--fresh"]].concat()).await, 0, &fresh);
    assert_said(&dead_letters(&stage, &requeue).await, 0, &said);
    until_letters(&stage, 0).await;
    let jobs = emptied(&client, &stage.names.jobs).await;
    let names = |job: &lapin::message::BasicGetMessage| {
        let headers = job.properties.headers().clone().unwrap_or_default();
        headers.inner().keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        assert_eq!(text(job.properties.expiration()), "120000");
        assert!(!names(&job).contains(&"x-expiration".to_owned()), "{:?}", names(&job));
    }
}

#[tokio::test]
async fn with_a_ledger_in_memory_only_the_workers_know() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(&phone(1), "known")).await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    kept(&stage, [letter(1, "known", REFUSED), letter(2, "new", REFUSED)]).await;
    let said = ["2 to be sent, unless the worker that takes them remembers them", "OTP_LEDGER_URL is memory:"];
    assert_said(&dead_letters(&stage, &["requeue", "--all", "--dry-run"]).await, 0, &said);
    assert_said(&dead_letters(&stage, &["requeue", "--all"]).await, 0, &said);
    for _ in 0..2 {
        assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    }
    running.until_settled(&stage.names).await;
    assert_eq!((stage.sandbox.accepted(&phone(1)), stage.sandbox.accepted(&phone(2))), (1, 1));
    let ended = dead_letters(&stage, &["requeue", "--all", "--new-id"]).await;
    assert_said(&ended, 2, &["OTP_LEDGER_URL: must be that of a Redis", "--new-id asks it"]);
}

#[tokio::test]
async fn while_the_ledger_is_away_nothing_is_requeued() {
    let (stage, redis) = stage().await;
    kept(&stage, [letter(1, "a", GIVEN_UP)]).await;
    redis.kill().await;
    for args in [&["requeue", "--all"][..], &["requeue", "--all", "--dry-run"]] {
        let ended = dead_letters(&stage, args).await;
        assert_said(&ended, 1, &["the ledger at 127.0.0.1", "did not tell", "OTP_LEDGER_URL"]);
    }
    assert_said(&dead_letters(&stage, &["show", "a"]).await, 0, &["requeue        cannot be told: the ledger at"]);
    assert_eq!((letters_left(&stage).await, jobs_waiting(&stage).await), (1, 0));
}

#[tokio::test]
async fn what_the_queue_of_jobs_does_not_take_stays() {
    let (stage, _redis) = stage().await;
    let (broker, jobs) = (Broker::shared().await, &stage.names.jobs);
    let pattern = format!("^{jobs}$");
    broker.ctl(&["set_policy", jobs, &pattern, r#"{"max-length":3}"#, "--apply-to", "queues"]).await;
    // The queue says only after some messages that it is full.
    kept(&stage, (0..1_000).map(|n| letter(n, &n.to_string(), REFUSED))).await;
    let ended = dead_letters(&stage, &["requeue", "--all"]).await;
    assert_said(&ended, 1, &["stayed ", "the queue of jobs refused it (nack): is it full?"]);
    let (left, waiting) = (letters_left(&stage).await, jobs_waiting(&stage).await);
    assert!(left > 0 && left + waiting >= 1_000, "{left} left, {waiting} waiting: {ended:?}");
    broker.ctl(&["clear_policy", jobs]).await;
    assert_said(&dead_letters(&stage, &["requeue", "--all"]).await, 0, &["requeued "]);
    until_letters(&stage, 0).await;

    let client = stage.client().await;
    client.channel().queue_delete(jobs.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
    kept(&stage, [letter(1, "a", REFUSED), letter(2, "b", REFUSED)]).await;
    let ended = dead_letters(&stage, &["requeue", "--all"]).await;
    assert_said(&ended, 1, &["requeued 0", "the broker has no queue", "to requeue to", "topology apply"]);
    assert_eq!(letters_left(&stage).await, 2);
}

/// The permissions are those that docs/dead-letters.md gives to an operator.
#[tokio::test]
async fn an_operators_user_needs_two_permissions_and_is_told_which_is_missing() {
    let (stage, user) = with_user().await;
    let dead = stage.names.dead.replace('.', "[.]");
    let permissions = |write: &str, read: String| {
        let [configure, write] = ["^$", write].map(str::to_owned);
        Permissions { configure, write, read }
    };
    kept(&stage, [letter(1, "a", REFUSED), letter(2, "b", REFUSED)]).await;
    user.allow(permissions("^$", "^$".into())).await;
    assert_said(&dead_letters(&stage, &["list"]).await, 1, &["needs read permission on the queue of dead letters"]);
    user.allow(permissions("^$", format!("^{dead}$"))).await;
    assert_said(&dead_letters(&stage, &["list"]).await, 0, &["2 letters shown of 2"]);
    let ended = dead_letters(&stage, &["requeue", "--all"]).await;
    assert_said(&ended, 1, &["requeued 0", "needs write permission on the default exchange (amq.default)"]);
    assert_eq!(letters_left(&stage).await, 2);
    user.allow(permissions("^amq[.]default$", format!("^{dead}$"))).await;
    assert_said(&dead_letters(&stage, &["requeue", "--all"]).await, 0, &["requeued 2"]);
    until_letters(&stage, 0).await;
}

use super::*;
use crate::job::phone::Phone;
use crate::limits::{Group, Limit, Prefix};
use tokio::time::advance;

const S: fn(u64) -> Duration = Duration::from_secs;

fn rule(limit: Limit, most: u32, seconds: u64) -> Rule {
    Rule { limit, most, window: S(seconds) }
}

fn counted(number: Vec<Rule>, groups: Vec<Group>) -> Counted {
    Counted::new(Arc::new(Limits::of(number, groups)))
}

fn total(most: u32, seconds: u64) -> Vec<Group> {
    vec![Group { prefix: None, rules: vec![rule(Limit::Total, most, seconds)] }]
}

/// The place of a job whose deadline is five minutes away.
fn place(counted: &Counted, id: &str, phone: &str) -> Place {
    let groups = (0..counted.limits.groups.len()).collect();
    Place { id: id.into(), phone: Phone::parse(phone).unwrap(), until: Instant::now() + S(300), groups }
}

const A: &str = "84901888484";

/// A job that is sent at once, or what holds it back.
fn send(counted: &Counted, id: &str, phone: &str) -> Result<(), HeldBack> {
    let place = place(counted, id, phone);
    counted.reserve(&place)?;
    counted.settle(&place, Some(Instant::now()));
    Ok(())
}

fn retry_after(held: Result<(), HeldBack>) -> u64 {
    held.unwrap_err().retry_after_seconds().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_second_otp_waits_for_the_cooldown_to_the_millisecond() {
    let counted = counted(vec![rule(Limit::Cooldown, 1, 60)], vec![]);
    send(&counted, "1", A).unwrap();
    advance(Duration::from_millis(12_300)).await;
    assert_eq!(retry_after(send(&counted, "2", A)), 48);
    send(&counted, "other", "84901888485").unwrap();
    advance(Duration::from_millis(47_699)).await;
    assert_eq!(retry_after(send(&counted, "3", A)), 1);
    advance(Duration::from_millis(1)).await;
    send(&counted, "4", A).unwrap();
}

#[tokio::test(start_paused = true)]
async fn windows_slide_and_the_rule_that_holds_back_longest_is_told() {
    let counted = counted(vec![rule(Limit::Phone, 2, 10), rule(Limit::Phone, 3, 100)], vec![]);
    for (id, wait) in [("1", 6), ("2", 3)] {
        send(&counted, id, A).unwrap();
        advance(S(wait)).await;
    }
    // At 9 s: two in the last ten.
    assert_eq!(retry_after(send(&counted, "3", A)), 1);
    advance(S(1)).await;
    send(&counted, "4", A).unwrap();
    // At 10 s: three in the last hundred, and two in the last ten.
    let held = send(&counted, "5", A).unwrap_err();
    assert_eq!((held.retry_after_seconds(), held.reason.contains("at most 3")), (Some(90), true));
    advance(S(90)).await;
    send(&counted, "6", A).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_in_flight_counts_until_its_deadline_and_then_from_its_last_attempt() {
    let counted = counted(vec![rule(Limit::Cooldown, 1, 60)], vec![]);
    let first = place(&counted, "1", A);
    counted.reserve(&first).unwrap();
    let held = send(&counted, "2", A).unwrap_err();
    assert!(held.is_in_flight && held.retry_after_seconds() == Some(360), "{held:?}");
    advance(S(100)).await;
    let attempted = Instant::now();
    advance(S(20)).await;
    assert_eq!(counted.settle(&first, Some(attempted)), Seen::New);
    let held = send(&counted, "2", A).unwrap_err();
    assert!(!held.is_in_flight && held.retry_after_seconds() == Some(40), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_where_nothing_was_sent_and_taken_once_by_each_job() {
    let counted = counted(vec![rule(Limit::Phone, 1, 3600)], total(1, 3600));
    let first = place(&counted, "1", A);
    for _ in 0..3 {
        counted.reserve(&first).unwrap();
    }
    counted.settle(&first, None);
    send(&counted, "2", A).unwrap();
    assert!(send(&counted, "3", A).is_err() && send(&counted, "4", "84901888485").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_group_is_never_over_its_limit_in_any_window() {
    let counted = counted(vec![], total(10, 60));
    let mut sent = Vec::new();
    for tick in 0..3_000_u64 {
        if send(&counted, &tick.to_string(), &format!("8490{tick:07}")).is_ok() {
            sent.push(tick * 137);
        }
        advance(Duration::from_millis(137)).await;
    }
    for (n, at) in sent.iter().enumerate() {
        let within = sent[n..].iter().filter(|other| **other < at + 60_000).count();
        assert!(within <= 10, "{within} from {at} on");
    }
    // A part of the window is a second, so the next ten come a second later at most.
    assert!(sent.len() >= 60, "{}", sent.len());
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_group_is_never_too_early_and_then_another_try_succeeds() {
    let counted = counted(vec![], total(3, 60));
    for id in 0..3 {
        send(&counted, &id.to_string(), A).unwrap();
        advance(Duration::from_millis(1_700)).await;
    }
    let wait = retry_after(send(&counted, "4", A));
    assert!((55..=57).contains(&wait), "{wait}");
    advance(S(wait)).await;
    send(&counted, "5", A).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_group_full_of_jobs_in_flight_says_when_the_first_of_them_cannot_count_any_more() {
    let counted = counted(vec![], total(2, 60));
    let flying: Vec<Place> = (0..2).map(|n| place(&counted, &n.to_string(), A)).collect();
    for place in &flying {
        counted.reserve(place).unwrap();
    }
    assert_eq!(retry_after(send(&counted, "2", A)), 361);
    // Nobody says how they ended: they count as sent at their deadlines.
    advance(S(300 + 59)).await;
    assert!(send(&counted, "3", A).is_err());
    advance(S(2)).await;
    send(&counted, "4", A).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_groups_of_a_prefix_and_of_all_both_count() {
    let prefix = Some(Prefix("84".into()));
    let mut groups = vec![Group { prefix, rules: vec![rule(Limit::Prefix, 1, 60)] }];
    groups.extend(total(5, 60));
    let counted = counted(vec![], groups);
    send(&counted, "1", A).unwrap();
    assert_eq!(send(&counted, "2", A).unwrap_err().limit, Limit::Prefix);
}

#[tokio::test(start_paused = true)]
async fn a_number_is_new_until_it_was_sent_an_otp_within_the_longest_window() {
    let counted = counted(vec![], total(1_000, 60));
    let seen = |id: &str| {
        let place = place(&counted, id, A);
        counted.take(&place);
        counted.settle(&place, Some(Instant::now()))
    };
    assert_eq!(seen("1"), Seen::New);
    assert_eq!(seen("2"), Seen::Known);
    advance(S(60)).await;
    assert_eq!(seen("3"), Seen::New);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_bounded_and_those_sent_to_last_are_kept() {
    let counted = counted(vec![rule(Limit::Phone, 1, 86_400)], vec![]);
    for n in 0..MOST_NUMBERS + 10 {
        let _ = send(&counted, &n.to_string(), &format!("8490{n:07}"));
        if n % 1_000 == 0 {
            advance(Duration::from_millis(1)).await;
        }
    }
    assert!(counted.state().numbers.len() <= MOST_NUMBERS);
    assert!(send(&counted, "again", &format!("8490{:07}", MOST_NUMBERS + 5)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_one_in_flight_only_where_nothing_else_holds_it_back() {
    let counted = counted(vec![rule(Limit::Cooldown, 1, 60), rule(Limit::Phone, 2, 3_600)], vec![]);
    send(&counted, "1", A).unwrap();
    advance(S(61)).await;
    let second = place(&counted, "2", A);
    counted.reserve(&second).unwrap();
    // The end of the second would free the cooldown, and the first still counts for the hour.
    assert!(!send(&counted, "3", A).unwrap_err().is_in_flight);
    counted.settle(&second, None);
    send(&counted, "3", A).unwrap();
}

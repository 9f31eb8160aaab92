use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
const US: fn(u64) -> Duration = Duration::from_micros;

/// A limit of which 50 turns a second are given out.
const LIMIT: f64 = 50.0 / GIVEN_OUT;
const INTERVAL: Duration = Duration::from_millis(20);

fn heard(at: Instant, workers: u32, rank: u32) -> Heard {
    Heard {
        clock: 1_000_000,
        at,
        workers,
        rank,
        alone_for: Duration::ZERO,
        first: 0,
        turns: 0,
        cut: String::new(),
        cut_ago: Duration::ZERO,
        held_for: Duration::ZERO,
    }
}

/// The share of one of so many workers, which the store has told of at `now`.
fn share(workers: u32, rank: u32, now: Instant) -> Share {
    let mut share = Share::new(LIMIT, 0, now);
    assert_eq!(share.interval, INTERVAL);
    share.heard(&Word::default(), &heard(now, workers, rank));
    share
}

/// When each of the next turns is, after `now`.
fn turns(share: &mut Share, now: Instant, count: usize) -> Vec<Duration> {
    let one = |_| match share.next(now) {
        Next::At(turn) => {
            share.take(turn);
            turn - now
        }
        other => panic!("{other:?}"),
    };
    (0..count).map(one).collect()
}

#[test]
fn a_batch_is_what_a_share_is_in_a_moment_and_one_turn_at_least() {
    for (interval, workers, most) in [
        (MS(20), 1, 10),
        (MS(20), 3, 4),
        (MS(20), 10, 1),
        (MS(20), 1000, 1),
        (MS(1), 2, 100),
        (US(10), 1, 20_000),
        (Duration::from_secs(1000), 1, 1),
    ] {
        assert_eq!(batch(interval, workers), most, "{interval:?} {workers}");
    }
}

#[test]
fn no_more_turns_are_asked_for_than_calls_wait() {
    let now = Instant::now();
    for (waiting, wanted) in [(0, 0), (1, 1), (3, 3), (4, 4), (64, 4)] {
        assert_eq!(share(3, 0, now).word(waiting, now).turns, wanted);
    }
}

#[test]
fn the_turns_of_the_store_are_taken_one_after_the_other_and_then_it_is_asked_again() {
    let now = Instant::now();
    let mut share = share(3, 0, now);
    assert_eq!(share.next(now), Next::Ask);
    share.heard(&Word::default(), &Heard { first: 1_007_000, turns: 3, ..heard(now, 3, 0) });
    assert_eq!(turns(&mut share, now, 3), [MS(7), MS(27), MS(47)]);
    assert_eq!(share.next(now), Next::Ask);
    // The next batch begins no sooner than an interval after the last turn.
    assert_eq!(share.word(1, now).not_before, MS(67));
}

#[test]
fn a_turn_that_is_over_is_lost() {
    let now = Instant::now();
    let mut share = share(3, 0, now);
    share.heard(&Word::default(), &Heard { first: 1_000_000, turns: 4, ..heard(now, 3, 0) });
    assert_eq!(share.next(now + LATE), Next::At(now));
    assert_eq!(share.next(now + LATE + MS(1)), Next::At(now + INTERVAL));
    assert_eq!(share.next(now + LATE + 3 * INTERVAL + MS(1)), Next::Ask);
}

#[test]
fn the_shares_of_workers_that_are_alone_fit_into_each_other() {
    let now = Instant::now();
    let mut all: Vec<Duration> = Vec::new();
    for rank in 0..3 {
        let mut share = share(3, rank, now);
        share.not_heard(now);
        let own = turns(&mut share, now, 100);
        assert!(own.windows(2).all(|two| two[1] - two[0] == 3 * INTERVAL), "{own:?}");
        // Turns that the store gave to others before may be as far ahead as this.
        assert!(own[0] >= 3 * 4 * INTERVAL, "{own:?}");
        all.extend(own);
    }
    all.sort();
    assert!(all.windows(2).all(|two| two[1] - two[0] == INTERVAL), "{all:?}");
}

#[test]
fn a_worker_that_has_never_reached_the_store_takes_a_small_part() {
    let now = Instant::now();
    let mut share = Share::new(LIMIT, 35, now);
    assert_eq!(share.next(now), Next::Ask);
    share.not_heard(now);
    let own = turns(&mut share, now, 3);
    assert!(own.windows(2).all(|two| two[1] - two[0] == MANY * INTERVAL), "{own:?}");
}

#[test]
fn turns_that_the_store_gave_before_it_went_away_are_still_taken() {
    let now = Instant::now();
    let mut share = share(2, 1, now);
    share.heard(&Word::default(), &Heard { first: 1_000_000, turns: 2, ..heard(now, 2, 1) });
    share.not_heard(now);
    assert_eq!(turns(&mut share, now, 2), [MS(0), MS(20)]);
    assert!(matches!(share.next(now), Next::At(turn) if turn >= now + 2 * 5 * INTERVAL));
}

#[test]
fn only_turns_that_the_store_does_not_know_of_are_owned_up_to_and_once() {
    let now = Instant::now();
    let mut share = share(2, 1, now);
    share.not_heard(now);
    assert!(!share.word(0, now).was_alone, "it took none");
    turns(&mut share, now, 1);
    let word = share.word(0, now);
    assert!(word.was_alone);
    let alone = Heard { alone_for: MS(5000), ..heard(now, 1, 0) };
    share.heard(&word, &alone);
    turns(&mut share, now, 1);
    assert!(!share.word(0, now).was_alone, "those that the store lets it give itself");
    share.not_heard(now);
    turns(&mut share, now, 1);
    assert!(share.word(0, now).was_alone, "away again");
    share.heard(&Word::default(), &alone);
    assert!(share.word(0, now).was_alone, "it was not told yet");
}

#[test]
fn a_worker_goes_on_alone_until_the_moment_that_the_store_names_and_not_a_turn_longer() {
    let now = Instant::now();
    let mut share = share(3, 0, now);
    share.not_heard(now);
    share.not_before = now;
    let alone = Heard { alone_for: MS(100), ..heard(now, 1, 0) };
    share.heard(&Word::default(), &alone);
    assert_eq!(share.workers, 3, "the others have not found the store yet");
    let own = turns(&mut share, now, 1)[0];
    assert!(own < MS(60), "{own:?}");
    assert_eq!(turns(&mut share, now, 1), [own + 3 * INTERVAL].map(|turn| turn.min(MS(100))));
    assert_eq!(share.next(now), Next::Later(now + MS(100)));
    assert_eq!(share.next(now + MS(100)), Next::Ask);
    share.heard(&Word::default(), &heard(now + MS(100), 2, 0));
    assert_eq!(share.workers, 2);
}

#[test]
fn a_worker_that_the_store_sends_away_first_lets_the_turns_pass_that_others_have() {
    let now = Instant::now();
    let mut share = share(3, 0, now);
    share.heard(&Word::default(), &Heard { alone_for: MS(5000), ..heard(now, 3, 0) });
    assert!(turns(&mut share, now, 1)[0] >= 3 * 4 * INTERVAL);
}

#[test]
fn a_clock_of_the_store_that_jumps_delays_no_turn() {
    let now = Instant::now();
    let mut share = share(2, 0, now);
    for clock in [0, 1, 5_000_000_000, u64::MAX / 2] {
        share.heard(&Word::default(), &Heard { clock, ..heard(now, 2, 0) });
        share.not_heard(now);
        share.not_before = now;
        let Next::At(turn) = share.next(now) else { panic!("alone") };
        assert!(turn <= now + 2 * INTERVAL, "{clock}");
    }
}

proptest::proptest! {
    #[test]
    fn workers_that_are_all_alone_never_call_more_often_than_the_limit(
        workers in 1u32..20, limit in 1u32..500, told in proptest::collection::vec(0u64..1_000_000, 20),
    ) {
        let began = Instant::now();
        let mut all: Vec<Duration> = Vec::new();
        for rank in 0..workers {
            let mut share = Share::new(f64::from(limit), 0, began);
            // Each was told at another moment, by the same clock.
            let after = told[rank as usize];
            let heard = Heard { clock: 1_000_000 + after, ..heard(began + US(after), workers, rank) };
            share.heard(&Word::default(), &heard);
            share.not_heard(began + MS(1000));
            all.extend(turns(&mut share, began, 50));
        }
        all.sort();
        for (n, one) in all.iter().enumerate() {
            let within = all[n..].iter().take_while(|other| **other < *one + MS(1000)).count();
            proptest::prop_assert!(within <= limit as usize + 1, "{within} of {limit}");
        }
    }
}

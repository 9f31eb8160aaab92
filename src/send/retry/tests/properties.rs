//! What holds for every sequence of attempts.

use super::*;
use proptest::{collection::vec, prelude::*, sample::select};

/// One job's whole life, as the sending loop leads it.
#[derive(Debug)]
struct Life {
    ending: Ending,
    /// Every attempt made, in order.
    attempts: Vec<Event>,
    /// When each began.
    began: Vec<Instant>,
}

#[derive(Clone, Debug)]
struct Story {
    events: Vec<Event>,
    waits: Vec<u64>,
    deadline: u64,
    give_up: u64,
    on_ambiguous: OnAmbiguous,
    unseen_attempt_before: bool,
}

/// How long each attempt takes.
const TAKES: Duration = Duration::from_millis(500);

impl Story {
    fn play(&self, start: Instant) -> Life {
        let limits = limits(start, self.deadline, self.give_up, self.on_ambiguous);
        let mut progress = Progress::default();
        if self.unseen_attempt_before {
            progress = progress.with_past(Past::OneUnknown, OnAmbiguous::Resend);
        }
        let (mut now, mut attempts, mut began) = (start, Vec::new(), Vec::new());
        for (event, wait) in self.events.iter().zip(&self.waits) {
            progress.begin_attempt();
            attempts.push(*event);
            began.push(now);
            now += TAKES;
            match after(event.class(), progress, limits, now, S(*wait)) {
                Next::End(ending) => return Life { ending, attempts, began },
                Next::AttemptAt(at, next) => (now, progress) = (at, next),
            }
        }
        let ending = progress.end_without_answer(Outcome::Expired, "the story ended");
        Life { ending, attempts, began }
    }
}

fn story() -> impl Strategy<Value = Story> {
    let retried =
        [Event::TryLater, Event::NotSent, Event::NotSentWait(3), Event::NotSentWait(1_000_000), Event::Ambiguous];
    let event = prop_oneof![3 => select(retried.to_vec()), 1 => select(Event::ALL.to_vec())];
    let policy = select(vec![OnAmbiguous::Resend, OnAmbiguous::GiveUp]);
    (vec(event, 1..12), vec(0u64..6, 12), 1u64..40, 1u64..40, policy, any::<bool>()).prop_map(
        |(events, waits, deadline, give_up, on_ambiguous, unseen_attempt_before)| Story {
            events,
            waits,
            deadline,
            give_up,
            on_ambiguous,
            unseen_attempt_before,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_outcome_that_says_not_sent_is_never_told_after_an_ambiguous_attempt(story in story()) {
        let life = story.play(Instant::now());
        let ambiguous = story.unseen_attempt_before || life.attempts.contains(&Event::Ambiguous);
        match life.ending.outcome {
            Outcome::Failed | Outcome::Expired => prop_assert!(!ambiguous, "{life:?}"),
            Outcome::Unknown => prop_assert!(ambiguous, "{life:?}"),
            Outcome::Accepted | Outcome::Rejected => prop_assert_eq!(life.ending.may_be_duplicate, ambiguous),
            Outcome::Invalid | Outcome::Limited => prop_assert!(false, "{life:?}"),
        }
    }

    #[test]
    fn may_be_duplicate_says_that_an_attempt_before_the_last_was_ambiguous(story in story()) {
        let life = story.play(Instant::now());
        let (_, earlier) = life.attempts.split_last().unwrap();
        let ambiguous = story.unseen_attempt_before || earlier.contains(&Event::Ambiguous);
        prop_assert_eq!(life.ending.may_be_duplicate, ambiguous);
        prop_assert_eq!(life.ending.attempts as usize, life.attempts.len());
    }

    #[test]
    fn the_outcome_is_esmss_last_word_where_it_gave_one(story in story()) {
        let life = story.play(Instant::now());
        let outcome = life.ending.outcome;
        prop_assert_eq!(outcome == Outcome::Accepted, life.attempts.last() == Some(&Event::Accepted));
        prop_assert_eq!(outcome == Outcome::Rejected, life.attempts.last() == Some(&Event::Rejected));
        prop_assert_eq!(life.ending.reason.is_none(), outcome == Outcome::Accepted);
    }

    #[test]
    fn nothing_follows_a_final_answer_a_refusal_or_giving_up(story in story()) {
        let life = story.play(Instant::now());
        let (_, earlier) = life.attempts.split_last().unwrap();
        let ends = |event: &Event| match event {
            Event::Accepted | Event::Rejected | Event::Refused => true,
            Event::Ambiguous => story.on_ambiguous == OnAmbiguous::GiveUp,
            Event::TryLater | Event::NotSent | Event::NotSentWait(_) => false,
        };
        prop_assert!(!earlier.iter().any(ends), "{life:?}");
    }

    #[test]
    fn no_attempt_is_planned_at_or_after_a_limit_or_sooner_than_asked(story in story()) {
        let start = Instant::now();
        let life = story.play(start);
        let limit = start + S(story.deadline.min(story.give_up));
        prop_assert!(life.began[1..].iter().all(|began| *began < limit), "{life:?}");
        for (n, pair) in life.began.windows(2).enumerate() {
            let asked = if let Event::NotSentWait(seconds) = life.attempts[n] { seconds } else { 0 };
            prop_assert_eq!(pair[1] - pair[0], TAKES + S(story.waits[n].max(asked)));
        }
    }
}

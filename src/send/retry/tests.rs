use super::*;
use crate::job::progress::Past;

mod properties;
mod table;

const S: fn(u64) -> Duration = Duration::from_secs;

/// What an attempt ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Accepted,
    Rejected,
    TryLater,
    NotSent,
    NotSentWait(u64),
    Ambiguous,
    Refused,
}

impl Event {
    const ALL: [Event; 7] = [
        Event::Accepted,
        Event::Rejected,
        Event::TryLater,
        Event::NotSent,
        Event::NotSentWait(3),
        Event::Ambiguous,
        Event::Refused,
    ];

    fn class(self) -> Class {
        match self {
            Event::Accepted => Class::Answered(answer("100")),
            Event::Rejected => Class::Answered(answer("108")),
            Event::TryLater => Class::AnsweredTryLater(answer("160")),
            Event::NotSent => Class::NotSent { why: "no route".into(), not_before: None },
            Event::NotSentWait(seconds) => Class::NotSent { why: "HTTP 429".into(), not_before: Some(S(seconds)) },
            Event::Ambiguous => Class::Ambiguous { why: "timed out".into() },
            Event::Refused => Class::Refused { why: "HTTP 404".into() },
        }
    }
}

fn answer(code: &str) -> Answer {
    Answer { code: code.into(), ..Answer::default() }
}

fn ending(next: Next) -> Ending {
    match next {
        Next::End(ending) => ending,
        Next::AttemptAt(..) => panic!("{next:?}"),
    }
}

fn next_attempt(next: Next) -> (Instant, Progress) {
    match next {
        Next::AttemptAt(at, progress) => (at, progress),
        Next::End(_) => panic!("{next:?}"),
    }
}

/// Limits so many seconds from now.
fn limits(now: Instant, deadline: u64, give_up: u64, on_ambiguous: OnAmbiguous) -> Limits {
    // Two ambiguous attempts leave room for more; the table tests the limit itself.
    Limits { deadline: now + S(deadline), give_up_at: now + S(give_up), on_ambiguous, resend_limit: 1_000 }
}

/// The progress in the first attempt, or in the one after an ambiguous one.
fn under_way(after_an_ambiguous_one: bool) -> Progress {
    let mut progress = Progress::default();
    progress.begin_attempt();
    if after_an_ambiguous_one {
        progress.ambiguous_attempts = 1;
        progress.begin_attempt();
    }
    progress
}

//! What the page asks for each second: the new messages, the counts, and which trouble is on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    latest::{Message, Wanted},
    phones::PhoneCount,
    records::Records,
    rules::Refusal,
    settings::PRICE_VND,
    stats::Stats,
};

/// The most messages of one answer.
const MOST: usize = 1_000;

/// The question.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Question {
    /// Only messages with a higher number than this.
    after: u64,
    /// Only messages to a number with this in it.
    find: String,
    /// Only so many of them: the newest.
    limit: usize,
}

impl Default for Question {
    fn default() -> Self {
        Self { after: 0, find: String::new(), limit: 200 }
    }
}

/// The answer.
#[derive(Serialize)]
pub(crate) struct News {
    run: u64,
    last: u64,
    kept: usize,
    messages: Vec<Message>,
    /// The counts of the number that was looked for, if it is a whole number.
    found: Option<PhoneCount>,
    stats: Stats,
    trouble: Trouble,
}

/// What is not as it should be, and what the page needs to end it.
#[derive(Serialize)]
struct Trouble {
    /// The fault that every request meets, in its text form.
    always: Option<String>,
    forced: Option<Refusal>,
    mix: BTreeMap<String, f64>,
    price: u64,
    opening_balance: u64,
}

pub(crate) fn news(records: &Records, question: &Question) -> News {
    let wanted = Wanted::new(&question.find);
    let latest = &records.latest;
    News {
        run: latest.run,
        last: latest.last,
        kept: latest.kept(),
        messages: latest.after(question.after, &wanted, question.limit.min(MOST)),
        found: wanted.forms().find_map(|form| records.phones.count(form)),
        stats: records.stats(),
        trouble: Trouble {
            always: records.deck.always.as_ref().map(ToString::to_string),
            forced: records.forced.clone(),
            mix: records.deck.mix.shares(),
            price: PRICE_VND,
            opening_balance: records.opening_balance,
        },
    }
}

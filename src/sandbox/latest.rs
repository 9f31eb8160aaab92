//! The latest messages, for the page. A bounded list: older messages are only counted.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{
    phones::{Recorded, key},
    rules::Asked,
};

/// How many messages are kept with their details.
const KEPT: usize = 10_000;

/// The fewest digits of a number that is looked for in its other forms too. Fewer would match too much.
const OTHER_FORMS: usize = 4;

/// One V5 request, as the page lists it.
#[derive(Clone, Serialize)]
pub(crate) struct Message {
    /// Its number: 1 for the first.
    pub(crate) seq: u64,
    phone: String,
    template: String,
    type_id: String,
    /// How many requests this phone had, with this one.
    attempt: u64,
    #[serde(flatten, serialize_with = "recorded")]
    recorded: Arc<Recorded>,
}

fn recorded<S: Serializer>(recorded: &Arc<Recorded>, to: S) -> Result<S::Ok, S::Error> {
    recorded.as_ref().serialize(to)
}

/// The last [`KEPT`] messages.
pub(crate) struct Latest {
    /// Another number after each start and each reset. So a page sees that its sequence numbers are of the past.
    pub(crate) run: u64,
    /// The number of the last message.
    pub(crate) last: u64,
    kept: VecDeque<Message>,
}

impl Latest {
    pub(crate) fn new() -> Self {
        Self { run: micros(), last: 0, kept: VecDeque::new() }
    }

    pub(crate) fn forget(&mut self) {
        *self = Self { run: micros().max(self.run + 1), last: 0, kept: VecDeque::new() };
    }

    pub(crate) fn push(&mut self, asked: &Asked, attempt: u64, recorded: Arc<Recorded>) {
        let text = |name| key(asked.text(name)).to_owned();
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.last += 1;
        self.kept.push_back(Message {
            seq: self.last,
            phone: text("Phone"),
            template: text("MultiChannelTempId"),
            type_id: text("TypeId"),
            attempt,
            recorded,
        });
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The newest messages after this number, at most so many, the newest first.
    pub(crate) fn after(&self, seq: u64, wanted: &Wanted, limit: usize) -> Vec<Message> {
        let new = self.kept.iter().rev().take_while(|message| message.seq > seq);
        new.filter(|message| wanted.fits(&message.phone)).take(limit).cloned().collect()
    }
}

/// It only has to differ from one start to the next. JavaScript holds it exactly.
fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or_default()
}

/// The number that is looked for.
pub(crate) struct Wanted {
    /// As it was typed, without spaces and punctuation if the rest is digits.
    text: String,
    /// Its forms as `0…`, `84…` and `0084…`: they are one number to the worker.
    forms: Vec<String>,
}

impl Wanted {
    pub(crate) fn new(typed: &str) -> Self {
        let digits = typed.replace(['+', ' ', '.', '-', '(', ')'], "");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self { text: typed.trim().to_owned(), forms: Vec::new() };
        }
        let rest = ["0084", "84", "0"].iter().find_map(|prefix| digits.strip_prefix(prefix));
        let forms = match rest {
            Some(rest) if digits.len() >= OTHER_FORMS => {
                ["0", "84", "0084"].map(|prefix| format!("{prefix}{rest}")).into()
            }
            _ => Vec::new(),
        };
        Self { text: digits, forms }
    }

    /// What it may be, if it is a whole number.
    pub(crate) fn forms(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.text).chain(&self.forms).map(String::as_str).filter(|form| !form.is_empty())
    }

    fn fits(&self, phone: &str) -> bool {
        phone.contains(&self.text) || self.forms.iter().any(|form| phone.starts_with(form))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{fault::Fault, rules::Answer},
        *,
    };

    fn push(latest: &mut Latest, phone: &str) {
        let asked = Asked::read(json!({"Phone": phone}).to_string().as_bytes()).unwrap();
        let recorded = Arc::new(Recorded::now(&Fault::None, &Answer::NotConsidered, None));
        latest.push(&asked, 1, recorded);
    }

    fn numbers(messages: &[Message]) -> Vec<u64> {
        messages.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn only_what_is_new_and_wanted_comes_and_the_newest_first() {
        let mut latest = Latest::new();
        for phone in ["0901888484", "0901888485", "84901888484", "0901888484"] {
            push(&mut latest, phone);
        }
        for (after, find, limit, expected) in [
            (0, "", 9, &[4, 3, 2, 1][..]),
            (0, "", 2, &[4, 3]),
            (2, "", 9, &[4, 3]),
            (4, "", 9, &[]),
            (9, "", 9, &[]),
            (0, "+84 901 888 484", 9, &[4, 3, 1]),
            (1, "0901888484", 1, &[4]),
            (0, "nobody", 9, &[]),
        ] {
            let found = numbers(&latest.after(after, &Wanted::new(find), limit));
            assert_eq!(found, expected, "after {after}, {find:?}, {limit}");
        }
    }

    #[test]
    fn old_messages_leave_and_are_still_counted() {
        let mut latest = Latest::new();
        for _ in 0..KEPT + 3 {
            push(&mut latest, "0901888484");
        }
        let all = latest.after(0, &Wanted::new(""), usize::MAX);
        assert_eq!((all.len(), latest.kept(), latest.last), (KEPT, KEPT, KEPT as u64 + 3));
        assert_eq!(all.last().map(|oldest| oldest.seq), Some(4));
    }

    #[test]
    fn after_a_reset_it_is_another_run() {
        let mut latest = Latest::new();
        push(&mut latest, "0901888484");
        let before = latest.run;
        latest.forget();
        assert!(latest.run > before && latest.last == 0 && latest.kept() == 0);
    }

    #[test]
    fn a_number_is_found_however_it_is_written() {
        for (typed, phone, fits) in [
            ("", "anything", true),
            ("  ", "anything", true),
            ("888", "0901888484", true),
            ("0901 888-484", "0901888484", true),
            ("(090) 1888.484", "84901888484", true),
            ("+84901888484", "0901888484", true),
            ("8490", "0901888484", true),
            ("0901888484", "0084901888484", true),
            ("0084 901888484", "0901888484", true),
            ("84", "0901888484", true),
            ("84", "0901888333", false),
            ("0901", "1284901", false),
            ("<b>", "<b>x", true),
            ("<B>", "<b>x", false),
        ] {
            assert_eq!(Wanted::new(typed).fits(phone), fits, "{typed:?} {phone:?}");
        }
    }

    #[test]
    fn long_nonsense_takes_little_room() {
        let mut latest = Latest::new();
        push(&mut latest, &"số".repeat(1000));
        assert!(latest.kept[0].phone.len() <= 32);
    }
}

//! Which letters are chosen. Pure, but for the flags.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::letter::Letter;

/// Which letters are chosen: those that fit all that is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Only these ids, if any is given, as they are or as they are shown.
    ids: BTreeSet<String>,
    reason: Option<String>,
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
    /// The ids that no letter has had so far.
    unseen: BTreeSet<String>,
}

const FILTERS: [&str; 4] = ["id", "reason", "older-than", "newer-than"];

/// Adds the flags of a selection.
pub(super) fn add_flags(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).allow_hyphen_values(true)
    };
    let age = |name, help| text(name, "DURATION", help).value_parser(humantime::parse_duration);
    command
        .arg(text("id", "ID", "Only letters with this job id; may be given several times").action(ArgAction::Append))
        .arg(text("reason", "TEXT", "Only letters whose reason contains this text"))
        .arg(age("older-than", "Only letters older than this, such as 1h; none of unknown age"))
        .arg(age("newer-than", "Only letters newer than this; none of unknown age"))
}

/// The same for a command that changes letters: all of them must be asked for.
pub(super) fn add_flags_and_all(command: Command) -> Command {
    add_flags(command)
        .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).conflicts_with_all(FILTERS).help("All letters"))
}

/// Whether it was said which letters are meant.
pub(super) fn is_said(given: &ArgMatches) -> bool {
    given.get_flag("all") || FILTERS.iter().any(|filter| given.contains_id(filter))
}

/// What is told where it was not.
pub(super) const NOT_SAID: &str = "say which letters: --all, or any of --id, --reason, --older-than and --newer-than";

impl Selection {
    /// What was asked for.
    pub(super) fn read(given: &ArgMatches) -> Self {
        let ids: BTreeSet<String> = given.get_many::<String>("id").into_iter().flatten().cloned().collect();
        Self {
            unseen: ids.clone(),
            ids,
            reason: given.get_one::<String>("reason").cloned(),
            older_than: given.get_one("older-than").copied(),
            newer_than: given.get_one("newer-than").copied(),
        }
    }

    /// Letters with this id.
    pub(super) fn of_id(id: &str) -> Self {
        let ids = BTreeSet::from([id.to_owned()]);
        Self { unseen: ids.clone(), ids, ..Self::default() }
    }

    /// Whether every letter is chosen.
    pub(super) fn is_all(&self) -> bool {
        self.ids.is_empty() && self.reason.is_none() && self.older_than.is_none() && self.newer_than.is_none()
    }

    /// Whether this letter is chosen.
    pub(super) fn takes(&mut self, letter: &Letter, now: SystemTime) -> bool {
        let names = [letter.id.clone(), letter.logged_id(), letter.shown_id()];
        let is_named = self.ids.is_empty() || names.iter().any(|name| self.ids.contains(name));
        names.iter().for_each(|name| {
            self.unseen.remove(name);
        });
        let (reason, age) = (letter.reason().unwrap_or_default(), letter.age(now));
        is_named
            && self.reason.as_ref().is_none_or(|text| reason.contains(text) || letter.shown_reason().contains(text))
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self.newer_than.is_none_or(|limit| age.is_some_and(|age| age < limit))
    }

    /// The ids that were asked for, and that no letter has had so far.
    pub(super) fn unseen(&self) -> impl Iterator<Item = &str> {
        self.unseen.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::Rules;
    use super::*;
    use crate::job::envelope::Moment;
    use lapin::BasicProperties;
    use lapin::types::{AMQPValue, FieldTable};

    fn letter(id: &str, reason: &str, age: Option<u64>) -> Letter {
        let mut headers = FieldTable::default();
        headers.insert("x-error".into(), AMQPValue::LongString(reason.into()));
        let mut properties = BasicProperties::default().with_headers(headers).with_message_id(id.into());
        let taken = Moment::now();
        if let Some(age) = age {
            let made = taken.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - age;
            properties = properties.with_timestamp(made);
        }
        Letter::read(properties, br#"{"Phone":"0901888484"}"#.to_vec(), taken, &Rules::of_any_worker())
    }

    fn selection(args: &[&str]) -> Selection {
        let command = add_flags(Command::new("list"));
        Selection::read(&command.try_get_matches_from([&["list"], args].concat()).unwrap())
    }

    #[test]
    fn a_letter_is_chosen_if_it_fits_all_that_is_asked_for() {
        for (args, id, reason, age, takes) in [
            (&[][..], "a", "", None, true),
            (&["--id", "a"], "a", "", None, true),
            (&["--id", "b", "--id", "a"], "a", "", None, true),
            (&["--id", "b"], "a", "", None, false),
            // As it is, or as it is shown.
            (&["--id", "0901888484"], "0901888484", "", None, true),
            (&["--id", "*******484"], "0901888484", "", None, true),
            (&["--id", "\\u{1b}"], "\u{1b}", "", None, true),
            (&["--id", "\u{1b}"], "\u{1b}", "", None, true),
            (&["--reason", "missing"], "a", "Phone is missing", None, true),
            (&["--reason", "Missing"], "a", "Phone is missing", None, false),
            (&["--older-than", "1h"], "a", "", Some(3700), true),
            (&["--older-than", "1h"], "a", "", Some(3500), false),
            (&["--older-than", "1h"], "a", "", None, false),
            (&["--newer-than", "1h"], "a", "", Some(3500), true),
            (&["--newer-than", "1h"], "a", "", None, false),
            (&["--newer-than", "1h", "--reason", "x"], "a", "", Some(60), false),
        ] {
            let taken = selection(args).takes(&letter(id, reason, age), SystemTime::now());
            assert_eq!(taken, takes, "{args:?} {id} {reason} {age:?}");
        }
    }

    #[test]
    fn the_ids_that_no_letter_has_are_told() {
        let mut selection = selection(&["--id", "a", "--id", "b", "--reason", "no"]);
        selection.takes(&letter("a", "yes", None), SystemTime::now());
        assert_eq!(selection.unseen().collect::<Vec<_>>(), ["b"]);
    }
}

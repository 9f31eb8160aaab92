//! Words that several of the commands say. Pure.

use crate::commands::harmless::harmless;
use crate::job::request::logged_id;

/// That no letter has this id.
pub(super) fn unseen_line(id: &str) -> String {
    let id = harmless(&logged_id(id, None));
    format!("there is no letter with the id {id}; what another command holds at this moment is not seen")
}

/// So many of something.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// So many times.
pub(super) fn times(number: u64) -> String {
    if number == 1 { "once".into() } else { format!("{number} times") }
}

/// What is said where another command holds letters.
pub(super) fn held_line(held: u32) -> Option<String> {
    (held > 0).then(|| {
        format!("{} not looked at: another command holds them. Give the command again", count(held as usize, "letter"))
    })
}

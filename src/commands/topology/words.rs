//! What `topology apply` and `topology diff` say. Pure.

use crate::broker::bounds::Unbounded;
use crate::broker::topology::Difference;

/// The lines after everything is declared.
pub(super) fn of_applied(unbounded: &[Unbounded]) -> Vec<String> {
    let done = "every exchange, queue and binding is there".to_owned();
    std::iter::once(done).chain(unbounded.iter().flat_map(of_unbounded)).collect()
}

/// A line for each difference, and below it what to do.
pub(super) fn of_differences(differences: &[Difference]) -> Vec<String> {
    if differences.is_empty() {
        return vec!["every exchange and queue is there, and as it must be".to_owned()];
    }
    differences.iter().flat_map(of_difference).collect()
}

fn of_difference(difference: &Difference) -> Vec<String> {
    match difference {
        Difference::Missing(object) => vec![format!("{object} is missing"), step("esms-otp-worker topology apply")],
        Difference::Unbounded(unbounded) => of_unbounded(unbounded),
        Difference::Forbidden { object, words } => vec![
            format!("{object} cannot be compared: {words}"),
            step(
                "the broker compares for a user who may declare: give AMQP_URL the user of OTP_TOPOLOGY=declare in docs/flow.md",
            ),
        ],
        Difference::Another { object, words, deleted_by: None } => vec![
            format!("{object} is another: {words}"),
            step("an exchange cannot be changed: delete it, and then at once: esms-otp-worker topology apply"),
            step("what is published meanwhile is not routed; stop the workers first"),
        ],
        Difference::Another { object, words, deleted_by: Some(command) } => vec![
            format!("{object} is another: {words}"),
            step(
                "a queue's arguments cannot be changed. Stop the producers, let the workers empty it, stop the workers",
            ),
            step(command),
            step("esms-otp-worker topology apply, and start all again"),
            step("or, if it is meant to be so: OTP_TOPOLOGY=check for the workers, which take it as it is"),
        ],
    }
}

fn of_unbounded(unbounded: &Unbounded) -> Vec<String> {
    vec![unbounded.to_string(), step(&unbounded.command())]
}

fn step(what: &str) -> String {
    format!("    {what}")
}

//! The bounds of the queues that only people read, and what to do about a queue without them.

use std::fmt;

use lapin::types::AMQPValue;

/// What keeps a queue from filling the broker's disk. The oldest messages go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long a message stays, in milliseconds.
    message_ttl: Option<i32>,
    /// How large all messages together may be, in bytes.
    max_length_bytes: i32,
}

impl Bounds {
    /// Results that nobody has bound a queue for: a week, and 1 GiB.
    pub(super) const UNROUTED: Self =
        Self { message_ttl: Some(7 * 24 * 3600 * 1000), max_length_bytes: 1024 * 1024 * 1024 };

    /// Jobs for people: they stay until a person has seen them, or there are more than 1 GiB of them.
    pub(super) const DEAD: Self = Self { message_ttl: None, max_length_bytes: 1024 * 1024 * 1024 };

    /// As arguments of a queue.
    pub(super) fn arguments(self) -> Vec<(&'static str, AMQPValue)> {
        let ttl = self.message_ttl.map(|ttl| ("x-message-ttl", AMQPValue::LongInt(ttl)));
        let length = ("x-max-length-bytes", AMQPValue::LongInt(self.max_length_bytes));
        let overflow = ("x-overflow", AMQPValue::LongString("drop-head".into()));
        ttl.into_iter().chain([length, overflow]).collect()
    }

    /// As the definition of a policy.
    fn policy(self) -> String {
        let ttl = self.message_ttl.map(|ttl| format!(r#""message-ttl":{ttl},"#)).unwrap_or_default();
        format!(r#"{{{ttl}"max-length-bytes":{},"overflow":"drop-head"}}"#, self.max_length_bytes)
    }
}

/// A queue that was declared without bounds, by version 0.1.0. Its arguments cannot be changed, but a policy can
/// bound it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbounded {
    /// Its name.
    pub queue: String,
    pub(super) vhost: String,
    pub(super) bounds: Bounds,
}

impl Unbounded {
    /// The command that bounds it. The client is not told of policies, so it is not known whether there is one.
    pub fn command(&self) -> String {
        let Self { queue, vhost, bounds } = self;
        let words =
            [vhost.clone(), format!("{queue}-bounds"), exactly(queue), bounds.policy()].map(|word| quoted(&word));
        let [vhost, name, pattern, definition] = words;
        format!("rabbitmqctl set_policy --vhost {vhost} --apply-to queues {name} {pattern} {definition}")
    }
}

impl fmt::Display for Unbounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "queue {} was declared without bounds by an older version, and may fill the broker's disk unless a policy bounds it",
            self.queue
        )
    }
}

/// A regular expression that fits this name only.
fn exactly(name: &str) -> String {
    let escaped: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || !c.is_ascii() { c.to_string() } else { class(c) }
        })
        .collect();
    format!("^{escaped}$")
}

/// A class and not a backslash where possible, because a log line in JSON doubles backslashes.
fn class(c: char) -> String {
    if matches!(c, '^' | '\\' | ']' | '[') { format!("\\{c}") } else { format!("[{c}]") }
}

/// One word for a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_one_for_a_shell_and_names_this_queue_only() {
        let unbounded = |queue: &str, bounds| Unbounded { queue: queue.into(), vhost: "/".into(), bounds };
        assert_eq!(
            unbounded("otp.results.unrouted", Bounds::UNROUTED).command(),
            r#"rabbitmqctl set_policy --vhost '/' --apply-to queues 'otp.results.unrouted-bounds' '^otp[.]results[.]unrouted$' '{"message-ttl":604800000,"max-length-bytes":1073741824,"overflow":"drop-head"}'"#
        );
        assert!(
            unbounded("otp.dead", Bounds::DEAD)
                .command()
                .ends_with(r#" '^otp[.]dead$' '{"max-length-bytes":1073741824,"overflow":"drop-head"}'"#)
        );
        assert_eq!((exactly("a+b c"), exactly("[x]^")), ("^a[+]b[ ]c$".into(), r"^\[x\]\^$".into()));
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}

//! Output for a person. It has colours only on a terminal, and only without `NO_COLOR`.

use std::io::{IsTerminal, Write, stdout};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::Failed;

static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stdout().is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
});

fn painted(code: &str, text: &str) -> String {
    if *COLOURS && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub(crate) fn bold(text: &str) -> String {
    painted("1", text)
}

pub(crate) fn dim(text: &str) -> String {
    painted("2", text)
}

pub(crate) fn green(text: &str) -> String {
    painted("32", text)
}

pub(crate) fn yellow(text: &str) -> String {
    painted("33", text)
}

pub(crate) fn red(text: &str) -> String {
    painted("31", text)
}

/// Writes a line to standard output. It ignores errors: the program goes on when the reader has gone away.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = writeln!(stdout(), "{}", line.as_ref());
}

/// Prints `what` while the work runs, and afterwards how long the work took.
pub(crate) async fn step<T>(what: &str, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let mut out = stdout();
    let _ = write!(out, "  {what:<60} ").and_then(|()| out.flush());
    let began = Instant::now();
    let done = work.await;
    say(if done.is_ok() { dim(&format!("{:>9}", seconds(began.elapsed()))) } else { red("   failed") });
    done
}

/// `1,234`
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `34 ms` below a second, `1.23 s` from there.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

/// A bar for `part` of `whole`: all of `whole` is `width` wide. Every part above 0 is visible.
pub(crate) fn bar(part: u64, whole: u64, width: u64) -> String {
    let eighths = (part * width * 8).div_ceil(whole.max(1));
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][usize::try_from(eighths % 8).unwrap_or_default()];
    let full = usize::try_from(eighths / 8).unwrap_or_default();
    "█".repeat(full) + rest
}

#[cfg(test)]
mod tests {
    #[allow(unused_imports, reason = "a program without a harness compiles no tests")]
    use super::*;

    #[test]
    fn thousands_are_set_off_by_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn a_bar_shows_even_the_smallest_part() {
        assert_eq!(bar(0, 1_000, 10), "");
        assert_eq!(bar(1, 1_000, 10), "▏");
        assert_eq!(bar(500, 1_000, 10), "█████");
        assert_eq!(bar(1_000, 1_000, 10), "██████████");
    }
}

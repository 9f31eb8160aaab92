//! The number on standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use crate::commands::shell::say;
use crate::job::phone::{Phone, PhoneError};

/// The most that is read, in bytes. A number has a few.
const MOST: u64 = 1024;

/// Why there is no number. It never repeats what was read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InputError {
    /// Nothing, or white space.
    #[error("there is no number on standard input: give it one, on one line")]
    Empty,
    /// More than one line with something on it.
    #[error("there is more than one line on standard input: give it one number")]
    Several,
    /// It is no number.
    #[error("what is on standard input is no phone number: it {0}")]
    NotANumber(PhoneError),
    /// It cannot be read.
    #[error("cannot read standard input: {0}")]
    Unread(String),
}

/// Reads the number. A person at a terminal is asked for it, and ends it with Enter.
pub(super) fn number() -> Result<Phone, InputError> {
    let input = io::stdin().lock();
    let is_terminal = input.is_terminal();
    let mut input = input.take(MOST);
    let mut read = Vec::new();
    let done = if is_terminal {
        say("The phone number, and Enter:");
        input.read_until(b'\n', &mut read)
    } else {
        input.read_to_end(&mut read)
    };
    done.map_err(|error| InputError::Unread(error.to_string()))?;
    parse(&read)
}

/// White space, line ends and a byte order mark around the number do not belong to it.
fn parse(read: &[u8]) -> Result<Phone, InputError> {
    let text = String::from_utf8_lossy(read);
    let is_outside = |c: char| c.is_whitespace() || c == '\u{feff}';
    let mut lines = text.split(['\n', '\r']).map(|line| line.trim_matches(is_outside)).filter(|line| !line.is_empty());
    let number = lines.next().ok_or(InputError::Empty)?;
    if lines.next().is_some() {
        return Err(InputError::Several);
    }
    Phone::parse(number).map_err(InputError::NotANumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_read_however_its_line_ends() {
        for text in ["0901888484", "0901888484\n", "\u{feff} +84 901.888.484 \r\n\n", "\n\n0084901888484\t"] {
            let phone = parse(text.as_bytes()).expect(text);
            assert_eq!(phone.international().digits(), "84901888484", "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for (text, error) in [
            ("", InputError::Empty),
            (" \r\n\u{feff}\n", InputError::Empty),
            ("0901888484\n0901888485\n", InputError::Several),
            ("0901888484\r0901888485", InputError::Several),
            ("0901888x84", InputError::NotANumber(PhoneError::NotDigits)),
            ("0901888484,0901888485", InputError::NotANumber(PhoneError::NotDigits)),
            ("123", InputError::NotANumber(PhoneError::Length)),
        ] {
            let refused = parse(text.as_bytes()).expect_err(text);
            assert_eq!(refused, error, "{text:?}");
            assert!(!refused.to_string().contains("0901888x") && !refused.to_string().contains("0901888485"));
        }
        assert_eq!(parse(b"\xff\xfe0\0").unwrap_err(), InputError::NotANumber(PhoneError::NotDigits));
    }
}

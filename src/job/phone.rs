//! A receiver's phone number. Only eSMS gets it whole; everybody else sees it masked.

use std::borrow::Cow;
use std::fmt;

/// A phone number of 8 to 15 digits. `Debug` and `Display` show its last three digits only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Phone(String);

/// Why a text is not a phone number. It never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    /// It has a character that is neither a digit nor an allowed separator.
    #[error("must be digits, with one leading + and with spaces, dots, dashes or parentheses between digits at most")]
    NotDigits,
    /// Too few or too many digits.
    #[error("must have 8 to 15 digits")]
    Length,
}

impl Phone {
    /// Reads a number as producers write it: one leading `+` is dropped, and so are spaces, dots, dashes and
    /// parentheses between digits.
    ///
    /// # Errors
    /// When anything else is in it, or the digits are fewer than 8 or more than 15 (E.164's most).
    pub fn parse(text: &str) -> Result<Self, PhoneError> {
        let number = text.strip_prefix('+').unwrap_or(text);
        let ends_in_digits = [number.bytes().next(), number.bytes().last()]
            .iter()
            .all(|end| end.is_some_and(|byte| byte.is_ascii_digit()));
        let allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b' ' | b'.' | b'-' | b'(' | b')');
        if !ends_in_digits || !number.bytes().all(allowed) {
            return Err(PhoneError::NotDigits);
        }
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        if (8..=15).contains(&digits.len()) { Ok(Self(digits)) } else { Err(PhoneError::Length) }
    }

    /// The digits, for eSMS. Everything else shows the masked form.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// The same number in international digits, whichever usual form it was written in.
    #[must_use]
    pub fn international(&self) -> Self {
        Self(international(&self.0).into_owned())
    }

    /// `text` with every form of this number masked: eSMS repeats numbers in its error messages, with and
    /// without separators between the digits, and may write `84…` for `0…`.
    pub fn masked_in(&self, text: &str) -> String {
        let international = self.0.strip_prefix("00").unwrap_or(&self.0);
        let national = international.strip_prefix("84").unwrap_or(international).trim_start_matches('0');
        let core = if national.len() >= 7 { national } else { &self.0 };
        // Most texts have too few digits, or others.
        let said: String = text.chars().filter(char::is_ascii_digit).collect();
        if !said.contains(core) {
            return text.to_owned();
        }
        let mut chars: Vec<char> = text.chars().collect();
        let digits: Vec<usize> = (0..chars.len()).filter(|at| chars[*at].is_ascii_digit()).collect();
        let is_core = |places: &&[usize]| {
            let are_joined = places.windows(2).all(|pair| is_gap(&chars[pair[0] + 1..pair[1]]));
            are_joined && places.iter().map(|at| chars[*at]).eq(core.chars())
        };
        let hidden = core.len().saturating_sub(SHOWN);
        let found: Vec<usize> =
            digits.windows(core.len()).filter(is_core).flat_map(|places| &places[..hidden]).copied().collect();
        for at in found {
            chars[at] = '*';
        }
        chars.into_iter().collect()
    }
}

/// A number in international digits. `0…`, `84…`, `+84…` and `0084…` are one number of Vietnam; `00` begins a
/// number of any country. After Vietnam's 84 a 0 is one too many.
fn international(digits: &str) -> Cow<'_, str> {
    let (rest, is_whole) = match digits.strip_prefix("00") {
        Some(rest) => (rest, true),
        None => (digits, !digits.starts_with('0')),
    };
    match (rest.strip_prefix("84"), is_whole) {
        (Some(national), true) => match national.strip_prefix('0') {
            Some(national) => Cow::Owned(format!("84{national}")),
            None => Cow::Borrowed(rest),
        },
        (None, true) => Cow::Borrowed(rest),
        (_, false) => Cow::Owned(format!("84{}", &rest[1..])),
    }
}

/// Digits in a row from which on they may be a phone number.
const SHORTEST: usize = 7;

/// The most characters between two digits of one number, as in `(+84) 901 - 888`.
const GAP: usize = 3;

/// `text` with every digit of a long number replaced, whatever separates its digits. For words in which any number may
/// be a phone number.
pub fn without_numbers(text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let digits: Vec<usize> = (0..chars.len()).filter(|at| chars[*at].is_numeric()).collect();
    let is_one_number = |one: &usize, next: &usize| {
        let between = &chars[one + 1..*next];
        between.len() <= GAP && !between.iter().any(|char| char.is_alphabetic())
    };
    let long: Vec<usize> =
        digits.chunk_by(is_one_number).filter(|number| number.len() >= SHORTEST).flatten().copied().collect();
    for at in long {
        chars[at] = '*';
    }
    chars.into_iter().collect()
}

/// How many digits of a masked number are shown, the last ones.
const SHOWN: usize = 3;

/// Whether these characters, or none, may stand between two digits of one number.
fn is_gap(between: &[char]) -> bool {
    between.len() <= GAP && !between.iter().any(|char| char.is_alphanumeric())
}

fn masked(digits: &str) -> String {
    let hidden = digits.len().saturating_sub(SHOWN);
    format!("{}{}", "*".repeat(hidden), &digits[hidden..])
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_producers_write_a_number_are_read_as_its_digits() {
        for (text, digits) in [
            ("0901888484", "0901888484"),
            ("84901888484", "84901888484"),
            ("+84901888484", "84901888484"),
            ("+84 901.888-484", "84901888484"),
            ("0901  888--484", "0901888484"),
            ("84 (90) 188-8484", "84901888484"),
            ("+84(90)1888484", "84901888484"),
            ("12345678", "12345678"),
            ("123456789012345", "123456789012345"),
        ] {
            assert_eq!(Phone::parse(text).map(|p| p.digits().to_owned()), Ok(digits.to_owned()), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for text in [
            "",
            "+",
            "++84901888484",
            " 0901888484",
            "0901888484 ",
            "+ 84901888484",
            "0901888484x",
            "٠٩٠١٨٨٨٤٨٤",
            "-0901888484",
            "(090)1888484",
        ] {
            assert_eq!(Phone::parse(text), Err(PhoneError::NotDigits), "{text}");
        }
        for text in ["1234567", "1234567890123456", "1 2 3 4 5 6 7"] {
            assert_eq!(Phone::parse(text), Err(PhoneError::Length), "{text}");
        }
    }

    #[test]
    fn a_number_shows_its_last_three_digits_only() {
        let phone = Phone::parse("0901888484").unwrap();
        assert_eq!(phone.to_string(), "*******484");
        assert_eq!(format!("{phone:?}"), "Phone(*******484)");
    }

    #[test]
    fn every_form_of_a_number_is_masked_in_what_esms_says() {
        let phone = Phone::parse("0901888484").unwrap();
        assert_eq!(phone.masked_in("0901888484, Content: no"), "0******484, Content: no");
        assert_eq!(phone.masked_in("84901888484 and +84901888484"), "84******484 and +84******484");
    }

    #[test]
    fn separators_do_not_hide_a_number() {
        let phone = Phone::parse("0901888484").unwrap();
        for (said, shown) in [
            ("0901 888 484", "0*** *** 484"),
            ("0901.888.484.", "0***.***.484."),
            ("(+84) 901-888-484", "(+84) ***-***-484"),
            ("+84 (0) 901 - 888 - 484", "+84 (0) *** - *** - 484"),
            ("0901\u{a0}888\u{200b}484", "0***\u{a0}***\u{200b}484"),
            ("0-9-0-1-8-8-8-4-8-4", "0-*-*-*-*-*-*-4-8-4"),
            ("09018884840901 888 484", "0******4840*** *** 484"),
            ("0901888484/0901888484", "0******484/0******484"),
            ("0901 and 888484", "0901 and 888484"),
            ("901888 483, code 484", "901888 483, code 484"),
        ] {
            assert_eq!(phone.masked_in(said), shown);
        }
    }

    #[test]
    fn a_number_is_masked_in_every_form_however_the_producer_wrote_it() {
        for written in ["0901888484", "84901888484", "+84901888484", "0084901888484", "+84 0901888484", "901888484"] {
            let phone = Phone::parse(written).unwrap();
            for said in ["0901888484", "84901888484", "+84901888484", "0084901888484", "840901888484", "901888484"] {
                let masked = phone.masked_in(&format!("{said}, Content: no"));
                assert!(!masked.contains("901888484") && masked.contains("******484"), "{written}: {masked}");
            }
        }
        // 084 is the prefix of a network, not of the country.
        assert_eq!(Phone::parse("0843123456").unwrap().masked_in("84843123456"), "84******456");
    }

    #[test]
    fn numbers_that_run_into_each_other_are_masked_all() {
        let phone = Phone::parse("11111111").unwrap();
        assert_eq!(phone.masked_in("1111111111111"), "**********111");
    }

    proptest::proptest! {
        #[test]
        fn no_text_shows_the_number_once_it_is_masked(number in "[01]{8,15}", text in "([01]{1,20}|, ){0,6}") {
            let phone = Phone::parse(&number).unwrap();
            for said in [format!("{text}{number}{text}"), format!("84{number}{number}{text}"), text] {
                let masked = phone.masked_in(&said);
                proptest::prop_assert!(!masked.contains(phone.digits()), "{}", masked);
            }
        }
    }

    #[test]
    fn a_number_with_little_behind_its_prefix_is_masked_whole() {
        for number in ["84123456", "00000000", "00841234", "12345678"] {
            let masked = Phone::parse(number).unwrap().masked_in(&format!("to {number}."));
            assert!(masked.starts_with("to *****") || masked.starts_with("to 0*****"), "{number}: {masked}");
        }
    }

    #[test]
    fn a_number_of_any_country_is_written_in_international_digits() {
        for (digits, expected) in [
            ("0901888484", "84901888484"),
            ("84901888484", "84901888484"),
            ("0084901888484", "84901888484"),
            ("840901888484", "84901888484"),
            // 084 is the prefix of a network, not of the country.
            ("0843123456", "84843123456"),
            ("84843123456", "84843123456"),
            ("00442071234567", "442071234567"),
            ("442071234567", "442071234567"),
            ("12345678", "12345678"),
            ("00000000", "000000"),
        ] {
            assert_eq!(international(digits), expected, "{digits}");
        }
    }
}

//! What of a third party's words may leave the process. Pure.

use crate::job::phone::without_numbers;

/// How much of a body is quoted, in characters.
const QUOTE: usize = 100;

/// `text` with `[removed]` where one of the secrets is.
pub(super) fn without(text: &str, secrets: &[&str]) -> String {
    if !secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret)) {
        return text.to_owned();
    }
    let mut hidden = vec![false; text.len()];
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(secret.as_bytes())) {
            hidden[at..at + secret.len()].fill(true);
        }
    }
    let mut shown = String::with_capacity(text.len());
    let mut was_hidden = false;
    for (at, char) in text.char_indices() {
        match hidden[at] {
            false => shown.push(char),
            true if !was_hidden => shown.push_str("[removed]"),
            true => {}
        }
        was_hidden = hidden[at];
    }
    shown
}

/// The beginning of `text` for a log line: in one line, without control characters, without the secrets, and
/// without digits that may be a phone number.
pub(super) fn quote(text: &str, secrets: &[&str]) -> String {
    // Whatever could hide a secret in the middle goes first; the cut comes last, so that it cuts no secret in two.
    let visible: String = text.chars().filter(|char| char.is_whitespace() || is_visible(*char)).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    let masked = without_numbers(&without(&line, secrets));
    match masked.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &masked[..end]),
        None => masked,
    }
}

/// Not a control character, and not one of those that change how a line is shown.
fn is_visible(char: char) -> bool {
    let is_format = matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !char.is_control() && !is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_wherever_they_are() {
        for (text, shown) in [
            ("nothing", "nothing"),
            ("ApiKey=key1, SecretKey=word2", "ApiKey=[removed], SecretKey=[removed]"),
            ("key1key1", "[removed]"),
            ("xkey1y", "x[removed]y"),
            ("khóa key1 à", "khóa [removed] à"),
            ("", ""),
        ] {
            assert_eq!(without(text, &["key1", "word2", ""]), shown);
        }
    }

    #[test]
    fn secrets_that_overlap_or_are_in_our_own_word_are_removed_once() {
        assert_eq!(without("abcd", &["abc", "bcd"]), "[removed]");
        assert_eq!(without("ababa", &["aba"]), "[removed]");
        assert_eq!(without("x e", &["x", "e"]), "[removed] [removed]");
        assert_eq!(without("ạ", &["\u{1ea1}"]), "[removed]");
    }

    #[test]
    fn a_quote_is_short_and_in_one_line() {
        assert_eq!(
            quote(" <html>\r\n\t<p>Xin  chào\0\u{1b}[31m</p>\u{202e}\u{feff}", &[]),
            "<html> <p>Xin chào[31m</p>"
        );
        assert_eq!(quote(&"à".repeat(101), &[]), "à".repeat(100) + "…");
        assert_eq!(quote(&"à".repeat(100), &[]), "à".repeat(100));
    }

    #[test]
    fn a_quote_shows_no_number_with_or_without_separators() {
        for number in [
            "0901888484",
            "0901 888 484",
            "0901.888.484",
            "(+84) 901-888-484",
            "0901\u{a0}888\u{a0}484",
            "09\0 01\u{200b}888484",
            "0-9-0-1-8-8-8-4-8-4",
            "1234567",
            "٠٩٠١٨٨٨٤٨٤",
        ] {
            let quote = quote(&format!("to {number}, no"), &[]);
            assert!(
                !quote.contains(char::is_numeric) && quote.starts_with("to ") && quote.ends_with(", no"),
                "{quote}"
            );
        }
        assert_eq!(quote("Error 503 at 123456 of 12 bytes", &[]), "Error 503 at 123456 of 12 bytes");
    }

    #[test]
    fn a_quote_shows_no_secret_not_even_the_part_before_its_end() {
        let secret = "canary-key-0123456789abcdef";
        for before in 60..110 {
            let quote = quote(&format!("{}{secret}", "x".repeat(before)), &[secret]);
            assert!(!quote.contains("canary"), "{quote}");
        }
        let many = quote(&secret.repeat(2000), &[secret]);
        assert_eq!(many, "[removed]");
        assert_eq!(quote("canary\0-key-0123456789abcdef", &[secret]), "[removed]");
    }
}

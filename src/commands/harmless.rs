//! Words of others, made harmless for a terminal: an id, a reason and a body come from whoever may publish. Pure.

use serde::Serialize;

/// `text` without anything that a terminal obeys: a control character, one that turns the direction of writing round, or
/// one that is not seen is written out, as in `\u{1b}`.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        // These harm nobody, and stand in every JSON text.
        if matches!(char, '"' | '\'' | '\\') { shown.push(char) } else { shown.extend(char.escape_debug()) }
    }
    shown
}

/// A value as one line of JSON that a terminal may show, too. It is read as what it is.
pub(super) fn harmless_json(value: &impl Serialize) -> String {
    // Texts, numbers and lists of them always have a JSON form.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut shown = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_ascii_graphic() || char == ' ' || char.escape_debug().len() == 1 {
            shown.push(char);
        } else {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    shown
}

/// The beginning of a text, in so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for (text, shown) in [
            ("5f0c \"a\" it's \\n Đã gửi", "5f0c \"a\" it's \\n Đã gửi"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fed\u{2066}", "abc\\u{202e}fed\\u{2066}"),
            ("\u{200b}\u{feff}\u{7f}", "\\u{200b}\\u{feff}\\u{7f}"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }

    #[test]
    fn json_stays_what_it_is_and_shows_nothing_that_a_terminal_obeys() {
        let text = "a\u{1b}[2J\u{9b}\u{202e}\u{e0001} Đã \"gửi\"";
        let shown = harmless_json(&serde_json::json!({ "Id": text }));
        assert_eq!(shown, r#"{"Id":"a\u001b[2J\u009b\u202e\udb40\udc01 Đã \"gửi\""}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["Id"], text);
        assert!(!harmless_json(&"\u{7f}").contains('\u{7f}'));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!((cut("Đã gửi", 2), cut("Đã", 2), cut("", 0)), ("Đã…".into(), "Đã".into(), String::new()));
    }
}

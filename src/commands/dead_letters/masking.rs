//! The body of a letter as people are shown it: without a whole phone number. Pure.

use serde_json::{Map, Value};

use crate::commands::harmless::harmless;
use crate::job::phone::{Phone, without_numbers};

/// How much of a body is shown, in characters.
const MOST: usize = 4_000;

/// The most bytes that are looked at for this. No job is larger.
const MOST_BYTES: usize = 64 * 1024;

/// The lines of a body. In one that is not JSON a number may be written in any way, so every digit is masked.
pub(super) fn lines(body: &[u8]) -> Vec<String> {
    if body.is_empty() {
        return vec!["(empty)".into()];
    }
    let text = match serde_json::from_slice::<Value>(body).ok().filter(|_| body.len() <= MOST_BYTES) {
        Some(json) => format!("{:#}", masked(json)),
        None => {
            let text = String::from_utf8_lossy(&body[..body.len().min(MOST_BYTES)]);
            text.chars().map(|char| if char.is_numeric() { '*' } else { char }).collect()
        }
    };
    let mut lines: Vec<String> = text
        .chars()
        .take(MOST)
        .collect::<String>()
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .map(harmless)
        .collect();
    if text.chars().count() > MOST || body.len() > MOST_BYTES {
        lines.push(format!("(cut: the body has {} bytes)", body.len()));
    }
    lines
}

fn masked(json: Value) -> Value {
    match json {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| match value {
                Value::String(text) if name == "Phone" => (name, Value::String(phone(&text))),
                value => (without_numbers(&name), masked(value)),
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(masked).collect()),
        Value::String(text) => Value::String(without_numbers(&text)),
        Value::Number(number) => {
            let text = number.to_string();
            let shown = without_numbers(&text);
            if shown == text { Value::Number(number) } else { Value::String(shown) }
        }
        json @ (Value::Null | Value::Bool(_)) => json,
    }
}

/// A number that cannot be read may be one all the same.
fn phone(text: &str) -> String {
    Phone::parse(text).map_or_else(
        |_| text.chars().map(|char| if char.is_numeric() { '*' } else { char }).collect(),
        |phone| phone.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &[u8]) -> String {
        lines(body).join("\n")
    }

    #[test]
    fn a_body_is_shown_without_a_whole_number_wherever_it_is() {
        for (body, expected) in [
            (&br#"{"Phone":"0901888484","TypeId":"2"}"#[..], "{\n  \"Phone\": \"*******484\",\n  \"TypeId\": \"2\"\n}"),
            (br#"{"Phone":"12-34"}"#, "{\n  \"Phone\": \"**-**\"\n}"),
            (br#"{"Phone":901888484}"#, "{\n  \"Phone\": \"*********\"\n}"),
            (br#"{"Tel":["+84 901.888.484", 5]}"#, "{\n  \"Tel\": [\n    \"+** ***.***.***\",\n    5\n  ]\n}"),
            (br#"{"0901888484":"1234"}"#, "{\n  \"**********\": \"1234\"\n}"),
            (br#"{"Ph\u006fne":"\u00309018884\u00384"}"#, "{\n  \"Phone\": \"*******484\"\n}"),
            (br#"{"Phone":"0901888484", cut"#, "{\"Phone\":\"**********\", cut"),
            (b"Phone=0901 888 484&a=1", "Phone=**** *** ***&a=*"),
            (b"", "(empty)"),
            (b"\"0901888484\"", "\"**********\""),
        ] {
            assert_eq!(shown(body), expected);
        }
    }

    #[test]
    fn a_body_obeys_nothing_and_is_cut() {
        assert_eq!(shown(b"a\x1b[J\r\nb\xff"), "a\\u{1b}[J\nb\u{fffd}");
        assert_eq!(shown("{\"a\":\"\u{202e}x\"}".as_bytes()), "{\n  \"a\": \"\\u{202e}x\"\n}");
        let long = shown(&b"x".repeat(100_000));
        assert!(long.len() < 4_100 && long.ends_with("\n(cut: the body has 100000 bytes)"), "{long}");
    }

    proptest::proptest! {
        #[test]
        fn no_body_shows_a_whole_number(before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            let number = "0901888484";
            for body in [format!("{before}{number}{after}"), format!(r#"{{"{before}":"{after}{number}"}}"#)] {
                proptest::prop_assert!(!shown(body.as_bytes()).contains(number));
            }
        }
    }
}

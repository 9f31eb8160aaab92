//! A message as it came, and the copy of it that is kept for people.

use std::borrow::Cow;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use serde_json::Value;

use crate::job::dead;

/// A message as it came.
pub struct Original {
    /// The body.
    pub body: Vec<u8>,
    /// The properties.
    pub properties: BasicProperties,
}

/// The body holds a phone number, and is not shown.
impl std::fmt::Debug for Original {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Original").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Original {
    /// The body without the values of credentials, which do not belong on a queue. A body that cannot be read
    /// and may hold credentials is replaced whole.
    pub fn body_without_credentials(&self) -> Cow<'_, [u8]> {
        if !mentions_credentials(&self.body) {
            return Cow::Borrowed(&self.body);
        }
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(mut json) => {
                remove_credentials(&mut json);
                Cow::Owned(serde_json::to_vec(&json).unwrap_or_default())
            }
            Err(_) => Cow::Borrowed(b"[withheld: unreadable, and may hold credentials]"),
        }
    }

    /// The properties of the copy: those of the original, and `x-error`. Properties that would make the copy
    /// expire, be refused or be routed elsewhere are left out; the `expiration` is kept as a header.
    pub fn properties_with_error(&self, why: &str) -> BasicProperties {
        let given = &self.properties;
        let mut headers = FieldTable::default();
        let mut room = MOST_HEADERS;
        if let Some(value) = dead::expiration(given) {
            let text = AMQPValue::LongString(LongString::from(value.as_str()));
            room -= header_size(dead::EXPIRATION, &text).unwrap_or_default();
            headers.insert(dead::EXPIRATION.into(), text);
        }
        if let Some(given) = given.headers() {
            keep_headers(&mut headers, given, room);
        }
        headers.insert(dead::REASON.into(), AMQPValue::LongString(LongString::from(why)));
        let mut copy = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
        if let Some(value) = given.content_type() {
            copy = copy.with_content_type(value.clone());
        }
        if let Some(value) = given.content_encoding() {
            copy = copy.with_content_encoding(value.clone());
        }
        if let Some(value) = given.correlation_id() {
            copy = copy.with_correlation_id(value.clone());
        }
        if let Some(value) = given.reply_to() {
            copy = copy.with_reply_to(value.clone());
        }
        if let Some(value) = given.message_id() {
            copy = copy.with_message_id(value.clone());
        }
        if let Some(value) = given.timestamp() {
            copy = copy.with_timestamp(*value);
        }
        if let Some(value) = given.kind() {
            copy = copy.with_type(value.clone());
        }
        if let Some(value) = given.app_id() {
            copy = copy.with_app_id(value.clone());
        }
        copy
    }
}

/// The most bytes of headers that a copy keeps. All properties of a message must fit into one frame, which has
/// at least 4 KiB. A copy that does not fit would close the connection with every try.
const MOST_HEADERS: usize = 1024;

/// The headers that help a person: texts and numbers, as long as there is room. `CC` and `BCC` are left out,
/// because RabbitMQ would route by them.
fn keep_headers(kept: &mut FieldTable, given: &FieldTable, mut room: usize) {
    for (name, value) in given.inner() {
        let Some(size) = header_size(name.as_str(), value) else { continue };
        let is_taken = kept.contains_key(name.as_str());
        if size <= room && !is_taken && !matches!(name.as_str(), "CC" | "BCC") {
            room -= size;
            kept.insert(name.clone(), value.clone());
        }
    }
}

/// The bytes of a header; none of one that is not kept.
fn header_size(name: &str, value: &AMQPValue) -> Option<usize> {
    let value_size = match value {
        AMQPValue::LongString(text) => text.as_bytes().len(),
        AMQPValue::FieldTable(_) | AMQPValue::FieldArray(_) | AMQPValue::ByteArray(_) => return None,
        _ => size_of::<u64>(),
    };
    // Name and value, and three more: the name's length, the type, and the value's length.
    Some(1 + name.len() + 1 + 4 + value_size)
}

const CREDENTIALS: [&str; 2] = ["apikey", "secretkey"];

/// Whether the text names a credential, in upper or lower case. A `\u` escape could hide a name.
fn mentions_credentials(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    // Zero bytes come from UTF-16, where the letters of a name are not next to each other.
    text.contains("\\u") || text.contains('\0') || CREDENTIALS.iter().any(|name| text.contains(name))
}

fn remove_credentials(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                if CREDENTIALS.contains(&name.to_ascii_lowercase().as_str()) {
                    *value = Value::from("[removed]");
                } else {
                    remove_credentials(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(remove_credentials),
        // A string may hold a whole job, with its credentials.
        Value::String(text) if mentions_credentials(text.as_bytes()) => *text = "[removed]".into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(body: &[u8]) -> String {
        let original = Original { body: body.to_vec(), properties: BasicProperties::default() };
        String::from_utf8_lossy(&original.body_without_credentials()).into_owned()
    }

    #[test]
    fn a_body_without_credentials_is_kept_as_it_is() {
        for body in [&b"{\"Phone\": \"0901888484\"}"[..], b"not json", b"\xff\xfe", b""] {
            let original = Original { body: body.to_vec(), properties: BasicProperties::default() };
            assert_eq!(original.body_without_credentials(), body);
        }
    }

    #[test]
    fn credentials_are_kept_nowhere_however_they_are_written() {
        for body in [
            r#"{"Phone":"0901888484","ApiKey":"canary"}"#,
            r#"{"secretkey":"canary"}"#,
            r#"{"job":[{"SECRETKEY":{"a":"canary"}}]}"#,
            r#"{"Api\u004bey":"canary"}"#,
            r#"{"job":"{\"ApiKey\":\"canary\"}"}"#,
            r#"{"ApiKey":"canary", "cut"#,
            "ApiKey=canary&SecretKey=canary",
        ] {
            assert!(!kept(body.as_bytes()).contains("canary"), "{body}: {}", kept(body.as_bytes()));
        }
        let utf16: Vec<u8> = r#"{"ApiKey":"canary"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(kept(&utf16).starts_with("[withheld"));
    }

    #[test]
    fn the_copy_does_not_expire_and_is_routed_nowhere_else() {
        let mut headers = FieldTable::default();
        headers.insert("CC".into(), AMQPValue::LongString("elsewhere".into()));
        headers.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_expiration("100".into())
            .with_user_id("guest".into())
            .with_message_id("a".into());
        let copy = Original { body: Vec::new(), properties }.properties_with_error("why");
        assert_eq!((copy.expiration(), copy.user_id(), copy.delivery_mode()), (&None, &None, &Some(2)));
        let names: Vec<&str> = copy.headers().as_ref().unwrap().inner().keys().map(|k| k.as_str()).collect();
        assert_eq!(names, ["traceparent", "x-error", "x-expiration"]);
        assert_eq!(copy.message_id().as_ref().unwrap().as_str(), "a");
    }

    #[test]
    fn the_copy_keeps_the_expiration_as_a_header_whatever_else_there_is() {
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::LongString("x".repeat(MOST_HEADERS - 1 - 1 - 1 - 4).into()));
        headers.insert("x-expiration".into(), AMQPValue::LongString("1".into()));
        let given = BasicProperties::default().with_headers(headers);
        let kept = |properties: BasicProperties| {
            let copy = Original { body: Vec::new(), properties }.properties_with_error("why");
            let headers = copy.headers().as_ref().unwrap().inner().clone();
            let expiration = headers.get("x-expiration").cloned();
            (expiration, headers.contains_key("a"))
        };
        let text = |text: &str| Some(AMQPValue::LongString(text.into()));
        assert_eq!(kept(given.clone().with_expiration("60000".into())), (text("60000"), false));
        assert_eq!(kept(given), (text("1"), false));
        assert_eq!(kept(BasicProperties::default()), (None, false));
    }
}

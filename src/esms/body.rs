//! The body of a reply, as HTTP stacks deliver it: compressed, in another encoding of text, with more behind it
//! or cut short. Pure.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use serde_json::value::RawValue;

/// The most bytes of a body that are kept, compressed and decompressed. An answer of eSMS has a few hundred.
pub(super) const LARGEST: usize = 64 * 1024;

/// `body` as it was before a server or a proxy compressed it. What cannot be decompressed stays as it came.
///
/// Compression is known by its first bytes, because the header `Content-Encoding` is missing or wrong now and then.
/// Only plain deflate has no such bytes; `encoding`, the header, names it. A body that is cut short is decompressed as
/// far as it goes.
pub(super) fn decompressed<'a>(body: &'a [u8], encoding: Option<&str>) -> Cow<'a, [u8]> {
    let named = |name: &str| encoding.is_some_and(|value| value.to_ascii_lowercase().contains(name));
    let plain = match body {
        [0x1f, 0x8b, ..] => limited(MultiGzDecoder::new(body)),
        // The first byte names the method. With the second it is a multiple of 31.
        [0x78, second, ..] if (0x7800 + u16::from(*second)) % 31 == 0 => limited(ZlibDecoder::new(body)),
        // Servers say deflate also where they send no body that is compressed at all.
        [first, ..] if named("deflate") && !matches!(first, b'{' | b'<') => limited(DeflateDecoder::new(body)),
        _ => return Cow::Borrowed(body),
    };
    if plain.is_empty() { Cow::Borrowed(body) } else { Cow::Owned(plain) }
}

/// What can be read, up to [`LARGEST`] bytes: a small body must not grow to gigabytes.
fn limited(decoder: impl Read) -> Vec<u8> {
    let mut plain = Vec::new();
    // An error is a cut or a damaged end. What came before it counts.
    let _ = decoder.take(LARGEST as u64).read_to_end(&mut plain);
    plain
}

/// The JSON object that the body begins with, once it is whole. What follows it does not matter.
pub(super) fn object(body: &[u8]) -> Option<Box<RawValue>> {
    let text = text(body);
    // .NET services sometimes send a byte order mark before the JSON.
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>();
    if text.starts_with('{') { values.next()?.ok() } else { None }
}

/// The body as text. .NET may also write UTF-16. Bytes that are no text are replaced.
fn text(body: &[u8]) -> Cow<'_, str> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = body.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let chars = char::decode_utf16(units).map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
        Cow::Owned(chars.collect())
    };
    match body {
        [0xff, 0xfe, ..] | [b'{', 0, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, b'{', ..] => utf16(u16::from_be_bytes),
        _ => String::from_utf8_lossy(body),
    }
}

/// What a body looks like that is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is nothing in it.
    Empty,
    /// A page for people.
    Html,
    /// A page that asks for a login.
    LoginPage,
    /// XML that is no page.
    Xml,
    /// JSON, but not such as eSMS answers with.
    Json,
    /// Words.
    Text,
    /// No text at all.
    Binary,
}

impl Look {
    /// The look of a body.
    fn of(body: &[u8]) -> Self {
        let text = text(body);
        let text = text.trim_matches(|char: char| char.is_whitespace() || char == '\u{feff}');
        let head: String = text.chars().take(4096).flat_map(char::to_lowercase).collect();
        let has = |words: &[&str]| words.iter().any(|word| head.contains(word));
        if head.is_empty() {
            Self::Empty
        } else if head.contains(['\0', char::REPLACEMENT_CHARACTER]) || head.starts_with('\u{1f}') {
            Self::Binary
        } else if has(&["<!doctype html", "<html", "<body", "<head"]) {
            let login = ["type=\"password\"", "captive", "login", "log in", "sign in", "wispaccess", "đăng nhập"];
            if has(&login) { Self::LoginPage } else { Self::Html }
        } else if head.starts_with('<') {
            Self::Xml
        } else if head.starts_with(['{', '[', '"']) {
            Self::Json
        } else {
            Self::Text
        }
    }

    /// What people are told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "an empty body",
            Self::Html => "an HTML page",
            Self::LoginPage => "a login page or captive portal (HTML)",
            Self::Xml => "XML",
            Self::Json => "JSON of another form",
            Self::Text => "plain text",
            Self::Binary => "a compressed or binary body that cannot be read",
        }
    }

    /// What a person can do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Html | Self::Xml | Self::Text | Self::Json => {
                "check ESMS_URL, eSMS's status, and what stands between here and eSMS"
            }
            Self::LoginPage => "something between here and eSMS wants a login: let this machine through to eSMS",
            Self::Empty | Self::Binary => "check what stands between here and eSMS: it changes or drops bodies",
        }
    }
}

/// A body that is no answer.
#[derive(Clone)]
pub struct Page {
    /// What it looks like.
    pub look: Look,
    body: Bytes,
}

impl Page {
    pub(super) fn new(body: Bytes) -> Self {
        Self { look: Look::of(&body), body }
    }

    /// All of its text, which is not masked.
    pub(super) fn text(&self) -> Cow<'_, str> {
        text(&self.body)
    }
}

impl fmt::Debug for Page {
    /// Without the text, which may hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Page").field(&self.look).finish()
    }
}

#[cfg(test)]
mod tests;

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

const ANSWER: &str = r#"{"CodeResult":"100","SMSID":"d533459ee42b2b9525ba9eabf6a8156"}"#;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn is_the_answer(body: &[u8], encoding: Option<&str>) -> bool {
    object(&decompressed(body, encoding)).is_some_and(|object| object.get() == ANSWER)
}

#[test]
fn gzip_is_decompressed_whatever_the_header_says() {
    for encoding in [Some("gzip"), Some("x-gzip"), Some("GZIP"), Some("identity"), Some("br"), None] {
        assert!(is_the_answer(&gzip(ANSWER.as_bytes()), encoding), "{encoding:?}");
    }
}

#[test]
fn deflate_is_decompressed_with_and_without_its_header_of_two_bytes() {
    for level in 0..=9 {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(ANSWER.as_bytes()).unwrap();
        assert!(is_the_answer(&encoder.finish().unwrap(), None), "{level}");
    }
    assert!(is_the_answer(&zlib(ANSWER.as_bytes()), Some("deflate")));
    assert!(is_the_answer(&raw_deflate(ANSWER.as_bytes()), Some("deflate")));
}

#[test]
fn a_header_that_names_a_compression_which_is_not_there_is_harmless() {
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, deflate", ""] {
        assert!(is_the_answer(ANSWER.as_bytes(), Some(encoding)), "{encoding}");
        assert!(is_the_answer(format!("\u{feff}{ANSWER}").as_bytes(), Some(encoding)), "{encoding}");
    }
}

#[test]
fn a_compressed_body_that_lost_its_end_is_read_as_far_as_it_goes() {
    let body = gzip(ANSWER.as_bytes());
    // The last eight bytes are the checksum and the length.
    for cut in 1..=8 {
        assert!(is_the_answer(&body[..body.len() - cut], None), "{cut}");
    }
    for end in 0..body.len() / 2 {
        assert!(!is_the_answer(&body[..end], None), "{end}");
    }
}

#[test]
fn a_small_body_does_not_become_a_large_one() {
    let bomb = gzip(&vec![b' '; 50 * LARGEST]);
    assert!(bomb.len() < LARGEST);
    assert_eq!(decompressed(&bomb, None).len(), LARGEST);
}

#[test]
fn what_cannot_be_decompressed_stays_as_it_came() {
    for body in [&b"\x1f\x8b"[..], b"\x1f\x8b\x08 nonsense", b"\x78\x9c nonsense", b"", b"x", b"\xff\xff\xff"] {
        assert_eq!(&*decompressed(body, Some("deflate")), body);
    }
}

#[test]
fn the_object_is_found_once_it_is_whole_and_not_before() {
    for end in 0..ANSWER.len() {
        assert!(object(&ANSWER.as_bytes()[..end]).is_none(), "{end}");
    }
    for rest in ["", "\r\n", "}", "<!-- a proxy was here -->", "\0\0", "{\"CodeResult\":\"101\"}", "{", ANSWER] {
        let object = object(format!("{ANSWER}{rest}").as_bytes());
        assert_eq!(object.map(|object| object.get().to_owned()).as_deref(), Some(ANSWER), "{rest}");
    }
}

#[test]
fn a_byte_order_mark_white_space_and_another_encoding_of_text_are_harmless() {
    for before in ["\u{feff}", "\u{feff}\u{feff}", " \r\n\t", "\u{feff} "] {
        assert!(is_the_answer(format!("{before}{ANSWER}").as_bytes(), None), "{before:?}");
    }
    for text in [ANSWER.to_owned(), format!("\u{feff}{ANSWER}")] {
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(is_the_answer(&little, None) && is_the_answer(&big, None));
    }
    let windows_1258 = b"{\"CodeResult\":\"100\",\"ErrorMessage\":\"Th\xe0nh c\xf4ng\"}";
    assert!(object(windows_1258).is_some());
}

#[test]
fn a_body_that_begins_with_something_else_has_no_object() {
    for body in ["", " ", "[{}]", "null", "100", "\"{}\"", "<html>{}", ")]}',{}", "x{}"] {
        assert!(object(body.as_bytes()).is_none(), "{body}");
    }
}

#[test]
fn each_look_is_recognised() {
    for (body, look) in [
        (&b""[..], Look::Empty),
        (b" \r\n", Look::Empty),
        ("\u{feff}".as_bytes(), Look::Empty),
        (b"<!DOCTYPE html>\n<html><title>Down</title></html>", Look::Html),
        (b"\n<HTML><BODY>", Look::Html),
        (b"<?xml version=\"1.0\"?><!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0\">", Look::Html),
        (b"<html><form action=/login><input type=\"password\">", Look::LoginPage),
        ("<html><a>Đăng nhập</a>".as_bytes(), Look::LoginPage),
        (b"<html><!-- <WISPAccessGatewayParam> -->", Look::LoginPage),
        (b"<?xml version=\"1.0\"?><SendResult/>", Look::Xml),
        (b"<SendResult><CodeResult>100</CodeResult></SendResult>", Look::Xml),
        (b"[]", Look::Json),
        (b"{\"CodeRes", Look::Json),
        (b"\"100\"", Look::Json),
        (b"OK", Look::Text),
        (b"no healthy upstream", Look::Text),
        (b"\x1f\x8b\x08\x00\x01\x02", Look::Binary),
        (b"\x0b\x02\x80\x03\xff", Look::Binary),
        (b"\x28\xb5\x2f\xfd\x00", Look::Binary),
    ] {
        assert_eq!(Page::new(Bytes::copy_from_slice(body)).look, look, "{body:?}");
    }
}

#[test]
fn a_pages_debug_form_does_not_show_its_text() {
    assert_eq!(format!("{:?}", Page::new(Bytes::from_static(b"0901888484"))), "Page(Text)");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(body: Vec<u8>, encoding: Option<String>) {
        let plain = decompressed(&body, encoding.as_deref());
        proptest::prop_assert!(plain.len() <= LARGEST.max(body.len()));
        let _ = (object(&plain), Page::new(Bytes::copy_from_slice(&plain)));
    }
}

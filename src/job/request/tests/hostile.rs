//! Bodies that nobody sends by mistake, and some that somebody does.

use super::*;

/// Less than any thread of the worker has; recursion into the body would not fit it.
const SMALL_STACK: usize = 128 * 1024;

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(SMALL_STACK).spawn(test).unwrap().join().unwrap();
}

/// `depth` arrays, or objects, inside each other.
fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

const SHAPES: [(&str, &str); 2] = [("[", "]"), (r#"{"a":"#, "}")];

#[test]
fn a_body_is_read_up_to_its_limit_and_not_beyond() {
    let padded = |size: usize| {
        let body = job_with(r#""TypeId":"2""#);
        format!("{body}{}", " ".repeat(size - body.len()))
    };
    assert!(read(&padded(LARGEST_BODY)).is_ok());
    assert_eq!(refusal(&padded(LARGEST_BODY + 1)), "the body is larger than 65536 bytes");
}

#[test]
fn ten_mebibytes_are_refused_whatever_they_are() {
    const TEN_MEBIBYTES: usize = 10 << 20;
    for byte in [b'{', b'[', b'0', b' ', 0, 0xff] {
        assert_eq!(decode(&vec![byte; TEN_MEBIBYTES], None), Err(BodyError::TooLarge));
    }
    let valid = job_with(&format!(r#""Extra":"{}""#, "x".repeat(TEN_MEBIBYTES)));
    assert_eq!(read(&valid), Err(BodyError::TooLarge));
}

#[test]
fn a_hundred_thousand_levels_are_refused_without_a_deep_stack() {
    on_a_small_stack(|| {
        for (open, close) in SHAPES {
            let deep = nested(100_000, open, close);
            for body in [job_with(&format!(r#""Extra":{deep}"#)), format!(r#"{{"Phone":{deep}}}"#), deep] {
                assert_eq!(read(&body), Err(BodyError::TooLarge));
            }
        }
    });
}

#[test]
fn as_many_levels_as_fit_a_body_cost_no_stack_in_any_field() {
    on_a_small_stack(|| {
        for (open, close) in SHAPES {
            let deep = nested(10_000, open, close);
            assert!(read(&job_with(&format!(r#""Extra":{deep}"#))).is_ok());
            for field in ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive"] {
                let body =
                    format!(r#"{{"{field}":{deep},"{}":"1"}}"#, if field == "Phone" { "Extra" } else { "Phone" });
                assert!(read(&body).is_err(), "{field}");
            }
            assert!(refusal(&job_with(&format!(r#""ApiKey":{deep}"#))).starts_with("ApiKey must not"));
            let unclosed = job_with(&format!(r#""Extra":{}"#, open.repeat(10_000)));
            assert!(refusal(&unclosed).starts_with("the body is not valid JSON"));
        }
        assert_eq!(read(&nested(30_000, "[", "]")), Err(BodyError::NotAnObject));
    });
}

#[test]
fn other_encodings_are_refused() {
    let body = job_with(r#""TypeId":"2""#);
    let little: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = body.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for marked in [[&b"\xff\xfe"[..], &little].concat(), [&b"\xfe\xff"[..], &big].concat()] {
        assert_eq!(decode(&marked, None), Err(BodyError::NotUtf8));
    }
    // Unmarked, its ASCII is UTF-8 with zero bytes between.
    for unmarked in [little, big] {
        assert!(matches!(decode(&unmarked, None), Err(BodyError::NotJson { .. })));
    }
    let latin1 = b"{\"Phone\":\"0901888484\",\"MultiChannelTempId\":\"m\xe3\"}";
    assert_eq!(decode(latin1, None), Err(BodyError::NotUtf8));
    assert_eq!(decode(&[0xff; 100], None), Err(BodyError::NotUtf8));
}

#[test]
fn one_byte_order_mark_is_skipped() {
    assert!(read(&format!("\u{feff}{}", job_with("\"a\":1"))).is_ok());
    let two = format!("\u{feff}\u{feff}{}", job_with("\"a\":1"));
    assert_eq!(refusal(&two), "the body is not valid JSON (line 1, column 1)");
}

#[test]
fn a_string_that_is_no_text_is_refused_by_its_fields_rule() {
    for field in ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive"] {
        let body = format!(r#"{{"{field}":"\ud800","{}":"0901888484"}}"#, if field == "Phone" { "X" } else { "Phone" });
        let refused = decode(body.as_bytes(), Some("1")).unwrap_err();
        assert!(matches!(refused, BodyError::Field { field: named, .. } if named == field), "{field}: {refused}");
    }
}

use super::super::fuzzing::feed as sift_in;
use super::*;
use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, BasicProperties, basic, connection},
    types::{AMQPValue, ShortString},
};

mod properties;

const FRAME_MAX: u32 = 128 * 1024;

fn written(frame: &AMQPFrame) -> Vec<u8> {
    let context = WriteContext::from(Vec::new());
    gen_frame(frame)(context).expect("a frame").into_inner().0
}

fn raw_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a size").to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[repair::FRAME_END]].concat()
}

/// A content header of class basic for a body of five bytes.
fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    raw_frame(HEADER, &[&fixed[..], &flags.to_be_bytes(), properties].concat())
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short string")], text].concat()
}

fn sized(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).expect("a size").to_be_bytes(), content].concat()
}

/// A header table with `depth` nested tables, the outermost included.
fn nest(depth: usize) -> Vec<u8> {
    let mut reversed = Vec::new();
    for _ in 1..depth {
        let length = u32::try_from(reversed.len()).expect("a size").to_be_bytes();
        reversed.extend(length.iter().rev());
        reversed.extend(b"Fa\x01");
    }
    reversed.reverse();
    sized(&reversed)
}

fn sift(bytes: &[u8]) -> Vec<u8> {
    sift_in(&mut Sieve::new(FRAME_MAX), bytes, bytes.len().max(1), 4096).expect("AMQP")
}

fn parsed(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).expect("a frame lapin can parse");
        frames.push(frame);
        bytes = rest;
    }
    frames
}

fn properties(frame: &[u8]) -> BasicProperties {
    match parsed(&sift(frame)).as_slice() {
        [AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size: 5, properties })] => properties.clone(),
        other => panic!("not one content header: {other:?}"),
    }
}

fn string(text: &str) -> Option<ShortString> {
    Some(text.into())
}

#[test]
fn a_message_id_that_is_not_utf8_arrives_with_substitutes() {
    let hostile = header(1 << 7, &short(b"\xff\xfebad\xff\xfe"));
    assert_eq!(properties(&hostile).message_id(), &string("\u{1A}\u{1A}bad\u{1A}\u{1A}"));
}

#[test]
fn a_header_key_that_is_not_utf8_arrives_with_substitutes() {
    let table = [short(b"\xffkey"), b"I\0\0\0\x07".to_vec()].concat();
    let hostile = header(HEADERS, &sized(&table));
    let headers = properties(&hostile).headers().clone().expect("headers");
    assert_eq!(headers.inner().get("\u{1A}key"), Some(&AMQPValue::LongInt(7)));
}

#[test]
fn a_routing_key_that_is_not_utf8_arrives_with_substitutes() {
    let fields = [short(b"tag"), vec![0; 9], short(b"\xc3"), short(b"otp\xff")].concat();
    let deliver = raw_frame(METHOD, &[&[0, 60, 0, 60], &fields[..]].concat());
    match parsed(&sift(&deliver)).as_slice() {
        [AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)))] => {
            assert_eq!(deliver.exchange.as_str(), "\u{1A}");
            assert_eq!(deliver.routing_key.as_str(), "otp\u{1A}");
        }
        other => panic!("not one delivery: {other:?}"),
    }
}

const HEADERS: u16 = 1 << 13;
const HEADERS_AND_ID: u16 = HEADERS | 1 << 7;

#[test]
fn tables_as_deep_as_allowed_are_left_alone() {
    let frame = header(HEADERS, &nest(super::super::fields::MAX_DEPTH));
    assert_eq!(sift(&frame), frame);
}

#[test]
fn a_table_too_deep_becomes_a_byte_array() {
    let frame = header(HEADERS, &nest(super::super::fields::MAX_DEPTH + 1));
    let after = sift(&frame);
    let changes = frame.iter().zip(&after).filter(|(before, after)| before != after);
    assert_eq!(changes.collect::<Vec<_>>(), [(&b'F', &b'x')]);
    parsed(&after);
}

#[test]
fn twenty_thousand_nested_tables_need_little_stack() {
    let hostile = header(HEADERS_AND_ID, &[nest(20_000), short(b"id")].concat());
    assert!(hostile.len() > 100_000);
    let sifting = std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || sift_in(&mut Sieve::new(u32::MAX), &hostile, 4096, 4096).expect("AMQP"));
    let after = sifting.expect("a thread").join().expect("no overflow");
    parsed(&after);
}

#[test]
fn headers_of_an_unknown_type_are_left_out_and_the_rest_kept() {
    let table = [short(b"key"), b"?1234".to_vec()].concat();
    let hostile = header(HEADERS_AND_ID, &[sized(&table), short(b"id")].concat());
    let properties = properties(&hostile);
    assert_eq!(properties.headers(), &None);
    assert_eq!(properties.message_id(), &string("id"));
}

#[test]
fn headers_that_overrun_their_table_are_left_out_and_the_rest_kept() {
    let table = [short(b"key"), b"S\0\0\xff\xff1".to_vec()].concat();
    let hostile = header(HEADERS_AND_ID, &[sized(&table), short(b"id")].concat());
    assert_eq!(properties(&hostile).message_id(), &string("id"));
}

#[test]
fn properties_that_cannot_be_told_apart_are_left_out() {
    let none = BasicProperties::default();
    assert_eq!(properties(&header(1 << 7, b"\x09short")), none, "overrun");
    assert_eq!(properties(&header(1 << 7, b"\x02idmore")), none, "bytes left over");
    assert_eq!(properties(&header(HEADERS, b"\xff\xff\xff\xff")), none, "a table overrun");
    assert_eq!(properties(&header(1 << 6, b"1234")), none, "half a timestamp");
}

#[test]
fn headers_that_outgrow_the_negotiated_frame_are_left_out() {
    let tune = connection::Tune { channel_max: 0, frame_max: 8192, heartbeat: 0 };
    let tune = AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
    let table = [short(b"key"), b"S".to_vec(), sized(&[b'z'; 9000])].concat();
    let large = header(HEADERS_AND_ID, &[sized(&table), short(b"id")].concat());
    assert_eq!(sift(&large), large, "while it fits");
    let after = sift(&[written(&tune), large].concat());
    match parsed(&after).as_slice() {
        [_, AMQPFrame::Header(_, header)] => {
            assert_eq!(header.properties.message_id(), &string("id"));
            assert_eq!(header.properties.headers(), &None);
        }
        other => panic!("not a header: {other:?}"),
    }
}

#[test]
fn a_header_too_large_to_hold_passes_without_properties_and_without_being_held() {
    let table = [short(b"key"), b"S".to_vec(), sized(&vec![b'z'; 3 << 20])].concat();
    let body = written(&AMQPFrame::Body(1, b"hello".to_vec()));
    let bytes = [header(HEADERS, &sized(&table)), body.clone()].concat();
    let mut sieve = Sieve::new(u32::MAX);
    let after = sift_in(&mut sieve, &bytes, 4096, 4096).expect("AMQP");
    assert_eq!(after, [header(0, b""), body].concat());
    assert!(sieve.frame.capacity() < 1024, "held {}", sieve.frame.capacity());
}

#[test]
fn a_claimed_size_reserves_no_memory() {
    let mut sieve = Sieve::new(FRAME_MAX);
    sift_in(&mut sieve, &[HEADER, 0, 1, 0, 0x0f, 0xff, 0xf0], 7, 16).expect("a head");
    assert!(sieve.frame.capacity() < 1024);
}

#[test]
fn repaired_frames_are_counted() {
    let mut sieve = Sieve::new(FRAME_MAX);
    let bytes = [header(1 << 7, &short(b"good")), header(1 << 7, &short(b"\xff"))].concat();
    sift_in(&mut sieve, &bytes, 3, 3).expect("AMQP");
    assert_eq!(sieve.repaired(), 1);
}

#[test]
fn a_string_that_overruns_its_method_leaves_the_end_marker_alone() {
    let cut = raw_frame(METHOD, &[&[0, 60, 0, 60, 0][..], &[0; 9], &[0, 2, b'q']].concat());
    assert_eq!(sift(&cut), cut);
    let stub = raw_frame(METHOD, &[0, 60, 0]);
    assert_eq!(sift(&stub), stub);
}

#[test]
fn a_change_before_an_unreadable_field_is_counted() {
    let table = [short(b"\xff"), b"F".to_vec(), sized(&[short(b"\xff"), b"?".to_vec()].concat())].concat();
    let start = raw_frame(METHOD, &[&[0, 10, 0, 10, 0, 9][..], &sized(&table)].concat());
    let mut sieve = Sieve::new(FRAME_MAX);
    let after = sift_in(&mut sieve, &start, 3, 3).expect("AMQP");
    assert_ne!(after, start);
    assert_eq!(sieve.repaired(), 1);
}

#[test]
fn what_is_not_amqp_is_refused_after_what_came_before() {
    let mut sieve = Sieve::new(FRAME_MAX);
    let heartbeat = written(&AMQPFrame::Heartbeat);
    let bytes = [&heartbeat[..], b"HTTP/1.1 400 Bad Request\r\n"].concat();
    let mut output = [0; 64];
    let moved = sieve.pull(&bytes, &mut output).expect("the heartbeat");
    assert_eq!(&output[..moved.given], heartbeat);
    let error = sieve.pull(&bytes[moved.taken..], &mut output).expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_broker_that_speaks_another_version_is_heard() {
    assert_eq!(sift(b"AMQP\0\x01\0\0"), b"AMQP\0\x01\0\0");
}

#[test]
fn the_connection_is_open_once_the_broker_says_so() {
    let mut sieve = Sieve::new(FRAME_MAX);
    let open_ok = connection::AMQPMethod::OpenOk(connection::OpenOk {});
    let bytes = written(&AMQPFrame::Method(0, AMQPClass::Connection(open_ok)));
    sift_in(&mut sieve, &bytes[..bytes.len() - 1], 1, 64).expect("AMQP");
    assert!(!sieve.is_open());
    sift_in(&mut sieve, &bytes[bytes.len() - 1..], 1, 64).expect("AMQP");
    assert!(sieve.is_open());
}

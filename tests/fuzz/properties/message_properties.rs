//! The properties that a producer writes into a message. The sieve turns them into one frame that lapin can
//! parse, and leaves a good frame as it is. The worker can handle the envelope that is read from them.
//!
//! The input is a property list: two bytes of flags, then the properties that the flags announce.

use super::frame::{content_header, properties, written};
use amq_protocol::protocol::BasicProperties;
use amq_protocol::types::{AMQPValue, FieldTable};
use esms_otp_worker::amqp::fuzzing::{Sifted, sift};
use esms_otp_worker::job::envelope::{Envelope, LONGEST_ID, Moment, SUBSTITUTE, Trace};
use esms_otp_worker::job::result;
use std::time::{Duration, SystemTime};

/// How many tables or arrays inside each other the sieve allows.
const DEEPEST: usize = 16;
/// The smallest frame size that a broker may insist on. All properties except headers fit into it.
const SMALLEST_FRAME: usize = 4096;
const FRAME_MAX: u32 = 128 * 1024;
const TTL: Duration = Duration::from_secs(300);

pub fn holds(list: &[u8]) {
    if list.len() < 2 {
        return;
    }
    let frame = content_header(list);
    for limit in [SMALLEST_FRAME as u32, FRAME_MAX] {
        let Sifted { bytes, repaired } = pass(&frame, limit);
        let read = properties(&bytes).expect("lapin can parse it");
        assert!(bytes.len() <= limit as usize, "{} bytes", bytes.len());
        assert!(depth_of_headers(&read) <= DEEPEST);
        assert_eq!(repaired == 0, bytes == frame, "a change was not counted");
        assert_eq!(is_left_alone(&bytes, limit), Some(true), "it needed more repair");
        if is_good(&frame, limit) {
            assert_eq!(repaired, 0, "a good frame was changed");
        }
        let rewritten = written(read.clone());
        assert_ne!(is_left_alone(&rewritten, limit), Some(false), "what lapin writes was changed");
        is_an_envelope_to_live_with(&read);
    }
}

fn pass(frame: &[u8], limit: u32) -> Sifted {
    sift(frame, limit, frame.len(), frame.len()).expect("a whole content header is AMQP")
}

/// `None` when the frame is larger than the limit.
fn is_left_alone(frame: &[u8], limit: u32) -> Option<bool> {
    (frame.len() <= limit as usize).then(|| pass(frame, limit) == Sifted { bytes: frame.to_vec(), repaired: 0 })
}

/// Whether lapin can parse the frame as it is. A frame is not tried if it may be nested so deeply that
/// lapin would crash.
fn is_good(frame: &[u8], limit: u32) -> bool {
    let nested = frame.iter().filter(|byte| matches!(byte, b'F' | b'A')).count();
    frame.len() <= limit as usize
        && nested < 64
        && properties(frame).is_some_and(|properties| depth_of_headers(&properties) <= DEEPEST)
}

fn depth_of_headers(properties: &BasicProperties) -> usize {
    properties.headers().as_ref().map_or(0, depth_of_table)
}

fn depth_of_table(table: &FieldTable) -> usize {
    1 + table.inner().values().map(depth).max().unwrap_or_default()
}

fn depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldTable(table) => depth_of_table(table),
        AMQPValue::FieldArray(array) => 1 + array.as_slice().iter().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn is_an_envelope_to_live_with(properties: &BasicProperties) {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let arrival = Moment { wall, ..Moment::now() };
    let envelope = Envelope::read(properties, arrival, TTL);
    assert!((1..=LONGEST_ID).contains(&envelope.id.len()));
    let given = properties.message_id().as_ref().map_or("", |id| id.as_str());
    let usable = (1..=LONGEST_ID).contains(&given.len()) && !given.contains(SUBSTITUTE);
    assert_eq!(envelope.id == given, usable);
    assert_eq!(envelope.id_problem.is_some(), !usable && !given.is_empty());
    assert!((arrival.instant..=arrival.instant + TTL).contains(&envelope.deadline));
    assert!(envelope.created.is_none_or(|created| created <= wall));
    assert!(envelope.reply_to.as_ref().is_none_or(|queue| !queue.as_str().is_empty()));
    is_printable(&envelope.trace);
    can_be_answered(&envelope, wall);
}

fn is_printable(trace: &Trace) {
    for text in [&trace.parent, &trace.state].into_iter().flatten() {
        assert!((1..=512).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text:?}");
    }
}

/// The result's own properties must fit into the smallest frame and arrive unchanged.
fn can_be_answered(envelope: &Envelope, now: SystemTime) {
    let meant = result::properties(&envelope.id, &envelope.correlation_id, &envelope.trace, now);
    let frame = written(meant.clone());
    assert!(frame.len() <= SMALLEST_FRAME);
    assert_eq!(properties(&frame), Some(meant));
}

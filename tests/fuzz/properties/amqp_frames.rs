//! The sieve over a whole inbound stream. The result does not depend on how the stream is cut. The stream
//! does not grow. Repaired bytes need no more repair. lapin can parse every content header that comes out.
//!
//! The input is the bytes that a broker sends.

use super::frame::{HEADER, whole_frames};
use amq_protocol::frame::parse_frame;
use esms_otp_worker::amqp::fuzzing::{Sifted, sift};
use std::io::ErrorKind;

const FRAME_MAX: u32 = 128 * 1024;
/// A content header that is too large to hold goes out without its properties, before its rest has come.
/// That rest is more than a mebibyte. The output may then be this many bytes longer than the part of the
/// header that has come so far.
const BARE_END: usize = 3;
pub fn holds(stream: &[u8]) {
    let all = stream.len() + BARE_END + 1;
    let whole = sifted(stream, all, all);
    for (piece, room) in [(1, 1), (1 + stream.len() % 61, all), (all, 1 + stream.len() % 13)] {
        assert_eq!(sifted(stream, piece, room), whole, "in pieces of {piece}, with room for {room}");
    }
    let Some(Sifted { bytes, repaired }) = whole else { return };
    assert!(bytes.len() <= stream.len() + BARE_END, "it grew");
    assert!(repaired > 0 || stream.starts_with(&bytes), "it changed and was not counted");
    let again = sifted(&bytes, all, all);
    assert_eq!(again, Some(Sifted { bytes: bytes.clone(), repaired: 0 }), "it needed more repair");
    for frame in whole_frames(&bytes).into_iter().filter(|frame| frame[0] == HEADER) {
        assert!(frame.len() <= FRAME_MAX as usize);
        assert!(matches!(parse_frame(frame), Ok(([], _))), "lapin cannot parse {frame:?}");
    }
}

/// `None` when the stream is refused. Nothing else may go wrong.
fn sifted(stream: &[u8], piece: usize, room: usize) -> Option<Sifted> {
    let result = sift(stream, FRAME_MAX, piece, room);
    result.inspect_err(|error| assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}")).ok()
}

//! AMQP frames as bytes: `type u8, channel u16, size u32, payload, 0xCE`.

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::BasicProperties;

pub(crate) const HEADER: u8 = 2;
/// Class basic, weight 0, a body of five bytes.
const FIXED: [u8; 12] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

/// A content header with this property list, flags first.
pub(crate) fn content_header(list: &[u8]) -> Vec<u8> {
    let size = u32::try_from(FIXED.len() + list.len()).expect("a size").to_be_bytes();
    [&[HEADER, 0, 1][..], &size, &FIXED, list, &[0xCE]].concat()
}

/// The same frame, as lapin writes it.
pub(crate) fn written(properties: BasicProperties) -> Vec<u8> {
    let header = AMQPContentHeader { class_id: 60, body_size: 5, properties };
    gen_frame(&AMQPFrame::Header(1, header))(WriteContext::from(Vec::new())).expect("a frame").into_inner().0
}

/// The properties of a frame as lapin reads them, if the frame is one content header and nothing else.
pub(crate) fn properties(frame: &[u8]) -> Option<BasicProperties> {
    match parse_frame(frame) {
        Ok(([], AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size: 5, properties }))) => {
            Some(properties)
        }
        _ => None,
    }
}

/// Cuts a stream into its frames. An incomplete frame at the end is left out.
pub(crate) fn whole_frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(&[a, b, c, d]) = bytes.get(3..7) {
        let length = u32::from_be_bytes([a, b, c, d]) as usize + 8;
        let Some((frame, rest)) = bytes.split_at_checked(length) else { break };
        frames.push(frame);
        bytes = rest;
    }
    frames
}

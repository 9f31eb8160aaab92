//! Repairs one whole inbound frame so that lapin can parse it.
//!
//! A frame is `type u8, channel u16, size u32, payload, 0xCE` (AMQP 0-9-1, 4.2.3). Two kinds of frame carry
//! text from producers: content headers, and the methods that name exchanges and routing keys.

use super::fields::{Fields, Malformed, repair_table};

/// Type, channel and size.
pub(super) const HEAD: usize = 7;
/// The byte after the payload.
pub(super) const FRAME_END: u8 = 0xCE;
/// The position of the property flags in a content header: after class, weight and body size.
pub(super) const FLAGS: usize = HEAD + 12;
/// The length of a content header frame without properties.
const BARE: usize = FLAGS + 2 + 1;

const HEADERS_FLAG: u16 = 1 << 13;

#[derive(Clone, Copy)]
enum Field {
    Short,
    Table,
    Skip(usize),
}

/// The properties of class basic, by their flags from bit 15 down (AMQP 0-9-1, 1.8).
const PROPERTIES: [Field; 14] = [
    Field::Short,   // content-type
    Field::Short,   // content-encoding
    Field::Table,   // headers
    Field::Skip(1), // delivery-mode
    Field::Skip(1), // priority
    Field::Short,   // correlation-id
    Field::Short,   // reply-to
    Field::Short,   // expiration
    Field::Short,   // message-id
    Field::Skip(8), // timestamp
    Field::Short,   // type
    Field::Short,   // user-id
    Field::Short,   // app-id
    Field::Short,   // cluster-id
];

/// The fields of a method, up to its last string. Only the methods that a broker sends with strings from
/// outside are listed. Error texts are such strings too: RabbitMQ cuts them at 255 bytes, and the cut may be
/// inside a character.
fn method_fields(class: u16, method: u16) -> &'static [Field] {
    use Field::{Short, Skip, Table};
    match (class, method) {
        (10, 10) => &[Skip(2), Table],               // connection.start
        (10, 50) | (20, 40) => &[Skip(2), Short],    // connection.close, channel.close
        (10, 60) => &[Short],                        // connection.blocked
        (50, 11) => &[Short],                        // queue.declare-ok
        (60, 21) | (60, 30) | (60, 31) => &[Short],  // basic.consume-ok, cancel, cancel-ok
        (60, 50) => &[Skip(2), Short, Short, Short], // basic.return
        (60, 60) => &[Short, Skip(9), Short, Short], // basic.deliver
        (60, 71) => &[Skip(9), Short, Short],        // basic.get-ok
        _ => &[],
    }
}

/// Class and method of a whole method frame, if the frame is long enough to have them.
pub(super) fn method_id(frame: &[u8]) -> Option<(u16, u16)> {
    let id = frame.get(HEAD..HEAD + 4)?;
    Some((u16::from_be_bytes([id[0], id[1]]), u16::from_be_bytes([id[2], id[3]])))
}

/// Repairs the strings of a whole method frame. Returns true if one had to be changed.
///
/// If a field cannot be read, everything after it stays as it is. No producer can cause that, and lapin
/// refuses such a frame.
pub(super) fn repair_method(frame: &mut [u8]) -> bool {
    let Some((class, method)) = method_id(frame) else {
        return false;
    };
    // The end marker is not part of any string.
    let end = frame.len() - 1;
    let Some(list) = frame.get_mut(HEAD + 4..end) else {
        return false;
    };
    let mut fields = Fields::new(list);
    for field in method_fields(class, method) {
        let read = match field {
            Field::Short => fields.short_string(),
            Field::Table => fields.table(),
            Field::Skip(count) => fields.skip(*count),
        };
        if read.is_err() {
            break;
        }
    }
    fields.repaired()
}

/// Repairs the properties of a whole content header frame. Returns true if it had to be changed.
///
/// Headers are left out if they cannot be read, or if they make the frame larger than `frame_max`. A broker
/// can make such a frame by adding `x-death` to large headers, and lapin closes the connection on it. If the
/// properties cannot be told apart, all of them are left out.
pub(super) fn repair_header(frame: &mut Vec<u8>, frame_max: usize) -> Result<bool, Malformed> {
    if frame.len() < BARE {
        return Err(Malformed);
    }
    let end = frame.len() - 1;
    match walk_properties(&mut frame[FLAGS..end]) {
        Err(Malformed) => strip(frame),
        Ok(walk) if walk.unreadable_headers || end + 1 > frame_max => cut_headers(frame, &walk),
        Ok(walk) => return Ok(walk.repaired),
    }
    Ok(true)
}

/// Cuts a content header after its body size, so that it has no properties.
pub(super) fn strip(frame: &mut Vec<u8>) {
    frame.truncate(FLAGS);
    frame.extend_from_slice(&[0, 0, FRAME_END]);
    set_size(frame);
}

/// What was found in a property list. Offsets count from its flags.
#[derive(Default)]
struct Walk {
    headers: std::ops::Range<usize>,
    unreadable_headers: bool,
    repaired: bool,
}

fn walk_properties(list: &mut [u8]) -> Result<Walk, Malformed> {
    let total = list.len();
    let flags = u16::from_be_bytes([list[0], list[1]]);
    let mut fields = Fields::new(list);
    let mut walk = Walk::default();
    fields.skip(2)?;
    for (index, property) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - index)) == 0 {
            continue;
        }
        match property {
            Field::Short => fields.short_string()?,
            Field::Skip(count) => fields.skip(*count)?,
            Field::Table => {
                let start = total - fields.len();
                let repair = repair_table(fields.sized()?);
                walk.headers = start..total - fields.len();
                walk.unreadable_headers = repair.is_err();
                walk.repaired |= repair.unwrap_or(false);
            }
        }
    }
    walk.repaired |= fields.repaired();
    if fields.len() == 0 { Ok(walk) } else { Err(Malformed) }
}

fn cut_headers(frame: &mut Vec<u8>, walk: &Walk) {
    let flags = u16::from_be_bytes([frame[FLAGS], frame[FLAGS + 1]]) & !HEADERS_FLAG;
    frame[FLAGS..FLAGS + 2].copy_from_slice(&flags.to_be_bytes());
    frame.drain(FLAGS + walk.headers.start..FLAGS + walk.headers.end);
    set_size(frame);
}

fn set_size(frame: &mut [u8]) {
    let size = u32::try_from(frame.len() - HEAD - 1).unwrap_or(u32::MAX);
    frame[3..HEAD].copy_from_slice(&size.to_be_bytes());
}

//! Properties that hold for all frames, and for all bytes.

use super::*;
use amq_protocol::types::{FieldTable, LongString};
use proptest::{collection::vec, prelude::*};

fn short_string() -> impl Strategy<Value = ShortString> {
    "\\PC{0,20}".prop_map(ShortString::from)
}

fn field() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        vec(any::<u8>(), 0..40).prop_map(|bytes| AMQPValue::LongString(LongString::from(bytes))),
        vec(any::<u8>(), 0..40).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(8, 64, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| AMQPValue::FieldArray(items.into())),
            table_of(inner).prop_map(AMQPValue::FieldTable),
        ]
    })
}

fn table_of(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
    vec((short_string(), value), 0..4)
        .prop_map(|entries| FieldTable::from(entries.into_iter().collect::<std::collections::BTreeMap<_, _>>()))
}

fn valid_frame() -> impl Strategy<Value = Vec<u8>> {
    let properties = (short_string(), table_of(field()), any::<u64>(), short_string());
    let header = (any::<u64>(), properties).prop_map(|(body_size, (id, headers, time, app))| {
        let properties = BasicProperties::default()
            .with_message_id(id)
            .with_headers(headers)
            .with_timestamp(time)
            .with_app_id(app)
            .with_priority(3);
        AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size, properties })
    });
    let deliver = (short_string(), any::<u64>(), short_string()).prop_map(|(tag, number, key)| {
        let deliver = basic::Deliver {
            consumer_tag: tag,
            delivery_tag: number,
            redelivered: true,
            exchange: "otp".into(),
            routing_key: key,
        };
        AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)))
    });
    let body = vec(any::<u8>(), 0..500).prop_map(|bytes| AMQPFrame::Body(1, bytes));
    prop_oneof![header, deliver, body, Just(AMQPFrame::Heartbeat)].prop_map(|frame| written(&frame))
}

/// Tables that follow the grammar more or less.
fn hostile_table() -> impl Strategy<Value = Vec<u8>> {
    let key = vec(any::<u8>(), 0..8).prop_map(|key| short(&key));
    let value = prop_oneof![
        4 => vec(any::<u8>(), 4).prop_map(|bytes| [b"I", &bytes[..]].concat()),
        4 => vec(any::<u8>(), 0..9).prop_map(|bytes| [b"S", &sized(&bytes)[..]].concat()),
        1 => vec(any::<u8>(), 0..9),
    ];
    let leaf = (key.clone(), value).prop_map(|(key, value)| [key, value].concat());
    leaf.prop_recursive(40, 80, 2, move |inner| {
        (key.clone(), vec(inner, 1..3)).prop_map(|(key, inner)| [key, b"F".to_vec(), sized(&inner.concat())].concat())
    })
}

fn hostile_frame() -> impl Strategy<Value = Vec<u8>> {
    let strings = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20));
    let likely = (hostile_table(), strings.clone()).prop_map(|(table, (id, kind))| {
        header(HEADERS_AND_ID | 1 << 5, &[sized(&table), short(&id), short(&kind)].concat())
    });
    let unlikely = (any::<u16>(), vec(any::<u8>(), 0..60)).prop_map(|(flags, list)| header(flags, &list));
    let deliver = strings.prop_map(|(tag, key)| {
        let fields = [short(&tag), vec![0; 9], short(b"otp"), short(&key)].concat();
        raw_frame(METHOD, &[&[0, 60, 0, 60], &fields[..]].concat())
    });
    prop_oneof![3 => likely, 2 => unlikely, 1 => deliver]
}

/// Any bytes. Many of them look like frames.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let framed = (0u8..10, vec(any::<u8>(), 0..60)).prop_map(|(kind, payload)| raw_frame(kind, &payload));
    let piece = prop_oneof![framed, vec(any::<u8>(), 0..60), hostile_frame()];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn valid_frames_pass_unchanged_however_they_are_cut(
        frames in vec(valid_frame(), 1..6), piece in 1usize..300, room in 1usize..300,
    ) {
        let bytes = frames.concat();
        let mut sieve = Sieve::new(FRAME_MAX);
        let after = sift_in(&mut sieve, &bytes, piece, room).expect("AMQP");
        prop_assert_eq!(after, bytes);
        prop_assert_eq!(sieve.repaired(), 0);
    }

    #[test]
    fn whatever_a_producer_writes_comes_out_as_frames_lapin_can_parse(
        frames in vec(hostile_frame(), 1..6), piece in 1usize..300, room in 1usize..300,
    ) {
        let bytes = frames.concat();
        let after = sift_in(&mut Sieve::new(FRAME_MAX), &bytes, piece, room).expect("AMQP");
        prop_assert_eq!(parsed(&after).len(), frames.len());
        prop_assert_eq!(sift(&after), after, "what was repaired needs no more repair");
    }

    #[test]
    fn no_bytes_do_harm_and_no_cut_makes_a_difference(
        bytes in any_bytes(), piece in 1usize..300, room in 1usize..300,
    ) {
        let whole = sift_in(&mut Sieve::new(FRAME_MAX), &bytes, bytes.len().max(1), 1 << 16);
        let cut = sift_in(&mut Sieve::new(FRAME_MAX), &bytes, piece, room);
        prop_assert_eq!(whole.ok(), cut.ok());
    }
}

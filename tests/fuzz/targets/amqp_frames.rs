#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::amqp_frames::holds(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::job_body::holds(data));

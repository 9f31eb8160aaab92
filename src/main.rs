//! `esms-otp-worker`: see `esms_otp_worker::commands`.

use std::process::ExitCode;

use esms_otp_worker::commands;

/// The system's allocator costs a job more processor time: docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::execute(&commands::command().get_matches())
}

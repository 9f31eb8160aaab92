//! `esms-otp-worker`: see `esms_otp_worker::commands`.

use std::process::ExitCode;

use esms_otp_worker::commands;

fn main() -> ExitCode {
    commands::execute(&commands::command().get_matches())
}

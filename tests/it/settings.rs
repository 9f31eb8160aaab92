//! Wrong settings, as a person at the terminal sees them.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

/// Runs the program with these variables and flags and no others.
fn run(command: &str, variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let variables = variables.iter().copied();
    let mut program = Command::new(env!("CARGO_BIN_EXE_esms-otp-worker"));
    program.env_clear().envs(variables).arg(command).args(flags).output().expect("the program")
}

/// What the program says of its settings. It must end with exit code 2.
fn refused(command: &str, variables: &[(&str, &str)], flags: &[&str]) -> String {
    let output = run(command, variables, flags);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn every_wrong_setting_is_told_in_a_line_of_its_own() {
    let told = refused("run", &[("OTP_CONCURRENCY", "0"), ("ESMS_API_KEY", "api-key-1")], &["--http-addr", "x"]);
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(lines[0], "esms-otp-worker: 3 settings are wrong:");
    for (line, setting) in lines[1..].iter().zip(["OTP_CONCURRENCY: ", "ESMS_SECRET_KEY: ", "HTTP_ADDR: "]) {
        assert!(line.starts_with(setting), "{told}");
    }
    assert_eq!(lines.len(), 5, "{told}");
}

#[test]
fn a_flag_goes_before_the_variable() {
    let told = refused("run", &[("OTP_CONCURRENCY", "0"), ("HTTP_ADDR", "x")], &["--concurrency", "5"]);
    assert!(!told.contains("OTP_CONCURRENCY") && told.contains("HTTP_ADDR"), "{told}");
    let told = refused("run", &[("OTP_CONCURRENCY", "5")], &["--concurrency", "0"]);
    assert!(told.contains("OTP_CONCURRENCY: must be a whole number from 1 to 65535, not \"0\""), "{told}");
}

#[test]
fn nothing_is_connected_to_before_every_setting_is_right() {
    let broker = TcpListener::bind("127.0.0.1:0").expect("a port");
    broker.set_nonblocking(true).expect("a listener that does not wait");
    let address = format!("amqp://{}/", broker.local_addr().expect("an address"));
    for command in ["run", "send"] {
        let flags: &[&str] = if command == "send" { &["--phone", "0901888484"] } else { &[] };
        refused(command, &[("AMQP_URL", &address), ("OTP_TOPOLOGY", "maybe")], flags);
    }
    assert!(broker.accept().is_err(), "it was connected to");
}

#[test]
fn a_wrong_flag_ends_with_the_same_exit_code() {
    assert!(refused("run", &[], &["--no-such-flag"]).contains("--no-such-flag"));
}

#[test]
fn no_secret_is_told_with_a_mistake() {
    let canary = "zQcanaryQz";
    let address = format!("amqp://user:{canary}@host:99999/");
    let told = refused(
        "run",
        &[("AMQP_URL", &address), ("ESMS_API_KEY", canary), ("ESMS_SECRET_KEY_FILE", canary)],
        &["--ledger-url", "redis://:zQcanaryQz@redis:x"],
    );
    assert!(told.contains("AMQP_URL: ") && told.contains("ESMS_SECRET_KEY_FILE: "), "{told}");
    assert!(told.contains("OTP_LEDGER_URL: "), "{told}");
    assert!(!told.contains(canary), "{told}");
}

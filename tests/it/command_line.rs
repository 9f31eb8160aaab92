//! The program as a person meets it: what it prints, and its exit code.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;

use esms_otp_worker::settings::table as settings;
use tokio::time::timeout;

use crate::program::{command, run};
use crate::stage::{LIMIT, PHONE, Running, Stage, ending};
use crate::support::client::Job;
use crate::support::collector::Collector;
use crate::support::wait::until;

const KEYS: [(&str, &str); 2] = [("ESMS_API_KEY", "an-api-key"), ("ESMS_SECRET_KEY", "a-secret-key")];

#[tokio::test]
async fn without_credentials_it_names_both_variables() {
    let ended = run(&["run"], &[]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    for named in
        ["2 settings are wrong", "ESMS_API_KEY: ", "ESMS_API_KEY_FILE", "ESMS_SECRET_KEY: ", "ESMS_SECRET_KEY_FILE"]
    {
        assert!(ended.stderr.contains(named), "{named} is not in: {}", ended.stderr);
    }
}

/// A port that notices every connection. It takes the place of a broker or of eSMS.
fn unvisited() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

fn visited(listener: &TcpListener) -> bool {
    listener.accept().is_ok()
}

#[tokio::test]
async fn every_wrong_setting_is_named_before_anything_is_connected_to() {
    let (broker, broker_addr) = unvisited();
    let (esms, esms_addr) = unvisited();
    let (amqp, url) = (format!("amqp://{broker_addr}/%2f"), format!("http://{esms_addr}/V5"));
    let mut env = KEYS.to_vec();
    env.extend([("AMQP_URL", amqp.as_str()), ("ESMS_URL", &url)]);
    env.extend([("OTP_CONCURRENCY", "many"), ("ESMS_TIMEOUT", "soon"), ("HTTP_ADDR", "here")]);
    let ended = run(&["run"], &env).await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("3 settings are wrong"), "{}", ended.stderr);
    for named in
        ["OTP_CONCURRENCY: must be", "\"many\"", "ESMS_TIMEOUT: must be", "\"soon\"", "HTTP_ADDR: must be", "\"here\""]
    {
        assert!(ended.stderr.contains(named), "{named} is not in: {}", ended.stderr);
    }
    assert!(!visited(&broker) && !visited(&esms));
}

#[tokio::test]
async fn flags_are_settings_too_and_are_named_by_their_variable() {
    let ended =
        run(&["run", "--concurrency", "0", "--on-ambiguous", "pray", "--http-addr", "127.0.0.1:0"], &KEYS).await;
    assert_eq!(ended.code, 2);
    for named in ["2 settings are wrong", "OTP_CONCURRENCY: must be", "OTP_ON_AMBIGUOUS: must be", "\"pray\""] {
        assert!(ended.stderr.contains(named), "{named} is not in: {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_is_no_command_or_flag_is_wrong_usage() {
    for (args, named) in [
        (&["run", "--no-such-flag"][..], "--no-such-flag"),
        (&["run", "extra"], "extra"),
        (&["no-such-command"], "no-such-command"),
        (&["send", "--no-such-flag"], "--no-such-flag"),
        (&[], "Usage"),
    ] {
        let ended = run(args, &[]).await;
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(named) && ended.stdout.is_empty(), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn the_version_is_printed() {
    let ended = run(&["--version"], &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(ended.stdout, format!("esms-otp-worker {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn help_fits_80_columns() {
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["run", "-h"],
        &["send", "--help"],
        &["watch", "--help"],
        &["dead-letters", "--help"],
        &["dead-letters", "list", "--help"],
        &["dead-letters", "show", "--help"],
        &["dead-letters", "requeue", "--help"],
        &["dead-letters", "purge", "--help"],
        &["job", "--help"],
        &["limits", "--help"],
        &["limits", "reset", "--help"],
        &["topology", "--help"],
        &["topology", "apply", "--help"],
        &["topology", "diff", "--help"],
        &["health", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
        &["schema", "--help"],
    ] {
        let ended = run(args, &[("COLUMNS", "80")]).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
        let long: Vec<&str> = ended.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{args:?}: {long:#?}");
    }
}

#[tokio::test]
async fn the_manual_page_has_every_command_and_every_setting() {
    let ended = run(&["man"], &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains(".TH esms-otp-worker 1"), "{}", ended.stdout);
    for command in [
        "RUN",
        "CHECK",
        "DEAD-LETTERS",
        "DEAD-LETTERS LIST",
        "DEAD-LETTERS SHOW",
        "DEAD-LETTERS REQUEUE",
        "DEAD-LETTERS PURGE",
        "JOB",
        "LIMITS",
        "LIMITS RESET",
        "SEND",
        "TOPOLOGY",
        "TOPOLOGY APPLY",
        "TOPOLOGY DIFF",
        "HEALTH",
        "SCHEMA",
    ] {
        let section = format!(".SH \"ESMS-OTP-WORKER {command}\"");
        assert!(ended.stdout.contains(&section), "{section} is not in:\n{}", ended.stdout);
    }
    for setting in settings::ALL {
        let told = format!("[env: {}]", setting.env);
        assert!(ended.stdout.contains(&told), "{told} is not in:\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_shell_that_is_known_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell], &[]).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{shell}");
        assert!(ended.stdout.contains("ledger-on-error") && ended.stdout.contains("topology"), "{shell}");
    }
    complete_in_bash("esms-otp-worker dead-letters r", "requeue").await;
    complete_in_bash("esms-otp-worker watch --outcome rej", "rejected").await;
    let ended = run(&["completions", "csh"], &[]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    // What bash reads as a program is one.
    let script = run(&["completions", "bash"], &[]).await.stdout;
    let checked = tokio::process::Command::new("bash").args(["-n", "-c", &script]).status().await.unwrap();
    assert!(checked.success());
}

#[tokio::test]
async fn help_lists_every_setting_with_its_variable_and_default() {
    let ended = run(&["run", "--help"], &[("COLUMNS", "200")]).await;
    for setting in settings::ALL {
        let usage = format!("--{} <{}>", setting.flag, setting.value);
        let told = match setting.default {
            Some(default) => format!("[env: {}] [default: {default}]", setting.env),
            None => format!("[env: {}]\n", setting.env),
        };
        for part in [&usage, &told, setting.help] {
            assert!(ended.stdout.contains(part), "{part:?} is not in:\n{}", ended.stdout);
        }
    }
}

/// A pipe that nobody reads any more, as after `| head -1`.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test]
async fn output_that_nobody_reads_any_more_ends_no_command_badly() {
    let stage = Stage::new().await;
    let mut running = stage.worker().await;
    for args in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["send", "--help"],
        &["check"],
        &["send", "--phone", PHONE, "--template", "1"],
        &["send", "--phone", PHONE, "--template", "1", "--wait"],
    ] {
        let child = command(args, &stage.env()).stdout(closed()).spawn().unwrap();
        let ended = timeout(LIMIT, child.wait_with_output()).await.expect("an end in time").unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{args:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("pipe"), "{args:?}: {said}");
        let mut child = command(args, &stage.env()).stdout(closed()).stderr(closed()).spawn().unwrap();
        let ended = timeout(LIMIT, child.wait()).await.expect("an end in time").unwrap();
        assert_eq!(ended.code(), Some(0), "{args:?}");
    }
    for (args, code) in [(&["run"][..], 2), (&["send", "/no/such/file"], 1), (&["no-such-command"], 2)] {
        let mut child = command(args, &[]).stderr(closed()).spawn().unwrap();
        assert_eq!(timeout(LIMIT, child.wait()).await.expect("an end").unwrap().code(), Some(code), "{args:?}");
    }
    assert_eq!(running.stop().await, Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn output_that_cannot_be_written_is_told() {
    let stage = Stage::new().await;
    let mut running = stage.worker().await;
    // The job is queued all the same: the command was cut short.
    for (args, code) in [(&["check"][..], 1), (&["send", "--phone", PHONE, "--template", "1"], 3)] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = command(args, &stage.env()).stdout(full).spawn().unwrap();
        let ended = timeout(LIMIT, child.wait_with_output()).await.expect("an end in time").unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains("cannot write to standard output"), "{args:?}: {said}");
    }
    assert_eq!(running.stop().await, Some(0));
}

/// The log line about this setting.
async fn about(running: &Running, setting: &str) -> String {
    let said = format!("\"setting\":\"{setting}\"");
    let line = running.process.wait_for_log(&said, LIMIT).await;
    assert_eq!(running.process.log_containing(&said).as_slice(), std::slice::from_ref(&line));
    line
}

#[tokio::test]
async fn what_a_cluster_sets_for_all_programs_does_not_stop_the_worker() {
    let mut stage = Stage::new().await;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("LOG_FORMAT", "logfmt"),
        ("RUST_LOG", "info,="),
    ] {
        stage.set(name, value);
    }
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
    for setting in ["OTEL_EXPORTER_OTLP_ENDPOINT", "LOG_FORMAT", "RUST_LOG"] {
        assert!(about(&running, setting).await.contains("\"level\":\"WARN\""));
    }
    assert!(about(&running, "OTEL_EXPORTER_OTLP_ENDPOINT").await.contains("gRPC, which is not spoken"));
}

#[tokio::test]
async fn an_exporter_that_cannot_be_made_does_not_stop_the_worker() {
    let mut stage = Stage::new().await;
    // There are no certificates that the exporter could trust.
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318");
    stage.set("SSL_CERT_FILE", "/no/such/file").set("SSL_CERT_DIR", "/no/such/folder");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
    running.process.wait_for_log("there are no traces", LIMIT).await;
}

#[tokio::test]
async fn traces_are_exported_whatever_compression_a_cluster_sets() {
    let (mut stage, collector) = (Stage::new().await, Collector::start().await);
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()).set("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    let (mut running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
    running.until_settled(&stage.names).await;
    assert_eq!(running.stop().await, Some(0));
    assert_eq!(collector.named("POST").len(), 1);
}

#[tokio::test]
async fn traces_that_are_turned_off_are_not_exported() {
    let (mut stage, collector) = (Stage::new().await, Collector::start().await);
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()).set("OTEL_SDK_DISABLED", "true");
    let (mut running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
    assert_eq!(running.stop().await, Some(0));
    assert!(collector.exports().is_empty());
}

#[tokio::test]
async fn a_proxy_of_the_machine_is_not_used_for_loopback() {
    let mut stage = Stage::new().await;
    let (nobody, addr) = unvisited();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        stage.set(name, &format!("http://{addr}"));
    }
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
    assert!(running.process.log_containing("proxy").is_empty() && !visited(&nobody));
}

#[tokio::test]
async fn a_proxy_that_is_used_is_named_without_its_credentials() {
    let mut stage = Stage::new().await;
    // The sandbox plays the proxy, too: it answers whatever host is asked for.
    let proxy = stage.sandbox.addr().to_string();
    let url = stage.sandbox.send_url().replace(&proxy, "esms.example");
    stage.set("HTTP_PROXY", &format!("http://user:zQcanaryQz@{proxy}\n")).set("ESMS_URL", &url);
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
    assert!(about(&running, "ESMS_URL").await.contains(&format!("\"proxy\":\"{proxy}\"")));
    let clear = running.process.wait_for_log("travel unencrypted", LIMIT).await;
    assert!(clear.contains("the proxy reads them"), "{clear}");
    assert!(running.process.log_containing("zQcanaryQz").is_empty());
    running.until_settled(&stage.names).await;
    drop(running);
    stage.set("NO_PROXY", "esms.example").set("OTP_RETRY_MAX_ELAPSED", "0s");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result).0, "failed", "nobody knows this host");
    assert!(running.process.log_containing("calls go through a proxy").is_empty());
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_clear_line() {
    let (_taken, addr) = unvisited();
    let mut stage = Stage::new().await;
    stage.set("HTTP_ADDR", &addr);
    let mut process = stage.spawn();
    process.wait_for_log("cannot be listened on", LIMIT).await;
    assert_eq!(process.wait_exit(LIMIT).await, Some(1));
    let said = process.log_containing("cannot be listened on");
    assert_eq!(said.len(), 1, "{:?}", process.log());
    assert!(said[0].contains(&format!("HTTP_ADDR {addr}")) && said[0].contains("in use"), "{said:?}");
}

#[tokio::test]
async fn secrets_are_read_from_files_as_editors_leave_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut stage = Stage::new().await;
    let url = format!("{}\n", stage.url);
    for (name, file) in [
        ("AMQP_URL", file("url", &url)),
        ("ESMS_API_KEY", file("key", "\u{feff}sandbox-key\r\n")),
        ("ESMS_SECRET_KEY", file("secret", "sandbox-secret\n\n")),
    ] {
        stage.unset(name).set(&format!("{name}_FILE"), &file);
    }
    let (_running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let ended = run(&["run"], &[("ESMS_API_KEY_FILE", "/no/such/file"), ("ESMS_SECRET_KEY", "a-secret-key")]).await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("ESMS_API_KEY_FILE: names a file that cannot be read"), "{}", ended.stderr);
}

#[tokio::test]
async fn pretty_log_lines_are_plain_text_when_nobody_looks() {
    let mut stage = Stage::new().await;
    stage.set("LOG_FORMAT", "pretty");
    let process = stage.spawn();
    let line = process.wait_for_log("http listening addr=", LIMIT).await;
    let http = line.split('=').next_back().and_then(|addr| addr.parse().ok()).expect("an address");
    let mut running = Running { process, http };
    running.until_ready().await;
    let client = stage.client().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let line = running.process.wait_for_log("job ended", LIMIT).await;
    assert!(line.contains(" INFO ") && line.contains("outcome=\"accepted\"") && line.contains("******484"), "{line}");
    assert_eq!(running.stop().await, Some(0));
    until("the last line is read", LIMIT, async || !running.process.log_containing("stopped").is_empty()).await;
    for line in running.process.log() {
        assert!(!line.starts_with('{') && !line.contains('\u{1b}'), "{line:?}");
    }
}

#[tokio::test]
async fn json_log_lines_are_one_object_each() {
    let stage = Stage::new().await;
    let (mut running, _result) = stage.play(vec![]).await;
    assert_eq!(running.stop().await, Some(0));
    until("the last line is read", LIMIT, async || !running.process.log_containing("stopped").is_empty()).await;
    for line in running.process.log() {
        let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["timestamp", "level", "message", "target"].iter().all(|field| json[field].is_string()), "{line}");
    }
}

/// What bash itself offers for the last word.
async fn complete_in_bash(typed: &str, offered: &str) {
    let script = run(&["completions", "bash"], &[]).await.stdout;
    let words: Vec<&str> = typed.split(' ').collect();
    let asked = format!(
        "{script}\nCOMP_WORDS=({typed}) COMP_CWORD={} COMP_LINE='{typed}' COMP_POINT={}\n\
         _esms__otp__worker esms-otp-worker {} {}\necho \"${{COMPREPLY[*]}}\"",
        words.len() - 1,
        typed.len(),
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let shell = tokio::process::Command::new("bash").args(["--norc", "-c", &asked]).output();
    let ended = timeout(LIMIT, shell).await.expect("an end in time").unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(said.trim(), offered, "{typed}: {}", String::from_utf8_lossy(&ended.stderr));
}

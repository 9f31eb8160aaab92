//! The program, and its control plane.

use std::{net::SocketAddr, process::Stdio};

use esms_otp_worker::sandbox::SEND_PATH;
use futures_util::future::join_all;
use reqwest::{Client, Method, Response, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{LIMIT, PHONE, Playing, client, json_of, post, raw, request, within};
use crate::support::wait::until;

/// The running program. It is killed when it is dropped.
struct Program {
    child: Child,
    url: String,
    client: Client,
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esms-sandbox"));
    command.env_clear().kill_on_drop(true);
    command
}

impl Program {
    async fn start(args: &[&str]) -> Self {
        let mut command = command();
        command.args(["--addr", "127.0.0.1:0"]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        within(stdout.read_line(&mut line)).await.unwrap();
        let send_url = line.split([' ', ';']).find(|word| word.ends_with(SEND_PATH)).unwrap();
        let url = send_url.strip_suffix(SEND_PATH).unwrap().to_owned();
        Self { child, url, client: client(Policy::none()) }
    }

    async fn send(&self, phone: &str) -> reqwest::Result<Response> {
        within(post(&self.client, &(self.url.clone() + SEND_PATH), &request(phone))).await
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(format!("{}/_sandbox/{path}", self.url));
        json_of(within(request.send()).await.unwrap()).await
    }

    async fn tell(&self, method: reqwest::Method, path: &str, body: &Value) -> StatusCode {
        let request = self.client.request(method, format!("{}/_sandbox/{path}", self.url));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        within(request.body(body.to_string()).send()).await.unwrap().status()
    }

    /// Polls the stats until `so` accepts them.
    async fn wait_until(&self, so: impl Fn(&Value) -> bool) {
        until("the sandbox's stats as wanted", LIMIT, async || so(&self.get("stats").await)).await;
    }

    async fn signal(&mut self, signal: &str) -> Option<i32> {
        let kill = format!("kill -{signal} {}", self.child.id().unwrap());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        within(self.child.wait()).await.unwrap().code()
    }
}

#[tokio::test]
async fn the_control_plane_scripts_mixes_forces_and_tells() {
    let program = Program::start(&[]).await;
    let script = json!({"phone": PHONE, "faults": ["html", {"status": {"code": 503}}]});
    assert_eq!(program.tell(Method::POST, "script", &script).await, StatusCode::NO_CONTENT);
    assert_eq!(program.send(PHONE).await.unwrap().status(), StatusCode::OK);
    assert_eq!(program.send(PHONE).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);

    let mix = json!({"status_after:502": 1.0});
    assert_eq!(program.tell(Method::PUT, "mix", &mix).await, StatusCode::NO_CONTENT);
    assert_eq!(program.send(PHONE).await.unwrap().status(), StatusCode::BAD_GATEWAY);
    assert_eq!(program.tell(Method::PUT, "mix", &json!({})).await, StatusCode::NO_CONTENT);

    let forced = json!({"code": "102"});
    assert_eq!(program.tell(Method::PUT, "forced", &forced).await, StatusCode::NO_CONTENT);
    assert_eq!(json_of(program.send(PHONE).await.unwrap()).await["CodeResult"], "102");
    assert_eq!(program.tell(Method::DELETE, "forced", &Value::Null).await, StatusCode::NO_CONTENT);
    assert_eq!(json_of(program.send(PHONE).await.unwrap()).await["CodeResult"], "100");

    let broke = json!({"balance": 0});
    assert_eq!(program.tell(Method::PUT, "balance", &broke).await, StatusCode::NO_CONTENT);
    assert_eq!(json_of(program.send("0901888485").await.unwrap()).await["CodeResult"], "103");

    let stats = program.get("stats").await;
    assert_eq!((&stats["requests"], &stats["accepted"]), (&json!(6), &json!(2)));
    assert_eq!(stats["faults"]["status_after"], 1);
    assert_eq!(program.get("accepted").await[0]["accepted"], 2);
    assert_eq!(program.get("duplicates").await[0]["phone"], PHONE);
    let told = program.get(&format!("phones/{PHONE}")).await;
    assert_eq!(told["requests"], 5);
    assert_eq!(told["story"][0]["fault"], "html");
    assert_eq!(told["story"][4]["code"], told["code"]);
    let unknown = program.client.get(format!("{}/_sandbox/phones/1", program.url));
    assert_eq!(within(unknown.send()).await.unwrap().status(), StatusCode::NOT_FOUND);

    assert_eq!(program.tell(Method::POST, "reset", &Value::Null).await, StatusCode::NO_CONTENT);
    assert_eq!(program.get("stats").await["requests"], 0);
}

#[tokio::test]
async fn the_control_plane_says_what_it_cannot_understand() {
    let program = Program::start(&[]).await;
    for (method, path, body) in [
        (Method::PUT, "mix", json!({"boom": 0.1})),
        (Method::PUT, "mix", json!({"html": 0.6, "cut_json": 0.6})),
        (Method::POST, "script", json!({"faults": ["boom"]})),
        (Method::POST, "script", json!({"fault": []})),
        (Method::PUT, "forced", json!({})),
    ] {
        let status = program.tell(method, path, &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body}");
    }
}

#[tokio::test]
async fn the_program_releases_what_hangs_and_what_is_held() {
    let program = Program::start(&[]).await;
    let script = json!({"faults": ["hang_before", "hold"]});
    program.tell(Method::POST, "script", &script).await;
    let hung = program.send(PHONE);
    let then_held = async {
        program.wait_until(|stats| stats["held"] == 1).await;
        let release = async {
            program.wait_until(|stats| stats["held"] == 2).await;
            program.tell(Method::POST, "release-hangs", &Value::Null).await;
            program.tell(Method::POST, "release-held", &Value::Null).await;
        };
        tokio::join!(program.send(PHONE), release).0
    };
    let (hung, held) = tokio::join!(hung, then_held);
    assert!(hung.is_err());
    assert_eq!(json_of(held.unwrap()).await["CodeResult"], "100");
}

#[tokio::test]
async fn the_program_refuses_connections_for_a_while() {
    let program = Program::start(&[]).await;
    let refuse = json!({"ms": 2000});
    assert_eq!(program.tell(Method::POST, "refuse", &refuse).await, StatusCode::ACCEPTED);
    let addr = program.url.strip_prefix("http://").unwrap();
    within(async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        while TcpStream::connect(addr).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(program.send(PHONE).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn it_serves_512_requests_at_once() {
    let program = Program::start(&["--fault", "hold=1", "--latency", "50ms"]).await;
    let phones: Vec<_> = (0..512).map(|n| format!("0901888{n:03}")).collect();
    let release = async {
        program.wait_until(|stats| stats["held"] == 512).await;
        program.tell(Method::POST, "release-held", &Value::Null).await;
    };
    let sent = join_all(phones.iter().map(|phone| program.send(phone)));
    let (answers, ()) = tokio::join!(sent, release);
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    let stats = program.get("stats").await;
    assert_eq!(stats["most_in_progress"], 512);
    assert_eq!((&stats["accepted"], &stats["duplicates"]), (&json!(512), &json!(0)));
}

#[tokio::test]
async fn either_signal_ends_the_program_at_once_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut program = Program::start(&["--fault", "hang_after=1"]).await;
        let addr: SocketAddr = program.url.strip_prefix("http://").unwrap().parse().unwrap();
        let hanging = tokio::spawn(raw(addr));
        program.wait_until(|stats| stats["held"] == 1).await;
        assert_eq!(program.signal(signal).await, Some(0));
        assert!(within(hanging).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn settings_come_from_the_environment_too() {
    let mut command = command();
    command.env("SANDBOX_ADDR", "127.0.0.1:0").env("SANDBOX_FAULTS", "html=0.5,cut_json=0.6");
    let output = within(command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("more than 1"));
}

#[tokio::test]
async fn a_bad_setting_is_one_clear_line_and_exit_code_2() {
    for (args, reason) in [
        (["--addr", "0.0.0.0:8081"], "not a loopback address"),
        (["--addr", "localhost"], "write it as 127.0.0.1:8081"),
        (["--latency", "soon"], "--latency"),
        (["--fault", "boom=0.1"], "there is no fault `boom`"),
        (["--fault", "reset_after"], "FAULT=PROBABILITY"),
        (["--fault", "reset_after=2"], "between 0 and 1"),
        (["--seed", "x"], "--seed"),
        (["--nothing", "x"], "--nothing"),
    ] {
        let output = within(command().args(args).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}

#[tokio::test]
async fn the_help_fits_80_columns_and_shows_no_key_from_the_environment() {
    let mut command = command();
    command.arg("--help").env("SANDBOX_SECRET_KEY", "canary").env("COLUMNS", "200");
    let output = within(command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Example:") && help.contains("http://127.0.0.1:8081/ is a page") && !help.contains("canary"));
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[tokio::test]
async fn a_taken_port_is_one_clear_line_and_exit_code_1() {
    let playing = Playing::start().await;
    let taken = playing.sandbox.addr().to_string();
    let output = within(command().args(["--addr", &taken]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1);
    assert!(stderr.contains(&format!("cannot listen on {taken}")));
}

//! `health`: whether the worker on this machine is alive, for a container's health check where there is no shell.
//!
//! Exit codes: 0 it is, 1 it is not, 2 a setting is wrong.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::shell::{failed, source, wrong_settings};
use crate::settings::reader::{Reader, Source, WrongSettings};
use crate::settings::table;
use crate::telemetry::settings::http_addr;

/// The limit on all of it.
const LIMIT: Duration = Duration::from_secs(2);

/// How much of an answer is read.
const MOST: usize = 1024;

/// The command and its flags.
pub(super) fn command() -> Command {
    Command::new("health")
        .next_line_help(true)
        .about("Ask the worker on this machine whether it is alive")
        .after_help(
            "For the health check of a container, in which there is no shell and no curl.\n\
             Exit code 0: it is. 1: it is not. 2: a setting is wrong.",
        )
        .arg(
            Arg::new("ready")
                .long("ready")
                .action(ArgAction::SetTrue)
                .help("Ask whether it is ready: consuming, and able to publish. It is not while the broker is away"),
        )
        .arg(table::flag(&table::HTTP_ADDR))
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let address = match read(&source(given)) {
        Ok(address) => address,
        Err(error) => return wrong_settings(&error),
    };
    let path = if given.get_flag("ready") { "/readyz" } else { "/livez" };
    let address = reached_at(address);
    match ask(address, path) {
        Ok(answer) if is_ok(&answer) => ExitCode::SUCCESS,
        Ok(answer) => failed(&format!("http://{address}{path} says: {}", in_a_line(&answer))),
        Err(error) => failed(&format!(
            "http://{address}{path} does not answer: {}; is HTTP_ADDR that of the worker?",
            words(&error)
        )),
    }
}

fn read(source: &Source<'_>) -> Result<SocketAddr, WrongSettings> {
    let mut reader = Reader::new(source);
    let address = http_addr(&mut reader);
    reader.finish(address)
}

/// Where a program on this machine reaches what listens on an address.
const fn reached_at(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // It serves IPv4, too; but a machine may have IPv6 alone.
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

/// The answer, as far as it comes in time.
fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let until = Instant::now() + LIMIT;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; MOST];
    while answer.len() < MOST {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(more) => answer.extend_from_slice(&part[..more]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("nothing whole came within {} s", LIMIT.as_secs()),
        _ => error.to_string(),
    }
}

/// The first line of an answer and of its body, for a terminal.
fn in_a_line(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let lines = [head, body].map(|text| text.lines().next().unwrap_or_default().trim());
    let said = lines.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ");
    if said.is_empty() { "nothing".to_owned() } else { said.chars().take(300).flat_map(char::escape_debug).collect() }
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.") && answer.split(' ').nth(1) == Some("200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_listens_everywhere_is_reached_on_loopback() {
        for (listens, reached) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
        ] {
            assert_eq!(reached_at(listens.parse().unwrap()), reached.parse().unwrap());
        }
    }

    #[test]
    fn what_a_stranger_says_is_one_harmless_line() {
        for (answer, said) in [
            ("", "nothing"),
            (
                "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nnot consuming\nmore",
                "HTTP/1.1 503 Service Unavailable: not consuming",
            ),
            ("SSH-2.0\u{1b}[2J\r\n", "SSH-2.0\\u{1b}[2J"),
        ] {
            assert_eq!(in_a_line(answer), said);
        }
    }

    #[test]
    fn only_a_200_is_ok() {
        assert!(is_ok("HTTP/1.1 200 OK"));
        for line in ["", "HTTP/1.1 503 Service Unavailable", "HTTP/1.1", "200", "SSH-2.0 200 x"] {
            assert!(!is_ok(line), "{line}");
        }
    }
}

//! `health`: whether the worker on this machine is alive, for a container's health check where there is no shell.
//!
//! Exit codes: 0 it is, 1 it is not, 2 a setting is wrong.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::shell::{failed, source, wrong_settings};
use crate::settings::reader::{Reader, Source, WrongSettings};
use crate::settings::table;
use crate::telemetry::settings::http_addr;

/// The limit on each step: connecting, asking, and each part of the answer.
const LIMIT: Duration = Duration::from_secs(1);

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
    match status(address, path) {
        Ok(line) if is_ok(&line) => ExitCode::SUCCESS,
        Ok(line) => failed(&format!("http://{address}{path} says: {line}")),
        Err(error) => {
            failed(&format!("http://{address}{path} does not answer: {error}; is HTTP_ADDR that of the worker?"))
        }
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

/// The first line of the answer.
fn status(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut line = [0; 100];
    let mut length = 0;
    // A peer that sends byte by byte is not ours: a hundred of them are the end.
    while length < line.len() && !line[..length].contains(&b'\n') {
        match stream.read(&mut line[length..])? {
            0 => break,
            more => length += more,
        }
    }
    let text = String::from_utf8_lossy(&line[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn is_ok(line: &str) -> bool {
    line.starts_with("HTTP/1.") && line.split(' ').nth(1) == Some("200")
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
    fn only_a_200_is_ok() {
        assert!(is_ok("HTTP/1.1 200 OK"));
        for line in ["", "HTTP/1.1 503 Service Unavailable", "HTTP/1.1", "200", "SSH-2.0 200 x"] {
            assert!(!is_ok(line), "{line}");
        }
    }
}

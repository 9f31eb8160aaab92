//! Answers that no HTTP server of this age sends, byte by byte.

use std::fmt::Write as _;

use super::fault::Fault;

/// The most lines of [`Fault::ManyHeaders`].
const MOST_LINES: u16 = 500;

/// The bytes of this answer as the fault has it. `None` if a proper HTTP server can play the fault. The connection
/// is closed behind them.
pub(super) fn bytes(fault: &Fault, json: &str) -> Option<Vec<u8>> {
    let length = |length: usize| format!("Content-Length: {length}\r\n");
    let whole = |headers: &str| Some(answer(&format!("{headers}{}", length(json.len())), json));
    match fault {
        Fault::ManyHeaders { lines } => whole(&cookies(*lines)),
        Fault::ControlByte => whole("Set-Cookie: ___utmvaPRuXKscZ=dmo\u{1}OZPF; path=/; Max-Age=900\r\n"),
        Fault::SpaceBeforeColon => whole("X-Powered-By : ASP.NET\r\n"),
        Fault::FoldedHeader => whole("X-Policy: one,\r\n two,\r\n\tthree\r\n"),
        Fault::UntilClose => Some(answer("", json)),
        Fault::LongLength | Fault::OpenEnd => Some(answer(&length(json.len() + 1), json)),
        Fault::CutChunks => Some(answer(CHUNKED, &format!("{:x}\r\n{json}\r\n", json.len()))),
        Fault::CutChunk => {
            let half: String = json.chars().take(json.len() / 2).collect();
            Some(answer(CHUNKED, &format!("{:x}\r\n{half}", json.len())))
        }
        _ => None,
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn answer(headers: &str, body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nConnection: close\r\n";
    format!("{head}{headers}\r\n{body}").into_bytes()
}

fn cookies(lines: u16) -> String {
    (0..lines.min(MOST_LINES)).fold(String::new(), |mut cookies, line| {
        // Writing to a string cannot fail.
        let _ = write!(cookies, "Set-Cookie: visid_incap_{line}=x; path=/\r\n");
        cookies
    })
}

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::esms::classify::End;
use crate::settings::reader::Reader;
use crate::settings::table::Setting;

const ANSWER: &str = r#"{"CodeResult":"100"}"#;

/// A client of this address that waits long for connections.
fn esms(url: &str, timeout: Duration) -> Esms {
    let source = |setting: &Setting| match setting.env {
        "ESMS_API_KEY" => Some("key-canary".to_owned()),
        "ESMS_SECRET_KEY" => Some("secret-canary".to_owned()),
        "ESMS_URL" => Some(url.to_owned()),
        _ => None,
    };
    let mut settings = EsmsSettings::from_reader(&mut Reader::new(&source));
    settings.connect_timeout = Duration::from_secs(60);
    settings.timeout = timeout;
    Esms::new(&settings, 4).unwrap()
}

/// A deadline that no test reaches.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// The request on this connection.
async fn request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("{}") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

/// What is seen of an attempt that is answered with these bytes, and then the end of the connection.
async fn seen(answer: &[u8]) -> Seen {
    let (listener, address) = listener().await;
    let esms = esms(&format!("http://{address}/V5"), Duration::from_secs(60));
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(answer).await.unwrap();
    };
    tokio::join!(esms.attempt(Bytes::from_static(b"{}"), None, far()), server).0
}

#[tokio::test]
async fn a_call_that_has_no_connection_at_its_deadline_is_given_up_and_none_of_it_was_written() {
    let (listener, address) = listener().await;
    // The server takes the connection and never answers the TLS handshake.
    let esms = esms(&format!("https://{address}/V5"), Duration::from_secs(60));
    let deadline = Instant::now() + Duration::from_millis(200);
    let seen = esms.attempt(Bytes::from_static(b"{}"), None, deadline).await;
    assert!(matches!(&seen, Seen::NotWritten(why) if why == TOO_LATE), "{seen:?}");
    assert!(Instant::now() >= deadline);
    drop(listener);
}

#[tokio::test]
async fn a_call_that_is_written_is_waited_for_beyond_its_deadline() {
    let (listener, address) = listener().await;
    let esms = esms(&format!("http://{address}/V5"), Duration::from_secs(60));
    let deadline = Instant::now() + Duration::from_secs(2);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        tokio::time::sleep_until(deadline + Duration::from_millis(50)).await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{ANSWER}").as_bytes()).await.unwrap();
    };
    let (seen, ()) = tokio::join!(esms.attempt(Bytes::from_static(b"{}"), None, deadline), server);
    assert!(matches!(seen, Seen::Reply { status: 200, end: End::Whole, .. }), "{seen:?}");
}

#[tokio::test]
async fn a_call_has_a_length_and_asks_for_json_that_is_not_compressed() {
    let (listener, address) = listener().await;
    let esms = esms(&format!("http://{address}/V5"), Duration::from_secs(60));
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = request(&mut stream).await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{ANSWER}").as_bytes()).await.unwrap();
        request
    };
    let (seen, request) = tokio::join!(esms.attempt(Bytes::from_static(b"{}"), None, far()), server);
    assert!(matches!(seen, Seen::Reply { status: 200, end: End::Whole, body, .. } if body == ANSWER));
    let request = request.to_lowercase();
    let mut lines: Vec<&str> = request.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let (host, worker) =
        (format!("host: {address}"), format!("user-agent: esms-otp-worker/{}", env!("CARGO_PKG_VERSION")));
    let expected = [
        "accept-encoding: identity",
        "accept: application/json",
        "content-length: 2",
        "content-type: application/json",
        &host,
        &worker,
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_host_of_a_call_is_the_urls_with_a_port_that_is_not_the_usual_one() {
    for (url, host) in [
        ("https://rest.esms.vn/V5", "rest.esms.vn"),
        ("https://rest.esms.vn:443/V5", "rest.esms.vn"),
        ("https://rest.esms.vn:8443/V5", "rest.esms.vn:8443"),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ] {
        let headers = headers(&Url::parse(url).unwrap());
        assert_eq!(headers.get(HOST).unwrap(), host);
        assert_eq!(headers.len(), 6);
    }
}

#[tokio::test]
async fn what_was_not_written_in_time_is_not_written_and_anything_else_may_be() {
    // It accepts connections and says nothing, so TLS never begins.
    let (_listener, address) = listener().await;
    let limit = Duration::from_millis(200);
    let seen = esms(&format!("https://{address}/V5"), limit).attempt(Bytes::from_static(b"{}"), None, far()).await;
    assert!(matches!(&seen, Seen::NotWritten(why) if why.starts_with("timed out")), "{seen:?}");
    let seen = esms(&format!("http://{address}/V5"), limit).attempt(Bytes::from_static(b"{}"), None, far()).await;
    assert!(matches!(&seen, Seen::NoReply(why) if why.starts_with("timed out")), "{seen:?}");
}

#[tokio::test]
async fn a_connection_that_closed_while_it_was_kept_costs_no_attempt() {
    let (listener, address) = listener().await;
    let esms = esms(&format!("http://{address}/V5"), Duration::from_secs(60));
    for _ in 0..20 {
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{ANSWER}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // The client has seen the end, or is about to.
            let _ = stream.read(&mut [0]).await;
        };
        let (seen, ()) = tokio::join!(esms.attempt(Bytes::from_static(b"{}"), None, far()), server);
        assert!(matches!(seen, Seen::Reply { status: 200, .. }), "{seen:?}");
    }
}

#[tokio::test]
async fn headers_that_break_the_rules_do_not_cost_the_answer() {
    for header in [
        "Set-Cookie: a=\u{1}b; path=/",
        "Set-Cookie: a=b\u{7f}",
        "X-Powered-By : ASP.NET",
        "Content-Type\t: application/json",
        "X-Policy: one,\r\n two,\r\n\tthree",
        "X-Policy:\r\n  one",
        "PHP Warning: PHP Startup: Unable to load dynamic library",
        "<!DOCTYPE html>",
        "no colon at all",
        ": no name",
        "X-(Odd): name",
        "X-Latin: c\u{f4}ng",
        "Transfer-Encoding: identity",
        "Content-Length: 20",
        "Connection: close\r\nConnection: keep-alive",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 20\r\n\r\n{ANSWER}");
        let seen = seen(answer.as_bytes()).await;
        assert!(matches!(&seen, Seen::Reply { status: 200, body, .. } if body == ANSWER), "{header:?}: {seen:?}");
    }
    let many = "Set-Cookie: a=b\r\n".repeat(MOST_HEADERS - 1);
    let seen = seen(format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 20\r\n\r\n{ANSWER}").as_bytes()).await;
    assert!(matches!(&seen, Seen::Reply { status: 200, body, .. } if body == ANSWER), "{seen:?}");
}

#[tokio::test]
async fn status_lines_of_old_servers_are_read() {
    for line in ["HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 Th\u{e0}nh c\u{f4}ng"] {
        let seen = seen(format!("{line}\r\nContent-Length: 20\r\n\r\n{ANSWER}").as_bytes()).await;
        assert!(matches!(&seen, Seen::Reply { status: 200, body, .. } if body == ANSWER), "{line}: {seen:?}");
    }
    let seen = seen(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\n\n{ANSWER}").as_bytes()).await;
    assert!(matches!(&seen, Seen::Reply { status: 200, body, .. } if body == ANSWER), "{seen:?}");
}

#[tokio::test]
async fn what_came_before_the_body_broke_is_kept() {
    for (headers, sent, kept) in [
        ("Content-Length: 21", ANSWER.to_owned(), ANSWER),
        ("Content-Length: 20", ANSWER[..10].to_owned(), &ANSWER[..10]),
        ("Transfer-Encoding: chunked", format!("14\r\n{ANSWER}\r\n"), ANSWER),
        ("Transfer-Encoding: chunked", format!("5\r\n{}\r\nf\r\n{}\r\nzz", &ANSWER[..5], &ANSWER[5..]), ANSWER),
        ("Transfer-Encoding: chunked", format!("14\r\n{}", &ANSWER[..10]), &ANSWER[..10]),
    ] {
        let seen = seen(format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{sent}").as_bytes()).await;
        let Seen::Reply { body, end: End::Cut(_), .. } = &seen else { panic!("{sent}: {seen:?}") };
        assert_eq!(&body[..], kept.as_bytes(), "{sent}");
    }
}

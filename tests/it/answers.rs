//! Answers as HTTP servers, proxies and firewalls of the field deliver them: what is whole is an answer, and what
//! is not says what it looks like.

use std::net::Ipv4Addr;
use std::sync::Arc;

use esms_otp_worker::sandbox::{Fault, Mix};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::attempts::{classes, is};
use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::client::Job;
use crate::support::metrics::Scrape;
use crate::support::wait::until;

const ANSWER: &str = r#"{"CodeResult":"100","CountRegenerate":0,"SMSID":"d533459ee42b2b9525ba9eabf6a8156"}"#;

#[tokio::test]
async fn an_answer_that_is_whole_is_an_answer_however_it_is_delivered() {
    let faults = [
        Fault::AnswerStatus { code: 201 },
        Fault::AnswerStatus { code: 202 },
        Fault::AnswerStatus { code: 203 },
        Fault::AnswerStatus { code: 226 },
        Fault::ByteOrderMark,
        Fault::ManyHeaders { lines: 120 },
        Fault::ManyHeaders { lines: 500 },
        Fault::ControlByte,
        Fault::SpaceBeforeColon,
        Fault::FoldedHeader,
        Fault::Gzip,
        Fault::Deflate,
        Fault::UntilClose,
        Fault::LongLength,
        Fault::OpenEnd,
        Fault::CutChunks,
        Fault::TrailingComment,
        Fault::XmlUnlessAsked,
    ];
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for (n, fault) in faults.iter().enumerate() {
        let phone = format!("09018884{n:02}");
        stage.sandbox.script(Some(&phone), vec![fault.clone()]);
        client.publish(&stage.names.jobs, Job::for_phone(&phone, &fault.to_string())).await;
    }
    for result in results.collect(faults.len(), LIMIT).await {
        let fault = field(&result, "JobId");
        assert_eq!(ending(&result), is("accepted", 1, false), "{fault}");
        assert_eq!((field(&result, "CodeResult").as_str(), field(&result, "SMSID").len()), ("100", 32), "{fault}");
    }
    assert_eq!(classes(&running).await, [faults.len() as f64, 0.0, 0.0, 0.0]);
    assert!(stage.sandbox.duplicates().is_empty());
}

#[tokio::test]
async fn a_refusal_that_is_whole_is_an_answer_however_it_is_delivered() {
    let mut stage = Stage::new().await;
    stage.set("ESMS_SECRET_KEY", "another-secret");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let faults = [Fault::Gzip, Fault::CutChunks, Fault::AnswerStatus { code: 203 }];
    for (n, fault) in faults.iter().enumerate() {
        let phone = format!("09018884{n:02}");
        stage.sandbox.script(Some(&phone), vec![fault.clone()]);
        client.publish(&stage.names.jobs, Job::for_phone(&phone, &fault.to_string())).await;
    }
    for result in results.collect(faults.len(), LIMIT).await {
        assert_eq!(ending(&result), is("rejected", 1, false), "{}", field(&result, "JobId"));
        assert_eq!(field(&result, "CodeResult"), "101");
    }
    assert_eq!(classes(&running).await, [3.0, 0.0, 0.0, 0.0]);
}

/// Reads one request.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"}") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the request ended early");
    }
}

/// A certificate authority as PEM, and a TLS server's configuration for `localhost` that it has signed.
fn authority() -> (String, Arc<ServerConfig>) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (ca.as_ref().pem(), Arc::new(config))
}

#[tokio::test]
async fn an_answer_over_tls_without_a_farewell_is_an_answer() {
    let (ca, config) = authority();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut stage = Stage::new().await;
    stage.set("ESMS_URL", &format!("https://localhost:{}/V5", listener.local_addr().unwrap().port()));
    stage.set("SSL_CERT_FILE", file.path().to_str().unwrap());
    let server = tokio::spawn(async move {
        let length = ANSWER.len() + 1;
        for headers in ["Connection: close\r\n".to_owned(), format!("Content-Length: {length}\r\n")] {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::clone(&config)).accept(tcp).await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{headers}\r\n{ANSWER}").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            // Dropping the stream closes the connection without a close_notify.
        }
    });
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for id in ["one", "two"] {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
        assert_eq!(ending(&results.next(LIMIT).await), is("accepted", 1, false));
    }
    assert_eq!(classes(&running).await, [2.0, 0.0, 0.0, 0.0]);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_speaks_another_tls_is_described_in_words() {
    for (alert, words) in [(70, "TLS 1.1 or older"), (40, "no cipher suite")] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stage = Stage::new().await;
        stage.set("ESMS_URL", &format!("https://{}/V5", listener.local_addr().unwrap()));
        stage.set("OTP_RETRY_MAX_ELAPSED", "200ms");
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                // A fatal alert.
                let _ = stream.write_all(&[0x15, 3, 1, 0, 2, 2, alert]).await;
            }
        });
        let (running, result) = stage.play(vec![]).await;
        assert_eq!(ending(&result).0, "failed");
        let line = running.process.log_containing("attempt failed").swap_remove(0);
        assert!(line.contains("not_sent") && line.contains(words), "{line}");
        server.abort();
    }
}

#[tokio::test]
async fn pages_in_place_of_answers_open_the_circuit_and_are_quoted_once() {
    let mut stage = Stage::new().await;
    stage.set("OTP_BREAKER_FAILURES", "4").set("OTP_BREAKER_COOLDOWN", "100ms").set("OTP_RESEND_LIMIT", "100");
    stage.sandbox.set_mix(Mix::new([(Fault::Html, 1.0)]).unwrap());
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..8 {
        client.publish(&stage.names.jobs, Job::for_phone(&format!("090188848{n}"), &format!("job-{n}"))).await;
    }
    running.process.wait_for_log("circuit opened", LIMIT).await;
    until("it has probed", LIMIT, async || stage.sandbox.stats().requests > 8).await;
    let opened = running.process.log_containing("circuit opened").swap_remove(0);
    assert!(opened.contains("does not answer as eSMS does"), "{opened}");
    let quotes = running.process.log_containing("an answer cannot be read");
    assert_eq!(quotes.len(), 1, "{quotes:?}");
    let quote = &quotes[0];
    assert!(quote.contains("an HTML page") && quote.contains("<!DOCTYPE html> <html><head>"), "{quote}");
    assert!(quote.contains("ESMS_URL") && !quote.contains("job_id"), "it is about all jobs: {quote}");
    stage.sandbox.set_mix(Mix::default());
    let endings: Vec<_> = results.collect(8, LIMIT).await.iter().map(ending).collect();
    assert!(endings.iter().all(|(outcome, ..)| outcome == "accepted"), "{endings:?}");
    let is_told = |(_, attempts, may_be_duplicate): &(_, u64, bool)| (*attempts > 1) == *may_be_duplicate;
    assert!(endings.iter().all(is_told), "a page may hide an OTP: {endings:?}");
    assert_eq!(running.process.log_containing("an answer cannot be read").len(), 1);
    assert_eq!(running.metric("otp_circuit_open", &[]).await, 0.0);
}

#[tokio::test]
async fn the_address_works_with_a_slash_at_its_end_and_the_balance_is_beside_it() {
    let mut stage = Stage::new().await;
    let url = stage.sandbox.send_url() + "/";
    stage.set("ESMS_URL", &url).set("ESMS_BALANCE_INTERVAL", "1h");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), is("accepted", 1, false));
    let balance = async || Scrape::of(running.http).await.value("esms_balance_vnd", &[]).is_some();
    until("the balance is known", LIMIT, balance).await;
}

//! The port: open, closed, and given back at the end.

use std::io::ErrorKind;

use esms_otp_worker::sandbox::{Fault, Sandbox, Settings};
use tokio::net::TcpStream;

use super::{Playing, raw, within};

#[tokio::test]
async fn connections_are_refused_while_it_does_not_listen() {
    let playing = Playing::start().await;
    playing.answer().await;
    playing.sandbox.stop_listening().await.unwrap();
    within(playing.sandbox.wait_until(|stats| stats.open_connections == 0)).await;
    let error = TcpStream::connect(playing.sandbox.addr()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(playing.send().await.unwrap_err().is_connect());
    playing.sandbox.stop_listening().await.unwrap();
    playing.sandbox.listen_again().await.unwrap();
    playing.sandbox.listen_again().await.unwrap();
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert_eq!(playing.accepted(), 2);
}

#[tokio::test]
async fn a_request_in_progress_is_answered_when_it_stops_listening() {
    let playing = Playing::meeting(Fault::Hold).await;
    let stop = async {
        within(playing.sandbox.wait_until_held(1)).await;
        playing.sandbox.stop_listening().await.unwrap();
        playing.sandbox.release_held();
    };
    let (answer, ()) = tokio::join!(playing.answer(), stop);
    assert_eq!(answer["CodeResult"], "100");
}

#[tokio::test]
async fn shutting_down_resets_what_is_open() {
    let playing = Playing::meeting(Fault::HangAfter).await;
    let addr = playing.sandbox.addr();
    let hanging = tokio::spawn(raw(addr));
    within(playing.sandbox.wait_until_held(1)).await;
    within(playing.sandbox.shutdown()).await;
    let error = within(hanging).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn dropping_it_resets_what_is_open() {
    let playing = Playing::meeting(Fault::Hold).await;
    let held = tokio::spawn(raw(playing.sandbox.addr()));
    within(playing.sandbox.wait_until_held(1)).await;
    drop(playing);
    assert_eq!(within(held).await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let settings = Settings { addr: ([0, 0, 0, 0], 0).into(), ..Settings::default() };
    let error = Sandbox::start(settings).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

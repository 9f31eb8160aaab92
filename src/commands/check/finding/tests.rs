use super::*;
use std::io;

use lapin::protocol::{AMQPError, AMQPSoftError};

fn at() -> String {
    "broker:5672".into()
}

fn is_failed(finding: &Finding) -> bool {
    match finding {
        Finding::Failed { why, hint } => !why.is_empty() && !hint.is_empty(),
        Finding::Warning { why, hint } => {
            assert!(!why.is_empty() && !hint.is_empty());
            false
        }
        Finding::Good(_) | Finding::Untried(_) => panic!("{finding:?}"),
    }
}

fn protocol(kind: AMQPErrorKind) -> lapin::Error {
    ErrorKind::ProtocolError(AMQPError::new(kind, "said the broker".into())).into()
}

fn other(source: lapin::Error) -> ConnectError {
    ConnectError::Other { at: at(), source }
}

fn vhost(reason: &str) -> ConnectError {
    ConnectError::Vhost { at: at(), vhost: "otp".into(), reason: reason.into() }
}

fn tls(source: io::Error) -> ConnectError {
    ConnectError::Tls { at: at(), source }
}

#[test]
fn only_what_a_person_must_mend_fails_the_broker() {
    let refused = ConnectError::Unreachable { at: at(), source: io::ErrorKind::ConnectionRefused.into() };
    let slow = ConnectError::Timeout { at: at(), step: "the AMQP handshake", limit: Duration::from_secs(10) };
    let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    for (error, fails) in [
        (refused, false),
        (slow, false),
        (tls(io::Error::new(io::ErrorKind::InvalidData, untrusted)), true),
        (tls(io::Error::new(io::ErrorKind::InvalidInput, "no name")), true),
        (tls(io::ErrorKind::UnexpectedEof.into()), false),
        (tls(io::ErrorKind::ConnectionReset.into()), false),
        (ConnectError::Credentials { at: at(), reason: "ACCESS_REFUSED".into() }, true),
        (vhost("NOT_ALLOWED - vhost otp not found"), true),
        (vhost("NOT_ALLOWED - access to vhost 'otp' refused for user 'worker'"), true),
        (vhost("NOT_ALLOWED - access refused: connection limit (1) is reached"), false),
        (vhost("NOT_ALLOWED - vhost 'otp' is down"), false),
        (other(ErrorKind::IOError(io::Error::from(io::ErrorKind::ConnectionReset).into()).into()), false),
        (other(protocol(AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED))), false),
        (other(protocol(AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR))), false),
        (other(protocol(AMQPErrorKind::Hard(AMQPHardError::RESOURCEERROR))), false),
        (other(protocol(AMQPErrorKind::Hard(AMQPHardError::NOTIMPLEMENTED))), true),
        (other(protocol(AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))), true),
    ] {
        assert_eq!(is_failed(&of_connecting(&error)), fails, "{error}");
    }
}

#[test]
fn a_difference_fails_and_a_connection_that_is_lost_does_not() {
    let lost = TopologyError::Lost(protocol(AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED)));
    for (error, fails) in [
        (TopologyError::Differs(vec!["exchange otp.results: another type".into()]), true),
        (lost, false),
        (TopologyError::Silent, false),
    ] {
        let told = error.to_string();
        assert_eq!(is_failed(&of_topology(TopologyMode::Declare, Err(error))), fails, "{told}");
    }
    for mode in [TopologyMode::Declare, TopologyMode::Check, TopologyMode::Skip] {
        assert!(matches!(of_topology(mode, Ok(Vec::new())), Finding::Good(_)));
    }
}

#[test]
fn a_store_that_is_away_or_full_does_not_fail_and_one_that_refuses_us_does() {
    let address = Address { host: "redis".into(), port: 6379, tls: None, login: redis::RedisConnectionInfo::default() };
    let refused = |why: &str| StoreError::Refused { why: why.into(), hint: "a hint" };
    for (error, fails) in [
        (StoreError::Unreachable("connecting took too long".into()), false),
        (StoreError::Unreachable("invalid peer certificate: UnknownIssuer".into()), true),
        (refused("\"WRONGPASS\": invalid username-password pair or user is disabled."), true),
        (refused("\"NOAUTH\": Authentication required."), true),
        (refused("NoPerm: this user has no permissions"), true),
        (refused("Password authentication failed - AuthenticationFailed"), true),
        (refused("Redis server refused to switch database - ResponseError"), true),
        (refused("Moved: 1 10.0.0.1:6379"), true),
        (refused("\"OOM\": command not allowed when used memory > 'maxmemory'."), false),
        (refused("\"MISCONF\": Redis is configured to save RDB snapshots"), false),
        (refused("ERR max number of clients reached"), false),
        (StoreError::Unreachable("\"NOREPLICAS\": Not enough good replicas to write.".into()), false),
        (StoreError::Unreachable("Connection reset by peer (os error 104)".into()), false),
        (StoreError::NotOurs("the keys belong to the queue \"other\"".into()), true),
        (StoreError::Unreadable("another program wrote it".into()), true),
    ] {
        let told = error.to_string();
        assert_eq!(is_failed(&of_store(&address, Err(error))), fails, "{told}");
    }
}

fn account(balance: f64, date: Option<SystemTime>) -> Result<Account, BalanceError> {
    Ok(Account { balance, date })
}

#[test]
fn keys_that_are_refused_fail_and_an_esms_that_is_away_does_not() {
    let refused = |code| BalanceError::Refused { code, meaning: "a meaning" };
    for (error, fails) in [
        (refused("101"), true),
        (refused("140"), true),
        (refused("143"), true),
        (refused("110"), true),
        (refused("103"), false),
        (refused("160"), false),
        (refused("99"), false),
        (refused("other"), false),
        (BalanceError::NotReached("timed out".into()), false),
        (BalanceError::NotUnderstood(403), true),
        (BalanceError::NotUnderstood(401), true),
        (BalanceError::NotUnderstood(404), true),
        (BalanceError::NotUnderstood(407), true),
        (BalanceError::NotUnderstood(302), true),
        (BalanceError::NotUnderstood(408), false),
        (BalanceError::NotUnderstood(425), false),
        (BalanceError::NotUnderstood(429), false),
        (BalanceError::NotUnderstood(200), false),
        (BalanceError::NotUnderstood(500), false),
        (BalanceError::NotUnderstood(503), false),
    ] {
        let told = error.to_string();
        assert_eq!(is_failed(&of_credentials(&Err(error))), fails, "{told}");
    }
}

#[test]
fn a_low_balance_is_a_warning() {
    for (balance, is_good) in [(36_693.0, true), (10_000.0, true), (9_999.0, false), (0.0, false), (-5.0, false)] {
        assert_eq!(matches!(of_credentials(&account(balance, None)), Finding::Good(_)), is_good, "{balance}");
    }
    assert!(!is_failed(&of_credentials(&account(0.0, None))));
}

#[test]
fn a_clock_that_is_off_is_a_warning() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let minute = Duration::from_secs(60);
    for theirs in [now - minute, now + minute] {
        let Finding::Warning { why, hint } = of_clock(&account(1.0, Some(theirs)), now) else { panic!("{theirs:?}") };
        assert!(why.starts_with("60 s from eSMS's") && hint.contains("NTP"), "{why} {hint}");
    }
    for theirs in [now, now - CLOCK_TOLERANCE, now + CLOCK_TOLERANCE] {
        assert!(matches!(of_clock(&account(1.0, Some(theirs)), now), Finding::Good(_)), "{theirs:?}");
    }
}

#[test]
fn a_clock_nobody_can_tell_is_not_called_good_after_a_failure() {
    let failed = Err(BalanceError::NotUnderstood(404));
    assert!(matches!(of_clock(&failed, SystemTime::UNIX_EPOCH), Finding::Untried(_)));
    assert!(matches!(of_clock(&account(1.0, None), SystemTime::UNIX_EPOCH), Finding::Good(_)));
}

#[test]
fn a_warning_fails_only_when_strict() {
    for (finding, fails, fails_when_strict) in [
        (Finding::Good("a".into()), false, false),
        (Finding::Untried("a".into()), false, false),
        (warning("a", "b"), false, true),
        (failed("a", "b"), true, true),
    ] {
        let line = Line { part: "a part", finding };
        assert_eq!((line.fails(false), line.fails(true)), (fails, fails_when_strict), "{line}");
    }
}

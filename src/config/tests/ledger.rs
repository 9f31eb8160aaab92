//! Addresses of the ledger: which are accepted, which are refused. Neither case shows a password.

use super::secrets::{CANARY, file, refused};
use super::*;
use crate::ledger::address::Address;
use crate::ledger::home::{Deployment, Prefix};

fn address(url: &str) -> Address {
    match read(&[("OTP_LEDGER_URL", url)]).unwrap_or_else(|error| panic!("{url}: {error}")).ledger.store {
        StoreSettings::Redis(redis) => redis.source.good(),
        StoreSettings::Memory => panic!("{url} is no Redis"),
    }
}

/// The host, the port and whether the address uses TLS.
fn place(url: &str) -> (String, u16, bool) {
    let address = address(url);
    (address.host, address.port, address.tls.is_some())
}

#[test]
fn an_address_says_where_and_whether_with_tls() {
    for (url, host, port, tls) in [
        ("redis://redis", "redis", 6379, false),
        (" redis://redis:7000/3 ", "redis", 7000, false),
        ("REDIS://10.0.0.1:1/", "10.0.0.1", 1, false),
        ("redis://[::1]:6379", "::1", 6379, false),
        ("redis://[2001:db8::2]", "2001:db8::2", 6379, false),
        ("rediss://redis.example", "redis.example", 6379, true),
        ("rediss://user:password@redis.example:6380/0", "redis.example", 6380, true),
        ("Rediss://[::1]:6380/15", "::1", 6380, true),
    ] {
        assert_eq!(place(url), (host.to_owned(), port, tls), "{url}");
    }
}

#[test]
fn an_address_says_who_one_is_there_and_which_database() {
    for url in ["redis://us%40er:pass%2F%23word@redis/7", "rediss://us%40er:pass%2F%23word@redis/7"] {
        let login = address(url).login;
        let found = (login.username(), login.password(), login.db());
        assert_eq!(found, (Some("us@er"), Some("pass/#word"), 7), "{url}");
    }
    let login = address("redis://:password@redis").login;
    assert_eq!((login.username(), login.password(), login.db()), (None, Some("password"), 0));
}

#[test]
fn a_wrong_address_of_the_ledger_is_told_without_its_password() {
    for address in [
        "redis://user:zQcanaryQz@",
        "redis://user:zQcanaryQz@:6379",
        "redis://user:zQcanaryQz@host:99999/",
        "redis://user:zQcanaryQz@host:port/",
        "redis://user:zQcanaryQz@host/first",
        "redis://user:zQcanaryQz@host/0/x",
        "redis://user:zQcanaryQz%ff@host/",
        "redis://user:zQcanaryQz#@host/",
        "rediss://user:zQcanaryQz@host/#insecure",
        "redis://user:zQcanaryQz/@host/",
        "redis://user:zQcanaryQz@host/?protocol=zQcanaryQz",
        "redis+unix:///run/redis?pass=zQcanaryQz",
        "unix:///run/redis?pass=zQcanaryQz",
        "http://user:zQcanaryQz@host/",
        "amqp://user:zQcanaryQz@host/",
        "redis:zQcanaryQz@host",
        "memory:zQcanaryQz",
        "zQcanaryQz",
        "user:zQcanaryQz@host",
    ] {
        let credentials = [("ESMS_API_KEY", "api-key-1"), ("ESMS_SECRET_KEY", "secret-key-1")];
        let told = "a setting is wrong:\n  OTP_LEDGER_URL: must be memory:, or an address such as ";
        let (_kept, path) = file(address.as_bytes());
        for (setting, value) in [("OTP_LEDGER_URL", address), ("OTP_LEDGER_URL_FILE", path.as_str())] {
            let found = refused(&[credentials[0], credentials[1], (setting, value)]);
            assert!(found.starts_with(told), "{address}: {found}");
        }
    }
}

#[test]
fn the_address_of_the_ledger_is_read_from_its_file() {
    let (_kept, path) = file(b"rediss://user:pass@redis.example:7/1\n");
    let StoreSettings::Redis(redis) = read(&[("OTP_LEDGER_URL_FILE", &path)]).unwrap().ledger.store else {
        panic!("no Redis");
    };
    let address = redis.source.good();
    assert_eq!((address.host.as_str(), address.port, address.login.password()), ("redis.example", 7, Some("pass")));
}

#[test]
fn a_right_address_shown_for_debugging_shows_no_password() {
    for url in ["redis://zQcanaryQz:zQcanaryQz@redis.example/0", "rediss://:zQcanaryQz@redis.example:1/"] {
        let (_kept, path) = file(url.as_bytes());
        for (setting, value) in [("OTP_LEDGER_URL", url), ("OTP_LEDGER_URL_FILE", path.as_str())] {
            let config = read(&[(setting, value)]).unwrap();
            for shown in [format!("{config:?}"), format!("{config:#?}"), format!("{:?}", config.ledger)] {
                assert!(shown.contains("redis.example") && !shown.contains(CANARY), "{shown}");
            }
        }
    }
}

/// The prefix and the deployment that these settings lead to.
fn home(given: &[(&str, &str)]) -> (Prefix, Deployment) {
    let given: Vec<_> = [("OTP_LEDGER_URL", "redis://redis")].iter().chain(given).copied().collect();
    let StoreSettings::Redis(redis) = read(&given).unwrap().ledger.store else { panic!("no Redis") };
    (redis.prefix, redis.deployment)
}

#[test]
fn the_prefix_comes_from_virtual_host_and_queue_unless_it_is_set() {
    let (prefix, deployment) = home(&[("AMQP_URL", "amqp://broker/otp"), ("OTP_QUEUE", "jobs")]);
    assert_eq!(deployment, Deployment { broker: None, vhost: "otp".into(), queue: "jobs".into() });
    assert_eq!(prefix, Prefix::of(&deployment));
    assert_eq!(home(&[]).0.job("1001"), "esms-otp-worker:/:otp.jobs:job:1001");
    let (set, deployment) = home(&[("OTP_LEDGER_PREFIX", " eu: ")]);
    assert_eq!((set.job("1001").as_str(), deployment.queue.as_str()), ("eu:job:1001", "otp.jobs"));
}

#[test]
fn a_prefix_that_cannot_be_one_is_refused_with_the_rule() {
    for prefix in ["a b", "{eu}:", "eu*", &"x".repeat(101)] {
        let told = told(&[("OTP_LEDGER_PREFIX", prefix)]);
        assert!(told.contains("OTP_LEDGER_PREFIX: must be at most 100 bytes, without spaces"), "{told}");
    }
}

#[test]
fn a_private_ca_that_cannot_be_used_is_told_with_its_setting() {
    let (_kept, path) = file(b"not PEM");
    for (path, said) in [(path.as_str(), "holds no certificate"), ("/nowhere/ca.pem", "cannot read /nowhere/ca.pem")] {
        let told = told(&[("OTP_LEDGER_CA_FILE", path)]);
        assert!(told.contains("OTP_LEDGER_CA_FILE: ") && told.contains(said) && !told.contains("AMQP"), "{told}");
    }
}

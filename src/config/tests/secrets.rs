//! Secrets: where they are read from, and that no message shows them.

use super::*;
use std::fs;
use tempfile::TempDir;

pub(super) const CANARY: &str = "zQcanaryQz";

/// A file with this content, in a directory that is deleted after the test.
pub(super) fn file(content: &[u8]) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// The message that refuses these settings. It must not show the canary.
pub(super) fn refused(given: &[(&str, &str)]) -> String {
    let error = read_only(given).unwrap_err();
    let told = format!("{error}");
    assert!(!told.contains(CANARY) && !format!("{error:?}").contains(CANARY), "{told}");
    told
}

#[test]
fn a_secret_is_read_from_its_file_without_the_last_newline() {
    for content in
        ["from-file", "from-file\n", "from-file\r\n", "\n from-file \n\n", "\u{feff}from-file", "\u{feff}from-file\r\n"]
    {
        let (_kept, path) = file(content.as_bytes());
        let config = read_only(&[("ESMS_API_KEY_FILE", &path), ("ESMS_SECRET_KEY_FILE", &path)]).unwrap();
        assert_eq!(config.esms.secrets(), ["from-file"; 2], "{content:?}");
    }
}

#[test]
fn a_secret_of_the_environment_is_read_without_what_is_around_it() {
    for around in ["\n", "\r\n", " ", "\t\n", "\u{feff}", "\u{200b}"] {
        let value = |text: &str| format!("{around}{text}{around}");
        let (key, secret, url) = (value("a-long-key"), value("a-long-secret"), value("amqp://u:p@broker.example/otp"));
        let given = [("ESMS_API_KEY", key.as_str()), ("ESMS_SECRET_KEY", &secret), ("AMQP_URL", &url)];
        let config = read_only(&given).unwrap_or_else(|error| panic!("{around:?}: {error}"));
        assert_eq!(config.esms.secrets(), ["a-long-key", "a-long-secret"], "{around:?}");
        assert_eq!(config.broker.addresses.first().vhost, "otp", "{around:?}");
    }
}

#[test]
fn what_cannot_be_a_key_is_a_mistake_that_does_not_show_it() {
    for key in ["zQcanar", "zQcanaryQz zQcanaryQz", "zQcanaryQz\nzQcanaryQz", "\"zQcanaryQz\"", "zQcanary\u{0}Qz"] {
        let (_kept, path) = file(key.as_bytes());
        for (setting, value) in [("ESMS_API_KEY", key), ("ESMS_API_KEY_FILE", path.as_str())] {
            let told = refused(&[(setting, value), ("ESMS_SECRET_KEY", "secret-key-1")]);
            assert!(told.starts_with(&format!("a setting is wrong:\n  {setting}: ")), "{key:?}: {told}");
            assert!(!told.contains("zQcanar"), "{told}");
        }
    }
}

#[test]
fn the_brokers_address_is_read_from_its_file() {
    let (_kept, path) = file(b"amqp://user:pass@broker.example/otp\n");
    let uri = read(&[("AMQP_URL_FILE", &path)]).unwrap().broker.addresses.first();
    assert_eq!((uri.authority.host.as_str(), uri.vhost.as_str()), ("broker.example", "otp"));
    assert_eq!(uri.authority.userinfo.password, "pass");
}

#[test]
fn an_empty_variable_leaves_the_word_to_the_file() {
    let (_kept, path) = file(b"from-file");
    let config = read(&[("ESMS_API_KEY", ""), ("ESMS_API_KEY_FILE", &path)]).unwrap();
    assert_eq!(config.esms.secrets(), ["from-file", "secret-key-1"]);
}

#[test]
fn a_secret_set_twice_is_a_mistake_even_if_both_agree() {
    let (_kept, path) = file(CANARY.as_bytes());
    for (direct, twin) in [
        ("ESMS_API_KEY", "ESMS_API_KEY_FILE"),
        ("ESMS_SECRET_KEY", "ESMS_SECRET_KEY_FILE"),
        ("AMQP_URL", "AMQP_URL_FILE"),
        ("OTP_LEDGER_URL", "OTP_LEDGER_URL_FILE"),
    ] {
        let given = [("ESMS_API_KEY", CANARY), ("ESMS_SECRET_KEY", CANARY), (direct, CANARY), (twin, &path)];
        let told = refused(&given);
        assert_eq!(told, format!("a setting is wrong:\n  {direct}: is set, and so is {twin}: set only one"));
    }
}

#[test]
fn a_file_that_is_not_there_or_empty_or_no_text_is_a_mistake_that_names_its_setting() {
    let (_kept, empty) = file(b" \n");
    let (directory, binary) = file(b"\xff\xfezQcanaryQz");
    let folder = directory.path().to_str().unwrap();
    for setting in ["ESMS_API_KEY_FILE", "ESMS_SECRET_KEY_FILE", "AMQP_URL_FILE", "OTP_LEDGER_URL_FILE"] {
        for path in ["/nonexistent/secret", &empty, &binary, folder] {
            let direct = setting.trim_end_matches("_FILE");
            let credentials = [("ESMS_API_KEY", "api-key-1"), ("ESMS_SECRET_KEY", "secret-key-1")];
            let mut given: Vec<_> = credentials.into_iter().filter(|(name, _)| *name != direct).collect();
            given.push((setting, path));
            let told = refused(&given);
            assert!(told.starts_with(&format!("a setting is wrong:\n  {setting}: names a file that ")), "{told}");
        }
    }
}

#[test]
fn a_secret_where_the_name_of_its_file_belongs_is_not_repeated() {
    let address = format!("amqp://user:{CANARY}@broker.example/");
    for (setting, value) in [
        ("ESMS_API_KEY_FILE", CANARY),
        ("ESMS_SECRET_KEY_FILE", CANARY),
        ("AMQP_URL_FILE", &address),
        ("OTP_LEDGER_URL_FILE", &format!("redis://user:{CANARY}@redis.example/")),
    ] {
        assert!(refused(&[(setting, value)]).contains(setting));
    }
}

#[test]
fn a_wrong_address_of_the_broker_is_told_without_its_password() {
    for address in [
        "amqp://user:zQcanaryQz@",
        "amqp://user:zQcanaryQz@host:99999/",
        "amqp://user:zQcanaryQz@host:port/",
        "amqp://user:zQcanaryQz@[::1]/",
        "amqp://user:zQcanaryQz@/vhost",
        "amqp://user:zQcanaryQz%ff@host/",
        "amqp://user:zQcanaryQz#@host/",
        "amqp://user:zQcanaryQz/@host/",
        "amqp://user:zQcanaryQz@host/?heartbeat=zQcanaryQz",
        "amqp://user:zQcanaryQz@host/?auth_mechanism=zQcanaryQz",
        "http://user:zQcanaryQz@host/",
        "zQcanaryQz",
        "user:zQcanaryQz@host",
    ] {
        let told =
            refused(&[("AMQP_URL", address), ("ESMS_API_KEY", "api-key-1"), ("ESMS_SECRET_KEY", "secret-key-1")]);
        assert!(told.starts_with("a setting is wrong:\n  AMQP_URL: must be an address such as "), "{address}: {told}");
        let (_kept, path) = file(address.as_bytes());
        assert!(refused(&[("AMQP_URL_FILE", &path)]).contains("\n  AMQP_URL: must be an address such as "));
    }
}

#[test]
fn other_mistakes_are_told_without_the_secrets_that_were_right() {
    let address = format!("amqp://user:{CANARY}@broker.example/");
    let told = refused(&[
        ("AMQP_URL", &address),
        ("ESMS_API_KEY", CANARY),
        ("ESMS_SECRET_KEY", CANARY),
        ("OTP_CONCURRENCY", "0"),
        ("ESMS_URL", "https://user:zQcanaryQz@rest.esms.vn/"),
        ("OTP_LEDGER_URL", "rediss://user:zQcanaryQz@redis:6379/0/x/y"),
    ]);
    for setting in ["OTP_CONCURRENCY", "ESMS_URL", "OTP_LEDGER_URL"] {
        assert!(told.contains(&format!("\n  {setting}: ")), "{told}");
    }
}

#[test]
fn a_configuration_shown_for_debugging_shows_no_secret() {
    let address = format!("amqp://user:{CANARY}@broker.example/");
    let (_kept, path) = file(CANARY.as_bytes());
    for (key, secret) in [("ESMS_API_KEY", "ESMS_SECRET_KEY_FILE"), ("ESMS_API_KEY_FILE", "ESMS_SECRET_KEY")] {
        let of = |setting: &str| if setting.ends_with("_FILE") { path.as_str() } else { CANARY };
        let config = read_only(&[("AMQP_URL", &address), (key, of(key)), (secret, of(secret))]).unwrap();
        assert_eq!(config.esms.secrets(), [CANARY; 2]);
        assert_eq!(config.broker.addresses.first().authority.userinfo.password, CANARY);
        for shown in [format!("{config:?}"), format!("{config:#?}"), format!("{:?}", config.broker)] {
            assert!(shown.contains("broker.example") && !shown.contains(CANARY), "{shown}");
        }
    }
}

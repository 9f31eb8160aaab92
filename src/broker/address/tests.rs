use std::path::Path;

use super::*;
use crate::settings::secret::SecretFile;

/// Host, port, virtual host and password of each address.
fn told(text: &str) -> Option<Vec<(String, u16, String, String)>> {
    let Listed { first, more } = parse(text)?;
    let one = |uri: AMQPUri| (uri.authority.host, uri.authority.port, uri.vhost, uri.authority.userinfo.password);
    Some(std::iter::once(first).chain(more).map(one).collect())
}

fn vhost(text: &str) -> String {
    told(text).expect(text)[0].2.clone()
}

#[test]
fn an_empty_path_is_the_default_virtual_host() {
    for text in ["amqp://host", "amqp://host/", "amqp://host:5672", "amqp://host:5672/", "amqp://host:5672/%2f"] {
        assert_eq!(vhost(text), "/", "{text}");
    }
    assert_eq!(vhost("amqp://host:5672/?heartbeat=5"), "/");
    assert_eq!(vhost("amqp://host?heartbeat=5"), "/");
    assert_eq!(vhost("amqp://host/otp"), "otp");
    assert_eq!(vhost("amqp://host/otp%2fone"), "otp/one");
}

#[test]
fn several_addresses_are_separated_by_commas() {
    for text in [
        "amqp://a,amqps://b/v",
        " amqp://a , amqps://b/v ",
        "amqp://a,\namqps://b/v\n",
        "amqp://a,,amqps://b/v,",
        "\u{feff}AMQP://a,AMQPS://b/v\r\n",
    ] {
        let expected = [("a", 5672, "/"), ("b", 5671, "v")]
            .map(|(host, port, vhost)| (host.to_owned(), port, vhost.to_owned(), "guest".to_owned()));
        assert_eq!(told(text).as_deref(), Some(&expected[..]), "{text:?}");
    }
}

#[test]
fn a_comma_in_a_password_separates_nothing() {
    let found = told("amqp://u:p,w@a,amqp://u:q,@b").expect("two addresses");
    assert_eq!(found.iter().map(|address| address.3.as_str()).collect::<Vec<_>>(), ["p,w", "q,"]);
}

#[test]
fn one_wrong_address_makes_all_of_them_wrong() {
    for text in ["", " \n", ",", "amqp://a,http://b", "amqp://a,amqp://", "amqp:/a", "amqp://[::1]", "amqp://u:cut"] {
        assert!(told(text).is_none(), "{text:?}");
    }
}

async fn hosts(addresses: &Addresses) -> Vec<String> {
    addresses.to_try().await.into_iter().map(|uri| uri.authority.host).collect()
}

/// These addresses, which came from this file.
fn from_file(text: &str, file: &Path) -> Addresses {
    let file = Some(SecretFile::new("AMQP_URL_FILE", file));
    Addresses::new(secret::Source { text: text.into(), file }).unwrap()
}

#[tokio::test]
async fn a_file_is_read_again_and_one_that_cannot_be_used_keeps_what_was_read_last() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    let addresses = from_file("amqp://first", &file);
    // A name that exists when the worker starts, and not yet or not any more now.
    assert_eq!(hosts(&addresses).await, ["first"]);
    for (content, expected) in [
        ("amqp://second\n", "second"),
        ("", "second"),
        (" \n", "second"),
        ("amqp://u:cu", "second"),
        ("not an address", "second"),
        ("\u{feff}amqp://third\r\n", "third"),
    ] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(hosts(&addresses).await, [expected], "{content:?}");
    }
    std::fs::write(&file, b"amqp://\xff").unwrap();
    assert_eq!(hosts(&addresses).await, ["third"]);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(hosts(&addresses).await, ["third"]);
}

#[tokio::test]
async fn an_address_that_worked_is_still_tried_after_the_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    let addresses = from_file("amqp://works", &file);
    *addresses.lock() = Some(addresses.first());
    // A file that is being written holds the beginning of an address, which may be an address, too.
    std::fs::write(&file, "amqp://user").unwrap();
    assert_eq!(hosts(&addresses).await, ["user", "works"]);
}

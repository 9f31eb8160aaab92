use super::*;
use crate::esms::secret_words;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

const OLD: [&str; 2] = ["old-api-key", "old-secret-key"];
const NEW: [&str; 2] = ["new-api-key", "new-secret-key"];

fn pair([api_key, secret_key]: [&str; 2]) -> Pair {
    Pair { api_key: SecretString::from(api_key), secret_key: SecretString::from(secret_key) }
}

fn source(path: &Path) -> Source {
    let file = SecretFile::new("A_FILE", path);
    Source { text: file.read_now().unwrap(), file: Some(file) }
}

/// The old keys, from two files in this directory.
fn in_files() -> (TempDir, Keys) {
    let directory = tempfile::tempdir().unwrap();
    write(&directory, OLD);
    let keys = Keys::new(source(&directory.path().join("api")), source(&directory.path().join("secret"))).unwrap();
    (directory, keys)
}

fn write(directory: &TempDir, [api_key, secret_key]: [&str; 2]) {
    fs::write(directory.path().join("api"), api_key).unwrap();
    fs::write(directory.path().join("secret"), secret_key).unwrap();
}

async fn read_twice(keys: &Keys) {
    keys.read_again().await;
    keys.read_again().await;
}

#[test]
fn a_pair_is_used_when_two_readings_in_a_row_find_it() {
    let (old, new, other) = (pair(OLD), pair(NEW), pair([NEW[0], OLD[1]]));
    for (read, seen, next) in [
        (&old, None, Next::Stay),
        (&old, Some(&new), Next::Stay),
        (&new, None, Next::Wait(new.clone())),
        (&new, Some(&other), Next::Wait(new.clone())),
        (&new, Some(&new), Next::Use(new.clone())),
        (&other, Some(&other), Next::Use(other.clone())),
    ] {
        assert_eq!(after(read.clone(), &old, seen), next);
    }
}

#[tokio::test]
async fn new_keys_are_used_without_a_restart() {
    let (directory, keys) = in_files();
    write(&directory, [" new-api-key\r\n", "\u{feff}new-secret-key\n"]);
    keys.read_again().await;
    assert_eq!(*keys.now(), pair(OLD), "it may be half written");
    keys.read_again().await;
    assert_eq!(*keys.now(), pair(NEW));
}

#[tokio::test]
async fn one_of_the_two_may_change_alone() {
    let (directory, keys) = in_files();
    write(&directory, [OLD[0], NEW[1]]);
    read_twice(&keys).await;
    assert_eq!(*keys.now(), pair([OLD[0], NEW[1]]));
}

#[tokio::test]
async fn while_one_file_is_bad_both_old_keys_stay() {
    let (directory, keys) = in_files();
    for bad in ["", " \n", "new-sec", "new secret key", "\"new-secret-key\""] {
        for keys_written in [[NEW[0], bad], [bad, NEW[1]]] {
            write(&directory, keys_written);
            read_twice(&keys).await;
            assert_eq!(*keys.now(), pair(OLD), "{keys_written:?}");
        }
    }
    write(&directory, NEW);
    fs::remove_file(directory.path().join("secret")).unwrap();
    read_twice(&keys).await;
    assert_eq!(*keys.now(), pair(OLD));
    write(&directory, NEW);
    read_twice(&keys).await;
    assert_eq!(*keys.now(), pair(NEW));
}

#[tokio::test]
async fn a_bad_reading_between_two_good_ones_begins_anew() {
    let (directory, keys) = in_files();
    for (written, expected) in [(NEW, OLD), ([NEW[0], ""], OLD), (NEW, OLD), (NEW, NEW)] {
        write(&directory, written);
        keys.read_again().await;
        assert_eq!(*keys.now(), pair(expected), "{written:?}");
    }
}

#[tokio::test]
async fn the_old_keys_and_the_new_ones_are_removed_from_what_esms_says() {
    let (directory, keys) = in_files();
    write(&directory, NEW);
    read_twice(&keys).await;
    let said = format!("{} {} {} {}", OLD[0], NEW[0], OLD[1], NEW[1]);
    let masked = keys.with_all(|secrets| secret_words::without(&said, secrets));
    assert_eq!(masked, "[removed] [removed] [removed] [removed]");
    assert_eq!(Keys::none().with_all(|secrets| secret_words::without("100", secrets)), "100");
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_replaced_are_used_within_a_minute() {
    let (directory, keys) = in_files();
    let reading = tokio::spawn(keys.clone().keep_fresh());
    write(&directory, NEW);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(*keys.now(), pair(NEW));
    reading.abort();
}

#[test]
fn what_cannot_be_a_key_is_refused_for_each_of_the_two() {
    let good = || Source::fixed("12345678");
    let rules = |api_key, secret_key| Keys::new(api_key, secret_key).unwrap_err().map(|rule| rule.is_some());
    assert_eq!(rules(Source::fixed("short"), good()), [true, false]);
    assert_eq!(rules(good(), Source::fixed("two words")), [false, true]);
    assert_eq!(rules(Source::fixed(""), Source::fixed("")), [true, true]);
}

use super::*;
use secrecy::ExposeSecret as _;
use std::fs;
use tempfile::TempDir;

/// What the field puts around a value.
const AROUND: &[(&str, &str)] = &[
    ("", ""),
    ("", "\n"),
    ("", "\r\n"),
    ("\u{feff}", ""),
    ("\u{feff}", "\r\n"),
    ("\n \t", " \n\n"),
    ("\u{a0}", "\u{200b}\n"),
    (" \u{feff} ", "\u{2060}"),
];

fn file(content: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, content).unwrap();
    (directory, path)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "is no number".to_owned())
}

fn secret(path: &std::path::Path) -> Secret<u32> {
    let file = SecretFile::new("A_FILE", path);
    Secret::new(Source { text: file.read_now().unwrap(), file: Some(file) }, number).unwrap()
}

#[test]
fn what_is_around_a_value_does_not_belong_to_it() {
    for (before, after) in AROUND {
        for value in ["a-secret", "a secret of words", "é"] {
            assert_eq!(tidy(&format!("{before}{value}{after}")), value, "{before:?} {after:?}");
        }
    }
    assert_eq!(tidy("\u{feff}\r\n"), "");
}

#[test]
fn a_key_is_taken_without_what_is_around_it() {
    for (before, after) in AROUND {
        assert_eq!(key(&format!("{before}12345678{after}")).unwrap().expose_secret(), "12345678");
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_without_being_repeated() {
    for text in [
        "",
        "1234567",
        "ếếếếếếế",
        "two words",
        "two\twords",
        "two\nlines",
        "two\r\nlines",
        "with\0nought",
        "with\u{7f}delete",
        "no\u{a0}break",
        "no\u{200b}width",
        "a\u{feff}mark",
        "\"12345678\"",
        "'12345678'",
    ] {
        let rule = key(text).unwrap_err();
        assert!(rule.starts_with("cannot be a key") && (text.is_empty() || !rule.contains(text)), "{text:?}");
    }
}

#[tokio::test]
async fn a_file_is_read_again_and_keeps_its_last_good_value() {
    let (_kept, path) = file(b"1\n");
    let secret = secret(&path);
    assert_eq!(secret.current().await, 1);
    for bad in [&b""[..], b" \r\n", b"no number", b"\xff\xfe1\0", &[b'1'; LARGEST as usize + 1]] {
        fs::write(&path, bad).unwrap();
        assert_eq!(secret.current().await, 1, "{bad:?}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(secret.current().await, 1);
    fs::write(&path, b"\xef\xbb\xbf2\r\n").unwrap();
    assert_eq!((secret.last(), secret.current().await, secret.last()), (1, 2, 2));
}

/// Keeps the log's text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_bad_file_is_logged_once_until_it_is_good_again_and_never_shown() {
    let (log, (_kept, path)) = (Log::default(), file(b"31415926"));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _used = tracing::subscriber::set_default(subscriber);
    let secret = secret(&path);
    for (content, times) in [("", 3), ("31415926", 2), ("no number", 3), ("27182818", 2)] {
        for _ in 0..times {
            fs::write(&path, content).unwrap();
            secret.current().await;
        }
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("a secret's file cannot be used").count(), 2, "{text}");
    assert_eq!(text.matches("has a new value").count(), 1, "{text}");
    for shown in ["31415926", "27182818", path.to_str().unwrap()] {
        assert!(!text.contains(shown), "{text}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_mounted_secret_that_is_replaced_through_a_link_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, value) in [("v1", "1"), ("v2", "2")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("key"), value).unwrap();
    }
    std::os::unix::fs::symlink(at("v1"), at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/key", at("key")).unwrap();
    let secret = secret(&at("key"));
    std::os::unix::fs::symlink(at("v2"), at("..new")).unwrap();
    fs::rename(at("..new"), at("..data")).unwrap();
    fs::remove_dir_all(at("v1")).unwrap();
    assert_eq!(secret.current().await, 2);
}

#[tokio::test]
async fn a_value_of_the_environment_stays() {
    let secret = Secret::new(Source::fixed("7"), number).unwrap();
    assert_eq!((secret.current().await, secret.last()), (7, 7));
    assert_eq!(Secret::new(Source::fixed("x"), number).unwrap_err(), "is no number");
}

#[test]
fn nothing_of_a_secret_is_shown_for_debugging() {
    let (_kept, path) = file(b"31415926");
    let secret = secret(&path);
    let shown = format!("{secret:?} {:?} {:?}", Source::fixed("31415926"), secret.0.file);
    assert!(!shown.contains("31415926") && !shown.contains(path.to_str().unwrap()), "{shown}");
    assert!(shown.contains("A_FILE"));
}

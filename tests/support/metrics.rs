//! Reads the worker's HTTP endpoints: a plain GET, and the samples of `/metrics`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::eventually;

const LIMIT: Duration = Duration::from_secs(10);

/// Status and body of a GET.
///
/// # Panics
///
/// When there is no complete answer within 10 s.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let answer = tokio::time::timeout(LIMIT, exchange(addr, path))
        .await
        .unwrap_or_else(|_| panic!("no answer from {addr}{path} within {LIMIT:?}"))
        .unwrap_or_else(|error| panic!("GET {addr}{path}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("an HTTP status line");
    (status.parse().expect("an HTTP status"), body.to_owned())
}

/// Uses HTTP/1.0, so that the body comes in one piece and ends with the connection.
async fn exchange(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// All samples of one moment.
pub(crate) struct Scrape {
    text: String,
}

impl Scrape {
    /// Fetches `/metrics`.
    pub(crate) async fn of(addr: SocketAddr) -> Self {
        let (status, text) = get(addr, "/metrics").await;
        assert_eq!(status, 200, "{text}");
        Self { text }
    }

    /// From text in the Prometheus format.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.to_owned();
        Self { text }
    }

    /// The text itself.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The sum of the samples that have this name and at least these labels. `None` when there are no such
    /// samples.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(Sample::parse)
            .filter(|sample| sample.name == name && sample.has(labels))
            .map(|sample| sample.value)
            .reduce(|sum, value| sum + value)
    }
}

/// Scrapes until `enough` accepts the value, and returns the value. The value is 0 while there is no such
/// sample.
///
/// # Panics
///
/// When that takes longer than `within`.
pub(crate) async fn wait_for(
    addr: SocketAddr,
    name: &str,
    labels: &[(&str, &str)],
    enough: impl Fn(f64) -> bool,
    within: Duration,
) -> f64 {
    let what = format!("{name} with {labels:?} as wanted");
    eventually(&what, within, async || {
        let scrape = Scrape::of(addr).await;
        let value = scrape.value(name, labels).unwrap_or(0.0);
        enough(value).then_some(value)
    })
    .await
}

struct Sample<'a> {
    name: &'a str,
    labels: HashMap<&'a str, &'a str>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// `name value` or `name{label="text",...} value`. The labels of this project contain no quotes, commas
    /// or braces, so simple splitting works.
    fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}')?;
        Some(Self { name, labels: labels.split(',').filter_map(parse_label).collect(), value: value.parse().ok()? })
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

fn parse_label(label: &str) -> Option<(&str, &str)> {
    let (name, value) = label.split_once('=')?;
    Some((name, value.trim_matches('"')))
}

//! Reads a reply, however it ends. What came before an error is kept.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderName, RETRY_AFTER};
use tokio::time::timeout;

use super::body::{LARGEST, decompressed, object};
use super::classify::{End, Seen};
use super::trouble::describe;

/// How long the end of a body is waited for once its answer is whole. A `Content-Length` that is too long would
/// hold the answer up until `ESMS_TIMEOUT`.
const PAUSE: Duration = Duration::from_millis(250);

/// The reply. It comes within the time limit of the request.
pub(super) async fn read(mut response: Response) -> Seen {
    let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let status = response.status().as_u16();
    let (retry_after, encoding) = (header(RETRY_AFTER), header(CONTENT_ENCODING));
    let mut body = BytesMut::new();
    let end = loop {
        let room = LARGEST - body.len();
        match timeout(PAUSE, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break End::TooLong;
                }
            }
            Ok(Ok(None)) => break End::Whole,
            Ok(Err(error)) => break End::Cut(describe(error)),
            // Nothing more comes for the moment.
            Err(_) if object(&decompressed(&body, encoding.as_deref())).is_some() => break End::Whole,
            Err(_) => {}
        }
    };
    let body = Bytes::from(decompressed(&body, encoding.as_deref()).into_owned());
    Seen::Reply { status, retry_after, body, end }
}

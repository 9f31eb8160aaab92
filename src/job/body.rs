//! A message's body as a job: what clients and brokers wrap around the JSON text is taken off first.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::GzDecoder;

use super::request::{self, BodyError, LARGEST_BODY, OtpRequest};

/// What RabbitMQ 4 writes into the property `type` of a message that came over AMQP 1.0 with a body that is not
/// plain bytes. The body is then AMQP 1.0's own encoding.
const AMQP_1_0: &str = "amqp-1.0";

/// How gzip begins.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Reads the job in a message's body. `encoding` is the property `content_encoding`, `kind` the property `type`, and
/// `default_template` is `ESMS_TEMPLATE_ID`.
///
/// The bytes decide, not the property: some producers name an encoding and send plain text all the same.
///
/// # Errors
/// [`BodyError`]: the job can never be worked and belongs on the dead-letter exchange.
pub fn decode(
    body: &[u8],
    encoding: Option<&str>,
    kind: Option<&str>,
    default_template: Option<&str>,
) -> Result<OtpRequest, BodyError> {
    let bytes = if kind == Some(AMQP_1_0) { amqp_1_0(body).ok_or(BodyError::Amqp10)? } else { body };
    let plain = if bytes.starts_with(GZIP) { Cow::Owned(gunzipped(bytes)?) } else { Cow::Borrowed(bytes) };
    request::decode(&plain, default_template).map_err(|error| match error {
        BodyError::NotUtf8 | BodyError::NotJson { .. } if !is_plain(encoding) => BodyError::Encoding,
        error => error,
    })
}

/// Some clients write the character set into this property.
fn is_plain(encoding: Option<&str>) -> bool {
    let encoding = encoding.unwrap_or_default().trim();
    ["", "identity", "utf-8", "utf8"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
}

/// Reads no more than the largest body, however much the bytes unpack to.
fn gunzipped(bytes: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut plain = Vec::new();
    let most = LARGEST_BODY as u64 + 1;
    GzDecoder::new(bytes).take(most).read_to_end(&mut plain).map_err(|_| BodyError::NotGzip)?;
    if plain.len() > LARGEST_BODY { Err(BodyError::TooLarge) } else { Ok(plain) }
}

/// The content of a body section that holds one string or one binary: the section's descriptor, the type, and the
/// length in one byte or in four (AMQP 1.0, parts 1.6.19, 1.6.20 and 3.2.6 to 3.2.8).
fn amqp_1_0(body: &[u8]) -> Option<&[u8]> {
    // A described type whose descriptor is a small number: 0x75 is `data`, 0x77 is `amqp-value`.
    let rest = body.strip_prefix(&[0x00, 0x53])?;
    let (section, rest) = rest.split_first()?;
    if !matches!(section, 0x75 | 0x77) {
        return None;
    }
    let (code, rest) = rest.split_first()?;
    let (length, content) = match code {
        0xa0 | 0xa1 => rest.split_first().map(|(length, content)| (usize::from(*length), content))?,
        0xb0 | 0xb1 => {
            let (length, content) = rest.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_be_bytes(*length)).ok()?, content)
        }
        _ => return None,
    };
    // More sections than one are no job.
    (content.len() == length).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    const JOB: &[u8] = br#"{"Phone":"0901888484"}"#;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(body: &[u8], encoding: Option<&str>, kind: Option<&str>) -> Result<String, BodyError> {
        decode(body, encoding, kind, Some("1")).map(|request| request.phone.digits().to_owned())
    }

    fn good() -> Result<String, BodyError> {
        Ok("0901888484".to_owned())
    }

    #[test]
    fn a_plain_body_is_read_whatever_its_encoding_is_called() {
        for encoding in [None, Some(""), Some("identity"), Some("UTF-8"), Some(" utf8 "), Some("gzip"), Some("br")] {
            assert_eq!(read(JOB, encoding, Some("otp.job")), good(), "{encoding:?}");
        }
    }

    #[test]
    fn a_compressed_body_is_unpacked_within_the_limit() {
        for encoding in [Some("gzip"), Some("GZIP"), Some("x-gzip"), None] {
            assert_eq!(read(&gzip(JOB), encoding, None), good());
        }
        let padded = |size: usize| [JOB, &vec![b' '; size - JOB.len()]].concat();
        assert_eq!(read(&gzip(&padded(LARGEST_BODY)), Some("gzip"), None), good());
        let bomb = gzip(&padded(100 * LARGEST_BODY));
        assert!(bomb.len() < LARGEST_BODY);
        assert_eq!(read(&bomb, Some("gzip"), None), Err(BodyError::TooLarge));
    }

    #[test]
    fn what_cannot_be_unpacked_is_named() {
        assert_eq!(read(&gzip(JOB)[..20], Some("gzip"), None), Err(BodyError::NotGzip));
        for encoding in ["br", "deflate", "base64", "\u{1a}"] {
            assert_eq!(read(b"\xce\xb2\xcf", Some(encoding), None), Err(BodyError::Encoding), "{encoding}");
            assert_eq!(read(b"eyJQaG9uZSI6IjA5MDE4ODg0ODQifQ==", Some(encoding), None), Err(BodyError::Encoding));
            // The job itself is wrong, not its encoding.
            assert_eq!(read(b"{}", Some(encoding), None), Err(BodyError::Missing("Phone")));
        }
    }

    #[test]
    fn the_forms_of_an_amqp_1_0_body_are_read() {
        let short = |section: u8, code: u8| [&[0x00, 0x53, section, code, JOB.len() as u8], JOB].concat();
        let long =
            |section: u8, code: u8| [&[0x00, 0x53, section, code][..], &(JOB.len() as u32).to_be_bytes(), JOB].concat();
        for body in [short(0x77, 0xa1), short(0x77, 0xa0), short(0x75, 0xa0), long(0x77, 0xb1), long(0x75, 0xb0)] {
            assert_eq!(read(&body, None, Some("amqp-1.0")), good(), "{body:?}");
        }
        let whole = short(0x77, 0xa1);
        let trailing = [&whole[..], b"x"].concat();
        // A map, a sequence, a cut body, something after it, and no AMQP 1.0 at all.
        for body in
            [&[0x00, 0x53, 0x77, 0xc1, 0x01, 0x00][..], &[0x00, 0x53, 0x76, 0x45], &whole[..9], &trailing, JOB, b""]
        {
            assert_eq!(read(body, None, Some("amqp-1.0")), Err(BodyError::Amqp10), "{body:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(0u8..=255, 0..64), gzip in proptest::bool::ANY) {
            let encoding = gzip.then_some("gzip");
            let _ = read(&body, encoding, Some("amqp-1.0"));
            let _ = read(&[&[0x00, 0x53, 0x77][..], &body].concat(), encoding, Some("amqp-1.0"));
            let _ = read(&[GZIP, &body].concat(), encoding, None);
        }
    }
}

//! Fingerprints: they show whether two jobs with the same id are the same job. They hold nothing personal.

use ring::hmac;

use crate::job::request::OtpRequest;

/// The fingerprint of a job. It is made from the phone number and the other fields, and cannot be reversed
/// without the account's secret.
///
/// Four bytes name the key. Sixteen are the request's code under this key. Codes under different keys cannot
/// be compared, and count as equal: after a change of the account's secret, a repeat is still a repeat.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint([u8; 20]);

impl Fingerprint {
    /// The fingerprint of no job.
    pub const NONE: Self = Self([0; 20]);

    /// How many characters of [`Fingerprint::text`] name the key.
    pub const KEY_LENGTH: usize = 8;

    /// The text in which it is stored: hexadecimal, the key's name first.
    pub fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it certainly belongs to another job. Codes under different keys never differ: see above.
    pub fn differs(&self, other: &Self) -> bool {
        self.0[..4] == other.0[..4] && self.0 != other.0
    }
}

/// Makes fingerprints under one key.
#[derive(Clone)]
pub struct Fingerprints {
    key: hmac::Key,
    name: [u8; 4],
}

impl std::fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fingerprints").finish_non_exhaustive()
    }
}

impl Fingerprints {
    /// Fingerprints under the account's secret, which all workers of one queue share.
    pub fn new(secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let name = first(hmac::sign(&key, b"esms-otp-worker fingerprint key").as_ref());
        Self { key, name }
    }

    /// The fingerprint of a job. It does not depend on how the job was written.
    pub fn of(&self, request: &OtpRequest) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        let alive = request.time_alive.map(|minutes| minutes.to_string()).unwrap_or_default();
        // Only what the producer wrote counts: a change of ESMS_TEMPLATE_ID must not turn its repeat into
        // another job.
        let template = if request.template_is_default { "" } else { &request.template_id };
        for field in [request.phone.digits(), template, request.kind.type_id(), &alive] {
            // The length comes first, so that two different jobs never give the same bytes.
            context.update(&(field.len() as u64).to_be_bytes());
            context.update(field.as_bytes());
        }
        let code: [u8; 16] = first(context.sign().as_ref());
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&self.name);
        bytes[4..].copy_from_slice(&code);
        Fingerprint(bytes)
    }
}

fn first<const N: usize>(code: &[u8]) -> [u8; N] {
    std::array::from_fn(|n| code[n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::request::decode;

    fn of(secret: &str, body: &str) -> Fingerprint {
        Fingerprints::new(secret).of(&decode(body.as_bytes(), None).unwrap())
    }

    const JOB: &str = r#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#;

    #[test]
    fn it_tells_every_field_of_a_job() {
        let job = of("secret", JOB);
        let again = of("secret", r#"{"TypeId":2,"MultiChannelTempId":1,"Phone":"0901.888.484","Extra":true}"#);
        assert!(!job.differs(&again) && job.text() == again.text());
        for other in [
            r#"{"Phone":"0901888485","MultiChannelTempId":"1"}"#,
            r#"{"Phone":"0901888484","MultiChannelTempId":"2"}"#,
            r#"{"Phone":"0901888484","MultiChannelTempId":"1","TypeId":"1"}"#,
            r#"{"Phone":"0901888484","MultiChannelTempId":"1","TimeAlive":"5"}"#,
        ] {
            assert!(job.differs(&of("secret", other)), "{other}");
        }
    }

    #[test]
    fn a_template_that_the_job_leaves_to_the_worker_may_change_and_the_job_is_the_same() {
        let with = |template| Fingerprints::new("s").of(&decode(br#"{"Phone":"0901888484"}"#, Some(template)).unwrap());
        assert!(!with("1").differs(&with("2")));
    }

    #[test]
    fn under_another_key_it_says_nothing_and_so_does_not_differ() {
        let (before, after) = (of("old secret", JOB), of("new secret", JOB));
        assert!(!before.differs(&after) && before.text() != after.text());
        assert_ne!(before.text()[..Fingerprint::KEY_LENGTH], after.text()[..Fingerprint::KEY_LENGTH]);
    }

    #[test]
    fn its_text_shows_nothing_of_the_job() {
        let text = of("secret", JOB).text();
        assert_eq!(text.len(), 40);
        assert!(!text.contains("901888484"));
    }
}

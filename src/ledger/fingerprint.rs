//! Fingerprints: they show whether two jobs with the same id are the same job. They hold nothing personal.

use std::sync::{PoisonError, RwLock};

use ring::hmac;
use uuid::Uuid;

use crate::job::request::OtpRequest;

/// The fingerprint of a job. It is made from the phone number and the other fields, and cannot be reversed
/// without the key.
///
/// Four bytes name the key. Sixteen are the request's code under this key. Codes under different keys cannot
/// be compared, and count as equal: a repeat is still a repeat where a job was first seen under another key.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint([u8; 20]);

impl Fingerprint {
    /// The fingerprint of no job.
    pub const NONE: Self = Self([0; 20]);

    /// How many characters of [`Fingerprint::text`] name the key.
    pub const KEY_LENGTH: usize = 8;

    /// The text in which it is stored: hexadecimal, the key's name first.
    pub fn text(&self) -> String {
        hexadecimal(&self.0)
    }

    /// Whether it certainly belongs to another job. Codes under different keys never differ: see above.
    pub fn differs(&self, other: &Self) -> bool {
        self.0[..4] == other.0[..4] && self.0 != other.0
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
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

/// The key that fingerprints are made under. It is made once and kept in the store, so that all workers of a
/// queue share it, and a change of eSMS's keys forgets nothing. Until the store is reached, it is a key that this
/// process made for itself.
#[derive(Debug)]
pub struct Keyring(RwLock<Keyed>);

struct Keyed {
    /// The key as it is stored.
    text: String,
    fingerprints: Fingerprints,
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed").finish_non_exhaustive()
    }
}

impl Keyed {
    fn new(text: String) -> Self {
        Self { fingerprints: Fingerprints::new(text.as_bytes()), text }
    }
}

/// The shortest key that is taken from the store. A shorter one was not made here, and could be guessed.
const SHORTEST_KEY: usize = 32;

impl Default for Keyring {
    /// A new random key: 244 random bits.
    fn default() -> Self {
        let text = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Self(RwLock::new(Keyed::new(text)))
    }
}

impl Keyring {
    /// The fingerprint of a job under the key of now.
    pub fn fingerprint(&self, request: &OtpRequest) -> Fingerprint {
        self.0.read().unwrap_or_else(PoisonError::into_inner).fingerprints.of(request)
    }

    /// A keyed hash of a text, for a kind of texts. It cannot be reversed without the key.
    pub fn hash(&self, kind: &str, text: &str) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).fingerprints.hash(kind, text)
    }

    /// The key, as it is stored.
    pub fn key_text(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// From now on the store's key is used.
    pub fn adopt(&self, text: &str) {
        let mut keyed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if text.len() >= SHORTEST_KEY && keyed.text != text {
            *keyed = Keyed::new(text.to_owned());
        }
    }
}

impl Fingerprints {
    /// Fingerprints under this key.
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        let name = first(hmac::sign(&key, b"esms-otp-worker fingerprint key").as_ref());
        Self { key, name }
    }

    fn hash(&self, kind: &str, text: &str) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(kind.as_bytes());
        // No kind and no text holds this byte, so two different pairs never give the same bytes.
        context.update(&[0]);
        context.update(text.as_bytes());
        let code: [u8; 12] = first(context.sign().as_ref());
        hexadecimal(&code)
    }

    /// The fingerprint of a job. It does not depend on how the job was written.
    pub fn of(&self, request: &OtpRequest) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        let alive = request.time_alive.map(|minutes| minutes.to_string()).unwrap_or_default();
        // Only what the producer wrote counts: a change of ESMS_TEMPLATE_ID must not turn its repeat into
        // another job.
        let template = if request.template_is_default { "" } else { &request.template_id };
        let phone = request.phone.international();
        for field in [phone.digits(), template, request.kind.type_id(), &alive] {
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
    fn the_usual_forms_of_a_number_are_the_same_job() {
        let with = |phone: &str| of("s", &format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#)).text();
        for same in ["84901888484", "+84901888484", "0084901888484", "+84 0901.888.484", "0901-888-484"] {
            assert_eq!(with("0901888484"), with(same), "{same}");
        }
        for other in ["901888484", "0901888485", "85901888484", "0085901888484", "8490188848", "090188848"] {
            assert_ne!(with("0901888484"), with(other), "{other}");
        }
    }

    #[test]
    fn the_key_of_the_store_takes_the_place_of_the_processs_own_and_nothing_else_does() {
        let (keyring, other) = (Keyring::default(), Keyring::default());
        assert_ne!(keyring.key_text(), other.key_text());
        for short in ["", "0", "guess-me"] {
            keyring.adopt(short);
            assert!(keyring.key_text().len() >= SHORTEST_KEY);
        }
        let request = decode(JOB.as_bytes(), None).unwrap();
        let before = keyring.fingerprint(&request);
        keyring.adopt(&other.key_text());
        let after = keyring.fingerprint(&request);
        assert_eq!(after.text(), other.fingerprint(&request).text());
        assert!(before.text() != after.text() && !before.differs(&after));
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

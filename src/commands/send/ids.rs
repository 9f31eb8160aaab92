//! The ids of the jobs. A repeat is recognised by its id.

use std::collections::HashMap;

use ring::hmac;
use uuid::Uuid;

use crate::job::request::OtpRequest;

/// Where the ids come from.
#[derive(Debug)]
pub(super) enum Ids {
    /// Each job gets a new one.
    Random,
    /// The one job's.
    Given(String),
    /// They are made from a batch's name and its jobs.
    Batch(Batch),
}

/// The ids of a batch. A line that is repeated in another run of the same batch has the same id there, however the lines
/// around it have changed. Where a batch has the same job several times, the first has the id of the first, and so on.
///
/// The batch's name is the key of a hash. So an id does not tell a number to somebody who does not know the name.
#[derive(Debug)]
pub(super) struct Batch {
    key: hmac::Key,
    /// How often each job has come.
    seen: HashMap<[u8; 16], u32>,
}

impl Batch {
    pub(super) fn new(name: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, name.as_bytes()), seen: HashMap::new() }
    }

    fn id(&mut self, job: &OtpRequest) -> String {
        let hash = self.hash(job);
        let times = self.seen.entry(hash).or_default();
        *times += 1;
        let hash = Uuid::from_bytes(hash).simple();
        format!("batch-{hash}-{times}")
    }

    /// What counts is what the job says, not how it is written: CSV or JSON, `0…` or `+84…`.
    fn hash(&self, job: &OtpRequest) -> [u8; 16] {
        let phone = job.phone.international();
        let template = if job.template_is_default { "" } else { &job.template_id };
        let alive = job.time_alive.map(|minutes| minutes.to_string()).unwrap_or_default();
        let mut context = hmac::Context::with_key(&self.key);
        // A template may hold any character, so it comes last.
        for part in [phone.digits(), job.kind.type_id(), &alive, template] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let code = context.sign();
        let mut hash = [0; 16];
        hash.iter_mut().zip(code.as_ref()).for_each(|(to, from)| *to = *from);
        hash
    }
}

impl Ids {
    /// The id of the next job.
    pub(super) fn next(&mut self, job: &OtpRequest) -> String {
        match self {
            Ids::Random => Uuid::new_v4().to_string(),
            Ids::Given(id) => id.clone(),
            Ids::Batch(batch) => batch.id(job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::request::decode;

    fn ids(name: &str, bodies: &[&str]) -> Vec<String> {
        let mut ids = Ids::Batch(Batch::new(name));
        let job = |body: &&str| decode(body.as_bytes(), Some("a default")).ok();
        bodies.iter().filter_map(job).map(|job| ids.next(&job)).collect()
    }

    const ONE: &str = r#"{"Phone":"0901000001","MultiChannelTempId":"1"}"#;
    const TWO: &str = r#"{"Phone":"0901000002","MultiChannelTempId":"1"}"#;

    #[test]
    fn a_batch_that_is_repeated_or_edited_gives_the_same_job_the_same_id() {
        let first = ids("a batch", &[ONE, TWO, ONE]);
        assert_eq!(first, ids("a batch", &[ONE, TWO, ONE]));
        assert!(first[0] != first[2] && first[0] != first[1], "{first:?}");
        // Lines have gone, come and moved.
        let edited = ids("a batch", &[r#"{"Phone":"0901000003","MultiChannelTempId":"1"}"#, TWO, ONE]);
        assert_eq!((&edited[1], &edited[2]), (&first[1], &first[0]));
        assert_ne!(ids("another", &[ONE])[0], first[0]);
        assert!(first.iter().all(|id| id.len() < 60 && !id.contains("0901")), "{first:?}");
    }

    #[test]
    fn the_way_a_job_is_written_changes_nothing_and_each_of_its_fields_does() {
        for same in [
            r#"{"MultiChannelTempId": 1, "Phone": "+84 901 000 001", "TypeId": 2, "more": true}"#,
            r#"{"Phone":"0084901000001","MultiChannelTempId":"1","TypeId":"2"}"#,
        ] {
            assert_eq!(ids("a", &[same]), ids("a", &[ONE]), "{same}");
        }
        for other in [
            TWO,
            r#"{"Phone":"0901000001","MultiChannelTempId":"2"}"#,
            r#"{"Phone":"0901000001"}"#,
            r#"{"Phone":"0901000001","MultiChannelTempId":"1","TypeId":"1"}"#,
            r#"{"Phone":"0901000001","MultiChannelTempId":"1","TimeAlive":"5"}"#,
        ] {
            assert_ne!(ids("a", &[other]), ids("a", &[ONE]), "{other}");
        }
    }
}

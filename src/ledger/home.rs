//! The part of a Redis that belongs to the workers of one queue: the prefix of every key, and the record under
//! it that says whose it is. Two deployments with one Redis never see each other's jobs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script};

use super::fingerprint::Keyring;

/// What every key begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// The longest prefix, in bytes.
const LONGEST: usize = 100;

impl Prefix {
    /// Reads a prefix.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Braces choose the slot in a cluster. The others have a meaning in the patterns of a user's keys.
        let fits = |c: char| !c.is_whitespace() && !c.is_control() && !"{}*?[]\\".contains(c);
        if !text.is_empty() && text.len() <= LONGEST && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("must be at most {LONGEST} bytes, without spaces, control characters and any of {{}}*?[]\\"))
    }

    /// The prefix of a deployment that names none. Two deployments with different virtual hosts or queues have
    /// different ones, and none is the beginning of another.
    pub fn of(deployment: &Deployment) -> Self {
        let prefix = format!("esms-otp-worker:{}:{}:", escaped(&deployment.vhost), escaped(&deployment.queue));
        if prefix.len() <= LONGEST {
            return Self(prefix);
        }
        let whole = ring::digest::digest(&ring::digest::SHA256, prefix.as_bytes());
        let short: String = whole.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("esms-otp-worker:{short}:"))
    }

    /// The key of a job's record.
    pub fn job(&self, id: &str) -> String {
        format!("{}job:{id}", self.0)
    }

    /// The key of a number's places, by the number's hash.
    pub fn number(&self, hash: &str) -> String {
        format!("{}number:{hash}", self.0)
    }

    /// A key of a group of limits.
    pub fn limit(&self, group: &str, what: &str) -> String {
        format!("{}limit:{group}:{what}", self.0)
    }

    /// The key of the record of the workers' pace.
    pub fn pace(&self) -> String {
        format!("{}pace", self.0)
    }

    /// The key of the record that says whose the prefix is.
    pub fn home(&self) -> String {
        format!("{}home", self.0)
    }
}

/// Percent-encoded, but for what is usual in names.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let encoded = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(encoded).collect()
}

/// Which workers belong together: those of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deployment {
    /// The broker's cluster name, once it is known.
    pub broker: Option<String>,
    /// The virtual host.
    pub vhost: String,
    /// The queue.
    pub queue: String,
}

/// See the module.
#[derive(Debug)]
pub struct Home {
    /// What every key begins with.
    pub prefix: Prefix,
    named: Mutex<Named>,
    keyring: Arc<Keyring>,
    script: Script,
    is_visit: bool,
}

/// The deployment, as far as it is known.
#[derive(Debug)]
struct Named {
    deployment: Deployment,
    /// How often its broker's name has changed.
    renamings: u64,
}

/// Whose the prefix is.
#[derive(Debug)]
pub enum Owner {
    /// This deployment's.
    Ours,
    /// Another's. The text says whose, and what to set.
    Another(String),
    /// Nobody's: no worker has been there. Only a visitor finds this.
    Nobody(String),
}

/// The record, as it is kept. A part may be missing.
type Kept = (Option<String>, Option<String>, Option<String>, Option<String>);

impl Home {
    /// The home of this deployment. The key of fingerprints that is kept there goes to `keyring`.
    pub fn new(prefix: Prefix, deployment: Deployment, keyring: Arc<Keyring>) -> Self {
        let script = Script::new(include_str!("home.lua"));
        Self { prefix, named: Mutex::new(Named { deployment, renamings: 0 }), keyring, script, is_visit: false }
    }

    /// The same for somebody who only looks: the record is neither made nor changed.
    pub fn to_visit(prefix: Prefix, deployment: Deployment, keyring: Arc<Keyring>) -> Self {
        Self { is_visit: true, ..Self::new(prefix, deployment, keyring) }
    }

    /// The broker's cluster name is known now. It counts from the next connection on.
    pub fn set_broker(&self, name: &str) {
        let mut named = self.named();
        if named.deployment.broker.replace(name.to_owned()).as_deref() != Some(name) {
            named.renamings += 1;
        }
    }

    /// How often the broker's name has changed. Whoever moves in after this was asked does so under that name, or a
    /// later one.
    pub fn renamings(&self) -> u64 {
        self.named().renamings
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        // No code panics while it holds this lock, and its content is whole even if some did.
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves in over a new connection.
    ///
    /// # Errors
    /// What the server says.
    pub async fn move_in(&self, connection: &mut MultiplexedConnection) -> Result<Owner, RedisError> {
        let ours = self.named().deployment.clone();
        if self.is_visit {
            return self.look_in(&ours, connection).await;
        }
        let said: Vec<Bytes> = self
            .script
            .key(self.prefix.home())
            .arg(&ours.vhost)
            .arg(&ours.queue)
            .arg(ours.broker.as_deref().unwrap_or_default())
            .arg(self.keyring.key_text())
            .invoke_async(connection)
            .await?;
        let text = |n: usize| String::from_utf8_lossy(said.get(n).map_or(&[], |bytes| bytes.as_ref())).into_owned();
        if text(0) == "another" {
            return Ok(Owner::Another(self.whose(&text(1), &text(2), &text(3))));
        }
        self.keyring.adopt(&text(1));
        Ok(Owner::Ours)
    }

    /// As home.lua, without writing.
    async fn look_in(&self, ours: &Deployment, connection: &mut MultiplexedConnection) -> Result<Owner, RedisError> {
        let mut read = redis::cmd("HMGET");
        read.arg(self.prefix.home()).arg(&["vhost", "queue", "broker", "key"]);
        let (vhost, queue, broker, key): Kept = read.query_async(connection).await?;
        let (Some(vhost), Some(key)) = (vhost, key) else {
            return Ok(Owner::Nobody(format!(
                "no worker has kept anything under the prefix {:?} there",
                self.prefix.0
            )));
        };
        let (queue, broker) = (queue.unwrap_or_default(), broker.unwrap_or_default());
        let is_another_broker = !broker.is_empty() && ours.broker.as_ref().is_some_and(|ours| *ours != broker);
        if vhost != ours.vhost || queue != ours.queue || is_another_broker {
            return Ok(Owner::Another(self.whose(&vhost, &queue, &broker)));
        }
        self.keyring.adopt(&key);
        Ok(Owner::Ours)
    }

    fn whose(&self, vhost: &str, queue: &str, broker: &str) -> String {
        let broker = if broker.is_empty() { String::new() } else { format!(" of the broker {broker:?}") };
        format!(
            "the keys that begin with {:?} belong to the queue {queue:?} in the virtual host {vhost:?}{broker}",
            self.prefix.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vhost: &str, queue: &str) -> Prefix {
        Prefix::of(&Deployment { broker: None, vhost: vhost.into(), queue: queue.into() })
    }

    #[test]
    fn the_usual_prefix_says_the_virtual_host_and_the_queue() {
        assert_eq!(of("/", "otp.jobs").job("5f0c"), "esms-otp-worker:/:otp.jobs:job:5f0c");
        assert_eq!(of("/", "otp.jobs").home(), "esms-otp-worker:/:otp.jobs:home");
        assert_eq!(of("prod eu", "a:b").job("x"), "esms-otp-worker:prod%20eu:a%3Ab:job:x");
    }

    #[test]
    fn different_deployments_have_different_prefixes_and_each_is_one_that_could_be_set() {
        let names = ["/", "", "a", "a:b", "a%3Ab", "b", "otp.jobs", "{x}", "đơn", "a*", "a b", "\n"];
        let long: Vec<String> = (0..3).map(|n| format!("{}{n}", "x".repeat(200))).collect();
        let names: Vec<&str> = names.into_iter().chain(long.iter().map(String::as_str)).collect();
        let all: Vec<String> = names.iter().flat_map(|vhost| names.iter().map(|queue| of(vhost, queue).0)).collect();
        for (n, prefix) in all.iter().enumerate() {
            assert_eq!(Prefix::parse(prefix).as_ref().map(|prefix| &prefix.0), Ok(prefix));
            for other in &all[n + 1..] {
                assert!(!other.starts_with(prefix.as_str()) && !prefix.starts_with(other.as_str()), "{prefix} {other}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_prefix_is_refused() {
        for text in
            ["", "a b", "a\tb", "a\u{a0}b", "{a}", "a{", "}", "a*", "a?", "[a]", "a\\", "\u{7f}", &"x".repeat(101)]
        {
            assert!(Prefix::parse(text).is_err(), "{text:?}");
        }
        for text in ["otp:", "eu-west/otp.jobs:", "đơn:", &"x".repeat(100)] {
            assert!(Prefix::parse(text).is_ok(), "{text:?}");
        }
    }
}

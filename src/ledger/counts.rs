//! What is counted under the limits in Redis, for a person who asks. It is found as a worker finds it, and no record of
//! whose the prefix is is made.

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::dial::Dialer;
use super::fingerprint::Keyring;
use super::home::Home;
use super::link::{Link, Step};
use super::places::Places;
use super::redis::RedisSettings;
use super::store::StoreError;
use crate::job::phone::Phone;
use crate::limits::{Limits, Place};

/// See the module.
#[derive(Debug)]
pub struct Counts {
    link: Link,
    places: Places,
    read: Script,
    forget: Script,
}

/// How much is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// OTPs to the number, as far as any rule looks back.
    pub to_number: u64,
    /// How many of them are of jobs in flight.
    pub in_flight: u64,
    /// For each rule of the place, in the order of [`Limits::rules_of`].
    pub rules: Vec<OfRule>,
}

/// How much is counted under one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfRule {
    /// OTPs in its window, jobs in flight included.
    pub counted: u64,
    /// Jobs in flight.
    pub in_flight: u64,
    /// After this long there is a place, if none is given back before. Zero: there is one now.
    pub free_in: Duration,
}

/// What was forgotten of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// OTPs to it.
    pub otps: u64,
    /// How many of them were of jobs in flight.
    pub in_flight: u64,
}

impl Counts {
    /// What is counted there, under these limits.
    pub fn new(settings: &RedisSettings, limits: Arc<Limits>) -> Self {
        let RedisSettings { source, prefix, deployment } = settings.clone();
        let keyring = Arc::new(Keyring::default());
        Self {
            places: Places::new(limits, prefix.clone(), Arc::clone(&keyring)),
            link: Link::new(Dialer::new(source, Home::to_visit(prefix, deployment, keyring))),
            read: Script::new(concat!(include_str!("places.lua"), include_str!("counts.lua"))),
            forget: Script::new(include_str!("forget.lua")),
        }
    }

    /// Reaches the Redis. Only then is the key known under which numbers are kept.
    ///
    /// # Errors
    /// [`StoreError`]. It is [`StoreError::NotOurs`] also where no worker has ever been.
    pub async fn open(&self) -> Result<(), StoreError> {
        self.link.connected().await
    }

    /// What is counted for a place.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, place: &Place) -> Result<Counted, StoreError> {
        let mut call = self.read.key(self.link.home().prefix.home());
        self.places.add(&mut call, Some(place));
        let said = self.run(&call).await?;
        let (number, rules) = said.split_at_checked(2).ok_or_else(unreadable)?;
        let of_rule =
            |said: &[u64]| OfRule { counted: said[0], in_flight: said[1], free_in: Duration::from_millis(said[2]) };
        let rules = rules.chunks_exact(3).map(of_rule).collect();
        Ok(Counted { to_number: number[0], in_flight: number[1], rules })
    }

    /// Forgets what is counted for a number: not for its prefix, and not in all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget(&self, phone: &Phone) -> Result<Forgotten, StoreError> {
        let said = self.run(&self.forget.key(self.places.key_of(&phone.international()))).await?;
        let [otps, in_flight] = said[..] else { return Err(unreadable()) };
        Ok(Forgotten { otps, in_flight })
    }

    /// Tries every command that limits need, so that one that is forbidden is known before a job meets it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_commands(&self) -> Result<(), StoreError> {
        self.open().await?;
        let key = self.link.home().prefix.number(&format!("check-{}", uuid::Uuid::new_v4()));
        self.run(&Script::new(include_str!("try_limits.lua")).key(key)).await.map(|_| ())
    }

    async fn run(&self, call: &ScriptInvocation<'_>) -> Result<Vec<u64>, StoreError> {
        self.link.step(Step::Script(call)).await
    }
}

fn unreadable() -> StoreError {
    StoreError::Unreadable("what it says is not understood".into())
}

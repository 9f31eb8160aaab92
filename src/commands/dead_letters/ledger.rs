//! What the ledger says of letters.

use std::time::Duration;

use tokio::time::timeout;

use super::error::Failed;
use super::fate::Known;
use super::letter::Letter;
use crate::commands::ledger::not_told;
use crate::ledger::records::Records;
use crate::ledger::redis::RedisSettings;
use crate::ledger::settings::StoreSettings;
use crate::ledger::store::StoreError;

/// The limit on one question. A step has limits of its own.
const LIMIT: Duration = Duration::from_secs(10);

/// The ledger of the workers.
pub(super) enum Ledger {
    /// Each worker remembers its own jobs, and nobody else can ask.
    InMemory,
    /// All workers share it.
    InRedis(Box<RedisSettings>, Records),
}

impl Ledger {
    /// Reaches the ledger of the workers of this broker.
    pub(super) async fn open(store: StoreSettings, cluster: Option<String>) -> Result<Self, Failed> {
        let StoreSettings::Redis(settings) = store else { return Ok(Self::InMemory) };
        let settings = settings.of_broker(cluster);
        let records = Records::new(&settings);
        answered(records.open(), &settings).await?;
        Ok(Self::InRedis(Box::new(settings), records))
    }

    /// Whether it is in the memory of the workers.
    pub(super) const fn is_in_memory(&self) -> bool {
        matches!(self, Self::InMemory)
    }

    /// What it says of each letter.
    pub(super) async fn of(&self, letters: &[&Letter]) -> Result<Vec<Known>, Failed> {
        let Self::InRedis(settings, records) = self else { return Ok(vec![Known::NotAsked; letters.len()]) };
        let ids: Vec<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
        let found = answered(records.of(&ids), settings).await?;
        let known = letters.iter().zip(&found).map(|(letter, found)| {
            Known::of(found, |record| letter.job.as_ref().is_ok_and(|job| records.is_of_another(record, job)))
        });
        Ok(known.collect())
    }
}

async fn answered<T>(
    asking: impl Future<Output = Result<T, StoreError>>,
    settings: &RedisSettings,
) -> Result<T, Failed> {
    let answer = timeout(LIMIT, asking).await;
    let answer = answer.unwrap_or_else(|_| Err(StoreError::Unreachable("it took too long".into())));
    answer.map_err(|error| Failed::Ledger(not_told(settings, &error)))
}

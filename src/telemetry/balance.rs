//! The gauge of the account's balance. eSMS is asked for it now and then, and this never delays a job.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::metrics::Metrics;
use crate::esms::client::Esms;
use crate::stop::Stop;

/// Keeps the gauge up to date until the phase `closing`. While the balance is not known there is no gauge,
/// because an old number would look like a good one.
pub async fn watch(esms: Esms, interval: Duration, metrics: Arc<Metrics>, stop: Stop) {
    let mut known = true;
    loop {
        let Some(asked) = stop.closing().run_until_cancelled(esms.balance()).await else { return };
        match &asked {
            Ok(account) if !known => info!(balance_vnd = account.balance, "the balance is known again"),
            Err(error) if known => {
                warn!(%error, hint = "jobs are not affected; esms_balance_vnd is absent until it is known", "the balance is not known");
            }
            Ok(_) | Err(_) => {}
        }
        known = asked.is_ok();
        metrics.balance(asked.ok().map(|account| account.balance));
        if stop.closing().run_until_cancelled(sleep(interval)).await.is_none() {
            return;
        }
    }
}

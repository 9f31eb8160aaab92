//! The ledger that workers share: what a worker meets that another has left, whatever killed it.

mod crash_points;

use std::time::Duration;

use crate::stage::Stage;
use crate::support::redis::Redis;

/// A stage whose workers share a Redis. One attempt takes at most two seconds, so that the lease of a
/// worker that died is over seven seconds after its attempt began.
async fn shared() -> (Stage, Redis) {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url());
    stage.set("ESMS_TIMEOUT", "2s").set("ESMS_CONNECT_TIMEOUT", "2s");
    (stage, redis)
}

/// More than any lease here lasts.
const LEASE: Duration = Duration::from_secs(60);

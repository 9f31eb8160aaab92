//! Breaks the broker, Redis and the networks between them and the workers, until peace.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::dice::{Deck, Dice};
use crate::stage::Stage;
use crate::support::proxy::{Direction, Proxy};

/// A fault of the broker.
#[derive(Clone, Copy, Debug)]
enum BrokerFault {
    Close,
    Stop,
    Kill,
}

/// Breaks the broker. A restart takes many seconds. Meanwhile the other tasks go on breaking things.
pub(crate) async fn break_broker(stage: Arc<Stage>, peace: CancellationToken) {
    use BrokerFault::{Close, Kill, Stop};
    let mut dice = Dice::new(stage.settings.seed, "broker", 0);
    let mut deck = Deck::new(&[Close, Close, Close, Close, Close, Close, Close, Kill, Stop]);
    while pause(&stage, &peace, dice.millis(400..3_000)).await
        && peace.run_until_cancelled(stage.until_used()).await.is_some()
    {
        let broker = &stage.broker;
        match deck.draw(&mut dice) {
            Some(Kill) => {
                stage.journal.note("broker SIGKILL", "broker");
                broker.kill().await;
                broker.start_again().await;
            }
            Some(Stop) => {
                stage.journal.note("broker stopped", "broker");
                broker.stop().await;
                broker.start_again().await;
            }
            Some(Close) | None => {
                stage.journal.note("broker closed connections", "broker");
                broker.eval(CLOSE_ALL).await;
            }
        }
    }
}

/// A connection may end while this runs. Then `catch` goes on to the other connections.
const CLOSE_ALL: &str = "[catch rabbit_networking:close_connection(Pid, \"chaos\") \
                         || Pid <- rabbit_networking:connections()], ok.";

/// Breaks Redis, if there is one.
pub(crate) async fn break_redis(stage: Arc<Stage>, peace: CancellationToken) {
    let Some(redis) = &stage.redis else { return };
    let mut dice = Dice::new(stage.settings.seed, "redis", 0);
    while pause(&stage, &peace, dice.millis(1_500..8_000)).await {
        stage.journal.note("redis SIGKILL", "redis");
        redis.kill().await;
        sleep(dice.millis(50..2_500)).await;
        redis.start_again().await;
    }
}

/// A fault on the way to one server.
#[derive(Clone, Copy, Debug)]
enum NetworkFault {
    Reset,
    Refuse,
    Stall(Direction),
}

/// The server at the other end.
#[derive(Clone, Copy, Debug)]
enum Party {
    Broker,
    Redis,
    Esms,
}

/// Breaks one worker's network.
pub(crate) async fn break_network(stage: Arc<Stage>, seat: usize, peace: CancellationToken) {
    let mut dice = Dice::new(stage.settings.seed, "network", seat as u64);
    let mut deck = Deck::new(&faults(stage.redis.is_some()));
    while pause(&stage, &peace, dice.millis(300..2_500)).await {
        let Some((party, fault)) = deck.draw(&mut dice) else { return };
        let network = &stage.networks[seat];
        let (proxy, name) = match (party, &network.redis) {
            (Party::Redis, Some(redis)) => (redis, "redis"),
            (Party::Esms, _) => (&network.esms, "esms"),
            _ => (&network.broker, "broker"),
        };
        stage.journal.note(format!("network to {name} {}", fault.name()), format!("worker {}", seat + 1));
        injure(proxy, fault, &mut dice).await;
    }
}

fn faults(redis: bool) -> Vec<(Party, NetworkFault)> {
    use NetworkFault::{Refuse, Reset, Stall};
    let stalls = [Direction::ToServer, Direction::ToClient, Direction::Both].map(Stall);
    let parties = [Party::Broker, Party::Esms].into_iter().chain(redis.then_some(Party::Redis));
    let each = |party| [Reset, Refuse].into_iter().chain(stalls).map(move |fault| (party, fault));
    parties.flat_map(each).collect()
}

/// Injects the fault, and removes it again.
async fn injure(proxy: &Proxy, fault: NetworkFault, dice: &mut Dice) {
    // Mostly short. Now and then longer than any limit of the worker.
    let long = if dice.percent(15) { dice.millis(2_000..9_000) } else { dice.millis(50..1_500) };
    match fault {
        NetworkFault::Reset => proxy.cut().await,
        NetworkFault::Refuse => {
            proxy.refuse().await;
            proxy.cut().await;
            sleep(long.min(Duration::from_secs(3))).await;
            proxy.accept_again().await;
        }
        NetworkFault::Stall(direction) => {
            proxy.stall(direction);
            sleep(long).await;
            if dice.percent(50) {
                // The bytes held back are lost.
                proxy.cut().await;
            }
            proxy.resume();
        }
    }
}

impl NetworkFault {
    const fn name(self) -> &'static str {
        match self {
            NetworkFault::Reset => "reset",
            NetworkFault::Refuse => "refused",
            NetworkFault::Stall(_) => "stalled",
        }
    }
}

/// Waits. Returns false if peace comes first.
async fn pause(stage: &Stage, peace: &CancellationToken, time: Duration) -> bool {
    peace.run_until_cancelled(sleep(time * stage.settings.calm)).await.is_some()
}

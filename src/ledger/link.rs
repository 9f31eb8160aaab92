//! The connection to Redis. All jobs share it. One task makes it, in the background, and makes it again: a job
//! waits for a connection that is being made for [`CONNECT_WAIT`] at most, and not at all once Redis is known to
//! be away.
//!
//! | phase | what a step does |
//! |---|---|
//! | idle: there is no connection, and nobody needs one | asks for one, and waits as below |
//! | connecting | waits, but not longer than [`CONNECT_WAIT`] from the beginning of the phase |
//! | up | is taken; on a connection that turns out dead it is taken once more, on a fresh one |
//! | away: the last try failed | fails at once, while the task tries again with growing pauses |
//!
//! Whose the prefix is was asked under the broker's name of then. [`Link::connected`] waits for what was found out under
//! the name of now.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, ScriptInvocation};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::dial::{CONNECT_LIMIT, Dialer, Live, Usage, refused};
use super::home::Home;
use super::refusal::{Meaning, meaning};
use super::store::StoreError;
use crate::backoff::Policy;

/// The limit on one step, a second try of it included. A healthy store answers in a millisecond, and a person
/// waits for the OTP.
pub const STEP_LIMIT: Duration = Duration::from_secs(1);

/// How long steps wait for a connection that is being made.
pub const CONNECT_WAIT: Duration = Duration::from_millis(500);

/// A connection that was silent for this long may have died unseen. The first try on it has a limit of its own,
/// so that there is time for a second.
const SILENT: Duration = Duration::from_secs(5);
const FIRST_TRY: Duration = Duration::from_millis(400);

/// A connection that ended sooner than this, and took no step, was of no use. After so many of them the next one
/// is not made at once.
const SHORT: Duration = Duration::from_millis(500);
const MOST_USELESS: u32 = 2;

#[derive(Clone, Debug)]
enum Phase {
    Idle,
    Connecting { since: Instant },
    Up(Arc<Live>, Renamings),
    Away(StoreError, Renamings),
}

/// How often the broker's name had changed, at least, when it was asked whose the prefix is.
type Renamings = u64;

/// The connection.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    /// The task that makes connections. It is started by the first step, and ends with the link.
    keeper: OnceLock<Keeper>,
}

#[derive(Debug)]
struct Shared {
    dialer: Dialer,
    phase: watch::Sender<Phase>,
    wanted: Notify,
}

#[derive(Debug)]
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Under whatever name: a step of a job does not ask whose the prefix is.
const ANY_NAME: Renamings = 0;

/// One step.
#[derive(Clone, Copy)]
pub enum Step<'a> {
    /// A script.
    Script(&'a ScriptInvocation<'a>),
    /// A command.
    Command(&'a Cmd),
}

impl Step<'_> {
    async fn take<T: FromRedisValue>(self, mut connection: MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Step::Script(script) => script.invoke_async(&mut connection).await,
            Step::Command(command) => command.query_async(&mut connection).await,
        }
    }
}

/// How a step failed on one connection.
enum Failed {
    /// A new connection may do better.
    TryAnother(StoreError),
    /// The server has answered, and would answer the same again.
    Final(StoreError),
}

impl Link {
    /// A link that connects with this dialer. It does not connect yet.
    pub fn new(dialer: Dialer) -> Self {
        let shared = Shared { dialer, phase: watch::Sender::new(Phase::Idle), wanted: Notify::new() };
        Self { shared: Arc::new(shared), keeper: OnceLock::new() }
    }

    /// What is kept under the prefix there.
    pub fn home(&self) -> &Home {
        self.shared.dialer.home()
    }

    /// Waits for a connection under the broker's name of now, for longer than a step does: for the start of a worker,
    /// for each new connection to the broker, and for `check`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connected(&self) -> Result<(), StoreError> {
        let patience = 2 * CONNECT_LIMIT;
        self.live(Instant::now() + patience, patience, self.home().renamings()).await.map(|_| ())
    }

    /// Waits for a connection as a step does. Once there was one, the key of the store is known here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.live(Instant::now() + STEP_LIMIT, CONNECT_WAIT, ANY_NAME).await.map(|_| ())
    }

    /// Takes one step, within [`STEP_LIMIT`]. Where the connection turns out dead, or its server takes no writes
    /// any more, the step is tried once more on a new one: so a step must have the same effect when it is taken twice.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn step<T: FromRedisValue>(&self, step: Step<'_>) -> Result<T, StoreError> {
        let until = Instant::now() + STEP_LIMIT;
        let live = self.live(until, CONNECT_WAIT, ANY_NAME).await?;
        let first_until = if live.silence() > SILENT { until.min(Instant::now() + FIRST_TRY) } else { until };
        let why = match attempt(&live, first_until, step).await {
            Ok(done) => return Ok(done),
            Err(Failed::Final(error)) => return Err(error),
            Err(Failed::TryAnother(error)) => error,
        };
        if Instant::now() >= until {
            return Err(why);
        }
        let live = self.live(until, CONNECT_WAIT, ANY_NAME).await?;
        attempt(&live, until, step).await.map_err(|failed| match failed {
            Failed::Final(error) | Failed::TryAnother(error) => error,
        })
    }

    /// The connection, made when the broker's name had changed so often, or later. It is waited for until `until`, and
    /// while it is being made for at most `patience`.
    async fn live(&self, until: Instant, patience: Duration, named: Renamings) -> Result<Arc<Live>, StoreError> {
        let shared = &self.shared;
        self.keeper.get_or_init(|| Keeper(tokio::spawn(keep(Arc::clone(shared)))));
        // Mostly it is there.
        if let Phase::Up(live, then) = &*shared.phase.borrow()
            && !live.is_dead()
            && *then >= named
        {
            return Ok(Arc::clone(live));
        }
        let mut phases = shared.phase.subscribe();
        let asked = Instant::now();
        loop {
            let since = match &*phases.borrow_and_update() {
                Phase::Up(live, then) if !live.is_dead() && *then >= named => return Ok(Arc::clone(live)),
                // The task tries again, and under the name of now.
                Phase::Away(StoreError::NotOurs(_), then) if *then < named => asked,
                Phase::Away(error, _) => return Err(error.clone()),
                Phase::Connecting { since } => *since,
                phase @ (Phase::Idle | Phase::Up(..)) => {
                    if let Phase::Up(live, _) = phase
                        && !live.is_dead()
                    {
                        // Nothing was wrong with it, but for the name.
                        live.worked();
                        live.retire();
                    }
                    shared.wanted.notify_one();
                    asked
                }
            };
            if timeout_at(until.min(since + patience), phases.changed()).await.is_err() {
                return Err(StoreError::Unreachable("connecting takes too long".into()));
            }
        }
    }
}

/// Takes a step on this connection, and retires the connection if another may do better.
async fn attempt<T: FromRedisValue>(live: &Live, until: Instant, step: Step<'_>) -> Result<T, Failed> {
    let error = match timeout_at(until, step.take(live.connection.0.clone())).await {
        Ok(Ok(done)) => {
            live.worked();
            return Ok(done);
        }
        Ok(Err(error)) => error,
        Err(_) => {
            live.retire();
            return Err(Failed::TryAnother(StoreError::Unreachable("no answer in time".into())));
        }
    };
    let told = refused(&error);
    match error.code().map(|code| meaning(code, error.detail().unwrap_or_default())) {
        Some(Meaning::BadRecord) => {
            live.worked();
            Err(Failed::Final(told))
        }
        Some(Meaning::Refused { reconnect: false, .. }) => {
            live.refused();
            Err(Failed::Final(told))
        }
        Some(Meaning::Refused { reconnect: true, .. }) | None => {
            live.retire();
            Err(Failed::TryAnother(told))
        }
    }
}

/// Makes connections while the link is there: one at a time.
async fn keep(shared: Arc<Shared>) {
    let (mut waits, mut useless, mut last) = (Policy::POLL.waits(), 0, None);
    let say = |phase| {
        shared.phase.send_replace(phase);
    };
    loop {
        shared.wanted.notified().await;
        // Asked only now: the step that used the last connection has told by now whether it worked.
        if last.take().is_some_and(|usage: Arc<Usage>| !usage.was_any(SHORT)) {
            useless += 1;
        } else {
            useless = 0;
            waits.reset();
        }
        if useless < MOST_USELESS {
            say(Phase::Connecting { since: Instant::now() });
        } else {
            let why = StoreError::Unreachable("the server ends each connection".into());
            say(Phase::Away(why, ANY_NAME));
            sleep(waits.next_wait()).await;
        }
        loop {
            // Before the name itself is read, so that no answer counts for a later name.
            let named = shared.dialer.home().renamings();
            match shared.dialer.dial().await {
                Ok(live) => {
                    let live = Arc::new(live);
                    say(Phase::Up(Arc::clone(&live), named));
                    live.died().await;
                    last = Some(live.usage());
                    say(Phase::Idle);
                    break;
                }
                Err(error) => say(Phase::Away(error, named)),
            }
            sleep(waits.next_wait()).await;
        }
    }
}

#[cfg(test)]
mod tests;

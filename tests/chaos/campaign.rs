//! A campaign from its beginning to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Failed;
use crate::audit::{Case, Ended, Rules, Violation};
use crate::evidence::{EMPTY, Evidence};
use crate::faults;
use crate::job::Job;
use crate::limits;
use crate::listener::{self, Heard, Told};
use crate::producer::{self, Published, Try, is_owed};
use crate::seat::Seat;
use crate::settings::Settings;
use crate::stage::Stage;
use crate::support::broker::Broker;
use crate::support::terminal::{say, step};
use crate::support::wait::found;

pub(crate) const SETTLED: &str = "after the faults every job is settled";
pub(crate) const LEFT: &str = "no queue holds anything unexplained";
pub(crate) const ORDER: &str = "no worker ended of itself, panicked or logged a phone number or a key";

/// The limit until everything is settled after the last fault. It covers leases, retries and restarts on a
/// slow machine.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);

/// Longer than any result takes to arrive.
const LONG_EMPTY: Duration = Duration::from_secs(20);

/// The limit until the first worker has declared the objects.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What a campaign found.
pub(crate) struct Finding {
    pub(crate) cases: Vec<Case>,
    pub(crate) tries: HashMap<String, Vec<Try>>,
    pub(crate) told: HashMap<String, Vec<Told>>,
    pub(crate) logs: Vec<(&'static str, u64)>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) broken: Duration,
    pub(crate) settling: Duration,
}

/// Everything that acts during a campaign.
struct Cast {
    stage: Arc<Stage>,
    published: Arc<Published>,
    heard: Arc<Heard>,
    /// After this is cancelled, nothing more is broken.
    peace: CancellationToken,
    /// After this is cancelled, nobody acts any more.
    end: CancellationToken,
    /// After this is cancelled, nobody listens for results any more.
    heard_out: CancellationToken,
    seats: JoinSet<Result<Vec<String>, Failed>>,
    breakers: JoinSet<()>,
}

/// Runs a campaign. It must run on a `LocalSet`.
pub(crate) async fn run(settings: Settings, broker: Arc<Broker>) -> Result<(Arc<Stage>, Finding), Failed> {
    say(format!("\nchaos: {settings}"));
    let stage = Stage::new(settings, broker).await?;
    let mut cast = Cast::new(&stage);
    step("workers that consume", cast.enter()).await?;
    let began = Instant::now();
    step("jobs published, and everything broken", cast.perform()).await?;
    let (broken, began) = (began.elapsed(), Instant::now());
    let settled = step("peace: every job settled", async { Ok(cast.settle().await) }).await?;
    let settling = began.elapsed();
    let mut disorder = step("workers stopped", cast.leave()).await?;
    step("what they said last, heard", cast.hear_out()).await?;
    let evidence = Evidence::gather(&stage).await?;
    disorder.extend(evidence.logs.bad.iter().cloned());
    let mut finding = cast.find(evidence);
    (finding.broken, finding.settling) = (broken, settling);
    finding.violations.extend(disorder.into_iter().map(|what| Violation { claim: ORDER, id: None, what }));
    if !settled {
        let what = format!("not within {SETTLE_LIMIT:?}");
        finding.violations.push(Violation { claim: SETTLED, id: None, what });
    }
    Ok((stage, finding))
}

impl Cast {
    fn new(stage: &Arc<Stage>) -> Self {
        Self {
            stage: Arc::clone(stage),
            published: Arc::default(),
            heard: Arc::default(),
            peace: CancellationToken::new(),
            end: CancellationToken::new(),
            heard_out: CancellationToken::new(),
            seats: JoinSet::new(),
            breakers: JoinSet::new(),
        }
    }

    /// Starts the workers. The first of them declares the objects. Then the results get a queue.
    async fn enter(&mut self) -> Result<(), Failed> {
        for number in 0..self.stage.networks.len() {
            let seat = Seat::new(&self.stage, number);
            self.seats.spawn_local(seat.keep(self.peace.clone(), self.end.clone()));
        }
        let url = self.stage.broker.url();
        found(START_LIMIT, async || listener::bind(&url).await.ok()).await.ok_or("no worker declared its objects")?;
        tokio::spawn(listener::listen(url, Arc::clone(&self.heard), self.heard_out.clone()));
        Ok(())
    }

    /// Breaks everything until every job is published.
    async fn perform(&mut self) -> Result<(), Failed> {
        let stage = || Arc::clone(&self.stage);
        self.breakers.spawn_local(faults::break_broker(stage(), self.peace.clone()));
        self.breakers.spawn_local(faults::break_redis(stage(), self.peace.clone()));
        for seat in 0..self.stage.networks.len() {
            self.breakers.spawn_local(faults::break_network(stage(), seat, self.peace.clone()));
        }
        producer::publish_all(&self.stage, &self.published, &self.heard).await;
        self.peace.cancel();
        while let Some(broke) = self.breakers.join_next().await {
            broke?;
        }
        self.stage.heal().await;
        Ok(())
    }

    /// Waits until every job has a result and the queues are empty. It is also enough that the queues have
    /// been empty for longer than anything takes, because then no further result can come. Returns false if
    /// neither happens in time.
    async fn settle(&self) -> bool {
        let owed: Vec<String> = self.jobs().filter(|(_, tries)| is_owed(tries)).map(|(job, _)| job.id).collect();
        let mut empty_since = None;
        let settled = async || {
            let mut left = 0;
            for queue in EMPTY {
                left += self.stage.broker.messages(queue).await;
            }
            if left > 0 {
                empty_since = None;
                return None;
            }
            let since = *empty_since.get_or_insert_with(Instant::now);
            let answered = owed.iter().all(|id| self.heard.has(id));
            (answered || since.elapsed() > LONG_EMPTY).then_some(())
        };
        found(SETTLE_LIMIT, settled).await.is_some()
    }

    /// Stops the workers. Returns what they did by themselves that they should not do.
    async fn leave(&mut self) -> Result<Vec<String>, Failed> {
        self.end.cancel();
        let mut amiss = Vec::new();
        while let Some(left) = self.seats.join_next().await {
            amiss.extend(left??);
        }
        Ok(amiss)
    }

    /// Waits for the last results: a worker that stops still publishes the results that it has.
    async fn hear_out(&self) -> Result<(), Failed> {
        found(SETTLE_LIMIT, async || (self.stage.broker.messages(listener::QUEUE).await == 0).then_some(())).await;
        self.heard_out.cancel();
        Ok(())
    }

    fn jobs(&self) -> impl Iterator<Item = (Job, Vec<Try>)> {
        self.published.all().into_iter().map(|(number, tries)| (Job::new(&self.stage.settings, number), tries))
    }

    fn find(&self, mut evidence: Evidence) -> Finding {
        let rules = Rules::new(&self.stage.settings, evidence.logs.ledger_errors);
        let mut told = self.heard.all();
        let mut tries = HashMap::new();
        let mut cases = Vec::new();
        for (job, tried) in self.jobs() {
            cases.push(self.case(job.clone(), &tried, &told, &mut evidence));
            tries.insert(job.id, tried);
        }
        cases.sort_by(|one, other| one.job.id.cmp(&other.job.id));
        let mut violations: Vec<_> = cases.iter().flat_map(|case| case.violations(rules)).collect();
        violations.extend(limits::violations(&self.stage.settings, rules, &cases, evidence.counted));
        let strangers = told.keys().filter(|id| !tries.contains_key(*id)).chain(evidence.dead.keys());
        violations.extend(strangers.map(|id| left(format!("of no job: {id:?}"))));
        let full = evidence.left.iter().filter(|(_, count)| *count > 0);
        violations.extend(full.map(|(queue, count)| left(format!("{queue} holds {count}"))));
        told.retain(|id, _| violations.iter().any(|violation| violation.id.as_ref() == Some(id)));
        let (broken, settling) = Default::default();
        Finding { cases, tries, told, logs: evidence.logs.counts, violations, broken, settling }
    }

    fn case(&self, job: Job, tries: &[Try], told: &HashMap<String, Vec<Told>>, evidence: &mut Evidence) -> Case {
        let calls = self.stage.sandbox.requests(&job.phone);
        // The worker that made this call was killed before it could even write so.
        let is_unwritten = calls.len() > evidence.logs.attempts.get(&job.id).copied().unwrap_or_default();
        Case {
            owed: is_owed(tries),
            is_repeated: tries.len() > 1,
            results: told.get(&job.id).into_iter().flatten().map(|told| Ended::read(&told.body)).collect(),
            sends: self.stage.sandbox.accepted(&job.phone),
            calls,
            record: evidence.records.remove(&job.id),
            dead: evidence.dead.remove(&job.id).unwrap_or_default(),
            is_unwitnessed: is_unwritten || evidence.logs.unwitnessed.contains(&job.id),
            job,
        }
    }
}

fn left(what: String) -> Violation {
    Violation { claim: LEFT, id: None, what }
}

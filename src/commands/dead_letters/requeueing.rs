//! `dead-letters requeue`: letters become jobs once more. A letter is acknowledged only after the broker has confirmed
//! the job: killed at any moment, it is there or there, and where it is in both places the two have one id.

use std::time::SystemTime;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::copy;
use super::error::Failed;
use super::fate::{Fate, Wanted, fate};
use super::ledger::Ledger;
use super::letter::{Letter, Rules};
use super::publishing::{Answer, Publisher};
use super::queue::{Place, Queue};
use super::selection::Selection;
use super::tally::Tally;
use crate::broker::settings::BrokerSettings;
use crate::commands::harmless::harmless;
use crate::commands::shell::Output;
use crate::job::request::logged_id;
use crate::ledger::settings::StoreSettings;

/// How many letters are published before their confirms are waited for, and asked for in the ledger at once.
const AT_ONCE: usize = 100;

const REFUSED: &str =
    "the queue of jobs refused it (nack): is it full? Let the workers empty it, or raise its bound, and requeue again";

/// What is requeued, and how.
pub(super) struct Requeue {
    pub(super) selection: Selection,
    pub(super) wanted: Wanted,
    pub(super) rules: Rules,
    pub(super) is_dry_run: bool,
}

/// A letter in hand.
type InHand = (Place, Letter);

/// What was done, and why no more.
pub(super) struct Done {
    pub(super) tally: Tally,
    pub(super) is_in_memory: bool,
    /// The ids that no letter has.
    pub(super) unseen: Vec<String>,
    /// How many letters another command holds.
    pub(super) held_by_others: u32,
    pub(super) ended: Result<(), Failed>,
}

/// Requeues what is chosen, or tells what would be.
pub(super) async fn requeue(
    broker: &BrokerSettings,
    store: StoreSettings,
    requeue: Requeue,
    stop: CancellationToken,
) -> Result<Done, Failed> {
    let mut queue = Queue::open(broker, u32::MAX, stop.clone()).await?;
    let ledger = match Ledger::open(store, queue.cluster.clone()).await {
        Ok(ledger) => ledger,
        Err(error) => {
            let _ = queue.end(broker).await;
            return Err(error);
        }
    };
    let progress = bar(queue.there);
    let mut run = Run {
        broker,
        requeue,
        ledger,
        publisher: None,
        stop,
        tally: Tally::default(),
        output: Output::new(),
        progress,
    };
    let worked = run.work(&mut queue).await;
    let held_by_others = if worked.is_ok() { queue.held_by_others() } else { 0 };
    run.progress.finish_and_clear();
    let unseen = if worked.is_ok() { run.requeue.selection.unseen().map(str::to_owned).collect() } else { Vec::new() };
    if let Some(publisher) = run.publisher {
        publisher.close().await;
    }
    let given_back = queue.end(broker).await;
    let ended = worked.and(given_back);
    Ok(Done { tally: run.tally, is_in_memory: run.ledger.is_in_memory(), unseen, held_by_others, ended })
}

fn bar(letters: u32) -> ProgressBar {
    let bar = ProgressBar::new(letters.into());
    if let Ok(style) = ProgressStyle::with_template("letters {bar:40} {pos}/{len} ({per_sec}, {eta} left)") {
        bar.set_style(style);
    }
    bar
}

struct Run<'a> {
    broker: &'a BrokerSettings,
    requeue: Requeue,
    ledger: Ledger,
    /// Opened for the first letter that is published.
    publisher: Option<Publisher>,
    stop: CancellationToken,
    tally: Tally,
    output: Output,
    progress: ProgressBar,
}

impl Run<'_> {
    async fn work(&mut self, queue: &mut Queue) -> Result<(), Failed> {
        loop {
            let some = self.choose(queue).await?;
            if some.is_empty() {
                return Ok(self.output.end().await?);
            }
            let letters: Vec<&Letter> = some.iter().map(|(_, letter)| letter).collect();
            let known = self.ledger.of(&letters).await?;
            let wanted = self.requeue.wanted;
            let fates: Vec<Fate> =
                letters.iter().zip(known).map(|(letter, known)| fate(letter, known, wanted)).collect();
            let mut going = Vec::new();
            for (in_hand, fate) in some.into_iter().zip(fates) {
                if self.requeue.is_dry_run || matches!(fate, Fate::Stays(_)) {
                    self.tally.add(&in_hand.1.id, &fate);
                    queue.keep(in_hand.0, in_hand.1);
                } else {
                    going.push((in_hand, fate));
                }
            }
            self.publish(queue, going).await?;
        }
    }

    /// Some letters that are chosen; none at the end.
    async fn choose(&mut self, queue: &mut Queue) -> Result<Vec<InHand>, Failed> {
        let (mut some, now) = (Vec::new(), SystemTime::now());
        while some.len() < AT_ONCE {
            let Some((place, delivery)) = queue.next().await? else { break };
            let letter = Letter::of(delivery, &self.requeue.rules);
            self.tally.looked_at += 1;
            self.progress.inc(1);
            if self.requeue.selection.takes(&letter, now) {
                self.tally.chosen += 1;
                some.push((place, letter));
            } else {
                queue.keep(place, letter);
            }
        }
        Ok(some)
    }

    /// Publishes letters as jobs, and acknowledges those that the broker has confirmed.
    async fn publish(&mut self, queue: &mut Queue, going: Vec<(InHand, Fate)>) -> Result<(), Failed> {
        if going.is_empty() {
            return Ok(());
        }
        let is_fresh = self.requeue.wanted.is_fresh;
        let jobs = going.iter().map(|((_, letter), fate)| {
            let id = if let Fate::NewId(id) = fate { id } else { &letter.id };
            (copy::of_job(letter, id, is_fresh), letter.body.as_slice())
        });
        let jobs = jobs.collect();
        let (jobs_go_to, publisher) = (self.broker.queue.clone(), self.publisher().await?);
        let answers = publisher.publish(&jobs_go_to, jobs).await?;
        let (mut moved, mut renamed) = (Vec::new(), Vec::new());
        for (((place, letter), fate), answer) in going.into_iter().zip(answers) {
            if answer == Answer::Refused {
                self.tally.add(&letter.id, &Fate::Stays(REFUSED.to_owned()));
                queue.keep(place, letter);
                continue;
            }
            moved.push(place);
            self.tally.add(&letter.id, &fate);
            if let Fate::NewId(id) = &fate {
                let new = harmless(&logged_id(id, letter.job.as_ref().ok()));
                renamed.push(format!("{} is sent again as {new}", letter.shown_id()));
            }
        }
        queue.remove(&moved).await?;
        for line in renamed {
            self.output.line(line.as_bytes()).await?;
        }
        Ok(())
    }

    async fn publisher(&mut self) -> Result<&mut Publisher, Failed> {
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => Publisher::open(self.broker, self.stop.clone(), self.progress.clone()).await?,
        };
        Ok(self.publisher.insert(publisher))
    }
}

//! `dead-letters purge`: letters are removed for good.

use std::io::{IsTerminal as _, Write as _, stderr, stdin};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::error::Failed;
use super::letter::{Letter, Rules};
use super::queue::{Place, Queue};
use super::selection::Selection;
use super::words::{count, held_line, unseen_line};
use crate::broker::settings::BrokerSettings;

/// How many letters are acknowledged at a time.
const AT_ONCE: usize = 1_000;

/// What is purged, and how.
pub(super) struct Purge {
    pub(super) selection: Selection,
    pub(super) is_dry_run: bool,
    /// Nobody is asked.
    pub(super) is_sure: bool,
}

/// Whether a person can be asked.
pub(super) fn can_ask() -> bool {
    stdin().is_terminal()
}

/// What was done, in words, and whether it is all that was asked for.
pub(super) struct Purged {
    pub(super) lines: Vec<String>,
    pub(super) is_whole: bool,
}

/// Removes what is chosen.
pub(super) async fn purge(broker: &BrokerSettings, purge: Purge, stop: CancellationToken) -> Result<Purged, Failed> {
    let mut queue = Queue::open(broker, u32::MAX, stop.clone()).await?;
    let purged = remove(&mut queue, purge, &broker.dead_letter, &stop).await;
    let ended = queue.end(broker).await;
    let purged = purged?;
    ended?;
    Ok(purged)
}

async fn remove(queue: &mut Queue, purge: Purge, name: &str, stop: &CancellationToken) -> Result<Purged, Failed> {
    let Purge { mut selection, is_dry_run, is_sure } = purge;
    let chosen = choose(queue, &mut selection).await?;
    let letters = count(chosen.len(), "letter");
    let (mut lines, all): (Vec<String>, _) = (selection.unseen().map(unseen_line).collect(), queue.there as usize);
    lines.extend(held_line(queue.held_by_others()));
    let mut is_whole = lines.is_empty();
    if is_dry_run {
        lines.push(format!("{letters} of {all} on {name} would be purged"));
        return Ok(Purged { lines, is_whole });
    }
    let is_agreed = is_sure
        || chosen.is_empty()
        || agreed(&format!("Remove {letters} of {all} from {name} for good? [y/N] "), stop).await?;
    let mut purged = 0;
    for some in chosen.chunks(AT_ONCE).take_while(|_| is_agreed && !stop.is_cancelled()) {
        queue.remove(some).await?;
        purged += some.len();
    }
    is_whole &= purged == chosen.len();
    lines.push(format!("{} purged from {name}; {} stay", count(purged, "letter"), all - purged));
    Ok(Purged { lines, is_whole })
}

async fn choose(queue: &mut Queue, selection: &mut Selection) -> Result<Vec<Place>, Failed> {
    let (mut chosen, now, rules) = (Vec::new(), SystemTime::now(), Rules::of_any_worker());
    while let Some((place, delivery)) = queue.next().await? {
        let letter = Letter::of(delivery, &rules);
        if selection.takes(&letter, now) {
            chosen.push(place);
        }
        queue.keep(place, letter);
    }
    Ok(chosen)
}

/// Asks on the terminal.
async fn agreed(question: &str, stop: &CancellationToken) -> Result<bool, Failed> {
    let _ = write!(stderr(), "{question}");
    let asking = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = stop.run_until_cancelled(asking).await.ok_or(Failed::Interrupted)?;
    let answer = answer.map_err(std::io::Error::other)??;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

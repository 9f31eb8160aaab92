//! `send`: puts jobs on the queue, as a producer does. With `--wait` it also waits for their results.
//!
//! Exit codes: 0 every job was queued and, with `--wait`, accepted; 1 a job was refused or not accepted, or nothing could
//! be queued; 2 a setting or a flag is wrong; 3 it was cut short, or results did not come in time.

mod csv;
mod error;
mod flags;
mod ids;
mod input;
mod line;
mod pace;
mod printing;
mod publishing;
mod results;
mod voice;

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::shell::{FAILED, block_on, source, wrong_settings};
use crate::broker::alarm::Alarm;
use crate::broker::settings::BrokerSettings;
use crate::broker::{DIRECT_REPLY, REPLY_WITHIN, close};
use error::SendError;
use flags::Options;
use input::Lines;
use printing::Printing;
use publishing::{Manner, Publishing, Queued, UNCONFIRMED};
use results::collect;
use voice::{Event, Summary, Voice};

/// The exit code where it was cut short, or results did not come in time.
const INCOMPLETE: u8 = 3;

/// The command and its flags.
pub(super) fn command() -> Command {
    flags::command()
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let broker = match BrokerSettings::read(&source(given)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    block_on(send(&broker, flags::options(given))).unwrap_or_else(|code| code)
}

/// Queues the jobs. Prints the id of each to standard output. When waiting, it prints each result instead, as it comes.
/// Everything else is told on standard error.
async fn send(broker: &BrokerSettings, options: Options) -> ExitCode {
    let what = if options.wait.is_some() { "results" } else { "queued" };
    let lines = match Lines::open(options.source.clone()).await {
        Ok(lines) => lines,
        Err(error) => return failed(&Voice::new(options.is_json, what, None), &error, ""),
    };
    let voice = Voice::new(options.is_json, what, lines.total);
    let repeat = options.repeat;
    let stop = CancellationToken::new();
    let ended = tokio::select! {
        ended = work(broker, options, lines, &stop, &voice) => ended,
        () = interrupted_twice(&stop) => Err(SendError::Interrupted),
        never = voice.tell_progress() => match never {},
    };
    voice.end_bar();
    match ended {
        Ok(summary) => {
            voice.tell(&Event::Ended(&summary));
            code_of(&summary)
        }
        Err(error) => failed(&voice, &error, repeat),
    }
}

/// The first time, what was published is still told.
async fn interrupted_twice(stop: &CancellationToken) {
    // Where signals cannot be heard, they end the process.
    let _ = tokio::signal::ctrl_c().await;
    stop.cancel();
    let _ = tokio::signal::ctrl_c().await;
}

fn code_of(summary: &Summary) -> ExitCode {
    match (summary.missing(), summary.is_accepted()) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(FAILED),
        (_, _) => ExitCode::from(INCOMPLETE),
    }
}

fn failed(voice: &Voice, error: &SendError, repeat: &'static str) -> ExitCode {
    let queued = voice.queued();
    let may_be_queued = match error {
        SendError::Lost(_) | SendError::Silent | SendError::Interrupted => queued.or_more,
        SendError::NotConnected(_)
        | SendError::Forbidden(_)
        | SendError::NoQueue(_)
        | SendError::Refused
        | SendError::Input(..)
        | SendError::Encoding(_)
        | SendError::Csv(..)
        | SendError::Output(_) => false,
    };
    let is_begun = queued.jobs > 0 || may_be_queued;
    voice.tell(&Event::Failed { why: &error.to_string(), queued, repeat: is_begun.then_some(repeat) });
    ExitCode::from(if is_begun { INCOMPLETE } else { FAILED })
}

async fn work(
    broker: &BrokerSettings,
    options: Options,
    lines: Lines,
    stop: &CancellationToken,
    voice: &Voice,
) -> Result<Summary, SendError> {
    let connection = broker.connect("esms-otp-worker send").await?.connection;
    let channel = timeout(REPLY_WITHIN, open(&connection)).await.map_err(|_| SendError::Silent)??;
    let alarm = Alarm::default();
    let tell = |blocked: Option<&str>| voice.tell(&Event::Alarm(blocked));
    let Options { expiration, ids, pace, wait, is_json, .. } = options;
    let reply_to = wait.map(|_| DIRECT_REPLY);
    let manner = Manner { queue: broker.queue.clone(), expiration, reply_to, ids, pace, stop: stop.clone() };
    let (queued, told) = mpsc::channel(UNCONFIRMED);
    let printing = Printing::new(voice, is_json);
    let replies = match wait {
        Some(patience) => Some((subscribe(&channel).await?, patience)),
        None => None,
    };
    let publishing = Publishing::new(channel, manner, alarm.clone(), voice, queued);
    let summary = tokio::select! {
        summary = publish(publishing, lines, told, replies, printing, is_json) => summary,
        never = alarm.follow(connection.events_listener(), tell) => match never {},
    };
    close(&connection).await;
    summary
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Direct reply-to needs a consumer on the publishing channel, before the first job is published.
async fn subscribe(channel: &Channel) -> Result<Consumer, SendError> {
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let subscribing = channel.basic_consume(DIRECT_REPLY.into(), "".into(), no_ack, FieldTable::default());
    Ok(timeout(REPLY_WITHIN, subscribing).await.map_err(|_| SendError::Silent)??)
}

/// `replies` are the results, and how long to wait for the next.
async fn publish(
    publishing: Publishing<'_>,
    lines: Lines,
    queued: mpsc::Receiver<Queued>,
    replies: Option<(Consumer, Duration)>,
    printing: Printing<'_>,
    is_json: bool,
) -> Result<Summary, SendError> {
    match replies {
        None => {
            // After an error, the ids of what was queued are printed all the same.
            let (summary, printed) = tokio::join!(publishing.run(lines), print_ids(queued, printing, is_json));
            printed.and(summary)
        }
        Some((replies, patience)) => {
            let voice = publishing.voice();
            // If queueing fails, the command ends without waiting for results.
            let (summary, outcomes) =
                tokio::try_join!(publishing.run(lines), collect(replies, queued, voice, patience, printing))?;
            Ok(Summary { outcomes: Some(outcomes), ..summary })
        }
    }
}

/// Prints the id of each job that was queued.
async fn print_ids(
    mut queued: mpsc::Receiver<Queued>,
    mut printing: Printing<'_>,
    is_json: bool,
) -> Result<(), SendError> {
    while let Some(Queued { id, line }) = queued.recv().await {
        let line = if is_json { json!({"JobId": id, "Line": line}).to_string() } else { id };
        printing.line(line.as_bytes()).await?;
    }
    printing.end().await
}

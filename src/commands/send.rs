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
mod publishing;
mod results;
mod voice;

use std::convert::Infallible;
use std::future::pending;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use futures_util::{Stream, StreamExt as _};
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Event as BrokerEvent};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::rows::{Printer, Rows, is_terminal};
use super::shell::{FAILED, Output, block_on, source, wrong_settings};
use crate::broker::alarm::Alarm;
use crate::broker::settings::BrokerSettings;
use crate::broker::{DIRECT_REPLY, REPLY_WITHIN, close};
use error::SendError;
use flags::Options;
use input::Lines;
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
    let ended = tokio::select! {
        ended = work(broker, options, lines, &voice) => ended,
        _ = tokio::signal::ctrl_c() => Err(SendError::Interrupted),
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
        SendError::Lost(_) | SendError::Silent | SendError::Interrupted => voice.may_be_more(),
        SendError::NotConnected(_)
        | SendError::NoQueue(_)
        | SendError::Refused
        | SendError::Input(..)
        | SendError::Encoding(_)
        | SendError::Csv(..)
        | SendError::Output(_) => false,
    };
    let is_begun = queued > 0 || may_be_queued;
    voice.tell(&Event::Failed { why: &error.to_string(), queued, repeat: is_begun.then_some(repeat) });
    ExitCode::from(if is_begun { INCOMPLETE } else { FAILED })
}

async fn work(broker: &BrokerSettings, options: Options, lines: Lines, voice: &Voice) -> Result<Summary, SendError> {
    let connection = broker.connect("esms-otp-worker send").await?.connection;
    let channel = timeout(REPLY_WITHIN, open(&connection)).await.map_err(|_| SendError::Silent)??;
    let alarm = Alarm::default();
    let summary = tokio::select! {
        summary = publish(channel, broker, options, lines, &alarm, voice) => summary,
        never = follow(connection.events_listener(), &alarm, voice) => match never {},
    };
    close(&connection).await;
    summary
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Follows what the broker says of itself.
async fn follow(mut events: impl Stream<Item = BrokerEvent> + Unpin, alarm: &Alarm, voice: &Voice) -> Infallible {
    while let Some(event) = events.next().await {
        match event {
            BrokerEvent::ConnectionBlocked(reason) => {
                alarm.set(true);
                voice.tell(&Event::Alarm(reason.as_str()));
            }
            BrokerEvent::ConnectionUnblocked => {
                alarm.set(false);
                voice.tell(&Event::AlarmOver);
            }
            // A lost connection ends the publishing, too.
            _ => {}
        }
    }
    pending().await
}

async fn publish(
    channel: Channel,
    broker: &BrokerSettings,
    options: Options,
    lines: Lines,
    alarm: &Alarm,
    voice: &Voice,
) -> Result<Summary, SendError> {
    let reply_to = options.wait.map(|_| DIRECT_REPLY);
    let Options { expiration, ids, pace, is_json, .. } = options;
    let manner = Manner { queue: broker.queue.clone(), expiration, reply_to, ids, pace };
    let (queued, told) = mpsc::channel(UNCONFIRMED);
    match options.wait {
        None => {
            let publishing = Publishing::new(channel, manner, alarm.clone(), voice, queued);
            let (summary, ()) = tokio::try_join!(publishing.run(lines), print_ids(told, is_json))?;
            Ok(summary)
        }
        Some(patience) => {
            // Direct reply-to needs a consumer on the publishing channel, before the first job is published.
            let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
            let subscribing = channel.basic_consume(DIRECT_REPLY.into(), "".into(), no_ack, FieldTable::default());
            let replies = timeout(REPLY_WITHIN, subscribing).await.map_err(|_| SendError::Silent)??;
            let printer = Printer::new((is_terminal() && !is_json).then(Rows::new));
            let publishing = Publishing::new(channel, manner, alarm.clone(), voice, queued);
            // If queueing fails, the command ends without waiting for results.
            let (summary, outcomes) =
                tokio::try_join!(publishing.run(lines), collect(replies, told, voice, patience, printer))?;
            Ok(Summary { outcomes: Some(outcomes), ..summary })
        }
    }
}

/// Prints the id of each job that was queued.
async fn print_ids(mut queued: mpsc::Receiver<Queued>, is_json: bool) -> Result<(), SendError> {
    let mut output = Output::new();
    while let Some(Queued { id, line }) = queued.recv().await {
        let line = if is_json { json!({"JobId": id, "Line": line}).to_string() } else { id };
        output.line(line.as_bytes()).await.map_err(SendError::Output)?;
    }
    output.end().await.map_err(SendError::Output)
}

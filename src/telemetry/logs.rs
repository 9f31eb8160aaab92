//! Log lines, to standard error.

mod json;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::{Level, Span, error, error_span};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::settings::reader::Reader;
use crate::settings::table;
use json::Json;

/// How log lines look.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// JSON lines, or text for a person at a terminal.
    pub format: LogFormat,
    /// The filter, in the syntax of `RUST_LOG`. It is known to parse.
    pub filter: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for a person.
    Pretty,
}

impl LogSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let format = reader.parsed_loosely(&table::LOG_FORMAT, |text| match text.to_ascii_lowercase().as_str() {
            "json" => Ok(LogFormat::Json),
            "pretty" => Ok(LogFormat::Pretty),
            _ => Err("is neither json nor pretty".into()),
        });
        let by_default = if std::io::stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
        let filter = reader.parsed_loosely(&table::RUST_LOG, |text| match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("is neither a level such as info, nor a filter such as info,esms_otp_worker=debug".into()),
        });
        let filter = filter.unwrap_or_else(|| table::RUST_LOG.default.unwrap_or_default().to_owned());
        Self { format: format.unwrap_or(by_default), filter }
    }
}

/// How many lines may wait for what reads them. A line is about half a KiB, so a full pipe costs less than 10 MB,
/// and not the 70 MB of the appender's own limit. At two thousand jobs a second it is four seconds.
const MOST_WAITING: usize = 8192;

/// Starts logging for the whole process. A separate thread writes the lines, so that a slow terminal or pipe
/// does not slow down a job. The lines are flushed when the guard is dropped.
///
/// # Errors
/// When logging was started before.
pub fn start(settings: &LogSettings) -> Result<WorkerGuard, TryInitError> {
    let waiting = NonBlockingBuilder::default().buffered_lines_limit(MOST_WAITING);
    let (writer, guard) = waiting.finish(std::io::stderr());
    let dropped = writer.error_counter();
    let lines = fmt::layer().with_writer(writer);
    let lines = match settings.format {
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(Json).boxed(),
        // Colours are for a terminal. In a file or a pipe they are noise.
        LogFormat::Pretty => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter(&settings.filter))
        .with(lines.with_filter(filter_fn(|line| may_be_logged(line.target(), *line.level()))))
        .try_init()?;
    // Logging is started once, and so this is set once.
    let _ = DROPPED.set(dropped);
    Ok(guard)
}

/// Counts the lines that were dropped. Logging belongs to the whole process, and so does this.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How many lines were dropped, because what reads them is too slow.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// The target of the spans below. A `RUST_LOG` that filters other targets must not remove the id from a line.
const SPANS: &str = "esms_otp_worker::span";

/// The span that adds the field `job_id` to every line about the job `id`. It costs nothing when logging is
/// off.
pub fn job_span(id: &str) -> Span {
    error_span!(target: SPANS, parent: None, "job", job_id = id)
}

/// The span that adds the connection's name to every line about a connection to the broker.
pub fn connection_span(name: &str) -> Span {
    error_span!(target: SPANS, parent: None, "connection", connection = name)
}

fn filter(given: &str) -> EnvFilter {
    let is_off = given.trim().eq_ignore_ascii_case("off");
    EnvFilter::new(if is_off { given.to_owned() } else { format!("{given},{SPANS}=error") })
}

/// From now on a panic is logged, with the id of its job. The panic's own message is not logged, because it
/// may repeat a phone number or a key.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        error!(location, hint = "this is a defect of the worker: report it", "panicked");
    }));
}

/// Whether a line of this target and level may be logged. Our own code never logs a secret or a whole phone
/// number. Libraries log frames and headers below `info`, and these hold both. Such lines are never shown, no
/// matter what `RUST_LOG` says. lapin's lines are never shown either: lapin reports every lost connection,
/// and this program already does that.
fn may_be_logged(target: &str, level: Level) -> bool {
    match target.split("::").next() {
        Some("esms_otp_worker" | "esms_sandbox") => true,
        Some("lapin") => false,
        _ => level <= Level::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_appender::non_blocking::NonBlockingBuilder;

    #[test]
    fn whatever_is_logged_of_a_job_has_its_id_and_with_nothing_logged_there_is_no_span() {
        for (given, has_span) in [
            ("info", true),
            ("error", true),
            ("off,esms_otp_worker::send=debug", true),
            ("esms_otp_worker::send=debug", true),
            ("off", false),
        ] {
            let subscriber = tracing_subscriber::registry().with(filter(given));
            let _used = tracing::subscriber::set_default(subscriber);
            assert_eq!(!job_span("a").is_disabled(), has_span, "{given}");
            assert_eq!(!connection_span("a").is_disabled(), has_span, "{given}");
        }
    }

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted() {
        /// Takes nothing until it is dropped with its lock.
        struct Stuck(std::sync::Arc<std::sync::Mutex<()>>);
        impl std::io::Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _waiting = self.0.lock();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let door = std::sync::Arc::new(std::sync::Mutex::new(()));
        let closed = door.lock().unwrap();
        let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(2).finish(Stuck(door.clone()));
        let dropped = writer.error_counter();
        let subscriber = tracing_subscriber::registry().with(fmt::layer().with_writer(writer));
        tracing::subscriber::with_default(subscriber, || (0..10).for_each(|n| error!(n, "a line")));
        // Two wait in the queue, and one may have been taken out of it.
        assert!((7..=8).contains(&dropped.dropped_lines()), "{}", dropped.dropped_lines());
        drop(closed);
        drop(guard);
    }

    #[test]
    fn libraries_are_silent_below_info_and_ours_is_not() {
        assert!(may_be_logged("esms_otp_worker::send", Level::TRACE));
        assert!(may_be_logged("hyper::proto", Level::WARN));
        assert!(!may_be_logged("hyper::proto", Level::DEBUG));
        assert!(!may_be_logged("lapin::channel", Level::ERROR));
        assert!(!may_be_logged("esms_otp_worker_of_another", Level::TRACE));
    }
}

//! Log lines, to standard error.

mod json;
mod lines;

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing::{Level, Span, Subscriber, error, error_span};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::settings::reader::Reader;
use crate::settings::table;
use json::{Json, Members};
pub use lines::LastLines;
use lines::Lines;

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

/// How many bytes may wait for what reads the lines: about 8,192 lines of half a KiB. At two thousand jobs a second
/// that is four seconds.
const MOST_WAITING: usize = 4 * 1024 * 1024;

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no thread to write the lines.
    #[error("cannot start the thread that writes log lines: {0}")]
    Thread(#[from] io::Error),
    /// It was started before.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process. A separate thread writes the lines, so that a slow terminal or pipe
/// does not slow down a job. The last lines are written when [`LastLines`] is dropped.
///
/// # Errors
/// When logging was started before, or there is no thread.
pub fn start(settings: &LogSettings) -> Result<LastLines, StartError> {
    let (writer, last) = Lines::to(io::stderr(), MOST_WAITING)?;
    let written = writer.clone();
    let lines = fmt::layer().with_writer(writer);
    let lines = match settings.format {
        LogFormat::Json => lines.fmt_fields(Members).event_format(Json).boxed(),
        // Colours are for a terminal. In a file or a pipe they are noise.
        LogFormat::Pretty => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter(&settings.filter))
        .with(lines.with_filter(filter_fn(|line| may_be_logged(line.target(), *line.level()))))
        .try_init()?;
    // Logging is started once, and so this is set once.
    let _ = WRITTEN.set(written);
    Ok(last)
}

/// Where lines go. Logging belongs to the whole process, and so does this.
static WRITTEN: OnceLock<Lines> = OnceLock::new();

/// How many lines were dropped, because what reads them is too slow.
pub fn dropped_lines() -> u64 {
    WRITTEN.get().map_or(0, Lines::dropped)
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

/// Most filters name targets and levels only. Such a one is decided once for each place in the code, and costs nothing
/// while a job runs; one that also looks at spans is asked again and again.
fn filter<S>(given: &str) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let is_off = given.trim().eq_ignore_ascii_case("off");
    let directives = if is_off { given.to_owned() } else { format!("{given},{SPANS}=error") };
    // `Targets` takes `[span]` for the name of a target.
    match directives.parse::<Targets>() {
        Ok(targets) if !directives.contains('[') => targets.boxed(),
        Ok(_) | Err(_) => EnvFilter::new(directives).boxed(),
    }
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
    fn a_filter_that_looks_at_spans_is_one() {
        for (given, in_span, outside) in [
            ("error,[job]=debug", true, false),
            ("error,[job{job_id=a}]=debug", true, false),
            ("error,esms_otp_worker=debug", true, true),
            ("error", false, false),
        ] {
            let subscriber = tracing_subscriber::registry().with(filter(given));
            let _used = tracing::subscriber::set_default(subscriber);
            let is_shown = || tracing::enabled!(target: "esms_otp_worker::send", Level::DEBUG);
            assert_eq!(job_span("a").in_scope(is_shown), in_span, "{given}");
            assert_eq!(is_shown(), outside, "{given}");
        }
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

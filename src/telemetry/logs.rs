//! Log lines, to standard error.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the whole process. Lines are written by a thread of their own, so that a slow
/// terminal or pipe does not slow a job; they are flushed when the guard is dropped.
///
/// # Errors
/// When logging was started before.
pub fn start(config: &LogConfig) -> Result<WorkerGuard, TryInitError> {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let lines = fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        // Colours are for eyes: in a file or a pipe they are noise.
        LogFormat::Pretty => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(EnvFilter::new(&config.filter))
        .with(lines.with_filter(filter_fn(|line| may_be_logged(line.target(), *line.level()))))
        .try_init()?;
    Ok(guard)
}

/// Our own code is written so that no line holds a secret or a whole phone number. Libraries below
/// `info` log frames and headers, which hold both: they are never shown, whatever `RUST_LOG` says.
/// The AMQP client also reports every lost connection on its own, where this program already does.
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
    fn libraries_are_silent_below_info_and_ours_is_not() {
        assert!(may_be_logged("esms_otp_worker::send", Level::TRACE));
        assert!(may_be_logged("hyper::proto", Level::WARN));
        assert!(!may_be_logged("hyper::proto", Level::DEBUG));
        assert!(!may_be_logged("lapin::channel", Level::ERROR));
        assert!(!may_be_logged("esms_otp_worker_of_another", Level::TRACE));
    }
}

//! A log line as one JSON object: the fields of the event, and of the spans around it, side by side.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The formatter of this module. Fields must already be formatted as JSON objects.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        write!(line, "\",\"level\":\"{}\"", event.metadata().level())?;
        if let Some(spans) = context.event_scope() {
            for span in spans.from_root() {
                if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                    add_members(&mut line, fields)?;
                }
            }
        }
        let mut fields = String::new();
        context.field_format().format_fields(Writer::new(&mut fields), event)?;
        add_members(&mut line, &fields)?;
        writeln!(line, ",\"target\":\"{}\"}}", event.metadata().target())
    }
}

/// Adds the members of a JSON object to the one that is being written.
fn add_members(line: &mut Writer<'_>, object: &str) -> fmt::Result {
    match object.strip_prefix('{').and_then(|object| object.strip_suffix('}')) {
        None | Some("") => Ok(()),
        Some(members) => write!(line, ",{members}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use tracing::{error_span, info};
    use tracing_subscriber::fmt::format::JsonFields;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(log: impl FnOnce()) -> serde_json::Value {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(Json)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_fields_of_an_event_and_of_its_spans_stand_side_by_side() {
        let line = line(|| {
            let _job = error_span!("job", job_id = "a \"quoted\"\nid").entered();
            let _empty = error_span!("nothing").entered();
            info!(attempts = 2, ok = true, "job ended");
        });
        assert_eq!((&line["job_id"], &line["attempts"]), (&"a \"quoted\"\nid".into(), &2.into()));
        assert_eq!((&line["message"], &line["level"]), (&"job ended".into(), &"INFO".into()));
        assert!(line["target"].as_str().unwrap().ends_with("logs::json::tests"));
        assert!(humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).is_ok(), "{line}");
    }

    #[test]
    fn a_line_without_span_is_whole_too() {
        let line = line(|| info!("stopped"));
        assert_eq!(line["message"], "stopped");
        assert!(line.get("job_id").is_none());
    }
}

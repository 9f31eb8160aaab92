//! A log line as one JSON object: the fields of the event, and of the spans around it, side by side.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The formatter of this module. Fields are formatted by [`Members`].
pub(super) struct Json;

/// Formats fields as the members of a JSON object, each behind a comma.
pub(super) struct Members;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(event.metadata().level().as_str())?;
        line.write_str("\"")?;
        if let Some(spans) = context.event_scope() {
            for span in spans.from_root() {
                if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                    line.write_str(fields)?;
                }
            }
        }
        context.format_fields(line.by_ref(), event)?;
        line.write_str(",\"target\":\"")?;
        line.write_str(event.metadata().target())?;
        line.write_str("\"}\n")
    }
}

impl<'a> FormatFields<'a> for Members {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

/// Writes each field as it comes.
struct Visitor<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let write = |writer: &mut Writer<'_>| {
            writer.write_str(",\"")?;
            // The names are ours.
            writer.write_str(field.name().trim_start_matches("r#"))?;
            writer.write_str("\":")?;
            value(writer)
        };
        self.result = self.result.and_then(|()| write(&mut self.writer));
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.member(field, |writer| write!(writer, "{value}"));
    }
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |writer| {
            writer.write_char('"')?;
            write!(Escaped(writer), "{value:?}")?;
            writer.write_char('"')
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |writer| {
            writer.write_char('"')?;
            Escaped(writer).write_str(value)?;
            writer.write_char('"')
        });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() { self.plain(field, value) } else { self.record_debug(field, &value) }
    }
}

/// Escapes what is written for a JSON string.
struct Escaped<'a, 'b>(&'a mut Writer<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            // The byte is a whole character: it is one of ASCII.
            let (special, after) = from.split_at(1);
            match special.as_bytes() {
                [b'"'] => self.0.write_str("\\\"")?,
                [b'\\'] => self.0.write_str("\\\\")?,
                [b'\n'] => self.0.write_str("\\n")?,
                bytes => write!(self.0, "\\u{:04x}", bytes.first().copied().unwrap_or_default())?,
            }
            rest = after;
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use tracing::{error_span, info};

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
            .fmt_fields(Members)
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
    fn whatever_a_field_holds_the_line_is_json() {
        for text in ["", "\u{0}\u{1f}\u{7f}\t\r\n", "\\\"", "à ạ 😀", "a\u{2028}b", "\\u0041"] {
            let line = line(|| info!(text, debug = ?text, display = %text, number = f64::NAN, half = 0.5, "said"));
            assert_eq!((&line["text"], &line["display"]), (&text.into(), &text.into()));
            assert_eq!(line["debug"], format!("{text:?}"));
            assert_eq!((&line["number"], &line["half"]), (&"NaN".into(), &0.5.into()));
        }
        let line = line(|| info!(a = -1_i64, b = u64::MAX, c = true, none = None::<&str>, "said"));
        assert_eq!((&line["a"], &line["b"], &line["c"]), (&(-1).into(), &u64::MAX.into(), &true.into()));
        assert!(line.get("none").is_none());
    }

    #[test]
    fn a_line_without_span_is_whole_too() {
        let line = line(|| info!("stopped"));
        assert_eq!(line["message"], "stopped");
        assert!(line.get("job_id").is_none());
    }
}

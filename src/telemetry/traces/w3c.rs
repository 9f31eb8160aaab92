//! W3C trace context, as the headers of jobs and results carry it.
//!
//! <https://www.w3.org/TR/trace-context/>

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::job::envelope::Trace;

/// The producer's span, if its `traceparent` is well-formed. Otherwise `tracestate` is ignored too.
pub(super) fn parent(trace: &Trace) -> Option<SpanContext> {
    let mut parts = trace.parent.as_deref()?.split('-');
    let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let well_formed =
        [(version, 2), (trace_id, 32), (span_id, 16), (flags, 2)].iter().all(|(text, length)| is_hex(text, *length));
    // Later versions may have more parts. Version 00 may not, and ff is not a version.
    if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = trace.state.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    Some(SpanContext::new(trace_id, span_id, flags, true, state)).filter(SpanContext::is_valid)
}

/// Whether the text is hexadecimal, of this length, and in lower case as the specification requires.
fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The header `traceparent` for a message that follows this span.
pub(super) fn traceparent(span: &SpanContext) -> String {
    let sampled = u8::from(span.is_sampled());
    format!("00-{}-{}-{sampled:02x}", span.trace_id(), span.span_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &str, state: Option<&str>) -> Option<SpanContext> {
        super::parent(&Trace { parent: Some(parent.to_owned()), state: state.map(str::to_owned) })
    }

    #[test]
    fn a_well_formed_traceparent_is_read_and_written_as_it_was() {
        for text in [GOOD, &GOOD.replace("-01", "-00")] {
            assert_eq!(traceparent(&read(text, None).unwrap()), *text);
        }
        assert!(parent(&Trace::default()).is_none());
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        assert_eq!(traceparent(&read(&GOOD.replace("-01", "-ff"), None).unwrap()), GOOD);
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(traceparent(&read(&later, None).unwrap()), GOOD);
        assert!(read(&format!("{later}-what-is-to-come"), None).is_some());
    }

    #[test]
    fn what_is_malformed_is_no_parent() {
        for text in [
            "",
            "00",
            "garbage",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(read(text, Some("vendor=1")).is_none(), "{text}");
        }
    }

    #[test]
    fn the_state_is_kept_where_it_can_be_read() {
        let state = |text| read(GOOD, text).unwrap().trace_state().header();
        assert_eq!(state(Some("vendor=1,other=2")), "vendor=1,other=2");
        assert_eq!(state(Some("no list")), "");
        assert_eq!(state(None), "");
    }
}

use super::*;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The settings, and which variables are in doubt.
fn with(given: &[(&str, &str)]) -> (TracesSettings, Vec<&'static str>) {
    let source =
        |setting: &Setting| given.iter().find(|(name, _)| *name == setting.env).map(|(_, value)| (*value).to_owned());
    let mut reader = Reader::new(&source);
    let settings = TracesSettings::from_reader(&mut reader);
    let doubts = reader.take_doubts();
    assert!(doubts.iter().all(|doubt| !doubt.problem.contains("zQcanaryQz")), "{doubts:?}");
    assert!(reader.finish(()).is_ok(), "nothing of this stops the worker");
    (settings, doubts.into_iter().map(|doubt| doubt.setting).collect())
}

#[test]
fn an_endpoint_is_used_or_doubted_and_stops_nothing() {
    for (text, used, is_doubted) in [
        ("http://collector:4318", Some("http://collector:4318/"), false),
        (" https://collector/otlp \r\n", Some("https://collector/otlp"), false),
        ("\"http://collector:4318\"", Some("http://collector:4318/"), false),
        ("collector:4318", Some("http://collector:4318/"), false),
        ("10.0.0.1:4318", Some("http://10.0.0.1:4318/"), false),
        ("collector:4318/", Some("http://collector:4318/"), false),
        ("http://collector:4317", Some("http://collector:4317/"), true),
        ("collector:4317", None, true),
        ("collector.observability.svc:4317", None, true),
        ("collector", None, true),
        ("collector:55681", None, true),
        ("grpc://collector:4317", None, true),
        ("unix:///run/collector.sock", None, true),
        ("http://", None, true),
        ("/v1/traces", None, true),
        ("https://user:zQcanaryQz@collector:4318", None, true),
        ("user:zQcanaryQz@collector:4318", None, true),
    ] {
        let (settings, doubts) = with(&[(ENDPOINT, text)]);
        assert_eq!(settings.endpoint.as_ref().map(Url::as_str), used, "{text}");
        assert_eq!(doubts, if is_doubted { vec![ENDPOINT] } else { vec![] }, "{text}");
    }
}

#[test]
fn traces_that_are_turned_off_stay_off_without_a_doubt() {
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_SDK_DISABLED", " TRUE\n"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_EXPORTER", "NONE "),
    ] {
        for endpoint in ["http://collector:4318", "collector:4317", "nonsense"] {
            let (settings, doubts) = with(&[(ENDPOINT, endpoint), off, ("OTEL_TRACES_SAMPLER", "nonsense")]);
            assert!(settings.endpoint.is_none() && doubts.is_empty(), "{off:?} {endpoint} {doubts:?}");
        }
    }
    for on in [("OTEL_SDK_DISABLED", "false"), ("OTEL_SDK_DISABLED", "1"), ("OTEL_TRACES_EXPORTER", "console,otlp")] {
        let (settings, doubts) = with(&[(ENDPOINT, "http://collector:4318"), on]);
        assert!(settings.endpoint.is_some() && doubts.is_empty(), "{on:?}");
    }
    let (settings, doubts) = with(&[(ENDPOINT, "http://collector:4318"), ("OTEL_TRACES_EXPORTER", "zipkin")]);
    assert!(settings.endpoint.is_some());
    assert_eq!(doubts, ["OTEL_TRACES_EXPORTER"]);
}

#[test]
fn without_an_endpoint_nothing_is_doubted() {
    let others = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "nonsense")];
    let (settings, doubts) = with(&others);
    assert!(settings.endpoint.is_none() && doubts.is_empty(), "{doubts:?}");
}

#[test]
fn a_protocol_that_is_not_spoken_is_doubted() {
    let (general, of_traces) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
    for (port, given, is_used, doubted) in [
        ("4318", &[(general, "http/protobuf")][..], true, &[][..]),
        ("4317", &[(general, "http/protobuf")], true, &[]),
        ("4317", &[(general, "grpc")], false, &[general]),
        ("4318", &[(general, "grpc")], true, &[general]),
        ("4318", &[(general, "http/json")], true, &[general]),
        ("4318", &[(general, "http")], true, &[general]),
        ("4317", &[(general, "http/protobuf"), (of_traces, "grpc")], false, &[of_traces]),
        ("4318", &[(general, "grpc"), (of_traces, "http/protobuf")], true, &[]),
    ] {
        let endpoint = format!("http://collector:{port}");
        let (settings, doubts) = with(&[&[(ENDPOINT, endpoint.as_str())], given].concat());
        assert_eq!((settings.endpoint.is_some(), doubts.as_slice()), (is_used, doubted), "{port} {given:?}");
    }
}

#[test]
fn a_sampler_is_understood_or_doubted() {
    let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
    for (given, sampler, doubted) in [
        (&[][..], "ParentBased(AlwaysOn)", &[][..]),
        (&[(name, "always_on")], "AlwaysOn", &[]),
        (&[(name, " always_off\n")], "AlwaysOff", &[]),
        (&[(name, "parentbased_always_off")], "ParentBased(AlwaysOff)", &[]),
        (&[(name, "traceidratio"), (argument, "0.25")], "TraceIdRatioBased(0.25)", &[]),
        (&[(name, "parentbased_traceidratio"), (argument, "1")], "ParentBased(TraceIdRatioBased(1.0))", &[]),
        (&[(name, "traceidratio")], "TraceIdRatioBased(1.0)", &[argument]),
        (&[(name, "traceidratio"), (argument, "10%")], "TraceIdRatioBased(1.0)", &[argument]),
        (&[(name, "traceidratio"), (argument, "2")], "TraceIdRatioBased(1.0)", &[argument]),
        (&[(name, "traceidratio"), (argument, "NaN")], "TraceIdRatioBased(1.0)", &[argument]),
        (&[(name, "xray")], "ParentBased(AlwaysOn)", &[name]),
        (&[(name, "parentbased_jaeger_remote")], "ParentBased(AlwaysOn)", &[name]),
        (&[(name, "nonsense")], "ParentBased(AlwaysOn)", &[name]),
    ] {
        let (settings, doubts) = with(&[&[(ENDPOINT, "http://collector:4318")], given].concat());
        assert_eq!((format!("{:?}", settings.sampler).as_str(), doubts.as_slice()), (sampler, doubted), "{given:?}");
    }
}

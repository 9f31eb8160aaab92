//! Where traces go, by the variables of the OpenTelemetry specification.
//!
//! A cluster often sets these for every program in it, and for programs that speak gRPC. So none of them stops the
//! worker. What is not understood is a doubt: it is logged, and there are no traces, or the default is used.

use opentelemetry_sdk::trace::Sampler;
use reqwest::Url;

use crate::settings::reader::{Reader, http_url};
use crate::settings::table::{self as settings, Group, Setting};

/// Where traces go.
#[derive(Clone, Debug)]
pub struct TracesSettings {
    /// The collector: OTLP's endpoint for all signals. Without it there are no traces.
    pub endpoint: Option<Url>,
    /// Which traces are recorded.
    pub sampler: Sampler,
}

/// A variable of the specification that is no flag.
const fn standard(env: &'static str) -> Setting {
    Setting { env, flag: "", value: "", default: None, group: Group::Operations, help: "" }
}

const DISABLED: Setting = standard("OTEL_SDK_DISABLED");
const EXPORTER: Setting = standard("OTEL_TRACES_EXPORTER");
const PROTOCOL: Setting = standard("OTEL_EXPORTER_OTLP_PROTOCOL");
const TRACES_PROTOCOL: Setting = standard("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
const SAMPLER: Setting = standard("OTEL_TRACES_SAMPLER");
const SAMPLER_ARG: Setting = standard("OTEL_TRACES_SAMPLER_ARG");

impl TracesSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let setting = &settings::OTEL_EXPORTER_OTLP_ENDPOINT;
        // Without an endpoint nothing is exported, and so no other variable matters.
        let Some(given) = reader.given_loosely(setting).filter(|_| is_wanted(reader)) else {
            return Self { endpoint: None, sampler: default_sampler() };
        };
        let endpoint = match read(&given) {
            Read::Endpoint(url) => url_for_http(reader, url),
            // Do not repeat the value: it may hold credentials, which must not be in it.
            Read::NoEndpoint(why) => {
                reader.doubt(setting, why);
                None
            }
        };
        Self { endpoint, sampler: sampler(reader) }
    }
}

/// Whether the variables leave tracing on.
fn is_wanted(reader: &mut Reader<'_>) -> bool {
    if reader.given_loosely(&DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return false;
    }
    let Some(exporters) = reader.given_loosely(&EXPORTER) else { return true };
    let names: Vec<String> = exporters.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    if names == ["none"] {
        return false;
    }
    if !names.iter().any(|name| name == "otlp") {
        reader.doubt(&EXPORTER, "names no exporter that is known, which are otlp and none; otlp is used");
    }
    true
}

/// What the endpoint's text means.
#[derive(Debug, PartialEq)]
enum Read {
    /// An address.
    Endpoint(Url),
    /// None, and why.
    NoEndpoint(&'static str),
}

/// The port of OTLP over HTTP, and the one over gRPC.
const HTTP_PORT: u16 = 4318;
const GRPC_PORT: u16 = 4317;

fn read(text: &str) -> Read {
    if let Some(url) = http_url(text) {
        return Read::Endpoint(url);
    }
    // Programs that speak gRPC take an address without a scheme.
    let bare = http_url(&format!("http://{text}")).filter(|url| !text.contains("://") && url.path() == "/");
    match bare.map(|url| (url.port(), url)) {
        Some((Some(HTTP_PORT), url)) => Read::Endpoint(url),
        Some((Some(GRPC_PORT), _)) => Read::NoEndpoint(
            "is an address for gRPC, which is not spoken; there are no traces; set it to the collector's port for HTTP, such as http://collector:4318",
        ),
        Some(_) | None => Read::NoEndpoint(
            "is not an http:// or https:// address without credentials in it, such as http://collector:4318; there are no traces",
        ),
    }
}

/// The address, if HTTP is likely to be spoken there.
fn url_for_http(reader: &mut Reader<'_>, url: Url) -> Option<Url> {
    let protocol = reader.given_loosely(&TRACES_PROTOCOL).map(|name| (&TRACES_PROTOCOL, name));
    let protocol = protocol.or_else(|| reader.given_loosely(&PROTOCOL).map(|name| (&PROTOCOL, name)));
    match protocol.as_ref().map(|(setting, name)| (*setting, name.as_str())) {
        Some((setting, "grpc")) if url.port() != Some(HTTP_PORT) => {
            reader.doubt(
                setting,
                "is grpc, which is not spoken; there are no traces; set it to http/protobuf, and OTEL_EXPORTER_OTLP_ENDPOINT to the collector's port for HTTP",
            );
            return None;
        }
        Some((_, "http/protobuf")) => {}
        Some((setting, _)) => reader.doubt(setting, "is not http/protobuf, the protocol that is spoken and used"),
        None if url.port() == Some(GRPC_PORT) => reader.doubt(
            &settings::OTEL_EXPORTER_OTLP_ENDPOINT,
            "has the port of gRPC, 4317, which is not spoken; if traces are lost, use the port for HTTP, 4318",
        ),
        None => {}
    }
    Some(url)
}

fn default_sampler() -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
}

fn sampler(reader: &mut Reader<'_>) -> Sampler {
    let Some(name) = reader.given_loosely(&SAMPLER) else { return default_sampler() };
    let (of_parent, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let root = match root {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(ratio(reader)),
        _ => {
            reader.doubt(&SAMPLER, "names no sampler that is known; parentbased_always_on is used");
            return default_sampler();
        }
    };
    if of_parent { Sampler::ParentBased(Box::new(root)) } else { root }
}

fn ratio(reader: &mut Reader<'_>) -> f64 {
    let given = reader.given_loosely(&SAMPLER_ARG).and_then(|text| text.parse::<f64>().ok());
    given.filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or_else(|| {
        reader.doubt(&SAMPLER_ARG, "is not a number from 0 to 1; every trace is recorded");
        1.0
    })
}

#[cfg(test)]
mod tests;

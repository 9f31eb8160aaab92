//! Where traces go.

use reqwest::Url;

use crate::settings::reader::{Reader, http_url};
use crate::settings::table as settings;

/// Where traces go.
#[derive(Clone, Debug)]
pub struct TracesSettings {
    /// The collector: OTLP's endpoint for all signals. Without it there are no traces.
    pub endpoint: Option<Url>,
}

impl TracesSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let setting = &settings::OTEL_EXPORTER_OTLP_ENDPOINT;
        let given = reader.given(setting);
        let endpoint = given.as_deref().and_then(http_url);
        if given.is_some() && endpoint.is_none() {
            // Do not repeat the value: it may hold credentials, which must not be in it.
            reader.mistake(
                setting,
                "must be an http:// or https:// address without credentials in it, such as http://collector:4318",
            );
        }
        Self { endpoint }
    }
}

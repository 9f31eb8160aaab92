//! The settings of metrics, health, logs and traces.

use std::net::SocketAddr;

use super::logs::LogSettings;
use super::traces::settings::TracesSettings;
use crate::settings::reader::Reader;
use crate::settings::table as settings;

/// The settings of metrics, health, logs and traces.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// Where metrics and health are served.
    pub http_addr: SocketAddr,
    /// How log lines look.
    pub log: LogSettings,
    /// Where traces go.
    pub traces: TracesSettings,
}

impl TelemetrySettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            http_addr: http_addr(reader),
            log: LogSettings::from_reader(reader),
            traces: TracesSettings::from_reader(reader),
        }
    }
}

/// The address of `/metrics`, `/livez` and `/readyz`.
pub(crate) fn http_addr(reader: &mut Reader<'_>) -> SocketAddr {
    reader
        .parsed(&settings::HTTP_ADDR, |text| {
            text.parse().map_err(|_| "must be an address and a port, such as 0.0.0.0:9090".to_owned())
        })
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

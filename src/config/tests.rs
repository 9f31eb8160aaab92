use super::*;
use crate::backoff;
use crate::broker::settings::TopologyMode;
use crate::job::progress::OnAmbiguous;
use crate::ledger::settings::{OnLedgerError, StoreSettings};
use crate::limits::Limits;
use crate::telemetry::logs::LogFormat;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod defaults;
mod ledger;
mod mistakes;
mod secrets;

/// Reads the given settings and the two credentials that `run` requires.
fn read(given: &[(&str, &str)]) -> Result<Config, WrongSettings> {
    let mut all = vec![("ESMS_API_KEY", "api-key-1"), ("ESMS_SECRET_KEY", "secret-key-1")];
    all.extend(given);
    read_only(&all)
}

fn read_only(given: &[(&str, &str)]) -> Result<Config, WrongSettings> {
    let given: BTreeMap<&str, &str> = given.iter().copied().collect();
    Config::read(&|setting| given.get(setting.env).map(|value| (*value).to_owned()))
}

/// The names of the wrong settings, in order.
fn wrong(given: &[(&str, &str)]) -> Vec<&'static str> {
    read(given).map(|_| Vec::new()).unwrap_or_else(|error| error.0.iter().map(|mistake| mistake.setting).collect())
}

/// The message for settings with exactly one mistake.
fn told(given: &[(&str, &str)]) -> String {
    let error = read(given).unwrap_err();
    assert_eq!(error.0.len(), 1, "{error}");
    error.to_string()
}

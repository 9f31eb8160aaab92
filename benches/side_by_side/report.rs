//! What is told at the end, and the files it is written to.

use std::path::Path;

use serde::Serialize;

use crate::Failed;
use crate::machine::Machine;
use crate::measured::Measured;
use crate::musts::{self, Must};
use crate::picture;
use crate::settings::{Part, target};
use crate::stage::Stage;
use crate::support::terminal::say;

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    musts: &'a [Must],
}

/// Prints what must hold, and writes the files.
pub(crate) fn give(stage: &Stage, measured: &Measured) -> Result<(), Failed> {
    let parts = &stage.settings.parts;
    if parts == &[Part::Profile] {
        return Ok(());
    }
    let musts = musts::of(measured, parts);
    musts::print(&musts);
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let report = serde_json::to_string_pretty(&Report { measured, musts: &musts })?;
    write(&folder.join("side_by_side.json"), &report)?;
    if !measured.throughput.is_empty() {
        write(&folder.join("side_by_side.svg"), &picture::draw(stage, measured))?;
    }
    let Machine { cpu, cores, rabbitmq, redis, date, .. } = &measured.machine;
    say(format!("\n{date}, {cores} cores of {cpu}, RabbitMQ {rabbitmq}, Redis {redis}"));
    say("Every number, and a picture: target/bench/side_by_side.json and .svg");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

//! All numbers of a benchmark, and the files they are written to.

use std::path::Path;

use serde::Serialize;

use crate::Failed;
use crate::backlog::Backlog;
use crate::fleet;
use crate::latency;
use crate::machine::Machine;
use crate::many::Many;
use crate::memory::Memory;
use crate::musts::{self, Must};
use crate::picture;
use crate::settings::{Cell, Part, target};
use crate::stage::Stage;
use crate::start::Start;
use crate::support::terminal::say;
use crate::throughput;

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) machine: Machine,
    /// Who did not run, and why.
    not_run: Vec<(&'static str, String)>,
    pub(crate) throughput: Vec<throughput::Run>,
    pub(crate) latency: Vec<latency::Run>,
    pub(crate) start: Option<Start>,
    pub(crate) many: Option<Many>,
    pub(crate) memory: Option<Memory>,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) fleet: Vec<fleet::Run>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) async fn on(stage: &Stage) -> Self {
        let machine = Machine::look(stage).await;
        let away = stage.settings.contenders.iter().filter_map(|who| Some((who.name(), stage.why_away(*who)?.into())));
        Self {
            machine,
            not_run: away.collect(),
            throughput: Vec::new(),
            latency: Vec::new(),
            start: None,
            many: None,
            memory: None,
            backlog: None,
            fleet: Vec::new(),
        }
    }

    /// The cells that were measured, in order.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.throughput.iter().map(|run| run.cell).collect();
        cells.dedup();
        cells
    }
}

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

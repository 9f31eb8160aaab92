//! All numbers of a benchmark.

use serde::Serialize;

use crate::backlog::Backlog;
use crate::fleet;
use crate::latency;
use crate::machine::Machine;
use crate::many::Many;
use crate::memory::Memory;
use crate::settings::Cell;
use crate::stage::Stage;
use crate::start::Start;
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

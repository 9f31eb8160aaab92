//! What is measured, and how often: from the environment.

use std::env::VarError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::Failed;
use crate::contender::Contender;
use crate::programs::Programs;

/// One row of the table: how many jobs are held at once, and how long the endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) prefetch: u16,
    pub(crate) latency: Duration,
}

impl Cell {
    const ALL: [Self; 4] = [Self::of(128, 0), Self::of(512, 0), Self::of(128, 50), Self::of(512, 50)];

    const fn of(prefetch: u16, millis: u64) -> Self {
        Self { prefetch, latency: Duration::from_millis(millis) }
    }

    /// The most jobs a second that this many calls at once allow; none where the endpoint takes no time.
    pub(crate) fn ideal(self) -> Option<f64> {
        (!self.latency.is_zero()).then(|| f64::from(self.prefetch) / self.latency.as_secs_f64())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prefetch {}, endpoint {} ms", self.prefetch, self.latency.as_millis())
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}/{}", self.prefetch, self.latency.as_millis()))
    }
}

impl FromStr for Cell {
    type Err = Failed;

    fn from_str(text: &str) -> Result<Self, Failed> {
        let parts =
            text.split_once('/').and_then(|(prefetch, millis)| Some((prefetch.parse().ok()?, millis.parse().ok()?)));
        let (prefetch, millis) = parts.ok_or("write it as 128/50: the prefetch, and the endpoint's milliseconds")?;
        Ok(Self::of(prefetch, millis))
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Throughput,
    Latency,
    Start,
    Many,
    Memory,
    Backlog,
    Fleet,
    /// Only where it is asked for.
    Profile,
}

impl Part {
    const ALL: [Self; 7] =
        [Self::Throughput, Self::Latency, Self::Start, Self::Many, Self::Memory, Self::Backlog, Self::Fleet];

    const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Start => "start",
            Self::Many => "many",
            Self::Memory => "memory",
            Self::Backlog => "backlog",
            Self::Fleet => "fleet",
            Self::Profile => "profile",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Throughput => "A full queue, worked until it is empty",
            Self::Latency => "A steady trickle of jobs: from publishing one to its result",
            Self::Start => "The first job after a start",
            Self::Many => "Ten thousand calls under way at once",
            Self::Memory => "What the ledger in memory takes",
            Self::Backlog => "A long queue, from its beginning to its end",
            Self::Profile => "Where the processor time goes",
            Self::Fleet => "Several workers on one queue",
        }
    }
}

impl FromStr for Part {
    type Err = Failed;

    fn from_str(name: &str) -> Result<Self, Failed> {
        let found = Self::ALL.into_iter().chain([Self::Profile]).find(|part| part.name() == name);
        found.ok_or_else(|| format!("no part is called {name}").into())
    }
}

pub(crate) struct Settings {
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: usize,
    /// Jobs of a run in which the endpoint takes no time.
    pub(crate) jobs: usize,
    /// Jobs on the long queue.
    pub(crate) backlog: usize,
    pub(crate) cells: Vec<Cell>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) programs: Programs,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, Failed> {
        let target = target();
        let settings = Self {
            parts: list("PARTS", &Part::ALL)?,
            rounds: setting("ROUNDS")?.unwrap_or(3),
            jobs: setting("JOBS")?.unwrap_or(40_000),
            backlog: setting("BACKLOG")?.unwrap_or(200_000),
            cells: list("CELLS", &Cell::ALL)?,
            contenders: list("CONTENDERS", &Contender::ALL)?,
            programs: Programs {
                worker: program("WORKER", &target.join("release/esms-otp-worker"))?,
                bare: program("BARE", &target.join("bare/release/bare"))?,
                bare_hyper: program("BARE_HYPER", &target.join("bare/release/bare-hyper"))?,
                sandbox: program("SANDBOX", &target.join("release/esms-sandbox"))?,
                peers: target.join("peers"),
            },
        };
        settings.check_programs()?;
        match settings {
            Settings { rounds: 0, .. } => Err("ROUNDS must be at least 1".into()),
            Settings { jobs: ..1_000 | 500_001.., .. } => Err("JOBS must be 1000 to 500000".into()),
            // The sandbox knows no more phones.
            Settings { backlog: ..1_000 | 1_000_001.., .. } => Err("BACKLOG must be 1000 to 1000000".into()),
            settings => Ok(settings),
        }
    }

    /// Fails where a program that is needed is not there.
    fn check_programs(&self) -> Result<(), Failed> {
        let Programs { worker, bare, bare_hyper, sandbox, .. } = &self.programs;
        let mut needed = vec![worker, sandbox];
        if self.contenders.contains(&Contender::Bare) || self.parts.contains(&Part::Start) {
            needed.push(bare);
        }
        if self.contenders.contains(&Contender::BareHyper) {
            needed.push(bare_hyper);
        }
        match needed.into_iter().find(|path| !path.is_file()) {
            Some(path) => Err(format!("{} is not there; `make bench` builds it", path.display()).into()),
            None => Ok(()),
        }
    }
}

/// Where the programs are built.
pub(crate) fn target() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(chosen.unwrap_or_else(|| "target".into()))
}

fn program(name: &str, usual: &Path) -> Result<PathBuf, Failed> {
    let chosen: Option<PathBuf> = setting(name)?;
    // Cargo runs a benchmark where the package is, as make does.
    Ok(std::path::absolute(chosen.as_deref().unwrap_or(usual))?)
}

fn list<T: FromStr<Err = Failed> + Copy>(name: &str, all: &[T]) -> Result<Vec<T>, Failed> {
    let Some(text) = setting::<String>(name)?.filter(|text| text != "all") else { return Ok(all.to_vec()) };
    let chosen = text.split(',').map(str::parse).collect::<Result<_, _>>();
    chosen.map_err(|error: Failed| format!("{name}: {error}").into())
}

fn setting<T: FromStr>(name: &str) -> Result<Option<T>, Failed> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| format!("{name}: not understood: {text}").into()),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}").into()),
    }
}

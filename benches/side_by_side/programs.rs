//! The programs that are measured, and where they are.

use std::path::PathBuf;

use crate::contender::Contender;

/// The programs that are measured.
pub(crate) struct Programs {
    pub(crate) worker: PathBuf,
    pub(crate) bare: PathBuf,
    pub(crate) bare_hyper: PathBuf,
    pub(crate) sandbox: PathBuf,
    /// Where the programs of other languages are installed.
    pub(crate) peers: PathBuf,
}

impl Programs {
    /// Why a contender cannot run on this machine, if it cannot.
    pub(crate) fn why_not(&self, contender: Contender) -> Option<String> {
        let (Contender::Node | Contender::FastStream) = contender else { return None };
        let there = self.peers.join(contender.name());
        if there.join("done").is_file() {
            return None;
        }
        let why = std::fs::read_to_string(there.join("why"));
        Some(why.map_or_else(|_| "not installed; `make bench` does it".into(), |why| why.trim_end().to_owned()))
    }

    /// A contender's program and arguments.
    pub(crate) fn command(&self, contender: Contender) -> (PathBuf, Vec<String>) {
        let of_peer = |file: &str| self.peers.join(contender.name()).join(file);
        let script = |file: &str| vec![of_peer(file).to_string_lossy().into_owned()];
        match contender {
            Contender::Bare => (self.bare.clone(), Vec::new()),
            Contender::BareHyper => (self.bare_hyper.clone(), Vec::new()),
            Contender::Worker | Contender::WorkerRedis => (self.worker.clone(), vec!["run".into()]),
            Contender::Node => ("node".into(), script("index.js")),
            Contender::FastStream => (of_peer("venv/bin/python"), script("main.py")),
        }
    }
}

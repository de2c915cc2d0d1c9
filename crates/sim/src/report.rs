//! What one run found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::FaultKind;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which checker found it.
    pub checker: String,
    /// What it is.
    pub what: String,
}

impl Report {
    /// The first thing that is wrong, in one line.
    pub fn worst(&self) -> Option<String> {
        let Found { checker, what } = self.violations.first()?;
        Some(format!("{checker}: {}", what.replace('\n', " ")))
    }
}

/// The result of one run: one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What everything came from.
    pub seed: u64,
    /// The bug that was put in.
    pub bug: Option<String>,
    /// Equal for equal runs; hexadecimal.
    pub trace_hash: String,
    /// Simulated time, seconds.
    pub simulated_s: f64,
    /// Time that it took, seconds.
    pub wall_s: f64,
    /// Operations of clients.
    pub ops: u64,
    /// Operations whose outcome their client could not learn.
    pub unknown: u64,
    /// Faults that came, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Times that a replica became leader of a range.
    pub elections: u64,
    /// Ranges at the end.
    pub ranges: u64,
    /// Which paths the nodes took: their own counters, summed up.
    pub coverage: BTreeMap<String, u64>,
    /// What each checker looked at.
    pub checked: BTreeMap<String, u64>,
    /// What is wrong.
    pub violations: Vec<Found>,
    /// Whether nothing is.
    pub ok: bool,
}

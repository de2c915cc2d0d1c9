//! The mutation score: would each of the bugs be found?

use cribwork_types::seeded::Bug;
use serde::Serialize;

use crate::report::Report;

/// What became of one bug.
#[derive(Clone, Debug, Serialize)]
pub struct Mutant {
    /// Its name.
    pub bug: &'static str,
    /// Whether some run found a violation.
    pub caught: bool,
    /// Seeds that it took, the one that caught it included.
    pub seeds: u64,
    /// The first checker that found something; empty if none did.
    pub checker: String,
    /// What it found.
    pub what: String,
}

/// Tries the seeds from `first` on, at most `max_seeds`, until one run with `bug` finds a violation.
///
/// # Errors
/// Those of `run`, which runs a seed with a bug in a process of its own.
pub fn mutants(
    bug: Bug,
    first: u64,
    max_seeds: u64,
    mut run: impl FnMut(u64, Bug) -> anyhow::Result<Report>,
) -> anyhow::Result<Mutant> {
    for tried in 0..max_seeds {
        let report = run(first + tried, bug)?;
        if let Some(found) = report.violations.into_iter().next() {
            return Ok(Mutant {
                bug: bug.name(),
                caught: true,
                seeds: tried + 1,
                checker: found.checker,
                what: found.what,
            });
        }
    }
    let (checker, what) = Default::default();
    Ok(Mutant { bug: bug.name(), caught: false, seeds: max_seeds, checker, what })
}

//! Fewer faults that still show the violation.

use serde::Serialize;

use crate::plan::{FaultKind, Plan};
use crate::report::Report;

/// The smallest set of faults that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Minimized {
    /// The seed.
    pub seed: u64,
    /// Faults without any of which the violation is not seen.
    pub faults: Vec<FaultKind>,
    /// Simulated seconds of load that suffice.
    pub duration_s: f64,
    /// What remains to be seen.
    pub report: Report,
}

/// Leaves out one kind of fault after another, then half of the time, as long as some violation is
/// still found; `None` if there is none to begin with. `run` runs a plan in a process of its own.
///
/// # Errors
/// Those of `run`.
pub fn minimize(
    plan: &Plan,
    mut run: impl FnMut(&Plan) -> anyhow::Result<Report>,
) -> anyhow::Result<Option<Minimized>> {
    let mut report = run(plan)?;
    if report.ok {
        return Ok(None);
    }
    let mut plan = plan.clone();
    for kind in FaultKind::ALL {
        let fewer = plan.without(kind);
        if fewer.faults.len() < plan.faults.len() {
            let next = run(&fewer)?;
            if !next.ok {
                (plan, report) = (fewer, next);
            }
        }
    }
    loop {
        let shorter = Plan { duration: plan.duration / 2, ..plan.clone() };
        let next = run(&shorter)?;
        if next.ok || shorter.duration.as_secs() == 0 {
            break;
        }
        (plan, report) = (shorter, next);
    }
    let faults = plan.faults.iter().map(|(kind, _)| *kind).collect();
    let (seed, duration_s) = (plan.seed, plan.duration.as_secs_f64());
    Ok(Some(Minimized { seed, faults, duration_s, report }))
}

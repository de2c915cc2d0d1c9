//! The report of workloads that write a history: what was measured, and what the checkers say.

use std::time::Duration;

use cribwork_checker::{History, Options, Outcome, Verdict as Checked};
use serde::Serialize;

use crate::{Summary, Verdict};

/// Steps of the search for an order, for each operation of the history. One that fits takes about one.
const STEPS_PER_OPERATION: u64 = 50;
/// Violations of one checker that the report tells; the history has them all.
const EVIDENCE_MAX: usize = 5;

/// Nanoseconds of a history. 64 bits hold 584 years.
pub(crate) fn nanos(now: Duration) -> u64 {
    now.as_nanos() as u64
}

/// Budgets that fit the history.
pub(crate) fn checker_options(history: &History) -> Options {
    let defaults = Options::default();
    let steps_max = defaults.steps_max.max(history.len() as u64 * STEPS_PER_OPERATION);
    Options { steps_max, ..defaults }
}

/// The result of a run whose history was checked. As JSON, the evidence is there only if there is some.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryReport {
    /// What every workload reports.
    #[serde(flatten)]
    pub summary: Summary,
    /// Unix time in milliseconds of the instant from which the times of the history count.
    pub clock_zero_unix_ms: i64,
    /// Operations in the history.
    pub operations: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// What each checker found.
    pub verdicts: Vec<CheckerVerdict>,
    /// True if the verdict is [`Verdict::Holds`].
    pub ok: bool,
    /// Violations, or why nothing is proved, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What the run proves.
    #[serde(skip)]
    pub verdict: Verdict,
}

/// What one checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckerVerdict {
    /// Name of the checker.
    pub checker: &'static str,
    /// Items it judged.
    pub checked: u64,
    /// Things that must not be.
    pub violations: u64,
    /// Whether it gave up.
    pub exhausted: bool,
}

impl HistoryReport {
    pub(crate) fn new(
        summary: Summary,
        clock_zero_unix_ms: i64,
        history: &History,
        verdicts: Vec<Checked>,
    ) -> Self {
        let unknown = |operation: &&_| is_unknown(operation);
        let (verdict, evidence) = judge(&summary, &verdicts);
        Self {
            clock_zero_unix_ms,
            operations: history.len() as u64,
            unknown: history.operations().iter().filter(unknown).count() as u64,
            verdicts: verdicts.iter().map(CheckerVerdict::from).collect(),
            ok: verdict == Verdict::Holds,
            evidence,
            verdict,
            summary,
        }
    }
}

fn is_unknown(operation: &cribwork_checker::Operation) -> bool {
    operation.outcome == Outcome::Unknown
}

impl From<&Checked> for CheckerVerdict {
    fn from(verdict: &Checked) -> Self {
        Self {
            checker: verdict.checker,
            checked: verdict.checked,
            violations: verdict.violations.len() as u64 + verdict.unlisted,
            exhausted: verdict.exhausted,
        }
    }
}

fn judge(summary: &Summary, verdicts: &[Checked]) -> (Verdict, Vec<String>) {
    let mut evidence = Vec::new();
    for verdict in verdicts {
        for violation in verdict.violations.iter().take(EVIDENCE_MAX) {
            let ops = violation.ops.iter().take(20).collect::<Vec<_>>();
            evidence.push(format!("{}: {} (operations {ops:?})", verdict.checker, violation.what));
        }
    }
    if verdicts.iter().any(|verdict| !verdict.violations.is_empty()) {
        return (Verdict::Violated, evidence);
    }
    if summary.ops == 0 {
        evidence.push("no operation was acknowledged: nothing is proved".to_owned());
    }
    for verdict in verdicts {
        if verdict.exhausted {
            evidence
                .push(format!("{}: gave up before it had searched everything", verdict.checker));
        } else if verdict.checked == 0 {
            evidence.push(format!("{}: had nothing to judge", verdict.checker));
        }
    }
    match evidence.is_empty() {
        true => (Verdict::Holds, evidence),
        false => (Verdict::Unchecked, evidence),
    }
}

#[cfg(test)]
mod tests {
    use cribwork_checker::{Op, Operation, acknowledged, linearizable};

    use super::*;

    fn operation(invoke: u64, is_final: bool, op: Op) -> Operation {
        let (process, complete) = (invoke, Some(invoke + 5));
        Operation { process, invoke, complete, outcome: Outcome::Ok, is_final, op }
    }

    fn report(ops: u64, operations: Vec<Operation>) -> HistoryReport {
        let history = History::try_from(operations).unwrap();
        let options = checker_options(&history);
        let verdicts = vec![linearizable(&history, &options), acknowledged(&history, &options)];
        HistoryReport::new(Summary { ops, ..Summary::default() }, 0, &history, verdicts)
    }

    fn put(value: &str) -> Op {
        Op::Put { key: "k".into(), value: value.into() }
    }

    fn get(value: Option<&str>) -> Op {
        Op::Get { key: "k".into(), value: value.map(Into::into) }
    }

    #[test]
    fn what_was_written_and_read_holds() {
        let report =
            report(1, vec![operation(0, false, put("a")), operation(10, true, get(Some("a")))]);
        assert_eq!((report.verdict, report.ok), (Verdict::Holds, true), "{report:?}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdicts"][0]["checker"], "linearizable");
        assert!(json.get("evidence").is_none());
    }

    #[test]
    fn a_lost_write_is_a_violation() {
        let report = report(1, vec![operation(0, false, put("a")), operation(10, true, get(None))]);
        assert_eq!((report.verdict, report.ok), (Verdict::Violated, false));
        assert!(!report.evidence.is_empty());
    }

    #[test]
    fn without_last_reads_nothing_is_proved() {
        let report = report(1, vec![operation(0, false, put("a"))]);
        assert_eq!((report.verdict, report.ok), (Verdict::Unchecked, false));
    }
}

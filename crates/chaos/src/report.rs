//! What a run found, as `report.json` has it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::gaps::Seen;
use crate::kind::Kind;
use crate::load::Ended;
use crate::nemesis::Done;
use crate::stores::Compared;

/// What a run proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Every check holds.
    Holds,
    /// Something that was promised is not so.
    Violated,
    /// A workload could not judge.
    Unchecked,
}

impl Verdict {
    /// The worse of two.
    pub(crate) fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Verdict::Violated, _) | (_, Verdict::Violated) => Verdict::Violated,
            (Verdict::Unchecked, _) | (_, Verdict::Unchecked) => Verdict::Unchecked,
            (Verdict::Holds, Verdict::Holds) => Verdict::Holds,
        }
    }
}

/// A fault that was done. Times are seconds since the load began.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FaultRow {
    pub(crate) kind: Kind,
    pub(crate) target: String,
    pub(crate) start_s: f64,
    /// When it was undone.
    pub(crate) end_s: f64,
    /// When every node was ready and every range led again.
    pub(crate) ready_s: f64,
    /// Longest time without an acknowledged operation of the register workload that overlaps it.
    pub(crate) gap_ms: f64,
    /// Longest operation that overlaps it.
    pub(crate) slowest_ms: f64,
    pub(crate) notes: Vec<String>,
    pub(crate) problems: Vec<String>,
}

/// All faults of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct KindRow {
    pub(crate) kind: Kind,
    pub(crate) runs: usize,
    pub(crate) gap_ms_max: f64,
    pub(crate) gap_ms_median: f64,
    pub(crate) slowest_ms_max: f64,
    /// Longest time from undoing it until the cluster was whole.
    pub(crate) recovery_ms_max: f64,
}

/// A kind that this machine cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    pub(crate) kind: Kind,
    pub(crate) reason: String,
}

/// A workload's own judgement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadRow {
    pub(crate) name: &'static str,
    /// Its exit status; null if it had to be ended.
    pub(crate) exit: Option<i32>,
    /// What it printed; null if it printed nothing.
    pub(crate) report: Option<Value>,
    /// The last it said, if it failed.
    pub(crate) said: String,
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) ok: bool,
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) started_unix_ms: u64,
    pub(crate) duration_s: f64,
    pub(crate) kinds: Vec<KindRow>,
    pub(crate) skipped: Vec<Skipped>,
    /// Kinds whose turn did not come in the time.
    pub(crate) not_reached: Vec<Kind>,
    pub(crate) faults: Vec<FaultRow>,
    pub(crate) loads: Vec<LoadRow>,
    /// Whether the stores of the stopped nodes were equal in the end; null if they were not compared.
    pub(crate) stores: Option<Compared>,
    /// What should not have happened, beside what the workloads found.
    pub(crate) problems: Vec<String>,
    /// Acknowledged operations of the register workload in each second of the load.
    pub(crate) ops_per_second: Vec<u64>,
}

/// What a report is made of.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) begun_unix_ms: f64,
    pub(crate) duration_s: f64,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) done: Vec<Done>,
    pub(crate) loads: Vec<Ended>,
    pub(crate) stores: Option<Compared>,
    pub(crate) problems: Vec<String>,
}

impl Report {
    pub(crate) fn new(findings: Findings, seen: &Seen) -> Self {
        let begun = findings.begun_unix_ms;
        let faults: Vec<_> = findings.done.iter().map(|done| row(done, begun, seen)).collect();
        let mut problems = findings.problems;
        for fault in &faults {
            let name = fault.kind.name();
            problems.extend(fault.problems.iter().map(|problem| format!("{name}: {problem}")));
        }
        let kinds = by_kind(&faults);
        let met = |kind: &Kind| kinds.iter().any(|row| row.kind == *kind);
        let stores = findings.stores.as_ref().map_or(Verdict::Unchecked, Compared::verdict);
        let verdict = verdict(&findings.loads, &problems).worse(stores);
        Self {
            verdict,
            ok: verdict == Verdict::Holds,
            seed: findings.seed,
            nodes: findings.nodes,
            started_unix_ms: begun as u64,
            duration_s: findings.duration_s,
            not_reached: findings.kinds.into_iter().filter(|kind| !met(kind)).collect(),
            skipped: findings.skipped,
            loads: findings.loads.into_iter().map(LoadRow::from).collect(),
            stores: findings.stores,
            ops_per_second: seen.per_second(),
            kinds,
            faults,
            problems,
        }
    }

    /// The report without what only a picture needs, in one line's worth.
    pub(crate) fn summary(&self) -> Value {
        let gaps: BTreeMap<_, _> =
            self.kinds.iter().map(|row| (row.kind.name(), row.gap_ms_max)).collect();
        let load = |name| self.loads.iter().find(|load| load.name == name).map(|load| &load.report);
        json!({
            "ok": self.ok,
            "verdict": self.verdict,
            "seed": self.seed,
            "faults": self.faults.len(),
            "gap_ms": gaps,
            "skipped": self.skipped,
            "not_reached": self.not_reached,
            "problems": self.problems,
            "bank": load("bank"),
            "register": load("register"),
            "append": load("append"),
            "stores": self.stores,
        })
    }
}

impl From<Ended> for LoadRow {
    fn from(ended: Ended) -> Self {
        Self { name: ended.name, exit: ended.code, report: ended.report, said: ended.said }
    }
}

fn row(done: &Done, begun_unix_ms: f64, seen: &Seen) -> FaultRow {
    let window = (done.begun_ms - begun_unix_ms, done.ready_ms - begun_unix_ms);
    let seconds = |unix_ms: f64| round((unix_ms - begun_unix_ms) / 1e3, 3);
    FaultRow {
        kind: done.kind,
        target: done.target.clone(),
        start_s: seconds(done.begun_ms),
        end_s: seconds(done.undone_ms),
        ready_s: seconds(done.ready_ms),
        gap_ms: round(seen.gap_ms(window), 1),
        slowest_ms: round(seen.slowest_ms(window), 1),
        notes: done.notes.clone(),
        problems: done.problems.clone(),
    }
}

fn by_kind(faults: &[FaultRow]) -> Vec<KindRow> {
    let mut groups: BTreeMap<Kind, Vec<&FaultRow>> = BTreeMap::new();
    for fault in faults {
        groups.entry(fault.kind).or_default().push(fault);
    }
    let rows = groups.into_iter().map(|(kind, rows)| {
        let most = |of: fn(&FaultRow) -> f64| rows.iter().map(|row| of(row)).fold(0.0, f64::max);
        let mut gaps: Vec<f64> = rows.iter().map(|row| row.gap_ms).collect();
        gaps.sort_by(f64::total_cmp);
        KindRow {
            kind,
            runs: rows.len(),
            gap_ms_max: most(|row| row.gap_ms),
            gap_ms_median: round((gaps[(gaps.len() - 1) / 2] + gaps[gaps.len() / 2]) / 2.0, 1),
            slowest_ms_max: most(|row| row.slowest_ms),
            recovery_ms_max: round(most(|row| (row.ready_s - row.end_s) * 1e3), 1),
        }
    });
    rows.collect()
}

fn verdict(loads: &[Ended], problems: &[String]) -> Verdict {
    let violated = loads.iter().any(|load| load.code == Some(2));
    if violated || !problems.is_empty() {
        return Verdict::Violated;
    }
    match !loads.is_empty() && loads.iter().all(|load| load.code == Some(0)) {
        true => Verdict::Holds,
        false => Verdict::Unchecked,
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>) -> Ended {
        Ended { name: "bank", code, report: Some(json!({"ok": true})), said: String::new() }
    }

    pub(crate) fn done(kind: Kind, begun_ms: f64) -> Done {
        Done {
            kind,
            target: "node1".into(),
            begun_ms,
            undone_ms: begun_ms + 2000.0,
            ready_ms: begun_ms + 3500.0,
            notes: Vec::new(),
            problems: Vec::new(),
            recovered: true,
        }
    }

    #[test]
    fn the_verdict_is_the_worst() {
        assert_eq!(verdict(&[ended(Some(0)), ended(Some(0))], &[]), Verdict::Holds);
        assert_eq!(verdict(&[ended(Some(0)), ended(Some(2))], &[]), Verdict::Violated);
        assert_eq!(verdict(&[ended(Some(1)), ended(Some(2))], &[]), Verdict::Violated);
        assert_eq!(verdict(&[ended(Some(0)), ended(Some(1))], &[]), Verdict::Unchecked);
        assert_eq!(verdict(&[ended(None)], &[]), Verdict::Unchecked);
        assert_eq!(verdict(&[], &[]), Verdict::Unchecked);
        let problems = ["node1: panicked".to_owned()];
        assert_eq!(verdict(&[ended(Some(0))], &problems), Verdict::Violated);
    }

    #[test]
    fn kinds_are_summed_up_and_the_others_named() {
        let findings = Findings {
            begun_unix_ms: 10_000.0,
            kinds: vec![Kind::Pause, Kind::Loss],
            done: vec![done(Kind::Pause, 12_000.0), done(Kind::Pause, 20_000.0)],
            loads: vec![ended(Some(0))],
            stores: Some(Compared { exit: Some(0), ..Compared::default() }),
            ..Findings::default()
        };
        let report = Report::new(findings, &Seen::default());
        assert_eq!(report.verdict, Verdict::Holds);
        assert_eq!(report.not_reached, [Kind::Loss]);
        let [row] = &report.kinds[..] else { panic!("{report:?}") };
        assert_eq!((row.kind, row.runs, row.recovery_ms_max), (Kind::Pause, 2, 1500.0));
        assert_eq!((report.faults[0].start_s, report.faults[0].end_s), (2.0, 4.0));
        let unequal = Some(Compared { exit: Some(2), ..Compared::default() });
        for (stores, verdict) in [(None, Verdict::Unchecked), (unequal, Verdict::Violated)] {
            let loads = vec![ended(Some(0))];
            let findings = Findings { loads, stores, ..Findings::default() };
            assert_eq!(Report::new(findings, &Seen::default()).verdict, verdict);
        }
        let summary = report.summary();
        assert_eq!(summary["gap_ms"]["pause"], 0.0);
        assert_eq!(summary["bank"]["ok"], true);
    }
}

//! What bank says in the end.

use cribwork_client::ClientError;
use serde::Serialize;

use super::audit::SnapshotTotals;
use super::checker::Findings;
use super::ledger::Ledger;
use super::transfer::{Known, Record};
use crate::Summary;

/// What a run proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was checked holds.
    Holds,
    /// An invariant is violated; the evidence says how.
    Violated,
    /// Nothing is proved: no transfer committed, or the ledger could not be read.
    Unchecked,
}

/// The result of a run. As JSON, the evidence is there only if there is some.
#[derive(Clone, Debug, Serialize)]
pub struct BankReport {
    /// What every workload reports.
    #[serde(flatten)]
    pub summary: Summary,
    /// Transfers that were acknowledged.
    pub committed: u64,
    /// Attempts that lost to another transaction and were made again.
    pub conflicts: u64,
    /// Transfers whose outcome the client does not know.
    pub unknown: u64,
    /// The sum of all balances at the beginning.
    pub total_expected: i64,
    /// The sum of all balances at the end; absent if they could not be read.
    pub total_observed: Option<i64>,
    /// Acknowledged transfers without a receipt.
    pub acknowledged_lost: u64,
    /// Receipts of attempts that had certainly failed.
    pub aborted_but_applied: u64,
    /// Accounts whose balance is not what their receipts make.
    pub replay_mismatch: u64,
    /// True if the verdict is [`Verdict::Holds`].
    pub ok: bool,
    /// Violations, or why nothing is proved, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What the run proves.
    #[serde(skip)]
    pub verdict: Verdict,
}

impl BankReport {
    pub(super) fn new(
        summary: Summary,
        ledger: &Ledger,
        records: &[Record],
        totals: SnapshotTotals,
        findings: Result<Findings, ClientError>,
    ) -> Self {
        let count = |wanted| {
            let attempts = records.iter().flat_map(|record| &record.attempts);
            attempts.filter(|known| **known == wanted).count() as u64
        };
        let mut report = Self {
            committed: count(Known::Acknowledged),
            conflicts: records.iter().map(|record| record.conflicts).sum(),
            unknown: count(Known::Unknown),
            total_expected: ledger.total(),
            total_observed: None,
            acknowledged_lost: 0,
            aborted_but_applied: 0,
            replay_mismatch: 0,
            ok: false,
            evidence: Vec::new(),
            verdict: Verdict::Unchecked,
            summary,
        };
        let mut violated = !totals.wrong.is_empty();
        for (ts, total) in totals.wrong {
            let expected = ledger.total();
            report.evidence.push(format!("at snapshot {ts} the total is {total}, not {expected}"));
        }
        let mut checked = report.committed > 0;
        if !checked {
            report.evidence.push("no transfer was committed: nothing is proved".to_owned());
        }
        match findings {
            Ok(findings) => violated |= report.take(findings),
            Err(error) => {
                checked = false;
                report.evidence.push(format!("the ledger could not be read: {error}"));
            }
        }
        report.verdict = match (violated, checked) {
            (true, _) => Verdict::Violated,
            (false, true) => Verdict::Holds,
            (false, false) => Verdict::Unchecked,
        };
        report.ok = report.verdict == Verdict::Holds;
        report
    }

    /// True if something is violated.
    fn take(&mut self, findings: Findings) -> bool {
        self.total_observed = Some(findings.total_observed);
        self.acknowledged_lost = findings.acknowledged_lost;
        self.aborted_but_applied = findings.aborted_but_applied;
        self.replay_mismatch = findings.replay_mismatch;
        self.evidence.extend(findings.evidence);
        let counts = findings.acknowledged_lost
            + findings.aborted_but_applied
            + findings.replay_mismatch
            + findings.others;
        counts > 0 || findings.total_observed != self.total_expected
    }
}

#[cfg(test)]
mod tests {
    use cribwork_types::Timestamp;

    use super::*;
    use crate::keyspace::KeySpace;

    fn report(findings: Result<Findings, ClientError>, wrong: &[(Timestamp, i64)]) -> BankReport {
        let ledger = Ledger::new(KeySpace::new(*b"bank", 4), Timestamp(1), 3);
        let attempts = vec![Known::Acknowledged, Known::Aborted, Known::Unknown];
        let records = [Record { attempts, conflicts: 1 }];
        let totals = SnapshotTotals { read: 1, wrong: wrong.to_vec() };
        let summary = Summary { workload: "bank", ..Default::default() };
        BankReport::new(summary, &ledger, &records, totals, findings)
    }

    fn good() -> Findings {
        Findings { total_observed: 3000, ..Default::default() }
    }

    #[test]
    fn the_fields_that_scripts_rely_on() {
        let json = serde_json::to_value(report(Ok(good()), &[])).unwrap();
        let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let mut wanted = [
            "workload",
            "workers",
            "duration_s",
            "ops",
            "ops_per_s",
            "errors",
            "p50_ms",
            "p95_ms",
            "p99_ms",
            "max_ms",
            "max_gap_ms",
            "max_range_gap_ms",
            "worker_ops_min",
            "worker_ops_mean",
            "committed",
            "conflicts",
            "unknown",
            "total_expected",
            "total_observed",
            "acknowledged_lost",
            "aborted_but_applied",
            "replay_mismatch",
            "ok",
        ];
        wanted.sort_unstable();
        assert_eq!(fields, wanted);
        assert_eq!(json["committed"], 1);
        assert_eq!(json["unknown"], 1);
        assert_eq!(json["ok"], true);
    }

    #[test]
    fn every_finding_is_a_violation() {
        let bad = [
            Findings { acknowledged_lost: 1, ..good() },
            Findings { aborted_but_applied: 1, ..good() },
            Findings { replay_mismatch: 1, ..good() },
            Findings { others: 1, ..good() },
            Findings { total_observed: 2999, ..good() },
        ];
        for findings in bad {
            let report = report(Ok(findings.clone()), &[]);
            assert_eq!((report.verdict, report.ok), (Verdict::Violated, false), "{findings:?}");
        }
    }

    #[test]
    fn a_wrong_snapshot_is_a_violation_even_if_the_end_cannot_be_read() {
        let unreadable = || ClientError::Connect { why: "down".to_owned() };
        let seen = report(Err(unreadable()), &[(Timestamp(9), 2999)]);
        assert_eq!(seen.verdict, Verdict::Violated);
        assert_eq!(report(Ok(good()), &[(Timestamp(9), 2999)]).verdict, Verdict::Violated);
        let unseen = report(Err(unreadable()), &[]);
        assert_eq!((unseen.verdict, unseen.total_observed), (Verdict::Unchecked, None));
        assert_eq!(unseen.evidence.len(), 1);
    }
}

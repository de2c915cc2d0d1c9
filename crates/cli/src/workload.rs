//! Runs workloads and turns their reports into output and an exit status.

use std::sync::Arc;

use cribwork_client::Client;
use cribwork_types::Runtime;
use cribwork_workload::{
    BankOptions, BankReport, KvOptions, KvReport, Summary, Verdict, run_bank, run_kv,
};

use crate::args::{Format, Workload};
use crate::failure::{Failure, exit};
use crate::output::print_fields;
use crate::run::Context;

pub(crate) async fn workload(context: &Context, workload: Workload) -> Result<(), Failure> {
    let client = context.connect().await?;
    let format = context.global.output;
    match workload {
        Workload::Bank(options) => {
            bank(&client, &context.runtime, &BankOptions::from(options), format).await
        }
        Workload::Kv(options) => {
            let options = KvOptions::from(options);
            let report: KvReport = run_kv(&client, &context.runtime, &options).await?;
            print_fields(format, &report)?;
            judge_kv(&report.summary)
        }
    }
}

/// Runs bank and prints its report.
pub(crate) async fn bank(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    options: &BankOptions,
    format: Format,
) -> Result<(), Failure> {
    let report = run_bank(client, runtime, options).await?;
    print_fields(format, &report)?;
    judge_bank(&report)
}

fn judge_bank(report: &BankReport) -> Result<(), Failure> {
    let evidence = report.evidence.join("; ");
    match report.verdict {
        Verdict::Holds => Ok(()),
        Verdict::Violated => Err(Failure {
            exit: exit::VIOLATED,
            ..Failure::new(
                "CW-CLI-VIOLATED",
                format!("an invariant is violated: {evidence}"),
                "keep the data directories and logs of all nodes, and report this",
            )
        }),
        Verdict::Unchecked => Err(Failure::new(
            "CW-CLI-UNCHECKED",
            format!("nothing is proved: {evidence}"),
            "see `cribwork status` for ranges without a leader, then run it again",
        )),
    }
}

fn judge_kv(summary: &Summary) -> Result<(), Failure> {
    if summary.ops > 0 {
        return Ok(());
    }
    let message = format!("no operation succeeded, {} failed", summary.errors);
    let hint = "see `cribwork status` for ranges without a leader";
    Err(Failure::new("CW-CLI-NO-OPERATION", message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> BankReport {
        BankReport {
            summary: Summary::default(),
            committed: 1,
            conflicts: 0,
            unknown: 0,
            total_expected: 2000,
            total_observed: Some(2000),
            acknowledged_lost: 0,
            aborted_but_applied: 0,
            replay_mismatch: 0,
            ok: verdict == Verdict::Holds,
            evidence: vec!["account 3 is gone".to_owned()],
            verdict,
        }
    }

    #[test]
    fn the_verdict_makes_the_exit_status() {
        assert_eq!(judge_bank(&report(Verdict::Holds)), Ok(()));
        let violated = judge_bank(&report(Verdict::Violated)).unwrap_err();
        assert_eq!(violated.exit, exit::VIOLATED);
        assert!(violated.message.contains("account 3 is gone"));
        assert_eq!(judge_bank(&report(Verdict::Unchecked)).unwrap_err().exit, exit::FAILED);
    }

    #[test]
    fn a_load_without_success_has_failed() {
        assert_eq!(judge_kv(&Summary { ops: 1, errors: 5, ..Default::default() }), Ok(()));
        assert!(judge_kv(&Summary::default()).is_err());
    }
}

//! Runs workloads and turns their reports into output and an exit status.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use cribwork_checker::History;
use cribwork_client::Client;
use cribwork_types::Runtime;
use cribwork_workload::{
    AppendOptions, BankOptions, HistoryReport, KvOptions, KvReport, RegisterOptions, Summary,
    Verdict, WorkloadError, run_append, run_bank, run_kv, run_register,
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
        Workload::Register(flags) => {
            let options = RegisterOptions::from(&flags);
            let run = run_register(&client, &context.runtime, &options);
            recorded(run, flags.history.as_deref(), format).await
        }
        Workload::Append(flags) => {
            let options = AppendOptions::from(&flags);
            let run = run_append(&client, &context.runtime, &options);
            recorded(run, flags.history.as_deref(), format).await
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
    judge(report.verdict, &report.evidence)
}

/// Runs a workload that writes a history, keeps that if asked for, and prints the report.
async fn recorded(
    run: impl Future<Output = Result<(HistoryReport, History), WorkloadError>>,
    path: Option<&Path>,
    format: Format,
) -> Result<(), Failure> {
    let file = path.map(create).transpose()?;
    let (report, history) = run.await?;
    if let Some(file) = file {
        save(file, &history)?;
    }
    print_fields(format, &report)?;
    judge(report.verdict, &report.evidence)
}

/// The file of a history. Made before the load: nobody wants to hear of a typing error after it.
fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::system(&path.display().to_string(), &error))
}

fn save(file: File, history: &History) -> Result<(), Failure> {
    let mut file = BufWriter::new(file);
    let hint = "look at the disk; the run itself is not affected";
    let failed = |why: String| Failure::new("CW-CLI-SYSTEM", format!("history: {why}"), hint);
    history.write(&mut file).map_err(|error| failed(error.to_string()))?;
    file.flush().map_err(|error| failed(error.to_string()))
}

fn judge(verdict: Verdict, evidence: &[String]) -> Result<(), Failure> {
    let evidence = evidence.join("; ");
    match verdict {
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

    #[test]
    fn the_verdict_makes_the_exit_status() {
        let evidence = ["account 3 is gone".to_owned()];
        assert_eq!(judge(Verdict::Holds, &[]), Ok(()));
        let violated = judge(Verdict::Violated, &evidence).unwrap_err();
        assert_eq!(violated.exit, exit::VIOLATED);
        assert!(violated.message.contains("account 3 is gone"));
        assert_eq!(judge(Verdict::Unchecked, &evidence).unwrap_err().exit, exit::FAILED);
    }

    #[test]
    fn a_load_without_success_has_failed() {
        assert_eq!(judge_kv(&Summary { ops: 1, errors: 5, ..Default::default() }), Ok(()));
        assert!(judge_kv(&Summary::default()).is_err());
    }
}

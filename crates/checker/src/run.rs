//! All checkers that apply, and their verdicts together.

use std::io::Write;

use serde::Serialize;

use crate::history::write_line;
use crate::{
    CheckerError, Dump, History, Op, Options, Step, Verdict, acknowledged, append, bank,
    fingerprints, linearizable, long_fork, replay, timestamps, watermark,
};

/// The verdicts on one history. Serialised, an object with these fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Verdicts of the checkers that apply, in a fixed order.
    pub verdicts: Vec<Verdict>,
    /// Checkers that had nothing to look at, in the same order.
    pub skipped: Vec<&'static str>,
    /// Names in [`Options::required`] without a verdict on at least one item. A name that no checker
    /// has is always among them.
    pub missing: Vec<String>,
}

impl Report {
    /// Whether every verdict is, and nothing that was required is missing.
    pub fn ok(&self) -> bool {
        self.missing.is_empty() && self.verdicts.iter().all(Verdict::ok)
    }

    /// The verdict of the checker of this name, if it applied.
    pub fn verdict(&self, checker: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.checker == checker)
    }

    /// Writes it as one line of JSON.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn write(&self, mut output: impl Write) -> Result<(), CheckerError> {
        write_line(&mut output, self)
    }
}

type Check = fn(&History, &Options) -> Verdict;
type Applies = fn(&History) -> bool;

const CHECKERS: &[(&str, Applies, Check)] = &[
    ("linearizable", has_raw, linearizable),
    ("append", has_lists, append),
    ("bank", |history| has(history, |op| matches!(op, Op::Bank { .. })), bank),
    ("long-fork", has_register_reads, long_fork),
    ("acknowledged", |history| history.finals().next().is_some(), acknowledged),
    ("timestamps", |history| has(history, |op| matches!(op, Op::Timestamps { .. })), timestamps),
    ("watermark", |history| has(history, |op| matches!(op, Op::Watermark { .. })), watermark),
    (
        "fingerprints",
        |history| has(history, |op| matches!(op, Op::Fingerprint { .. })),
        fingerprints,
    ),
];

/// Runs every checker that applies: those whose operations are in the history, and `replay` if there is
/// a dump.
pub fn check_all(history: &History, dump: Option<&Dump>, options: &Options) -> Report {
    let mut report = Report { verdicts: Vec::new(), skipped: Vec::new(), missing: Vec::new() };
    for (name, applies, check) in CHECKERS {
        if applies(history) {
            report.verdicts.push(check(history, options));
        } else {
            report.skipped.push(name);
        }
    }
    match dump {
        Some(dump) => report.verdicts.push(replay(history, dump, options)),
        None => report.skipped.push("replay"),
    }
    let judged = |name: &str| report.verdict(name).is_some_and(|verdict| verdict.checked > 0);
    report.missing = options.required.iter().filter(|name| !judged(name)).cloned().collect();
    report
}

fn has(history: &History, wanted: impl Fn(&Op) -> bool) -> bool {
    history.operations().iter().any(|operation| wanted(&operation.op))
}

fn has_raw(history: &History) -> bool {
    has(history, |op| {
        matches!(op, Op::Get { .. } | Op::Put { .. } | Op::Delete { .. } | Op::Cas { .. })
    })
}

fn has_step(history: &History, wanted: impl Fn(&Step) -> bool) -> bool {
    history.transactions().any(|(_, _, txn)| txn.steps.iter().any(&wanted))
}

fn has_lists(history: &History) -> bool {
    has_step(history, |step| matches!(step, Step::Append { .. } | Step::List { .. }))
}

fn has_register_reads(history: &History) -> bool {
    has_step(history, |step| matches!(step, Step::Get { .. }))
}

//! Timestamps of the oracle: unique, and rising in real time.

use crate::realtime::{Sighting, for_each_preceded};
use crate::{History, Op, Options, Verdict};

/// Checks acknowledged answers of the timestamp oracle: no timestamp is in two of them, and all of one
/// that began after another was complete are higher. Items: acknowledged answers.
pub fn timestamps(history: &History, _options: &Options) -> Verdict {
    let mut verdict = Verdict::new("timestamps");
    let mut answers = Vec::new();
    for (index, operation) in history.iter().filter(|(_, operation)| operation.is_ok()) {
        if let Op::Timestamps { first, count } = operation.op {
            let complete = operation.complete.unwrap_or(u64::MAX);
            let high = first + (count - 1);
            let invoke = operation.invoke;
            answers.push(Sighting { index, invoke, complete, low: first, high });
        }
    }
    verdict.checked = answers.len() as u64;
    for_each_preceded(&answers, false, |earlier, later| {
        if later.low <= earlier.high {
            let what = format!("not rising: {} after {}", later.low, earlier.high);
            verdict.violation(what, [earlier.index, later.index]);
        }
    });
    answers.sort_by_key(|answer| (answer.low, answer.high));
    let mut highest: Option<Sighting> = None;
    for answer in answers {
        if let Some(earlier) = highest
            && answer.low <= earlier.high
        {
            let what = format!("not unique: {}", answer.low);
            verdict.violation(what, [earlier.index, answer.index]);
        }
        highest = highest.filter(|earlier| earlier.high >= answer.high).or(Some(answer));
    }
    verdict
}

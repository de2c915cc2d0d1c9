//! Final reads of registers.

use std::collections::BTreeMap;

use crate::blob::shown;
use crate::{Blob, History, Operation, Outcome, Verdict};

use super::{Events, Write, is_certain};

/// The writes of one register, and what the acknowledged ones have overtaken.
#[derive(Debug, Default)]
struct Register<'a> {
    writes: Vec<Write<'a>>,
    /// The latest beginning of a write that certainly happened.
    latest_invoke: Option<u64>,
    /// The highest commit timestamp of a write that certainly happened.
    highest_commit: Option<u64>,
    any_certain: Option<usize>,
}

impl<'a> Register<'a> {
    fn add(&mut self, operation: &Operation, write: Write<'a>) {
        if is_certain(operation) {
            self.any_certain = Some(write.index);
            self.latest_invoke = self.latest_invoke.max(Some(operation.invoke));
            self.highest_commit = self.highest_commit.max(write.commit_ts);
        }
        self.writes.push(write);
    }

    /// Whether the write may have been the last that took effect.
    fn may_be_last(&self, history: &History, write: &Write<'a>) -> bool {
        let Some(operation) = history.get(write.index) else { return false };
        if operation.outcome == Outcome::Failed {
            return false;
        }
        if let (Some(commit_ts), Some(highest)) = (write.commit_ts, self.highest_commit) {
            return commit_ts >= highest;
        }
        let overtaken = operation.is_ok()
            && operation.complete.zip(self.latest_invoke).is_some_and(|(end, begin)| end < begin);
        !overtaken
    }
}

/// Checks the registers of which `events` tells.
pub(super) fn check<'a>(
    history: &'a History,
    events: impl Fn(usize, &'a Operation) -> Events<'a>,
    verdict: &mut Verdict,
) {
    let mut registers: BTreeMap<&Blob, Register<'_>> = BTreeMap::new();
    let mut reads: BTreeMap<&Blob, Vec<(usize, Option<&Blob>)>> = BTreeMap::new();
    for (index, operation) in history.iter() {
        let events = events(index, operation);
        for (key, write) in events.writes {
            registers.entry(key).or_default().add(operation, write);
        }
        for (key, value) in events.final_reads {
            reads.entry(key).or_default().push((index, value));
        }
    }
    if reads.is_empty() {
        return;
    }
    let untouched = Register::default();
    for (key, reads) in &reads {
        let register = registers.get(key).unwrap_or(&untouched);
        for &(index, value) in reads {
            verdict.checked += 1;
            one_read(history, (index, key, value), register, verdict);
        }
    }
    for (key, register) in registers.iter().filter(|(key, _)| !reads.contains_key(*key)) {
        if let Some(index) = register.any_certain {
            verdict.violation(format!("no final read of {key}"), [index]);
        }
    }
}

fn one_read(
    history: &History,
    (index, key, value): (usize, &Blob, Option<&Blob>),
    register: &Register<'_>,
    verdict: &mut Verdict,
) {
    let mut same = register.writes.iter().filter(|write| write.value == value);
    let explained = same.clone().any(|write| register.may_be_last(history, write));
    if explained || value.is_none() && register.any_certain.is_none() {
        return;
    }
    let text = shown(value);
    match (same.next(), register.any_certain) {
        (Some(write), _) => {
            let what = format!("overwritten or failed, but there in the end: {key} holds {text}");
            verdict.violation(what, [write.index, index]);
        }
        (None, Some(lost)) => {
            let what = format!("acknowledged but lost: {key} holds {text}");
            verdict.violation(what, [lost, index]);
        }
        (None, None) => {
            let what = format!("from nowhere: {key} holds {text}");
            verdict.violation(what, [index]);
        }
    }
}

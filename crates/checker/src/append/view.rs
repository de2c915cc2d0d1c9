//! The transactions on lists that count, and who appended what.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, History, Isolation, Outcome, Step, Txn};

/// A step on a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListStep<'a> {
    Append(&'a Blob, u64),
    Read(&'a Blob, &'a [u64]),
}

/// A transaction that counts as committed.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    /// In the history.
    pub(super) index: usize,
    pub(super) isolation: Isolation,
    pub(super) steps: Vec<ListStep<'a>>,
}

impl<'a> Transaction<'a> {
    /// Its appends, in order.
    pub(super) fn appends(&self) -> impl Iterator<Item = (&'a Blob, u64)> {
        self.steps.iter().filter_map(|step| match step {
            ListStep::Append(key, element) => Some((*key, *element)),
            ListStep::Read(..) => None,
        })
    }

    /// Its reads, in order.
    pub(super) fn reads(&self) -> impl Iterator<Item = (&'a Blob, &'a [u64])> {
        self.steps.iter().filter_map(|step| match step {
            ListStep::Read(key, elements) => Some((*key, *elements)),
            ListStep::Append(..) => None,
        })
    }
}

/// One element of one key.
pub(super) type Element<'a> = (&'a Blob, u64);

/// Who appended an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Position in [`View::transactions`]; `None` if the transaction failed, or nobody saw of it.
    pub(super) node: Option<usize>,
    /// In the history.
    pub(super) index: usize,
    pub(super) failed: bool,
    /// Whether the transaction appended to the same key once more.
    pub(super) intermediate: bool,
}

/// What the checker looks at.
#[derive(Debug, Default)]
pub(super) struct View<'a> {
    pub(super) transactions: Vec<Transaction<'a>>,
    pub(super) writers: BTreeMap<Element<'a>, Writer>,
    /// Elements that are appended more than once, with the operations that do.
    pub(super) repeated: BTreeMap<Element<'a>, Vec<usize>>,
}

impl<'a> View<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let seen = seen(history);
        let mut view = Self::default();
        for (index, operation, txn) in history.transactions() {
            let steps = steps(txn);
            if steps.is_empty() {
                continue;
            }
            let transaction = Transaction { index, isolation: txn.isolation, steps };
            let counts = operation.is_ok()
                || operation.outcome == Outcome::Unknown
                    && transaction.appends().any(|append| seen.contains(&append));
            let node = counts.then_some(view.transactions.len());
            let failed = operation.outcome == Outcome::Failed;
            view.note_writer(&transaction, Writer { node, index, failed, intermediate: false });
            if counts {
                view.transactions.push(transaction);
            }
        }
        view
    }

    fn note_writer(&mut self, transaction: &Transaction<'a>, writer: Writer) {
        let mut last: BTreeMap<&Blob, u64> = BTreeMap::new();
        for (key, element) in transaction.appends() {
            if let Some(before) = last.insert(key, element)
                && let Some(before) = self.writers.get_mut(&(key, before))
            {
                before.intermediate = true;
            }
            if let Some(other) = self.writers.insert((key, element), writer) {
                let ops = self.repeated.entry((key, element)).or_insert_with(|| vec![other.index]);
                ops.push(writer.index);
            }
        }
    }
}

/// Elements in acknowledged reads.
fn seen(history: &History) -> BTreeSet<Element<'_>> {
    let reads = history.transactions().filter(|(_, operation, _)| operation.is_ok());
    let steps = reads.flat_map(|(_, _, txn)| &txn.steps);
    steps
        .filter_map(|step| match step {
            Step::List { key, elements } => Some(elements.iter().map(move |&e| (key, e))),
            _ => None,
        })
        .flatten()
        .collect()
}

fn steps(txn: &Txn) -> Vec<ListStep<'_>> {
    let steps = txn.steps.iter().filter_map(|step| match step {
        Step::Append { key, element } => Some(ListStep::Append(key, *element)),
        Step::List { key, elements } => Some(ListStep::Read(key, elements)),
        _ => None,
    });
    steps.collect()
}

//! What a history holds: operations of clients and observations of the harness.

mod lines;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Blob, CheckerError};

pub(crate) use lines::{read_lines, write_line};

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was acknowledged.
    Ok,
    /// It certainly had no effect and never will.
    Failed,
    /// It may or may not have had its effect, at any time after `invoke`, even after `complete`.
    Unknown,
}

/// What a transaction was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Snapshot isolation (Berenson et al., SIGMOD 1995).
    Snapshot,
    /// Serializability.
    Serializable,
}

/// One operation of one process; one line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who did it. A process does one thing at a time; one that was restarted is another process.
    pub process: u64,
    /// When it began, in ns of a clock that all processes of the history share.
    pub invoke: u64,
    /// When its answer or its deadline came, in ns of the same clock; `None` if neither ever did. An
    /// acknowledged operation has it.
    pub complete: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it belongs to the phase of reads after everything has healed and all else has ended.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
    /// What was done.
    pub op: Op,
}

impl Operation {
    /// Whether it was acknowledged.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Whether it was over before `other` began. At the same instant they count as concurrent.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.complete.is_some_and(|complete| complete < other.invoke)
    }

    /// What is impossible about it, if anything.
    fn flaw(&self) -> Option<&'static str> {
        if self.complete.is_some_and(|complete| complete < self.invoke) {
            return Some("completes before it is invoked");
        }
        if self.complete.is_none() && self.outcome != Outcome::Unknown {
            return Some("its outcome is known though it never completed");
        }
        match &self.op {
            Op::Txn(Txn { start_ts, commit_ts: Some(commit_ts), .. }) if commit_ts <= start_ts => {
                Some("commits no later than it starts")
            }
            Op::Timestamps { first, count } => match count {
                0 => Some("an answer of no timestamps"),
                _ if first.checked_add(*count).is_none() => Some("timestamps beyond 64 bits"),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What was done, with the answer. Answers count only when the outcome is [`Outcome::Ok`]; those of the
/// reads of a transaction also when its outcome is unknown, if it shows that it committed.
///
/// Keys of raw operations and keys of transactions are different key spaces. Every key is absent when
/// a history begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Op {
    /// Raw read of one key.
    Get {
        /// The key.
        key: Blob,
        /// What it held; `None` if it did not exist.
        #[serde(deserialize_with = "present")]
        value: Option<Blob>,
    },
    /// Raw write of one key.
    Put {
        /// The key.
        key: Blob,
        /// What it holds from then on.
        value: Blob,
    },
    /// Raw deletion of one key.
    Delete {
        /// The key.
        key: Blob,
    },
    /// Raw compare-and-swap of one key.
    Cas {
        /// The key.
        key: Blob,
        /// What the key must hold; `None` if it must not exist.
        #[serde(deserialize_with = "present")]
        expected: Option<Blob>,
        /// What it holds afterwards, if it did.
        value: Blob,
        /// Whether it did; `None` if the answer does not say.
        #[serde(default)]
        swapped: Option<bool>,
        /// What the key held before; `Some(None)`, in JSON null, if it did not exist; `None`, in JSON
        /// left out, if the answer does not say.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        previous: Option<Option<Blob>>,
    },
    /// A transaction.
    Txn(Txn),
    /// An answer of the timestamp oracle: `first`, `first + 1` and so on.
    Timestamps {
        /// The lowest.
        first: u64,
        /// How many, at least one.
        count: u64,
    },
    /// A number that was seen and must not fall while the process that saw it lives.
    Watermark {
        /// What the number is, for example `commit-index`.
        name: String,
        /// Whose it is, for example `range 7 on store 2`.
        of: String,
        /// The number.
        value: u64,
    },
    /// A read of the balances of all accounts at one timestamp.
    Bank {
        /// The timestamp.
        start_ts: u64,
        /// Account to balance, every account.
        balances: BTreeMap<Blob, i64>,
    },
    /// A checksum over what one replica of a range holds.
    Fingerprint {
        /// The range.
        range: u64,
        /// The replica's applied index.
        index: u64,
        /// The store it lies on.
        store: u64,
        /// The checksum.
        hash: u64,
    },
}

/// A transaction as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Txn {
    /// Where it reads, and who it is: no two transactions share it. Zero if it got none, then it did
    /// nothing.
    pub start_ts: u64,
    /// Where its writes take effect, if the client knows; `None` if it wrote nothing.
    pub commit_ts: Option<u64>,
    /// In the order of the program. A read without an answer is left out; a write counts from the
    /// moment it is buffered.
    pub steps: Vec<Step>,
    /// What it was promised.
    pub isolation: Isolation,
}

impl Txn {
    /// The registers that it writes, each with what it holds after the last write; `None` if deleted.
    pub(crate) fn final_writes(&self) -> BTreeMap<&Blob, Option<&Blob>> {
        let mut writes = BTreeMap::new();
        for step in &self.steps {
            match step {
                Step::Put { key, value } => writes.insert(key, Some(value)),
                Step::Delete { key } => writes.insert(key, None),
                _ => None,
            };
        }
        writes
    }

    /// The lists that it appends to, each with its elements in order.
    pub(crate) fn appends(&self) -> BTreeMap<&Blob, Vec<u64>> {
        let mut appends: BTreeMap<&Blob, Vec<u64>> = BTreeMap::new();
        for step in &self.steps {
            if let Step::Append { key, element } = step {
                appends.entry(key).or_default().push(*element);
            }
        }
        appends
    }
}

/// One step of a transaction. A key is either a register (`get`, `put`, `delete`) or a list (`append`,
/// `list`), throughout a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Step {
    /// A read.
    Get {
        /// The key.
        key: Blob,
        /// What it held; `None` if it did not exist.
        #[serde(deserialize_with = "present")]
        value: Option<Blob>,
    },
    /// A write.
    Put {
        /// The key.
        key: Blob,
        /// What it holds from then on.
        value: Blob,
    },
    /// A deletion.
    Delete {
        /// The key.
        key: Blob,
    },
    /// Adds one element at the end of a list. In the store a list is one value, see
    /// [`encode_list`](crate::encode_list), which the transaction reads and writes.
    Append {
        /// The key.
        key: Blob,
        /// The element. In one history an element is appended to a key at most once.
        element: u64,
    },
    /// A read of a whole list; empty if the key does not exist.
    List {
        /// The key.
        key: Blob,
        /// Oldest first.
        elements: Vec<u64>,
    },
}

/// A field that must be there, even if it is null. Plain `Option` would take a forgotten field for an
/// absent key.
pub(crate) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Blob>, D::Error> {
    Option::deserialize(deserializer)
}

/// A field that says nothing when it is left out, and something when it is null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Blob>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The operations of one run, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// Reads JSON lines; the operation of line `n` gets the index `n - 1`.
    ///
    /// # Errors
    /// The first line that is not of the format or says what cannot be, an empty line included.
    pub fn read(input: impl std::io::BufRead) -> Result<Self, CheckerError> {
        let mut history = Self::default();
        read_lines(input, |_, operation| history.push(operation))?;
        Ok(history)
    }

    /// Writes JSON lines, one an operation.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn write(&self, mut output: impl std::io::Write) -> Result<(), CheckerError> {
        self.operations.iter().try_for_each(|operation| write_line(&mut output, operation))
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// [`CheckerError::Invalid`] if it says what cannot be; it is not added then.
    pub fn push(&mut self, operation: Operation) -> Result<(), CheckerError> {
        match operation.flaw() {
            Some(why) => Err(CheckerError::Invalid { line: self.operations.len() + 1, why }),
            None => {
                self.operations.push(operation);
                Ok(())
            }
        }
    }

    /// All of them; the position of one is its index.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operation at `index`, counted from 0.
    pub fn get(&self, index: usize) -> Option<&Operation> {
        self.operations.get(index)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Every operation with its index.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Operation)> {
        self.operations.iter().enumerate()
    }

    /// The acknowledged reads after everything has healed.
    pub fn finals(&self) -> impl Iterator<Item = (usize, &Operation)> {
        self.iter().filter(|(_, operation)| operation.is_final && operation.is_ok())
    }

    /// Every transaction with its index.
    pub fn transactions(&self) -> impl Iterator<Item = (usize, &Operation, &Txn)> {
        self.iter().filter_map(|(index, operation)| match &operation.op {
            Op::Txn(txn) => Some((index, operation, txn)),
            _ => None,
        })
    }
}

impl TryFrom<Vec<Operation>> for History {
    type Error = CheckerError;

    fn try_from(operations: Vec<Operation>) -> Result<Self, CheckerError> {
        let mut history = Self::default();
        operations.into_iter().try_for_each(|operation| history.push(operation))?;
        Ok(history)
    }
}

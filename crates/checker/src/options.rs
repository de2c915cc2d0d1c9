//! What the checkers are told beside the history.

use std::collections::BTreeSet;

/// Options of all checkers; the defaults suit a run on an empty cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most steps that [`linearizable`](crate::linearizable) takes for one key, and most pairs of reads
    /// that [`long_fork`](crate::long_fork) looks at. A step is one attempt to place one operation,
    /// a few microseconds; a history that fits takes about as many as it has operations, unless many
    /// (a dozen) are under way on one key at a time.
    pub steps_max: u64,
    /// Whether transactions must also fit real time: an acknowledged one counts as before every one
    /// that began after its acknowledgement (strong snapshot isolation, strict serializability).
    pub strict: bool,
    /// What all balances of the bank add up to; `None`: what the first read says.
    pub bank_total: Option<i64>,
    /// Versions below this timestamp may have been collected as garbage before the dump; 0: none were.
    pub gc_safe_point: u64,
    /// Whether of two transactions that write the same key while both are under way only one may
    /// commit. True of optimistic transactions, not of those that lock first and read later.
    pub first_committer_wins: bool,
    /// Names of checkers that must have judged something: without, a run whose recorder was cut off
    /// passes.
    pub required: BTreeSet<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps_max: 2_000_000,
            strict: true,
            bank_total: None,
            gc_safe_point: 0,
            first_committer_wins: true,
            required: BTreeSet::new(),
        }
    }
}

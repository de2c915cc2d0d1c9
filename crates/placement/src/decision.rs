//! What a scheduler wants done, and why.

use cribwork_types::{RangeId, StoreId};

use crate::Operator;

/// A store that was considered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The store.
    pub store: StoreId,
    /// What it was compared by, operators in flight counted as done: for leaders, how many of the
    /// compared ranges it leads; for replicas, its load in bytes. Lower is better.
    pub score: u64,
    /// Why it was not chosen; `None` for the one that was.
    pub rejected_because: Option<String>,
}

/// What a scheduler decided about a range, with all that it weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The range.
    pub subject: RangeId,
    /// Which scheduler decided.
    pub scheduler: &'static str,
    /// What to do; `None` if nothing, which only explanations say.
    pub operator: Option<Operator>,
    /// The store chosen among the candidates.
    pub chosen: Option<StoreId>,
    /// The stores that were weighed, by id.
    pub candidates: Vec<Candidate>,
    /// The decision in one sentence.
    pub summary: String,
}

impl Decision {
    /// Nothing is to be done to `range`, because of `why`.
    pub(crate) fn nothing(
        range: RangeId,
        scheduler: &'static str,
        candidates: Vec<Candidate>,
        why: impl std::fmt::Display,
    ) -> Self {
        let summary = format!("range {range}: {why}");
        Self { subject: range, scheduler, operator: None, chosen: None, candidates, summary }
    }
}

//! What a scheduler wants done, and why.

use cribwork_types::{RangeId, StoreId};

/// Something to be done to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Have another replica lead.
    TransferLeader {
        /// The range.
        range: RangeId,
        /// The store that leads.
        from: StoreId,
        /// The store that shall lead.
        to: StoreId,
    },
}

impl Operator {
    /// The range it is about.
    pub const fn range(&self) -> RangeId {
        match self {
            Operator::TransferLeader { range, .. } => *range,
        }
    }
}

/// A store that was considered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The store.
    pub store: StoreId,
    /// How many of the compared ranges it leads, transfers in flight counted as done. Lower is better.
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
    /// Every store but the current leader's, by id.
    pub candidates: Vec<Candidate>,
    /// The decision in one sentence.
    pub summary: String,
}

//! Leader balance: every store leads its fair share of the ranges, and of the ranges of each table.
//!
//! A *group* is all ranges whose decoded start keys share their first four bytes (a table, by
//! convention), if there are enough of them. Groups are balanced one by one, then the whole. The empty
//! range on top counts nowhere.
//!
//! **Moves.** A plan is a shortest path of transfers from a store to one that leads at least two
//! ranges less; each store in between gives one and gets one. Harvey, Ladner, Lovász and Tamir
//! ("Semi-matchings for bipartite graphs and load balancing", 2003) call this a cost-reducing path and
//! prove that where none is left, no other choice of leaders is more even, given where the replicas
//! are. With a replica of everything on every store, every path is a single transfer and shares differ
//! by at most one.
//!
//! **It settles.** Let `G` be the sum over groups and stores of the squared number of leaders, `C` the
//! same over the whole. A path within a group makes `G` smaller. A path over the whole makes `C`
//! smaller, and no hop of it takes a range to a store that leads as many of the range's group as the
//! giver or more, so `G` does not grow. So `(G, C)` falls lexicographically with every plan carried
//! out: nothing is ever undone, and no plan is left after finitely many. When groups are balanced and
//! every store holds a replica of everything, a store that leads two more than another over the whole
//! leads more in some group too (or in no group), so that a hop is always allowed.

mod books;
mod explain;
mod path;

use books::{Books, Scope};

use crate::{BalancePolicy, ClusterView, Decision};

pub use explain::explain_leader;

/// The name under which leader balance signs its decisions.
pub const LEADER_BALANCE: &str = "leader-balance";

/// The transfers that would bring leaders closer to balance now, as many as the policy lets in
/// beside those in flight, each for another range. None if all is well. All may run at once.
pub fn balance_leaders(view: &ClusterView, policy: &BalancePolicy) -> Vec<Decision> {
    let mut books = Books::new(view, policy);
    let mut decisions = Vec::new();
    let scopes = (0..books.groups.len()).map(Scope::Group).chain([Scope::All]);
    for scope in scopes.collect::<Vec<_>>() {
        while let Some(path) = books.cost_reducing_path(scope) {
            for (step, hop) in path.iter().enumerate() {
                decisions.push(explain::decision(&books, scope, *hop, step, path.len()));
            }
            path.iter().for_each(|hop| books.carry_out(*hop));
        }
    }
    decisions
}

#[cfg(test)]
mod tests;

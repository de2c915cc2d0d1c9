//! The search for a cost-reducing path; `balance` says what that is and why it is enough.

use super::books::{Books, Hop, Scope, StoreIndex};

/// A move is made only if giver and taker differ by this much: with less, they would change places.
pub(super) const GAIN_MIN: u64 = 2;

impl Books<'_> {
    /// A shortest path from the store that leads most of the compared ranges (from the next one if
    /// that one has none, and so on) to one that leads at least two less. `None` if there is none, or
    /// none that the operator limits admit.
    pub(super) fn cost_reducing_path(&self, scope: Scope) -> Option<Vec<Hop>> {
        let counts = self.counts(scope);
        let least = *counts.iter().min()?;
        if *counts.iter().max()? < least + GAIN_MIN || self.room() == 0 {
            return None;
        }
        let edges = self.edges(scope);
        let mut sources: Vec<StoreIndex> =
            (0..counts.len()).filter(|store| counts[*store] >= least + GAIN_MIN).collect();
        sources.sort_by_key(|store| (std::cmp::Reverse(counts[*store]), *store));
        sources.into_iter().find_map(|source| self.path_from(source, counts, &edges))
    }

    /// How many more operators the policy lets in.
    fn room(&self) -> usize {
        self.policy.operators_max.saturating_sub(self.operators_total)
    }

    /// True if the store may take part in `more` more operators.
    pub(super) fn has_room(&self, store: StoreIndex, more: usize) -> bool {
        self.operators[store] + more <= self.policy.operators_per_store_max
    }

    /// For each pair of stores (giver * number of stores + taker) a range that may move, the one
    /// whose group gains most.
    fn edges(&self, scope: Scope) -> Vec<Option<usize>> {
        let count = self.stores.len();
        let mut edges = vec![None; count * count];
        let mut best = vec![i64::MIN; count * count];
        let mut consider = |index: usize| {
            let item = &self.items[index];
            let Some(from) = item.leader.filter(|_| item.movable) else {
                return;
            };
            for to in item.voters.iter().copied().filter(|to| *to != from) {
                let lead = self.group_lead(item, from, to);
                let edge = from * count + to;
                let allowed = scope != Scope::All || lead >= 1;
                if allowed && lead > best[edge] && self.has_room(from, 1) && self.has_room(to, 1) {
                    (best[edge], edges[edge]) = (lead, Some(index));
                }
            }
        };
        match scope {
            Scope::Group(group) => self.groups[group].items.iter().copied().for_each(&mut consider),
            Scope::All => (0..self.items.len()).for_each(&mut consider),
        }
        edges
    }

    /// Breadth first. Of the takers at the same distance the one that leads least is chosen, of the
    /// compared ranges and then of all.
    fn path_from(
        &self,
        source: StoreIndex,
        counts: &[u64],
        edges: &[Option<usize>],
    ) -> Option<Vec<Hop>> {
        let count = self.stores.len();
        let mut reached_by: Vec<Option<Hop>> = vec![None; count];
        let mut frontier = vec![source];
        for _ in 0..self.room().min(count) {
            let mut reached = Vec::new();
            for from in frontier {
                // A store in between takes part in two operators.
                if from != source && !self.has_room(from, 2) {
                    continue;
                }
                for to in (0..count).filter(|to| *to != source) {
                    if let (None, Some(item)) = (reached_by[to], edges[from * count + to]) {
                        reached_by[to] = Some(Hop { item, from, to });
                        reached.push(to);
                    }
                }
            }
            let gains = reached.iter().filter(|to| counts[**to] + GAIN_MIN <= counts[source]);
            let taker = gains.min_by_key(|to| (counts[**to], self.leaders[**to], **to));
            if let Some(taker) = taker {
                let mut path: Vec<Hop> =
                    std::iter::successors(reached_by[*taker], |hop| reached_by[hop.from]).collect();
                path.reverse();
                return Some(path);
            }
            frontier = reached;
        }
        None
    }
}

//! Where the replicas of a fresh cluster go.

use cribwork_types::StoreId;

/// The stores of each of `ranges` ranges: `replicas` of them (or all, if there are fewer), the
/// intended first leader in front. Range `i` begins at store `i mod n` and goes on to its right, so
/// both leaders and replicas differ by at most one and by at most `replicas` between any two stores,
/// and neighbouring ranges have different leaders.
pub fn replica_round_robin(
    stores: &[StoreId],
    ranges: usize,
    replicas: usize,
) -> Vec<Vec<StoreId>> {
    let replicas = replicas.min(stores.len());
    let members = |range: usize| {
        let from = if stores.is_empty() { 0 } else { range % stores.len() };
        stores.iter().cycle().skip(from).take(replicas).copied().collect()
    };
    (0..ranges).map(members).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn stores(n: u64) -> Vec<StoreId> {
        (1..=n).map(StoreId).collect()
    }

    #[test]
    fn leaders_and_replicas_are_even() {
        for n in 1..=7 {
            for ranges in [0, 1, 2, 16, 17, 100] {
                let placed = replica_round_robin(&stores(n), ranges, 3);
                assert_eq!(placed.len(), ranges);
                let count = |pick: &dyn Fn(&Vec<StoreId>, StoreId) -> bool| {
                    let counts: Vec<usize> = stores(n)
                        .iter()
                        .map(|store| placed.iter().filter(|list| pick(list, *store)).count())
                        .collect();
                    counts.iter().max().unwrap() - counts.iter().min().unwrap()
                };
                assert!(count(&|list, store| list[0] == store) <= 1, "leaders");
                assert!(count(&|list, store| list.contains(&store)) <= 3, "replicas");
                for list in &placed {
                    assert_eq!(list.len(), 3.min(n as usize));
                    assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
                }
            }
        }
        assert_eq!(replica_round_robin(&[], 2, 3), [vec![], vec![]]);
    }
}

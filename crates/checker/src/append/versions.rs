//! The order in which the elements of each key were appended, as far as reads tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, Verdict};

use super::view::View;

/// The order of each key: the elements of its longest read, each once.
#[derive(Debug, Default)]
pub(super) struct Versions<'a> {
    orders: BTreeMap<&'a Blob, Vec<u64>>,
    positions: BTreeMap<(&'a Blob, u64), usize>,
}

impl<'a> Versions<'a> {
    /// Infers the orders. All reads of a key must be prefixes of its longest one.
    pub(super) fn new(view: &View<'a>, verdict: &mut Verdict) -> Self {
        let mut reads: BTreeMap<&Blob, BTreeMap<&[u64], usize>> = BTreeMap::new();
        for transaction in &view.transactions {
            for (key, elements) in transaction.reads() {
                reads.entry(key).or_default().entry(elements).or_insert(transaction.index);
            }
        }
        let mut versions = Self::default();
        for (key, reads) in reads {
            let mut reads: Vec<(&[u64], usize)> = reads.into_iter().collect();
            reads.sort_by_key(|(elements, _)| elements.len());
            for pair in reads.windows(2) {
                let [(shorter, one), (longer, other)] = pair else { continue };
                if !longer.starts_with(shorter) {
                    let what = format!(
                        "incompatible-order: key {key} is read as {shorter:?} and as {longer:?}"
                    );
                    verdict.violation(what, [*one, *other]);
                }
            }
            if let Some((longest, _)) = reads.last() {
                versions.set(key, longest);
            }
        }
        versions
    }

    fn set(&mut self, key: &'a Blob, longest: &[u64]) {
        let mut distinct = BTreeSet::new();
        let order: Vec<u64> = longest.iter().copied().filter(|&e| distinct.insert(e)).collect();
        for (position, &element) in order.iter().enumerate() {
            self.positions.insert((key, element), position);
        }
        self.orders.insert(key, order);
    }

    /// The element before `element` in `key`; `None` if it is the first. An element that no read saw
    /// was appended, if at all, after all that some read saw, because that is a prefix.
    pub(super) fn before(&self, key: &Blob, element: u64) -> Option<u64> {
        let order = self.orders.get(key)?;
        match self.positions.get(&(key, element)) {
            Some(position) => position.checked_sub(1).map(|before| order[before]),
            None => order.last().copied(),
        }
    }
}

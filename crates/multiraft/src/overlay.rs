//! Writes laid over a view of a store, in memory: what it would hold if they were made.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;
use cribwork_engine::{Cursor, EngineError, EngineSnapshot};
use cribwork_types::{Cf, KeyRange, Mutation, WriteBatch};

/// A view with writes over it. Memory grows with the writes, not with the store.
pub(crate) struct Overlay<'a> {
    below: &'a dyn EngineSnapshot,
    /// For each family, what was put, and what is gone (`None`).
    laid: [BTreeMap<Bytes, Option<Bytes>>; Cf::ALL.len()],
}

impl<'a> Overlay<'a> {
    pub(crate) fn over(below: &'a dyn EngineSnapshot) -> Self {
        Self { below, laid: Default::default() }
    }

    pub(crate) fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.laid[cf as usize].get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(cf, key),
        }
    }

    /// Rows of `span` in order.
    pub(crate) fn rows(&self, cf: Cf, span: &KeyRange) -> Rows<'_> {
        let end = match span.end.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(span.end.clone().max(span.start.clone())),
        };
        Rows {
            below: self.below.cursor(cf, span),
            step: Step::First,
            on_row: false,
            laid: self.laid[cf as usize]
                .range((Bound::Included(span.start.clone()), end))
                .peekable(),
        }
    }

    pub(crate) fn write(&mut self, batch: WriteBatch) -> Result<(), EngineError> {
        for mutation in batch.mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    self.laid[cf as usize].insert(key, Some(value));
                }
                Mutation::Delete { cf, key } => {
                    self.laid[cf as usize].insert(key, None);
                }
                Mutation::DeleteRange { cf, range } => {
                    let mut keys = Vec::new();
                    let mut rows = self.rows(cf, &range);
                    while let Some((key, _)) = rows.next()? {
                        keys.push(Bytes::copy_from_slice(key));
                    }
                    drop(rows);
                    self.laid[cf as usize].extend(keys.into_iter().map(|key| (key, None)));
                }
            }
        }
        Ok(())
    }
}

/// A key and its value.
pub(crate) type Row<'a> = (&'a [u8], &'a [u8]);

/// What the cursor does before it is looked at again.
enum Step {
    First,
    Next,
    Stay,
}

/// Walks the rows of an [`Overlay`].
pub(crate) struct Rows<'a> {
    below: Box<dyn Cursor + Send + 'a>,
    step: Step,
    on_row: bool,
    laid: Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>,
}

impl Rows<'_> {
    /// The next key and its value.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, EngineError> {
        loop {
            match std::mem::replace(&mut self.step, Step::Stay) {
                Step::First => self.on_row = self.below.seek_to_first()?,
                Step::Next => self.on_row = self.below.next()?,
                Step::Stay => {}
            }
            let below_to_laid = match (self.on_row, self.laid.peek()) {
                (false, None) => return Ok(None),
                (true, None) => Ordering::Less,
                (false, Some(_)) => Ordering::Greater,
                (true, Some((key, _))) => self.below.key().cmp(key),
            };
            if below_to_laid != Ordering::Greater {
                self.step = Step::Next;
            }
            if below_to_laid == Ordering::Less {
                break;
            }
            if let Some((key, Some(value))) = self.laid.next() {
                return Ok(Some((key, value)));
            }
        }
        Ok(Some((self.below.key(), self.below.value())))
    }
}

#[cfg(test)]
mod tests {
    use cribwork_engine::{Engine, MemoryEngine};
    use proptest::prelude::*;

    use super::*;

    fn mutation() -> impl Strategy<Value = Mutation> {
        let key = || prop::collection::vec(0u8..4, 1..3).prop_map(Bytes::from);
        let cf = Cf::Raw;
        prop_oneof![
            3 => (key(), key()).prop_map(move |(key, value)| Mutation::Put { cf, key, value }),
            2 => key().prop_map(move |key| Mutation::Delete { cf, key }),
            1 => (key(), prop_oneof![key(), Just(Bytes::new())]).prop_map(move |(start, end)| {
                Mutation::DeleteRange { cf, range: KeyRange { start, end } }
            }),
        ]
    }

    fn rows(overlay: &Overlay<'_>, span: &KeyRange) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let mut rows = overlay.rows(Cf::Raw, span);
        while let Some((key, value)) = rows.next().unwrap() {
            found.push((key.to_vec(), value.to_vec()));
        }
        found
    }

    proptest! {
        /// Writes over a view show what the same writes to the store would.
        #[test]
        fn looks_like_a_store_that_was_written_to(
            below in prop::collection::vec(mutation(), 0..40),
            over in prop::collection::vec(mutation(), 0..40),
            start in prop::collection::vec(0u8..4, 0..2),
            end in prop::collection::vec(0u8..4, 0..2),
        ) {
            let batch = |mutations| WriteBatch { mutations };
            let (base, both) = (MemoryEngine::new(), MemoryEngine::new());
            base.write(&batch(below.clone())).unwrap();
            both.write(&batch(below)).unwrap();
            both.write(&batch(over.clone())).unwrap();
            let (base, both) = (base.snapshot(), both.snapshot());
            let mut overlay = Overlay::over(&*base);
            overlay.write(batch(over)).unwrap();
            let expected = Overlay::over(&*both);
            for span in [KeyRange::all(), KeyRange { start: start.into(), end: end.into() }] {
                prop_assert_eq!(rows(&overlay, &span), rows(&expected, &span));
            }
            for key in 0u8..4 {
                let key = [key];
                prop_assert_eq!(overlay.get(Cf::Raw, &key), both.get(Cf::Raw, &key));
            }
        }
    }
}

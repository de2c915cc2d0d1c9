//! A store in memory that is its own view: what tests, models and benchmarks run commands against.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, Mutation, WriteBatch};

use crate::{ReadView, ViewCursor, ViewError};

type Table = BTreeMap<Bytes, Bytes>;

/// One ordered map a column family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryView {
    tables: [Table; Cf::ALL.len()],
}

impl MemoryView {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a batch, mutation by mutation.
    pub fn apply(&mut self, batch: &WriteBatch) {
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    self.table_mut(*cf).insert(key.clone(), value.clone());
                }
                Mutation::Delete { cf, key } => {
                    self.table_mut(*cf).remove(key);
                }
                Mutation::DeleteRange { cf, range } => {
                    self.table_mut(*cf).retain(|key, _| !range.contains(key));
                }
            }
        }
    }

    /// Every stored key and value of a family, in order.
    pub fn entries(&self, cf: Cf) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.tables[cf as usize].iter()
    }

    fn table_mut(&mut self, cf: Cf) -> &mut Table {
        &mut self.tables[cf as usize]
    }
}

impl ReadView for MemoryView {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.tables[cf as usize].get(key).cloned())
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn ViewCursor + '_> {
        Box::new(MemoryCursor { table: &self.tables[cf as usize], range: range.clone(), at: None })
    }
}

struct MemoryCursor<'v> {
    table: &'v Table,
    range: KeyRange,
    at: Option<(&'v Bytes, &'v Bytes)>,
}

impl MemoryCursor<'_> {
    /// To the first key after `from`, clipped to the bounds.
    fn forward(&mut self, from: Bound<&[u8]>) -> bool {
        let from = match from {
            Bound::Included(key) | Bound::Excluded(key) if key >= &self.range.start[..] => from,
            _ => Bound::Included(&self.range.start[..]),
        };
        let first = self.table.range::<[u8], _>((from, Bound::Unbounded)).next();
        self.at = first.filter(|(key, _)| self.range.contains(key));
        self.at.is_some()
    }

    /// To the last key before `to`, clipped to the bounds.
    fn backward(&mut self, to: Bound<&[u8]>) -> bool {
        let end = &self.range.end[..];
        let to = match to {
            Bound::Included(key) | Bound::Excluded(key) if end.is_empty() || key < end => to,
            _ if end.is_empty() => Bound::Unbounded,
            _ => Bound::Excluded(end),
        };
        let last = self.table.range::<[u8], _>((Bound::Unbounded, to)).next_back();
        self.at = last.filter(|(key, _)| self.range.contains(key));
        self.at.is_some()
    }
}

impl ViewCursor for MemoryCursor<'_> {
    fn seek_to_first(&mut self) -> Result<bool, ViewError> {
        Ok(self.forward(Bound::Unbounded))
    }

    fn seek_to_last(&mut self) -> Result<bool, ViewError> {
        Ok(self.backward(Bound::Unbounded))
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool, ViewError> {
        Ok(self.forward(Bound::Included(key)))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, ViewError> {
        Ok(self.backward(Bound::Included(key)))
    }

    fn next(&mut self) -> Result<bool, ViewError> {
        match self.at {
            Some((key, _)) => Ok(self.forward(Bound::Excluded(key))),
            None => Ok(false),
        }
    }

    fn prev(&mut self) -> Result<bool, ViewError> {
        match self.at {
            Some((key, _)) => Ok(self.backward(Bound::Excluded(key))),
            None => Ok(false),
        }
    }

    fn key(&self) -> &[u8] {
        self.at.map_or(&[], |(key, _)| key)
    }

    fn value(&self) -> &[u8] {
        self.at.map_or(&[], |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_stays_in_bounds() {
        let mut batch = WriteBatch::new();
        for key in ["a", "b", "c", "d"] {
            batch.put(Cf::Raw, key, key);
        }
        let mut view = MemoryView::new();
        view.apply(&batch);
        let mut cursor = view.cursor(Cf::Raw, &KeyRange::new("b", "d"));
        assert!(cursor.seek_to_first().unwrap() && cursor.key() == b"b");
        assert!(!cursor.prev().unwrap());
        assert!(cursor.seek_to_last().unwrap() && cursor.key() == b"c");
        assert!(!cursor.next().unwrap());
        assert!(cursor.seek(b"a").unwrap() && cursor.key() == b"b");
        assert!(!cursor.seek(b"d").unwrap());
        assert!(cursor.seek_for_prev(b"z").unwrap() && cursor.key() == b"c");
        assert!(cursor.prev().unwrap() && cursor.value() == b"b");
        assert!(!cursor.seek_for_prev(b"a").unwrap());
        let mut inverted = view.cursor(Cf::Raw, &KeyRange::new("d", "b"));
        assert!(!inverted.seek_to_first().unwrap() && !inverted.seek_to_last().unwrap());
    }
}

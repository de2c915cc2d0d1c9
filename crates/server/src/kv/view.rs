//! The engine's snapshot as what transactions read from.

use bytes::Bytes;
use cribwork_engine::{Cursor, EngineError, EngineSnapshot};
use cribwork_mvcc::{ReadView, ViewCursor, ViewError};
use cribwork_types::{Cf, KeyRange};

/// A snapshot of the store, lent to one evaluation.
#[derive(Clone, Copy)]
pub(crate) struct View<'s>(pub(crate) &'s dyn EngineSnapshot);

fn failed(error: EngineError) -> ViewError {
    ViewError(error.to_string())
}

impl ReadView for View<'_> {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.0.get(cf, key).map_err(failed)
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn ViewCursor + '_> {
        Box::new(CursorView(self.0.cursor(cf, range)))
    }
}

struct CursorView<'s>(Box<dyn Cursor + Send + 's>);

impl ViewCursor for CursorView<'_> {
    fn seek_to_first(&mut self) -> Result<bool, ViewError> {
        self.0.seek_to_first().map_err(failed)
    }

    fn seek_to_last(&mut self) -> Result<bool, ViewError> {
        self.0.seek_to_last().map_err(failed)
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool, ViewError> {
        self.0.seek(key).map_err(failed)
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, ViewError> {
        self.0.seek_for_prev(key).map_err(failed)
    }

    fn next(&mut self) -> Result<bool, ViewError> {
        self.0.next().map_err(failed)
    }

    fn prev(&mut self) -> Result<bool, ViewError> {
        self.0.prev().map_err(failed)
    }

    fn key(&self) -> &[u8] {
        self.0.key()
    }

    fn value(&self) -> &[u8] {
        self.0.value()
    }
}

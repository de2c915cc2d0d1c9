//! What transactions read from: one consistent view of a store's column families.

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange};

/// The store behind a view failed: I/O or corruption. The text is the store's own message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// All column families at one instant. Every read of one command goes to the same view.
pub trait ReadView {
    /// The value of `key` as stored.
    ///
    /// # Errors
    /// [`ViewError`] if the store failed.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// A cursor over the stored keys of `range` in `cf`, not yet positioned. `range` is never empty
    /// when this crate asks.
    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn ViewCursor + '_>;
}

/// Walks stored keys in order within its bounds. Each move says whether it landed on a key; after
/// `false` only seeks are allowed, and [`ViewCursor::key`] and [`ViewCursor::value`] are not.
pub trait ViewCursor {
    /// To the first key in bounds.
    ///
    /// # Errors
    /// [`ViewError`] if the store failed, as all moves.
    fn seek_to_first(&mut self) -> Result<bool, ViewError>;
    /// To the last key in bounds.
    ///
    /// # Errors
    /// See [`ViewCursor::seek_to_first`].
    fn seek_to_last(&mut self) -> Result<bool, ViewError>;
    /// To the first key at or after `key`.
    ///
    /// # Errors
    /// See [`ViewCursor::seek_to_first`].
    fn seek(&mut self, key: &[u8]) -> Result<bool, ViewError>;
    /// To the last key at or before `key`.
    ///
    /// # Errors
    /// See [`ViewCursor::seek_to_first`].
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, ViewError>;
    /// To the next key.
    ///
    /// # Errors
    /// See [`ViewCursor::seek_to_first`].
    fn next(&mut self) -> Result<bool, ViewError>;
    /// To the previous key.
    ///
    /// # Errors
    /// See [`ViewCursor::seek_to_first`].
    fn prev(&mut self) -> Result<bool, ViewError>;
    /// The key under the cursor.
    fn key(&self) -> &[u8];
    /// The value under the cursor.
    fn value(&self) -> &[u8];
}

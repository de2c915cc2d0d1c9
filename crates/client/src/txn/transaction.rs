//! The handle of an open transaction.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_types::{KeyRange, Timestamp};
use parking_lot::Mutex;

use super::buffer::Buffer;
use super::commit::Committer;
use super::snapshot::Snapshot;
use crate::ClientError;
use crate::core::Core;
use crate::raw::{KvPair, checked_count, checked_key, checked_limit, checked_value};

/// Most bytes of keys and values that a transaction may write.
const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An optimistic transaction with snapshot isolation: it reads what was committed before it began
/// and its own writes; committing it fails if another transaction wrote one of its keys since.
/// Nothing is visible to others, and nothing has to be undone, before [`Self::commit`]; dropping it
/// discards it. Clones are handles of the same transaction.
#[derive(Clone)]
pub struct Transaction {
    core: Arc<Core>,
    snapshot: Snapshot,
    /// On the clock of the runtime.
    begun: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    buffer: Buffer,
    finished: bool,
}

impl Transaction {
    pub(crate) fn new(core: Arc<Core>, start_ts: Timestamp) -> Self {
        Self {
            snapshot: Snapshot::new(core.clone(), start_ts),
            begun: core.runtime.now(),
            core,
            state: Arc::default(),
        }
    }

    /// The timestamp that it reads at, and its name in conflicts.
    pub fn start_ts(&self) -> Timestamp {
        self.snapshot.ts()
    }

    /// Number of keys that it writes so far.
    pub fn writes(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// The value of a key; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, ClientError> {
        let key = checked_key(key)?;
        let own = self.state.lock().buffer.get(&key);
        match own {
            Some(own) => Ok(own),
            None => self.snapshot.get(key).await,
        }
    }

    /// The keys of `keys` that exist, with their values, in key order.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn batch_get(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<KvPair>, ClientError> {
        let (mut rows, mut asked) = (Vec::new(), Vec::new());
        for key in keys {
            let key = key.into();
            let own = self.state.lock().buffer.get(&key);
            match own {
                Some(own) => rows.extend(own.map(|value| (key, value))),
                None => asked.push(key),
            }
        }
        rows.extend(self.snapshot.batch_get(asked).await?);
        rows.sort_unstable();
        Ok(rows)
    }

    /// The first `limit` keys of `span`, in order, with their values.
    ///
    /// # Errors
    /// As [`Snapshot::scan`].
    pub async fn scan(&self, span: KeyRange, limit: u32) -> Result<Vec<KvPair>, ClientError> {
        self.scan_any(span, limit, false).await
    }

    /// The last `limit` keys of `span`, in descending order, with their values.
    ///
    /// # Errors
    /// As [`Snapshot::scan`].
    pub async fn reverse_scan(
        &self,
        span: KeyRange,
        limit: u32,
    ) -> Result<Vec<KvPair>, ClientError> {
        self.scan_any(span, limit, true).await
    }

    async fn scan_any(
        &self,
        span: KeyRange,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<KvPair>, ClientError> {
        checked_limit(limit)?;
        // The writes of now: others made while the snapshot is read are not seen.
        let buffer = self.state.lock().buffer.clone();
        let asked = limit.saturating_add(buffer.hidden(&span) as u32);
        let rows = self.snapshot.scan_any(span.clone(), asked, reverse).await?;
        Ok(buffer.overlay(&span, rows, limit as usize, reverse))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the key, the value or the transaction becomes too large;
    /// [`ClientError::Finished`] after the end.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), ClientError> {
        let (key, value) = (checked_key(key)?, checked_value(value)?);
        self.change(|buffer| buffer.put(key, value))
    }

    /// Writes a key that must be absent: if it exists, commit fails with
    /// [`ClientError::AlreadyExists`].
    ///
    /// # Errors
    /// As [`Self::put`]; [`ClientError::AlreadyExists`] at once if this transaction has written it.
    pub fn insert(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let (key, value) = (checked_key(key)?, checked_value(value)?);
        let inserted = self.change(|buffer| buffer.insert(key.clone(), value))?;
        if inserted { Ok(()) } else { Err(ClientError::AlreadyExists { key }) }
    }

    /// Removes a key, present or not.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<(), ClientError> {
        let key = checked_key(key)?;
        self.change(|buffer| buffer.delete(key))
    }

    /// Makes commit fail if another transaction writes `key` meanwhile, without writing it: what
    /// protects a decision that rests on a value read (write skew).
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn lock(&self, key: impl Into<Bytes>) -> Result<(), ClientError> {
        let key = checked_key(key)?;
        self.change(|buffer| buffer.lock(key))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Buffer) -> T) -> Result<T, ClientError> {
        let mut state = self.state.lock();
        if state.finished {
            return Err(ClientError::Finished);
        }
        let outcome = change(&mut state.buffer);
        checked_count(state.buffer.len())?;
        if state.buffer.size_bytes() > TRANSACTION_BYTES_MAX {
            let why = format!("over {TRANSACTION_BYTES_MAX} bytes");
            return Err(ClientError::Invalid { what: "transaction", why });
        }
        Ok(outcome)
    }

    /// Makes all writes visible at once: the timestamp from which they are. A transaction without
    /// writes commits at its start without asking anybody.
    ///
    /// # Errors
    /// [`ClientError::Conflict`], [`ClientError::AlreadyExists`], [`ClientError::Locked`] or
    /// [`ClientError::Aborted`]: none of the writes took effect, or will.
    /// [`ClientError::Unknown`]: the outcome could not be learnt. Any other error: no effect.
    pub async fn commit(&self) -> Result<Timestamp, ClientError> {
        let mutations = self.finish()?.into_mutations();
        let start_ts = self.start_ts();
        match Committer::new(self.core.clone(), start_ts, self.begun, mutations) {
            Some(committer) => committer.run().await,
            None => Ok(start_ts),
        }
    }

    /// Discards all writes. Nothing was sent, so there is nothing to undo; dropping does the same.
    pub fn rollback(&self) {
        // A transaction that is over has no writes left.
        let _ = self.finish();
    }

    fn finish(&self) -> Result<Buffer, ClientError> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.finished, true) {
            return Err(ClientError::Finished);
        }
        Ok(std::mem::take(&mut state.buffer))
    }
}

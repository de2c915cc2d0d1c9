//! The commit records of single keys, newest first: one cursor for all keys of a command, opened only
//! if a key needs it.

use bytes::Bytes;
use cribwork_types::{Cf, CodecError, KeyRange, Timestamp, key};

use crate::key_span::span_of_keys;
use crate::{Lock, MvccError, ReadView, ViewCursor, WriteKind, WriteRecord, WriteRef};

/// What the records of a key say about one transaction that holds no lock there.
pub(crate) enum TxnRecord {
    /// It committed.
    Committed { commit_ts: Timestamp },
    /// It was rolled back.
    RolledBack,
    /// Nothing.
    Missing,
}

/// The newest put or delete of a key.
pub(crate) struct Latest {
    pub(crate) exists: bool,
    pub(crate) start_ts: Timestamp,
    pub(crate) commit_ts: Timestamp,
}

/// What a prewrite must know about a key.
pub(crate) struct KeyHistory {
    /// The transaction's own record.
    pub(crate) own: TxnRecord,
    /// Start and commit timestamp of the newest commit at or after the transaction's start.
    pub(crate) conflict: Option<(Timestamp, Timestamp)>,
    /// Filled if asked for; looked for only behind what the rest needs.
    pub(crate) latest: Option<Latest>,
}

pub(crate) struct Versions<'v> {
    view: &'v dyn ReadView,
    span: KeyRange,
    cursor: Option<Box<dyn ViewCursor + 'v>>,
    /// Versioned key last sought; the encoded user key is its front.
    sought: Vec<u8>,
}

impl<'v> Versions<'v> {
    /// Prepares for the records of `keys` (plain) and no others.
    pub(crate) fn of<'k>(view: &'v dyn ReadView, keys: impl Iterator<Item = &'k [u8]>) -> Self {
        Self { view, span: span_of_keys(keys), cursor: None, sought: Vec::new() }
    }

    /// To the newest record of the encoded key with `commit_ts <= ts`. True if there is one.
    pub(crate) fn seek(&mut self, encoded: &[u8], ts: Timestamp) -> Result<bool, MvccError> {
        self.sought.clear();
        self.sought.extend_from_slice(encoded);
        self.sought.extend_from_slice(&(!ts.get()).to_be_bytes());
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None => self.cursor.insert(self.view.cursor(Cf::Write, &self.span)),
        };
        Ok(cursor.seek(&self.sought)? && is_version_of(cursor.key(), encoded))
    }

    /// To the next older record of the same key. True if there is one.
    pub(crate) fn older(&mut self) -> Result<bool, MvccError> {
        let Some(cursor) = &mut self.cursor else {
            return Ok(false);
        };
        let encoded = &self.sought[..self.sought.len() - 8];
        Ok(cursor.next()? && is_version_of(cursor.key(), encoded))
    }

    /// The record under the cursor and its commit timestamp.
    pub(crate) fn record(&self) -> Result<(Timestamp, WriteRef<'_>), MvccError> {
        let cursor = self.cursor.as_ref().ok_or(CodecError::Truncated { what: "version" })?;
        let (_, commit_ts) = key::split_versioned(cursor.key())?;
        Ok((commit_ts, WriteRef::decode(cursor.value())?))
    }

    /// How the transaction `start_ts` ended on the encoded key, by its records.
    pub(crate) fn txn_record(
        &mut self,
        encoded: &[u8],
        start_ts: Timestamp,
    ) -> Result<TxnRecord, MvccError> {
        Ok(self.history(encoded, start_ts, false)?.own)
    }

    /// Walks the records of the encoded key from the newest down to `start_ts`, and with `find_latest`
    /// on to the newest put or delete.
    pub(crate) fn history(
        &mut self,
        encoded: &[u8],
        start_ts: Timestamp,
        find_latest: bool,
    ) -> Result<KeyHistory, MvccError> {
        let mut history = KeyHistory { own: TxnRecord::Missing, conflict: None, latest: None };
        let mut more = self.seek(encoded, Timestamp::MAX)?;
        while more {
            let (commit_ts, record) = self.record()?;
            // A transaction's own records are at or after its start: a rollback at it, a commit above.
            if commit_ts < start_ts && (history.latest.is_some() || !find_latest) {
                break;
            }
            let rollback = record.kind == WriteKind::Rollback;
            if record.start_ts == start_ts && !rollback {
                history.own = TxnRecord::Committed { commit_ts };
                break;
            }
            if commit_ts == start_ts && (rollback || record.overlapped_rollback) {
                history.own = TxnRecord::RolledBack;
                break;
            }
            if !rollback && commit_ts >= start_ts && history.conflict.is_none() {
                history.conflict = Some((record.start_ts, commit_ts));
            }
            let data = matches!(record.kind, WriteKind::Put | WriteKind::Delete);
            if data && history.latest.is_none() {
                let exists = record.kind == WriteKind::Put;
                let start_ts = record.start_ts;
                history.latest = Some(Latest { exists, start_ts, commit_ts });
            }
            more = self.older()?;
        }
        Ok(history)
    }
}

/// True if the versioned key belongs to the encoded user key.
pub(crate) fn is_version_of(versioned: &[u8], encoded: &[u8]) -> bool {
    versioned.len() == encoded.len() + 8 && versioned.starts_with(encoded)
}

/// `encoded ++ !ts`.
pub(crate) fn versioned(encoded: &[u8], ts: Timestamp) -> Bytes {
    let mut key = Vec::with_capacity(encoded.len() + 8);
    key.extend_from_slice(encoded);
    key.extend_from_slice(&(!ts.get()).to_be_bytes());
    Bytes::from(key)
}

/// The lock on the encoded key.
pub(crate) fn load_lock(view: &dyn ReadView, encoded: &[u8]) -> Result<Option<Lock>, MvccError> {
    Ok(view.get(Cf::Lock, encoded)?.map(Lock::decode).transpose()?)
}

/// The record at exactly `ts`, if any.
pub(crate) fn load_record_at(
    view: &dyn ReadView,
    versioned_key: &[u8],
) -> Result<Option<WriteRecord>, MvccError> {
    match view.get(Cf::Write, versioned_key)? {
        Some(bytes) => Ok(Some(WriteRef::decode(&bytes)?.to_record())),
        None => Ok(None),
    }
}

/// The value that `start_ts` put: the short one, or what family `default` holds.
pub(crate) fn load_value(
    view: &dyn ReadView,
    encoded: &[u8],
    start_ts: Timestamp,
    short_value: Option<Bytes>,
) -> Result<Bytes, MvccError> {
    if let Some(value) = short_value {
        return Ok(value);
    }
    let missing = || MvccError::ValueMissing { key: Bytes::copy_from_slice(encoded), start_ts };
    view.get(Cf::Default, &versioned(encoded, start_ts))?.ok_or_else(missing)
}

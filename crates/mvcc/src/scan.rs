//! Snapshot reads of many neighbouring keys.
//!
//! One cursor walks the locks and one the commit records, merged by user key. A key's versions that
//! the read does not want are stepped over one by one at first, because most keys have few, and by a
//! seek after [`STEPS_BEFORE_SEEK`], so that a key with many versions costs two seeks, not a walk.

use std::cmp::Ordering;

use bytes::Bytes;
use cribwork_types::{Cf, Timestamp, key};

use crate::key_span::after_versions;
use crate::read::lock_value;
use crate::versions::{is_version_of, load_value, versioned};
use crate::{
    KeySpan, Lock, LockVerdict, MvccError, ReadItem, ReadOptions, ReadView, Reader, ViewCursor,
    WriteKind, WriteRef,
};

/// Versions of one key stepped over before a seek.
const STEPS_BEFORE_SEEK: usize = 8;

/// How to scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Snapshot timestamp; MAX means the newest.
    pub ts: Timestamp,
    /// Most items (pairs and locked keys) to return.
    pub limit: usize,
    /// Leave values empty.
    pub key_only: bool,
    /// From the last key of the span to the first.
    pub reverse: bool,
}

impl Reader<'_> {
    /// The keys of `span` with a value at `scan.ts`, in key order or its reverse, at most `scan.limit`.
    /// Locked keys are items among the pairs.
    ///
    /// # Errors
    /// [`MvccError`] if the store failed.
    pub fn scan(
        &self,
        span: &KeySpan,
        scan: &ScanOptions,
        options: &ReadOptions,
    ) -> Result<Vec<ReadItem>, MvccError> {
        let mut items = Vec::new();
        if span.is_empty() || scan.limit == 0 {
            return Ok(items);
        }
        let mut scanner = Scanner::start(self.view, span, scan, options)?;
        while items.len() < scan.limit && scanner.next_key()? {
            items.extend(scanner.read_key()?);
        }
        Ok(items)
    }
}

/// A cursor and whether it stands on a key.
struct Side<'v> {
    cursor: Box<dyn ViewCursor + 'v>,
    valid: bool,
}

impl<'v> Side<'v> {
    fn start(mut cursor: Box<dyn ViewCursor + 'v>, reverse: bool) -> Result<Self, MvccError> {
        let valid = if reverse { cursor.seek_to_last()? } else { cursor.seek_to_first()? };
        Ok(Self { cursor, valid })
    }

    fn advance(&mut self, reverse: bool) -> Result<(), MvccError> {
        self.valid = if reverse { self.cursor.prev()? } else { self.cursor.next()? };
        Ok(())
    }
}

struct Scanner<'v> {
    view: &'v dyn ReadView,
    scan: &'v ScanOptions,
    options: &'v ReadOptions,
    locks: Side<'v>,
    writes: Side<'v>,
    /// Encoded user key being read.
    current: Vec<u8>,
    has_lock: bool,
}

impl<'v> Scanner<'v> {
    fn start(
        view: &'v dyn ReadView,
        span: &KeySpan,
        scan: &'v ScanOptions,
        options: &'v ReadOptions,
    ) -> Result<Self, MvccError> {
        let side = |cf| Side::start(view.cursor(cf, span.encoded()), scan.reverse);
        Ok(Self {
            view,
            scan,
            options,
            locks: side(Cf::Lock)?,
            writes: side(Cf::Write)?,
            current: Vec::new(),
            has_lock: false,
        })
    }

    /// Makes the next user key that has a lock or a record the current one.
    fn next_key(&mut self) -> Result<bool, MvccError> {
        let lock_key = self.locks.valid.then(|| self.locks.cursor.key());
        let write_key = match self.writes.valid {
            true => Some(key::split_versioned(self.writes.cursor.key())?.0),
            false => None,
        };
        let (next, has_lock) = match (lock_key, write_key) {
            (None, None) => return Ok(false),
            (Some(lock), None) => (lock, true),
            (None, Some(write)) => (write, false),
            (Some(lock), Some(write)) => {
                let order = lock.cmp(write);
                match if self.scan.reverse { order.reverse() } else { order } {
                    Ordering::Greater => (write, false),
                    Ordering::Less | Ordering::Equal => (lock, true),
                }
            }
        };
        self.current.clear();
        self.current.extend_from_slice(next);
        self.has_lock = has_lock;
        Ok(true)
    }

    /// The answer for the current key, if it has one; leaves both cursors behind the key.
    fn read_key(&mut self) -> Result<Option<ReadItem>, MvccError> {
        if self.has_lock {
            let lock = Lock::decode(Bytes::copy_from_slice(self.locks.cursor.value()))?;
            self.locks.advance(self.scan.reverse)?;
            let plain = Bytes::from(key::decode(&self.current)?);
            match lock.verdict(&plain, self.scan.ts, self.options) {
                LockVerdict::Pass => {}
                LockVerdict::Committed => {
                    self.leave_key()?;
                    let value = lock_value(self.view, &self.current, lock)?;
                    return Ok(value.map(|value| self.pair(plain, value)));
                }
                LockVerdict::Blocked => {
                    self.leave_key()?;
                    return Ok(Some(ReadItem::Locked(Box::new(lock.info(plain)))));
                }
            }
        }
        let value = match self.scan.reverse {
            false => self.visible()?,
            true => self.visible_from_oldest()?,
        };
        self.leave_key()?;
        let Some(value) = value else { return Ok(None) };
        Ok(Some(self.pair(Bytes::from(key::decode(&self.current)?), value)))
    }

    fn pair(&self, plain: Bytes, value: Bytes) -> ReadItem {
        ReadItem::Pair(plain, if self.scan.key_only { Bytes::new() } else { value })
    }

    fn on_current(&self) -> bool {
        self.writes.valid && is_version_of(self.writes.cursor.key(), &self.current)
    }

    fn record(&self) -> Result<(Timestamp, WriteRef<'_>), MvccError> {
        let (_, commit_ts) = key::split_versioned(self.writes.cursor.key())?;
        Ok((commit_ts, WriteRef::decode(self.writes.cursor.value())?))
    }

    /// The value at the snapshot, looked for from where the cursor is towards older versions.
    fn visible(&mut self) -> Result<Option<Bytes>, MvccError> {
        let mut steps = 0;
        while self.on_current() {
            let (commit_ts, record) = self.record()?;
            if commit_ts > self.scan.ts {
                steps += 1;
                if steps <= STEPS_BEFORE_SEEK {
                    self.writes.advance(false)?;
                } else {
                    self.seek_snapshot()?;
                }
                continue;
            }
            match record.kind {
                WriteKind::Put => {
                    let (start_ts, short) = (record.start_ts, self.copy_short(&record));
                    return self.value(start_ts, short).map(Some);
                }
                WriteKind::Delete => return Ok(None),
                WriteKind::Lock | WriteKind::Rollback => self.writes.advance(false)?,
            }
        }
        Ok(None)
    }

    /// The same for a cursor on the oldest version, as a walk backwards meets it.
    fn visible_from_oldest(&mut self) -> Result<Option<Bytes>, MvccError> {
        let mut newest: Option<(Timestamp, Option<Bytes>)> = None;
        for _ in 0..STEPS_BEFORE_SEEK {
            let done = !self.on_current() || self.record()?.0 > self.scan.ts;
            if done {
                return newest.map(|(start_ts, short)| self.value(start_ts, short)).transpose();
            }
            let (_, record) = self.record()?;
            match record.kind {
                WriteKind::Put => newest = Some((record.start_ts, self.copy_short(&record))),
                WriteKind::Delete => newest = None,
                WriteKind::Lock | WriteKind::Rollback => {}
            }
            self.writes.advance(true)?;
        }
        self.seek_snapshot()?;
        let value = self.visible()?;
        self.writes.valid = self.writes.cursor.seek_for_prev(&self.current)?;
        Ok(value)
    }

    fn seek_snapshot(&mut self) -> Result<(), MvccError> {
        self.writes.valid = self.writes.cursor.seek(&versioned(&self.current, self.scan.ts))?;
        Ok(())
    }

    /// Moves the record cursor to the next user key.
    fn leave_key(&mut self) -> Result<(), MvccError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.on_current() {
                return Ok(());
            }
            self.writes.advance(self.scan.reverse)?;
        }
        if self.on_current() {
            // No record is keyed by a bare user key, so "at or before it" is the key before.
            self.writes.valid = match self.scan.reverse {
                true => self.writes.cursor.seek_for_prev(&self.current)?,
                false => self.writes.cursor.seek(&after_versions(&self.current))?,
            };
        }
        Ok(())
    }

    fn copy_short(&self, record: &WriteRef<'_>) -> Option<Bytes> {
        match self.scan.key_only {
            true => Some(Bytes::new()),
            false => record.short_value.map(Bytes::copy_from_slice),
        }
    }

    fn value(&self, start_ts: Timestamp, short: Option<Bytes>) -> Result<Bytes, MvccError> {
        load_value(self.view, &self.current, start_ts, short)
    }
}

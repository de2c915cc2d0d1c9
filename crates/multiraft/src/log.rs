//! One group's log: entries in the `raft` family behind the node's log writer, with the newest of
//! them in memory as encoded bytes.
//!
//! Invariants:
//! * entries are contiguous: an append must start right behind the last entry, or it is refused;
//! * a read returns exactly the contiguous run that was asked for (openraft resends for ever when a
//!   reader answers with anything else), possibly cut short at a byte limit;
//! * what is not yet durable is always in the memory cache, so a read never races the log writer;
//! * after `close`, nothing reaches the writer any more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_engine::{Engine, EngineError, LogWrite, LogWriter};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, RangeId, WriteBatch};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::keys;
use crate::options::LOG_READ_BYTES_MAX;
use crate::position::{Position, VoteRecord};
use crate::records;

/// Told the outcome of an append once it is durable.
pub(crate) type Flushed = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

pub(crate) struct RangeLog {
    range: RangeId,
    engine: Arc<dyn Engine>,
    writer: LogWriter,
    cache_bytes_max: usize,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    closed: bool,
    vote: Option<VoteRecord>,
    /// The last vote that this log was told to keep and has kept.
    saved_vote: Option<VoteRecord>,
    purged: Option<Position>,
    last: Option<Position>,
    /// Index up to which entries are durable.
    durable: Option<u64>,
    /// Up to where the leader was told, since this log was opened, that entries are durable.
    acked: Option<Position>,
    /// How often the end of the log was dropped.
    truncations: u64,
    /// The newest entries, contiguous, ending at `last`.
    tail: VecDeque<(Position, Bytes)>,
    tail_bytes: usize,
    /// Bytes appended since the last purge.
    unpurged_bytes: u64,
}

impl Inner {
    fn next_index(&self) -> u64 {
        self.last.max(self.purged).map_or(0, |last| last.index + 1)
    }

    /// Drops the oldest cached entries over the limit, but none that is not durable yet.
    fn evict(&mut self, bytes_max: usize) {
        while self.tail_bytes > bytes_max {
            let Some((position, bytes)) = self.tail.front() else {
                return;
            };
            if self.durable.is_none_or(|durable| position.index > durable) {
                return;
            }
            self.tail_bytes -= bytes.len();
            self.tail.pop_front();
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("this instance of the replica is closed")
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl RangeLog {
    /// Loads vote, purge mark and last position of `range`.
    pub(crate) fn open(
        range: RangeId,
        engine: Arc<dyn Engine>,
        writer: LogWriter,
        cache_bytes_max: usize,
    ) -> io::Result<Arc<Self>> {
        let inner = Self::load(range, engine.as_ref())?;
        Ok(Arc::new(Self {
            range,
            engine,
            writer,
            cache_bytes_max,
            inner: Arc::new(Mutex::new(inner)),
        }))
    }

    fn load(range: RangeId, engine: &dyn Engine) -> io::Result<Inner> {
        let snapshot = engine.snapshot();
        let vote = snapshot.get(Cf::Raft, &keys::vote(range)).map_err(io::Error::other)?;
        let purged = snapshot.get(Cf::Raft, &keys::purged(range)).map_err(io::Error::other)?;
        let mut inner = Inner {
            vote: vote.map(records::decode_vote).transpose().map_err(io::Error::other)?,
            purged: purged.map(records::decode_position).transpose().map_err(io::Error::other)?,
            ..Inner::default()
        };
        inner.last = inner.purged;
        let mut cursor = snapshot.cursor(Cf::Raft, &keys::all_entries(range));
        if cursor.seek_to_last().map_err(io::Error::other)? {
            let index = index_of(cursor.key())?;
            let (term, _) = records::decode_entry(Bytes::copy_from_slice(cursor.value()))
                .map_err(io::Error::other)?;
            inner.last = inner.last.max(Some(Position { term, index }));
        }
        inner.durable = inner.last.map(|last| last.index);
        Ok(inner)
    }

    pub(crate) fn vote(&self) -> Option<VoteRecord> {
        self.inner.lock().vote
    }

    /// The last vote that was made durable since this log was opened.
    pub(crate) fn saved_vote(&self) -> Option<VoteRecord> {
        self.inner.lock().saved_vote
    }

    /// Up to where this replica's leader was told, since this log was opened, that everything is durable.
    pub(crate) fn acked(&self) -> Option<Position> {
        self.inner.lock().acked
    }

    /// A snapshot up to `position` is durable.
    pub(crate) fn note_snapshot(&self, position: Option<Position>) {
        let mut inner = self.inner.lock();
        inner.acked = inner.acked.max(position);
    }

    /// Last purged position and last position.
    pub(crate) fn bounds(&self) -> (Option<Position>, Option<Position>) {
        let inner = self.inner.lock();
        (inner.purged, inner.last.max(inner.purged))
    }

    /// Bytes appended since the log was last cut.
    pub(crate) fn unpurged_bytes(&self) -> u64 {
        self.inner.lock().unpurged_bytes
    }

    /// Makes `vote` durable.
    pub(crate) async fn save_vote(&self, vote: VoteRecord) -> io::Result<()> {
        {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(closed());
            }
            inner.vote = Some(vote);
        }
        if has(Bug::LostVote) && !vote.committed {
            self.inner.lock().saved_vote = Some(vote);
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raft, keys::vote(self.range), records::encode_vote(vote));
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| {
            let _ = sender.send(result);
        });
        self.submit(batch, !has(Bug::VoteUnsynced), done).await?;
        receiver.await.map_err(|_| closed())?.map_err(io::Error::other)?;
        self.inner.lock().saved_vote = Some(vote);
        Ok(())
    }

    /// Appends encoded entries and returns once they are queued and readable; `flushed` is told
    /// when they are durable.
    pub(crate) async fn append(
        &self,
        entries: Vec<(Position, Bytes)>,
        flushed: Flushed,
    ) -> io::Result<()> {
        let Some(last) = entries.last().map(|(position, _)| *position) else {
            flushed(Ok(()));
            return Ok(());
        };
        let mut batch = WriteBatch::new();
        {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(closed());
            }
            for (position, bytes) in entries {
                if position.index != inner.next_index() {
                    return Err(broken(format!(
                        "range {}: append at index {} but the log continues at {}",
                        self.range,
                        position.index,
                        inner.next_index()
                    )));
                }
                batch.put(Cf::Raft, keys::entry(self.range, position.index), bytes.clone());
                inner.last = Some(position);
                inner.tail_bytes += bytes.len();
                inner.unpurged_bytes += bytes.len() as u64;
                inner.tail.push_back((position, bytes));
            }
        }
        let (inner, cache_bytes_max) = (self.inner.clone(), self.cache_bytes_max);
        let truncations = inner.lock().truncations;
        let done = Box::new(move |result: Result<(), EngineError>| {
            if result.is_ok() {
                let mut inner = inner.lock();
                inner.durable = inner.durable.max(Some(last.index));
                // Not what may have been dropped while it was on its way.
                if inner.truncations == truncations {
                    inner.acked = inner.acked.max(Some(last));
                }
                inner.evict(cache_bytes_max);
            }
            flushed(result);
        });
        self.submit(batch, true, done).await
    }

    /// Drops every entry behind `keep`.
    pub(crate) async fn truncate_after(&self, keep: Option<Position>) -> io::Result<()> {
        let first = keep.map_or(0, |keep| keep.index + 1);
        let mut batch = WriteBatch::new();
        {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(closed());
            }
            let end = if has(Bug::TruncationForgotten) { first } else { inner.next_index() };
            for index in first..end {
                batch.delete(Cf::Raft, keys::entry(self.range, index));
            }
            while inner.tail.back().is_some_and(|(position, _)| position.index >= first) {
                let dropped = inner.tail.pop_back().map_or(0, |(_, bytes)| bytes.len());
                inner.tail_bytes -= dropped;
            }
            inner.last = keep.max(inner.purged);
            inner.acked = inner.acked.min(inner.last);
            inner.truncations += 1;
            inner.durable = inner.durable.min(inner.last.map(|last| last.index));
        }
        // Unsynced: a later append is synced behind it in the same log, and until then the dropped
        // entries were never acknowledged by this replica under the new leader. But written before
        // this returns: what takes the place of the dropped entries may be applied at once, and a
        // crash must not leave that behind a log which still ends in them.
        let (sender, written) = oneshot::channel();
        let done = Box::new(move |result| {
            let _ = sender.send(result);
        });
        self.submit(batch, false, done).await?;
        written.await.map_err(|_| closed())?.map_err(io::Error::other)
    }

    /// Drops every entry up to and including `upto`, whose effects survive a crash without it: they
    /// were written to the same write-ahead log before this.
    pub(crate) async fn purge(&self, upto: Position) -> io::Result<()> {
        let mut batch = WriteBatch::new();
        {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(closed());
            }
            let first = inner.purged.map_or(0, |purged| purged.index + 1);
            let more = if has(Bug::PurgeTooFar) { 8 } else { 0 };
            batch.delete_range(Cf::Raft, keys::entries(self.range, first, upto.index + 1 + more));
            inner.purged = inner.purged.max(Some(upto));
            inner.last = inner.last.max(Some(upto));
            inner.durable = inner.durable.max(Some(upto.index));
            inner.unpurged_bytes = 0;
            while inner.tail.front().is_some_and(|(position, _)| position.index <= upto.index) {
                let dropped = inner.tail.pop_front().map_or(0, |(_, bytes)| bytes.len());
                inner.tail_bytes -= dropped;
            }
        }
        batch.put(Cf::Raft, keys::purged(self.range), records::encode_position(upto));
        self.submit(batch, false, Box::new(|_| {})).await
    }

    /// Entries from `start` up to, not including, `end`: at least one if there is any, cut short at
    /// [`LOG_READ_BYTES_MAX`].
    pub(crate) fn read(&self, start: u64, end: u64) -> io::Result<Vec<(Position, Bytes)>> {
        let (cached_from, mut cached) = {
            let inner = self.inner.lock();
            if start < inner.purged.map_or(0, |purged| purged.index + 1) {
                return Err(broken(format!("range {}: entry {start} is purged", self.range)));
            }
            let end = end.min(inner.next_index());
            let from = inner.tail.front().map_or(end, |(position, _)| position.index.min(end));
            let skip = start.saturating_sub(from) as usize;
            let take = end.saturating_sub(start.max(from)) as usize;
            let tail: Vec<_> = inner.tail.iter().skip(skip).take(take).cloned().collect();
            (from, tail)
        };
        let mut entries = match start < cached_from {
            true if has(Bug::LogReadWithAHole) => return Ok(cached),
            true => self.read_engine(start, cached_from)?,
            false => Vec::new(),
        };
        let read_all = entries.len() as u64 == cached_from.saturating_sub(start);
        if read_all {
            entries.append(&mut cached);
        }
        let mut bytes = 0;
        let fits = entries.iter().position(|(_, entry)| {
            bytes += entry.len();
            bytes > LOG_READ_BYTES_MAX
        });
        if let Some(count) = fits {
            entries.truncate(count.max(1));
        }
        self.check_contiguous(start, &entries)?;
        Ok(entries)
    }

    fn read_engine(&self, start: u64, end: u64) -> io::Result<Vec<(Position, Bytes)>> {
        let snapshot = self.engine.snapshot();
        let mut cursor = snapshot.cursor(Cf::Raft, &keys::entries(self.range, start, end));
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut found = cursor.seek_to_first().map_err(io::Error::other)?;
        while found && bytes <= LOG_READ_BYTES_MAX {
            let value = Bytes::copy_from_slice(cursor.value());
            bytes += value.len();
            let index = index_of(cursor.key())?;
            let (term, _) = records::decode_entry(value.clone()).map_err(io::Error::other)?;
            entries.push((Position { term, index }, value));
            found = cursor.next().map_err(io::Error::other)?;
        }
        Ok(entries)
    }

    fn check_contiguous(&self, start: u64, entries: &[(Position, Bytes)]) -> io::Result<()> {
        let whole =
            entries.iter().zip(start..).all(|((position, _), index)| position.index == index);
        match whole {
            true => Ok(()),
            false => {
                Err(broken(format!("range {}: the log has a hole behind {start}", self.range)))
            }
        }
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
    }

    async fn submit(&self, batch: WriteBatch, sync: bool, done: Flushed) -> io::Result<()> {
        self.writer.append(LogWrite { batch, sync, done }).await.map_err(io::Error::other)
    }
}

fn index_of(key: &[u8]) -> io::Result<u64> {
    keys::index_of(key).map_err(io::Error::other)
}

#[cfg(test)]
pub(crate) mod tests;

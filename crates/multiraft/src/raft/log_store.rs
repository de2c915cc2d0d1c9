//! [`RangeLog`] as openraft's log storage.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{AsyncRuntime, LogState, OptionalSend, RaftLogReader};

use super::types::{self, Entry, LogId, Types, Vote};
use crate::log::RangeLog;
use crate::records;

pub(super) struct LogStore<A> {
    log: Arc<RangeLog>,
    runtime: PhantomData<fn() -> A>,
}

impl<A> LogStore<A> {
    pub(super) fn new(log: Arc<RangeLog>) -> Self {
        Self { log, runtime: PhantomData }
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(start, end)?;
        entries
            .into_iter()
            .map(|(position, bytes)| {
                let (_, payload) = records::decode_entry(bytes).map_err(io::Error::other)?;
                Ok(types::entry(position, payload))
            })
            .collect()
    }
}

impl<A: AsyncRuntime> RaftLogReader<Types<A>> for LogStore<A> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let mut entries = Vec::new();
        // This call must return the whole range, whereas the log hands out bounded pieces.
        let mut next = start;
        while next < end {
            let mut piece = self.read(next, end)?;
            if piece.is_empty() {
                break;
            }
            next += piece.len() as u64;
            entries.append(&mut piece);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end)?;
        if entries.is_empty() && start < end {
            return Err(io::Error::other(format!("no entry at {start} in a log read up to {end}")));
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote().map(types::vote))
    }
}

impl<A: AsyncRuntime> RaftLogStorage<Types<A>> for LogStore<A> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<A>>> {
        let (purged, last) = self.log.bounds();
        Ok(LogState {
            last_purged_log_id: purged.map(types::log_id),
            last_log_id: last.map(types::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        Self::new(self.log.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(types::vote_record(vote)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<A>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = entries
            .into_iter()
            .map(|entry| {
                let position = types::position(&entry.log_id);
                let payload = types::payload(&entry.payload);
                (position, records::encode_entry(position.term, &payload))
            })
            .collect();
        let flushed = Box::new(move |result: Result<(), cribwork_engine::EngineError>| {
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.log.append(encoded, flushed).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last.as_ref().map(types::position)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge(types::position(&upto)).await
    }
}

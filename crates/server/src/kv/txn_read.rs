//! Snapshot reads of transactions.

use std::sync::Arc;

use cribwork_mvcc::{MvccError, ReadItem, ReadOptions, Reader, ScanOptions};
use cribwork_proto::kvrpcpb::{
    BatchGetRequest, BatchGetResponse, Context, GetRequest, GetResponse, IsolationLevel, KeyError,
    KvPair, ScanLockRequest, ScanLockResponse, ScanRequest, ScanResponse,
};
use cribwork_types::{KeyRange, Timestamp};
use tokio::task::yield_now;

use crate::kv::call::{Call, Command, PointRead};
use crate::kv::checks;
use crate::kv::context::{scanned, txn_key, txn_span};
use crate::kv::core::{Core, Opened};
use crate::kv::failure::Failure;
use crate::kv::key_error::lock_info;
use crate::kv::raw_read::SMALL_BATCH_KEYS;
use crate::kv::walk::{Room, Walk};

/// Most locks that one scan for locks returns.
const LOCKS_MAX: usize = 16 * 1024;

/// What the reader knows of other transactions.
fn options(context: Option<&Context>) -> Result<ReadOptions, Failure> {
    let Some(context) = context else { return Ok(ReadOptions::default()) };
    let level = context.isolation_level;
    checks::without("an isolation level other than SI", level != IsolationLevel::Si as i32)?;
    let times = |times: &[u64]| times.iter().copied().map(Timestamp).collect();
    Ok(ReadOptions {
        resolved_locks: times(&context.resolved_locks),
        committed_locks: times(&context.committed_locks),
    })
}

fn pair(item: ReadItem) -> KvPair {
    match item {
        ReadItem::Pair(key, value) => KvPair { key, value, ..Default::default() },
        ReadItem::Locked(lock) => {
            let key = lock.key.clone();
            let error = KeyError { locked: Some(lock_info(*lock)), ..Default::default() };
            KvPair { key, error: Some(Box::new(error)), ..Default::default() }
        }
    }
}

impl PointRead for GetRequest {
    fn ts(&self) -> Timestamp {
        Timestamp(self.version)
    }

    fn read(&self, _: &Core, at: &Opened<'_>) -> Result<GetResponse, Failure> {
        checks::without("need_commit_ts", self.need_commit_ts)?;
        checks::key(&self.key)?;
        txn_key(at.range, &self.key)?;
        let options = options(self.context())?;
        let value = Reader::new(&at.view).get(&self.key, self.ts(), &options)?;
        let not_found = value.is_none();
        let value = value.unwrap_or_default();
        Ok(GetResponse { value, not_found, ..Default::default() })
    }
}

impl PointRead for BatchGetRequest {
    fn ts(&self) -> Timestamp {
        Timestamp(self.version)
    }

    fn is_small(&self) -> bool {
        self.keys.len() <= SMALL_BATCH_KEYS
    }

    fn read(&self, _: &Core, at: &Opened<'_>) -> Result<BatchGetResponse, Failure> {
        checks::without("need_commit_ts", self.need_commit_ts)?;
        checks::keys(&self.keys)?;
        self.keys.iter().try_for_each(|key| txn_key(at.range, key))?;
        let options = options(self.context())?;
        let reader = Reader::new(&at.view);
        let (mut room, mut pairs) = (Room::new(), Vec::with_capacity(self.keys.len()));
        for keys in self.keys.chunks(SMALL_BATCH_KEYS) {
            let from = pairs.len();
            pairs.extend(reader.batch_get(keys, self.ts(), &options)?.into_iter().map(pair));
            room.take(&pairs[from..])?;
        }
        Ok(BatchGetResponse { pairs, ..Default::default() })
    }
}

impl Command for ScanRequest {
    async fn run(self, core: &Arc<Core>) -> Result<ScanResponse, Failure> {
        let target = core.target(self.context())?;
        checks::without("sample_step", self.sample_step > 0)?;
        let options = options(self.context())?;
        let ts = Timestamp(self.version);
        let handle = core.read(&target, ts).await?;
        let at = core.open(&target, &handle)?;
        let (key_only, reverse) = (self.key_only, self.reverse);
        let keys = scanned(self.start_key, self.end_key, reverse);
        let mut walk = Walk::new(keys, reverse, self.limit as usize);
        let (mut room, mut pairs) = (Room::new(), Vec::new());
        while let Some((rest, limit)) = walk.step() {
            let span = txn_span(at.range, rest);
            let scan = ScanOptions { ts, limit, key_only, reverse };
            let items = Reader::new(&at.view).scan(&span, &scan, &options)?;
            let rows: Vec<KvPair> = items.into_iter().map(pair).collect();
            room.take(&rows)?;
            walk.advance(&rows);
            pairs.extend(rows);
            if walk.step().is_some() {
                yield_now().await;
            }
        }
        Ok(ScanResponse { pairs, ..Default::default() })
    }
}

impl Command for ScanLockRequest {
    async fn run(self, core: &Arc<Core>) -> Result<ScanLockResponse, Failure> {
        let target = core.target(self.context())?;
        let limit = match self.limit as usize {
            0 => LOCKS_MAX + 1,
            limit @ 1..=LOCKS_MAX => limit,
            _ => return too_many_locks(),
        };
        let max_ts = Timestamp(self.max_version);
        let handle = core.read(&target, max_ts).await?;
        let at = core.open(&target, &handle)?;
        let span = txn_span(at.range, &KeyRange { start: self.start_key, end: self.end_key });
        let locks = cribwork_mvcc::scan_locks(&at.view, &span, max_ts, limit)
            .map_err(|error: MvccError| Failure::from(error))?;
        if locks.len() > LOCKS_MAX {
            return too_many_locks();
        }
        let locks = locks.into_iter().map(lock_info).collect();
        Ok(ScanLockResponse { locks, ..Default::default() })
    }
}

/// Fewer locks than asked for would mean that there are no more.
fn too_many_locks() -> Result<ScanLockResponse, Failure> {
    let why = format!("more than {LOCKS_MAX} locks in one answer: ask for fewer");
    Err(Failure::Refused(why))
}

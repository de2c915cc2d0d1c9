//! The data of the cluster in memory: raw keys, and just enough of Percolator.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{self as kv, Op};
use cribwork_types::Timestamp;

#[derive(Clone, Debug)]
pub(crate) struct Record {
    start: u64,
    /// 0: rolled back.
    commit: u64,
    op: Op,
    value: Bytes,
}

#[derive(Default)]
pub(crate) struct Data {
    pub(crate) raw: BTreeMap<Bytes, Bytes>,
    pub(crate) locks: BTreeMap<Bytes, (kv::LockInfo, Bytes)>,
    writes: BTreeMap<Bytes, Vec<Record>>,
}

fn span(start: &Bytes, end: &Bytes) -> (Bound<Bytes>, Bound<Bytes>) {
    let upper = match end.is_empty() {
        true => Bound::Unbounded,
        false => Bound::Excluded(end.clone()),
    };
    (Bound::Included(start.clone()), upper)
}

fn pair(key: &Bytes, value: &Bytes) -> kv::KvPair {
    kv::KvPair { key: key.clone(), value: value.clone(), ..Default::default() }
}

fn locked(lock: &kv::LockInfo) -> kv::KeyError {
    kv::KeyError { locked: Some(lock.clone()), ..Default::default() }
}

impl Data {
    pub(super) fn raw_get(&mut self, request: &kv::RawGetRequest) -> kv::RawGetResponse {
        let value = self.raw.get(&request.key);
        kv::RawGetResponse {
            not_found: value.is_none(),
            value: value.cloned().unwrap_or_default(),
            ..Default::default()
        }
    }

    pub(super) fn raw_put(&mut self, request: &kv::RawPutRequest) -> kv::RawPutResponse {
        self.raw.insert(request.key.clone(), request.value.clone());
        Default::default()
    }

    pub(super) fn raw_delete(&mut self, request: &kv::RawDeleteRequest) -> kv::RawDeleteResponse {
        self.raw.remove(&request.key);
        Default::default()
    }

    pub(super) fn raw_batch_get(
        &mut self,
        request: &kv::RawBatchGetRequest,
    ) -> kv::RawBatchGetResponse {
        let found = request.keys.iter().filter_map(|key| self.raw.get_key_value(key));
        let pairs = found.map(|(key, value)| pair(key, value)).collect();
        kv::RawBatchGetResponse { pairs, ..Default::default() }
    }

    pub(super) fn raw_batch_put(
        &mut self,
        request: &kv::RawBatchPutRequest,
    ) -> kv::RawBatchPutResponse {
        let pairs = request.pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone()));
        self.raw.extend(pairs);
        Default::default()
    }

    pub(super) fn raw_batch_delete(
        &mut self,
        request: &kv::RawBatchDeleteRequest,
    ) -> kv::RawBatchDeleteResponse {
        self.raw.retain(|key, _| !request.keys.contains(key));
        Default::default()
    }

    pub(super) fn raw_delete_range(
        &mut self,
        request: &kv::RawDeleteRangeRequest,
    ) -> kv::RawDeleteRangeResponse {
        let gone: Vec<_> = self
            .raw
            .range(span(&request.start_key, &request.end_key))
            .map(|(key, _)| key.clone())
            .collect();
        self.raw.retain(|key, _| !gone.contains(key));
        Default::default()
    }

    pub(super) fn raw_scan(&mut self, request: &kv::RawScanRequest) -> kv::RawScanResponse {
        let limit = request.limit as usize;
        let kvs = match request.reverse {
            false => self
                .raw
                .range(span(&request.start_key, &request.end_key))
                .take(limit)
                .map(|(key, value)| pair(key, value))
                .collect(),
            true => self
                .raw
                .range(span(&request.end_key, &request.start_key))
                .rev()
                .take(limit)
                .map(|(key, value)| pair(key, value))
                .collect(),
        };
        kv::RawScanResponse { kvs, ..Default::default() }
    }

    pub(super) fn compare_and_swap(&mut self, request: &kv::RawCasRequest) -> kv::RawCasResponse {
        let previous = self.raw.get(&request.key).cloned();
        let expected = (!request.previous_not_exist).then(|| request.previous_value.clone());
        let succeed = previous == expected;
        if succeed {
            self.raw.insert(request.key.clone(), request.value.clone());
        }
        kv::RawCasResponse {
            succeed,
            previous_not_exist: previous.is_none(),
            previous_value: previous.unwrap_or_default(),
            ..Default::default()
        }
    }

    pub(super) fn checksum(&mut self, request: &kv::RawChecksumRequest) -> kv::RawChecksumResponse {
        let range = &request.ranges[0];
        let mut response = kv::RawChecksumResponse::default();
        for (key, value) in self.raw.range(span(&range.start_key, &range.end_key)) {
            response.checksum ^= u64::from(key[0]);
            response.total_kvs += 1;
            response.total_bytes += (key.len() + value.len()) as u64;
        }
        response
    }

    fn blocking(&self, key: &Bytes, version: u64, context: &kv::Context) -> Option<kv::KeyError> {
        let (lock, _) = self.locks.get(key)?;
        let blocks = matches!(lock.lock_type(), Op::Put | Op::Del)
            && lock.lock_version <= version
            && lock.min_commit_ts <= version
            && !context.resolved_locks.contains(&lock.lock_version);
        blocks.then(|| locked(lock))
    }

    fn read(&self, key: &Bytes, version: u64) -> Option<Bytes> {
        let visible = |record: &&Record| {
            record.commit > 0 && record.commit <= version && matches!(record.op, Op::Put | Op::Del)
        };
        let newest =
            self.writes.get(key)?.iter().filter(visible).max_by_key(|record| record.commit)?;
        (newest.op == Op::Put).then(|| newest.value.clone())
    }

    pub(super) fn get(&mut self, request: &kv::GetRequest) -> kv::GetResponse {
        let context = request.context.as_ref().unwrap();
        if let Some(error) = self.blocking(&request.key, request.version, context) {
            return kv::GetResponse { error: Some(error), ..Default::default() };
        }
        let value = self.read(&request.key, request.version);
        kv::GetResponse {
            not_found: value.is_none(),
            value: value.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn pairs<'a>(
        &self,
        keys: impl Iterator<Item = &'a Bytes>,
        version: u64,
        context: &kv::Context,
    ) -> Vec<kv::KvPair> {
        keys.filter_map(|key| match self.blocking(key, version, context) {
            Some(error) => Some(kv::KvPair {
                error: Some(Box::new(error)),
                key: key.clone(),
                ..Default::default()
            }),
            None => self.read(key, version).map(|value| pair(key, &value)),
        })
        .collect()
    }

    pub(super) fn batch_get(&mut self, request: &kv::BatchGetRequest) -> kv::BatchGetResponse {
        let context = request.context.as_ref().unwrap();
        let pairs = self.pairs(request.keys.iter(), request.version, context);
        kv::BatchGetResponse { pairs, ..Default::default() }
    }

    pub(super) fn scan(&mut self, request: &kv::ScanRequest) -> kv::ScanResponse {
        let context = request.context.as_ref().unwrap();
        let mut keys: std::collections::BTreeSet<&Bytes> = self.locks.keys().collect();
        keys.extend(self.writes.keys());
        let (lower, upper) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        let inside =
            keys.into_iter().filter(|key| *key >= lower && (upper.is_empty() || *key < upper));
        let mut pairs = self.pairs(inside, request.version, context);
        if request.reverse {
            pairs.reverse();
        }
        pairs.truncate(request.limit as usize);
        kv::ScanResponse { pairs, ..Default::default() }
    }

    fn prewrite_error(
        &self,
        request: &kv::PrewriteRequest,
        key: &Bytes,
        op: Op,
    ) -> Option<kv::KeyError> {
        let start = request.start_version;
        if let Some((lock, _)) = self.locks.get(key) {
            return (lock.lock_version != start).then(|| locked(lock));
        }
        let records = self.writes.get(key)?;
        if let Some(own) = records.iter().find(|record| record.start == start) {
            let abort = "rolled back".to_owned();
            return (own.commit == 0).then(|| kv::KeyError { abort, ..Default::default() });
        }
        let newest =
            records.iter().filter(|record| record.commit >= start).max_by_key(|r| r.commit);
        if let Some(newest) = newest {
            let conflict = kv::WriteConflict {
                start_ts: start,
                conflict_ts: newest.start,
                conflict_commit_ts: newest.commit,
                key: key.clone(),
                primary: request.primary_lock.clone(),
                reason: kv::write_conflict::Reason::Optimistic.into(),
            };
            return Some(kv::KeyError { conflict: Some(conflict), ..Default::default() });
        }
        let must_be_absent = matches!(op, Op::Insert | Op::CheckNotExists);
        let exists = kv::AlreadyExist { key: key.clone() };
        (must_be_absent && self.read(key, u64::MAX).is_some())
            .then(|| kv::KeyError { already_exist: Some(exists), ..Default::default() })
    }

    pub(crate) fn prewrite(&mut self, request: &kv::PrewriteRequest) -> kv::PrewriteResponse {
        let errors: Vec<_> = request
            .mutations
            .iter()
            .filter_map(|mutation| self.prewrite_error(request, &mutation.key, mutation.op()))
            .collect();
        for mutation in request.mutations.iter().filter(|_| errors.is_empty()) {
            let op = match mutation.op() {
                Op::Insert => Op::Put,
                Op::CheckNotExists => continue,
                op => op,
            };
            let lock = kv::LockInfo {
                primary_lock: request.primary_lock.clone(),
                lock_version: request.start_version,
                key: mutation.key.clone(),
                lock_ttl: request.lock_ttl,
                lock_type: op.into(),
                min_commit_ts: request.min_commit_ts,
                ..Default::default()
            };
            // An own lock stays as it is.
            self.locks
                .entry(mutation.key.clone())
                .or_insert_with(|| (lock, mutation.value.clone()));
        }
        kv::PrewriteResponse { errors, ..Default::default() }
    }

    fn own_lock(&self, key: &Bytes, start: u64) -> bool {
        self.locks.get(key).is_some_and(|(lock, _)| lock.lock_version == start)
    }

    fn settle(&mut self, key: &Bytes, start: u64, commit: u64) {
        if !self.own_lock(key, start) {
            return;
        }
        if let Some((lock, value)) = self.locks.remove(key) {
            let record = Record { start, commit, op: lock.lock_type(), value };
            self.writes.entry(key.clone()).or_default().push(record);
        }
    }

    fn record(&self, key: &Bytes, start: u64) -> Option<u64> {
        let records = self.writes.get(key)?;
        records.iter().find(|record| record.start == start).map(|record| record.commit)
    }

    pub(crate) fn commit(&mut self, request: &kv::CommitRequest) -> kv::CommitResponse {
        let start = request.start_version;
        let error = request.keys.iter().find_map(|key| match self.locks.get(key) {
            Some((lock, _)) if lock.lock_version == start => {
                let expired = kv::CommitTsExpired {
                    start_ts: start,
                    attempted_commit_ts: request.commit_version,
                    key: key.clone(),
                    min_commit_ts: lock.min_commit_ts,
                };
                (lock.min_commit_ts > request.commit_version).then(|| kv::KeyError {
                    commit_ts_expired: Some(expired),
                    ..Default::default()
                })
            }
            _ => {
                let retryable = "TxnLockNotFound".to_owned();
                (self.record(key, start).unwrap_or(0) == 0)
                    .then(|| kv::KeyError { retryable, ..Default::default() })
            }
        });
        if error.is_none() {
            request.keys.iter().for_each(|key| self.settle(key, start, request.commit_version));
        }
        kv::CommitResponse { error, ..Default::default() }
    }

    fn roll_back(&mut self, key: &Bytes, start: u64) {
        self.settle(key, start, 0);
        if self.record(key, start).is_none() {
            let record = Record { start, commit: 0, op: Op::Rollback, value: Bytes::new() };
            self.writes.entry(key.clone()).or_default().push(record);
        }
    }

    pub(super) fn batch_rollback(
        &mut self,
        request: &kv::BatchRollbackRequest,
    ) -> kv::BatchRollbackResponse {
        request.keys.iter().for_each(|key| self.roll_back(key, request.start_version));
        Default::default()
    }

    pub(super) fn check_status(
        &mut self,
        request: &kv::CheckTxnStatusRequest,
    ) -> kv::CheckTxnStatusResponse {
        let (key, start) = (&request.primary_key, request.lock_ts);
        let mut response = kv::CheckTxnStatusResponse::default();
        if self.own_lock(key, start) {
            let (lock, _) = self.locks.get_mut(key).unwrap();
            let ends = Timestamp(start).physical_ms() + lock.lock_ttl;
            let keep = lock.use_async_commit && !request.force_sync_commit;
            if !keep && ends < Timestamp(request.current_ts).physical_ms() {
                self.roll_back(key, start);
                response.set_action(kv::Action::TtlExpireRollback);
                return response;
            }
            if !keep && request.caller_start_ts >= lock.min_commit_ts && lock.min_commit_ts > 0 {
                lock.min_commit_ts = request.caller_start_ts + 1;
                response.set_action(kv::Action::MinCommitTsPushed);
            }
            response.lock_ttl = lock.lock_ttl;
            response.lock_info = Some(lock.clone());
            return response;
        }
        match self.record(key, start) {
            Some(commit) => response.commit_version = commit,
            None if request.rollback_if_not_exist => self.roll_back(key, start),
            None => {
                let missing = kv::TxnNotFound { start_ts: start, primary_key: key.clone() };
                let error = kv::KeyError { txn_not_found: Some(missing), ..Default::default() };
                response.error = Some(error);
            }
        }
        response
    }

    pub(super) fn check_secondaries(
        &mut self,
        request: &kv::CheckSecondaryLocksRequest,
    ) -> kv::CheckSecondaryLocksResponse {
        let mut response = kv::CheckSecondaryLocksResponse::default();
        for key in &request.keys {
            if self.own_lock(key, request.start_version) {
                response.locks.push(self.locks[key].0.clone());
                continue;
            }
            response.locks.clear();
            match self.record(key, request.start_version) {
                Some(commit) => response.commit_ts = commit,
                None => self.roll_back(key, request.start_version),
            }
            break;
        }
        response
    }

    pub(super) fn resolve(&mut self, request: &kv::ResolveLockRequest) -> kv::ResolveLockResponse {
        for key in &request.keys {
            self.settle(key, request.start_version, request.commit_version);
        }
        Default::default()
    }

    pub(super) fn heartbeat(
        &mut self,
        request: &kv::TxnHeartBeatRequest,
    ) -> kv::TxnHeartBeatResponse {
        let mut response = kv::TxnHeartBeatResponse::default();
        if self.own_lock(&request.primary_lock, request.start_version) {
            let (lock, _) = self.locks.get_mut(&request.primary_lock).unwrap();
            lock.lock_ttl = lock.lock_ttl.max(request.advise_lock_ttl);
            response.lock_ttl = lock.lock_ttl;
        }
        response
    }
}

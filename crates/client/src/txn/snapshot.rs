//! Reads at one timestamp.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_proto::kvrpcpb;
use cribwork_types::limits::SCAN_LIMIT_MAX;
use cribwork_types::{KeyRange, Timestamp, key};
use parking_lot::Mutex;

use super::resolve::{Waiter, key_failure};
use crate::ClientError;
use crate::call::Call;
use crate::core::Core;
use crate::raw::{KvPair, above_all, checked_count, checked_key, checked_limit};
use crate::request::Effect;
use crate::send::{TxnKey, txn_route_key};

/// Everything committed before one timestamp, and nothing after it. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    core: Arc<Core>,
    ts: Timestamp,
    /// Transactions that cannot commit below `ts` any more: their locks do not concern this reader.
    bypassed: Arc<Mutex<Vec<u64>>>,
}

impl Snapshot {
    pub(crate) fn new(core: Arc<Core>, ts: Timestamp) -> Self {
        Self { core, ts, bypassed: Arc::default() }
    }

    /// The timestamp.
    pub fn ts(&self) -> Timestamp {
        self.ts
    }

    fn context(&self) -> Option<kvrpcpb::Context> {
        let resolved_locks = self.bypassed.lock().clone();
        Some(kvrpcpb::Context { resolved_locks, ..Default::default() })
    }

    async fn wait(
        &self,
        call: &mut Call,
        locks: Vec<kvrpcpb::LockInfo>,
    ) -> Result<(), ClientError> {
        let waiter = Waiter::Reader { ts: self.ts, bypassed: &self.bypassed };
        self.core.wait_for_locks(call, locks, waiter).await
    }

    /// The value of a key; `None` if it is absent.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Locked`] if a lock outlasts the call.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, ClientError> {
        let key = checked_key(key)?;
        let route_key = txn_route_key(&key);
        let mut call = self.core.call("get", Effect::Read);
        loop {
            let request = kvrpcpb::GetRequest {
                context: self.context(),
                key: key.clone(),
                version: self.ts.get(),
                need_commit_ts: false,
            };
            let response = self.core.send_key(&mut call, &route_key, &request).await?;
            match response.error {
                None => return Ok((!response.not_found).then_some(response.value)),
                Some(error) => self.wait(&mut call, vec![key_failure(error)?]).await?,
            }
        }
    }

    /// The keys of `keys` that exist, with their values, in key order.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn batch_get(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<KvPair>, ClientError> {
        let keys: Result<Vec<_>, _> =
            keys.into_iter().map(|key| checked_key(key).map(TxnKey)).collect();
        let mut keys = keys?;
        checked_count(keys.len())?;
        let mut call = self.core.call("batch get", Effect::Read);
        let mut rows = Vec::new();
        loop {
            let pending = std::mem::take(&mut keys);
            let answers = self
                .core
                .send_grouped(&mut call, pending, |group| kvrpcpb::BatchGetRequest {
                    context: self.context(),
                    keys: group.iter().map(|key| key.0.clone()).collect(),
                    version: self.ts.get(),
                    need_commit_ts: false,
                })
                .await?;
            let mut locks = Vec::new();
            for (group, response) in answers {
                match take_rows(response.error, response.pairs)? {
                    Ok(found) => rows.extend(found),
                    Err(blocking) => {
                        locks.extend(blocking);
                        keys.extend(group);
                    }
                }
            }
            if keys.is_empty() {
                rows.sort_unstable();
                return Ok(rows);
            }
            self.wait(&mut call, locks).await?;
        }
    }

    /// The first `limit` keys of `span`, in order, with their values.
    ///
    /// # Errors
    /// As [`Self::get`]; [`ClientError::Invalid`] for a limit over
    /// [`cribwork_types::limits::SCAN_LIMIT_MAX`].
    pub async fn scan(&self, span: KeyRange, limit: u32) -> Result<Vec<KvPair>, ClientError> {
        checked_limit(limit)?;
        self.scan_any(span, limit, false).await
    }

    /// The last `limit` keys of `span`, in descending order, with their values.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub async fn reverse_scan(
        &self,
        span: KeyRange,
        limit: u32,
    ) -> Result<Vec<KvPair>, ClientError> {
        checked_limit(limit)?;
        self.scan_any(span, limit, true).await
    }

    /// Either direction, any limit.
    pub(super) async fn scan_any(
        &self,
        span: KeyRange,
        limit: u32,
        reverse: bool,
    ) -> Result<Vec<KvPair>, ClientError> {
        let mut call = self.core.call("scan", Effect::Read);
        let (mut rows, mut rest) = (Vec::new(), span);
        while rows.len() < limit as usize && !rest.is_empty() {
            let route = match (reverse, rest.end.is_empty()) {
                (false, _) => self.core.route(&mut call, &txn_route_key(&rest.start)).await?,
                (true, true) => self.core.route(&mut call, &above_all()).await?,
                (true, false) => self.route_below(&mut call, &rest.end).await?,
            };
            let range = plain_span(&route.descriptor.span)?;
            let part = rest.intersection(&range);
            let asked = (limit - rows.len() as u32).min(SCAN_LIMIT_MAX);
            let request = self.scan_request(part, asked, reverse);
            let response = match self.core.attempt(&call, &route, request).await? {
                Ok(response) => response,
                Err(setback) => {
                    call.pause(&*self.core.runtime, vec![setback]).await?;
                    continue;
                }
            };
            match take_rows(response.error, response.pairs)? {
                Ok(found) => {
                    call.progressed();
                    let more = (found.len() >= asked as usize).then(|| found.last().cloned());
                    rows.extend(found);
                    if let Some(Some((last, _))) = more {
                        match reverse {
                            false => rest.start = successor(&last),
                            true => rest.end = last,
                        }
                        continue;
                    }
                }
                Err(locks) => {
                    self.wait(&mut call, locks).await?;
                    continue;
                }
            }
            match reverse {
                false if range.end.is_empty() => break,
                false => rest.start = range.end,
                true if range.start.is_empty() => break,
                true => rest.end = range.start,
            }
        }
        Ok(rows)
    }

    async fn route_below(
        &self,
        call: &mut Call,
        bound: &[u8],
    ) -> Result<cribwork_router::Route, ClientError> {
        self.core.route_below(call, &txn_route_key(bound)).await
    }

    fn scan_request(&self, span: KeyRange, limit: u32, reverse: bool) -> kvrpcpb::ScanRequest {
        let (start_key, end_key) =
            if reverse { (span.end, span.start) } else { (span.start, span.end) };
        kvrpcpb::ScanRequest {
            context: self.context(),
            start_key,
            end_key,
            limit,
            reverse,
            version: self.ts.get(),
            ..Default::default()
        }
    }
}

/// The smallest key above `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The rows of an answer, or the locks that block it.
fn take_rows(
    error: Option<kvrpcpb::KeyError>,
    pairs: Vec<kvrpcpb::KvPair>,
) -> Result<Result<Vec<KvPair>, Vec<kvrpcpb::LockInfo>>, ClientError> {
    let (mut rows, mut locks) = (Vec::with_capacity(pairs.len()), Vec::new());
    for pair in pairs {
        match pair.error {
            None => rows.push((pair.key, pair.value)),
            Some(error) => locks.push(key_failure(*error)?),
        }
    }
    if let Some(error) = error {
        locks.push(key_failure(error)?);
    }
    Ok(if locks.is_empty() { Ok(rows) } else { Err(locks) })
}

/// The plain keys of a range: bounds decoded.
fn plain_span(span: &KeyRange) -> Result<KeyRange, ClientError> {
    let decode = |bound: &Bytes| match bound.is_empty() {
        true => Ok(Bytes::new()),
        false => key::decode(bound)
            .map(Bytes::from)
            .map_err(|error| ClientError::Protocol { what: "range bound", why: error.to_string() }),
    };
    Ok(KeyRange { start: decode(&span.start)?, end: decode(&span.end)? })
}

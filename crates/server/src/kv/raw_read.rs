//! Reads of the raw API: plain keys, no versions. Values whose time is up are absent.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_mvcc::raw::{RawChecksum, RawScanOptions, raw_get, raw_scan, raw_ttl_left_s};
use cribwork_proto::kvrpcpb::{
    ChecksumAlgorithm, KvPair, RawBatchGetRequest, RawBatchGetResponse, RawBatchScanRequest,
    RawBatchScanResponse, RawChecksumRequest, RawChecksumResponse, RawGetKeyTtlRequest,
    RawGetKeyTtlResponse, RawGetRequest, RawGetResponse, RawScanRequest, RawScanResponse,
};
use cribwork_types::{Cf, KeyRange, Timestamp};
use tokio::task::yield_now;

use crate::kv::call::{Call, Command, PointRead};
use crate::kv::checks;
use crate::kv::context::{raw_key, raw_span, scanned};
use crate::kv::core::{Core, Opened};
use crate::kv::failure::Failure;
use crate::kv::walk::{Room, Walk};

/// Keys up to which a batch of gets is answered between other commands.
pub(crate) const SMALL_BATCH_KEYS: usize = 128;

impl PointRead for RawGetRequest {
    fn read(&self, core: &Core, at: &Opened<'_>) -> Result<RawGetResponse, Failure> {
        checks::key(&self.key)?;
        let cf = checks::cf(&self.cf)?;
        raw_key(at.range, &self.key)?;
        let value = raw_get(&at.view, cf, &self.key, core.clock.now_ms())?;
        let not_found = value.is_none();
        let value = value.unwrap_or_default();
        Ok(RawGetResponse { value, not_found, ..Default::default() })
    }
}

impl PointRead for RawBatchGetRequest {
    fn is_small(&self) -> bool {
        self.keys.len() <= SMALL_BATCH_KEYS
    }

    fn read(&self, core: &Core, at: &Opened<'_>) -> Result<RawBatchGetResponse, Failure> {
        checks::keys(&self.keys)?;
        let cf = checks::cf(&self.cf)?;
        self.keys.iter().try_for_each(|key| raw_key(at.range, key))?;
        let now_ms = core.clock.now_ms();
        let (mut room, mut pairs) = (Room::new(), Vec::with_capacity(self.keys.len()));
        for key in &self.keys {
            if let Some(value) = raw_get(&at.view, cf, key, now_ms)? {
                pairs.push(KvPair { key: key.clone(), value, ..Default::default() });
                room.take(&pairs[pairs.len() - 1..])?;
            }
        }
        Ok(RawBatchGetResponse { pairs, ..Default::default() })
    }
}

impl PointRead for RawGetKeyTtlRequest {
    fn read(&self, core: &Core, at: &Opened<'_>) -> Result<RawGetKeyTtlResponse, Failure> {
        checks::key(&self.key)?;
        let cf = checks::cf(&self.cf)?;
        raw_key(at.range, &self.key)?;
        let left = raw_ttl_left_s(&at.view, cf, &self.key, core.clock.now_ms())?;
        let not_found = left.is_none();
        let ttl = left.unwrap_or_default();
        Ok(RawGetKeyTtlResponse { ttl, not_found, ..Default::default() })
    }
}

/// How one request scans.
struct Scan {
    cf: Cf,
    key_only: bool,
    reverse: bool,
    now_ms: u64,
}

impl Scan {
    fn rows(&self, at: &Opened<'_>, rest: &KeyRange, limit: usize) -> Result<Vec<KvPair>, Failure> {
        let Scan { cf, key_only, reverse, now_ms } = *self;
        let options = RawScanOptions { limit, key_only, reverse, now_ms };
        let found = raw_scan(&at.view, cf, rest, &options)?;
        let pair = |(key, value): (Bytes, Bytes)| KvPair { key, value, ..Default::default() };
        Ok(found.into_iter().map(pair).collect())
    }

    /// Appends up to `limit` rows of `keys`, clipped to the range.
    async fn run(
        &self,
        at: &Opened<'_>,
        keys: &KeyRange,
        limit: usize,
        room: &mut Room,
        found: &mut Vec<KvPair>,
    ) -> Result<(), Failure> {
        let mut walk = Walk::new(raw_span(at.range, keys), self.reverse, limit);
        while let Some((rest, count)) = walk.step() {
            let rows = self.rows(at, rest, count)?;
            room.take(&rows)?;
            walk.advance(&rows);
            found.extend(rows);
            if walk.step().is_some() {
                yield_now().await;
            }
        }
        Ok(())
    }
}

impl Command for RawScanRequest {
    async fn run(self, core: &Arc<Core>) -> Result<RawScanResponse, Failure> {
        let target = core.target(self.context())?;
        let limit = checks::scan_limit(self.limit)?;
        let cf = checks::cf(&self.cf)?;
        let handle = core.read(&target, Timestamp::ZERO).await?;
        let at = core.open(&target, &handle)?;
        let (key_only, reverse) = (self.key_only, self.reverse);
        let scan = Scan { cf, key_only, reverse, now_ms: core.clock.now_ms() };
        let keys = scanned(self.start_key, self.end_key, reverse);
        let mut kvs = Vec::new();
        scan.run(&at, &keys, limit, &mut Room::new(), &mut kvs).await?;
        Ok(RawScanResponse { kvs, ..Default::default() })
    }
}

impl Command for RawBatchScanRequest {
    async fn run(self, core: &Arc<Core>) -> Result<RawBatchScanResponse, Failure> {
        let target = core.target(self.context())?;
        checks::count(self.ranges.len())?;
        let limit = checks::scan_limit(self.each_limit)?;
        let cf = checks::cf(&self.cf)?;
        let handle = core.read(&target, Timestamp::ZERO).await?;
        let at = core.open(&target, &handle)?;
        let (key_only, reverse) = (self.key_only, self.reverse);
        let scan = Scan { cf, key_only, reverse, now_ms: core.clock.now_ms() };
        let (mut room, mut kvs) = (Room::new(), Vec::new());
        for range in self.ranges {
            let keys = scanned(range.start_key, range.end_key, reverse);
            scan.run(&at, &keys, limit, &mut room, &mut kvs).await?;
            yield_now().await;
        }
        Ok(RawBatchScanResponse { kvs, ..Default::default() })
    }
}

impl Command for RawChecksumRequest {
    async fn run(self, core: &Arc<Core>) -> Result<RawChecksumResponse, Failure> {
        let target = core.target(self.context())?;
        checks::count(self.ranges.len())?;
        let known = self.algorithm == ChecksumAlgorithm::Crc64Xor as i32;
        checks::without("a checksum algorithm other than Crc64_Xor", !known)?;
        let handle = core.read(&target, Timestamp::ZERO).await?;
        let at = core.open(&target, &handle)?;
        let now_ms = core.clock.now_ms();
        let scan = Scan { cf: Cf::Raw, key_only: false, reverse: false, now_ms };
        let mut sum = RawChecksum::default();
        for range in self.ranges {
            let keys = KeyRange { start: range.start_key, end: range.end_key };
            let mut walk = Walk::new(raw_span(at.range, &keys), false, usize::MAX);
            while let Some((rest, count)) = walk.step() {
                let rows = scan.rows(&at, rest, count)?;
                walk.advance(&rows);
                rows.iter().for_each(|row| sum.add(&row.key, &row.value));
                yield_now().await;
            }
        }
        let RawChecksum { checksum, total_kvs, total_bytes } = sum;
        Ok(RawChecksumResponse { checksum, total_kvs, total_bytes, ..Default::default() })
    }
}

//! The raw API: single keys without transactions. Every operation on one key is linearizable;
//! batches and scans are not atomic across ranges.
//!
//! A write whose answer was lost is *not* sent again: somebody else may have written the key in
//! between, and a late repetition would undo that. Such a call ends with
//! [`ClientError::Unknown`]. Whatever certainly had no effect is repeated until the time is up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::kvrpcpb;
use cribwork_types::limits::{BATCH_KEYS_MAX, KEY_BYTES_MAX, SCAN_LIMIT_MAX, VALUE_BYTES_MAX};
use cribwork_types::{KeyRange, RangeDescriptor};

use crate::ClientError;
use crate::core::Core;
use crate::error::undetermined;
use crate::request::Effect;
use crate::send::{Item, RawKey};

/// A key and its value.
pub type KvPair = (Bytes, Bytes);

/// How a compare and swap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasOutcome {
    /// True if the new value was written.
    pub swapped: bool,
    /// The value before; `None` if the key was absent.
    pub previous: Option<Bytes>,
}

/// Keys in an interval, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// Exclusive or of the CRC-64 of each key and value.
    pub crc64_xor: u64,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Handle of the raw API for one column family. Cheap to clone.
#[derive(Clone)]
pub struct RawClient {
    core: Arc<Core>,
    cf: String,
    /// Puts and deletes wait for compare-and-swaps of the same keys.
    atomic: bool,
}

#[derive(Clone)]
struct RawPair(KvPair);

impl Item for RawPair {
    fn route_key(&self) -> Bytes {
        self.0.0.clone()
    }

    fn size_bytes(&self) -> usize {
        self.0.0.len() + self.0.1.len()
    }
}

impl RawClient {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, cf: String::new(), atomic: false }
    }

    /// The same for another column family: `default`, `lock` or `write`.
    pub fn with_cf(&self, cf: impl Into<String>) -> Self {
        Self { cf: cf.into(), ..self.clone() }
    }

    /// The same with puts and deletes that wait for compare-and-swaps of the same keys. A plain put
    /// may slip in between the look and the swap of another client, which then does not see it: keys
    /// that are swapped must be written by this handle only.
    pub fn atomic(&self) -> Self {
        Self { atomic: true, ..self.clone() }
    }

    /// The value of a key; `None` if it is absent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, ClientError> {
        let key = checked_key(key)?;
        let mut call = self.core.call("raw get", Effect::Read);
        let request =
            kvrpcpb::RawGetRequest { key: key.clone(), cf: self.cf.clone(), context: None };
        let response = self.core.send_key(&mut call, &key, &request).await?;
        no_error(response.error)?;
        Ok((!response.not_found).then_some(response.value))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Unknown`] if the answer was lost.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        self.put_with_ttl(key, value, Duration::ZERO).await
    }

    /// Writes a key that vanishes after `ttl` (whole seconds, rounded up; zero: never).
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_with_ttl(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<(), ClientError> {
        let (key, value) = (checked_key(key)?, checked_value(value)?);
        let mut call = self.core.call("raw put", Effect::Once);
        let request = kvrpcpb::RawPutRequest {
            key: key.clone(),
            value,
            cf: self.cf.clone(),
            ttl: seconds(ttl),
            for_cas: self.atomic,
            ..Default::default()
        };
        no_error(self.core.send_key(&mut call, &key, &request).await?.error)
    }

    /// Removes a key, present or not.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<(), ClientError> {
        let key = checked_key(key)?;
        let mut call = self.core.call("raw delete", Effect::Once);
        let request = kvrpcpb::RawDeleteRequest {
            key: key.clone(),
            cf: self.cf.clone(),
            for_cas: self.atomic,
            ..Default::default()
        };
        no_error(self.core.send_key(&mut call, &key, &request).await?.error)
    }

    /// The keys of `keys` that exist, with their values, in key order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn batch_get(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<KvPair>, ClientError> {
        let keys = checked_keys(keys)?;
        let mut call = self.core.call("raw batch get", Effect::Read);
        let answers = self
            .core
            .send_grouped(&mut call, keys, |group| kvrpcpb::RawBatchGetRequest {
                keys: plain(group),
                cf: self.cf.clone(),
                context: None,
            })
            .await?;
        let pairs = answers.into_iter().flat_map(|(_, response)| response.pairs);
        let mut pairs: Vec<_> = pairs.map(|pair| (pair.key, pair.value)).collect();
        pairs.sort_unstable();
        Ok(pairs)
    }

    /// Writes many keys, atomically only within a range and up to half a MiB.
    ///
    /// # Errors
    /// As [`Self::put`]; any part may have taken effect.
    pub async fn batch_put(
        &self,
        pairs: impl IntoIterator<Item = (impl Into<Bytes>, impl Into<Bytes>)>,
    ) -> Result<(), ClientError> {
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| Ok(RawPair((checked_key(key)?, checked_value(value)?))))
            .collect::<Result<Vec<_>, ClientError>>()?;
        checked_count(pairs.len())?;
        let mut call = self.core.call("raw batch put", Effect::Once);
        let answers = self
            .core
            .send_grouped(&mut call, pairs, |group| kvrpcpb::RawBatchPutRequest {
                pairs: group.iter().cloned().map(wire_pair).collect(),
                cf: self.cf.clone(),
                for_cas: self.atomic,
                ..Default::default()
            })
            .await?;
        answers.into_iter().try_for_each(|(_, response)| no_error(response.error))
    }

    /// Removes many keys, atomically only within a range.
    ///
    /// # Errors
    /// As [`Self::batch_put`].
    pub async fn batch_delete(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<(), ClientError> {
        let keys = checked_keys(keys)?;
        let mut call = self.core.call("raw batch delete", Effect::Once);
        let answers = self
            .core
            .send_grouped(&mut call, keys, |group| kvrpcpb::RawBatchDeleteRequest {
                keys: plain(group),
                cf: self.cf.clone(),
                for_cas: self.atomic,
                ..Default::default()
            })
            .await?;
        answers.into_iter().try_for_each(|(_, response)| no_error(response.error))
    }

    /// The first `limit` keys of `span`, in order, with their values.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Invalid`] for a limit over [`SCAN_LIMIT_MAX`].
    pub async fn scan(&self, span: KeyRange, limit: u32) -> Result<Vec<KvPair>, ClientError> {
        checked_limit(limit)?;
        let mut call = self.core.call("raw scan", Effect::Read);
        let (mut rows, mut start) = (Vec::new(), span.start);
        loop {
            let left = limit - rows.len() as u32;
            if left == 0 || KeyRange::new(start.clone(), span.end.clone()).is_empty() {
                return Ok(rows);
            }
            let route = self.core.route(&mut call, &start).await?;
            let range = &route.descriptor.span;
            let wanted = KeyRange { start: start.clone(), end: span.end.clone() };
            let request = self.scan_request(wanted.intersection(range), left, false);
            match self.core.attempt(&call, &route, request).await? {
                Ok(response) => {
                    call.progressed();
                    rows.extend(response.kvs.into_iter().map(|kv| (kv.key, kv.value)));
                }
                Err(setback) => {
                    call.pause(&*self.core.runtime, vec![setback]).await?;
                    continue;
                }
            }
            match range.end.is_empty() {
                true => return Ok(rows),
                false => start = range.end.clone(),
            }
        }
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
        let mut call = self.core.call("raw reverse scan", Effect::Read);
        let (mut rows, mut end) = (Vec::new(), span.end);
        loop {
            let left = limit - rows.len() as u32;
            let wanted = KeyRange { start: span.start.clone(), end: end.clone() };
            if left == 0 || wanted.is_empty() {
                return Ok(rows);
            }
            let route = match end.is_empty() {
                true => self.core.route(&mut call, &above_all()).await?,
                false => self.core.route_below(&mut call, &end).await?,
            };
            let range = &route.descriptor.span;
            let request = self.scan_request(wanted.intersection(range), left, true);
            match self.core.attempt(&call, &route, request).await? {
                Ok(response) => {
                    call.progressed();
                    rows.extend(response.kvs.into_iter().map(|kv| (kv.key, kv.value)));
                }
                Err(setback) => {
                    call.pause(&*self.core.runtime, vec![setback]).await?;
                    continue;
                }
            }
            match range.start.is_empty() {
                true => return Ok(rows),
                false => end = range.start.clone(),
            }
        }
    }

    fn scan_request(&self, span: KeyRange, limit: u32, reverse: bool) -> kvrpcpb::RawScanRequest {
        let (start_key, end_key) =
            if reverse { (span.end, span.start) } else { (span.start, span.end) };
        kvrpcpb::RawScanRequest {
            start_key,
            end_key,
            limit,
            reverse,
            cf: self.cf.clone(),
            ..Default::default()
        }
    }

    /// Removes every key of `span`, range by range.
    ///
    /// # Errors
    /// As [`Self::batch_put`].
    pub async fn delete_range(&self, span: KeyRange) -> Result<(), ClientError> {
        let mut call = self.core.call("raw delete range", Effect::Once);
        let mut start = span.start.clone();
        loop {
            let rest = KeyRange { start: start.clone(), end: span.end.clone() };
            if rest.is_empty() {
                return Ok(());
            }
            let route = self.core.route(&mut call, &start).await?;
            let range: &RangeDescriptor = &route.descriptor;
            let part = rest.intersection(&range.span);
            let request = kvrpcpb::RawDeleteRangeRequest {
                start_key: part.start,
                end_key: part.end,
                cf: self.cf.clone(),
                context: None,
            };
            match self.core.attempt(&call, &route, request).await? {
                Ok(response) => {
                    call.progressed();
                    no_error(response.error)?;
                }
                Err(setback) => {
                    call.pause(&*self.core.runtime, vec![setback]).await?;
                    continue;
                }
            }
            match range.span.end.is_empty() {
                true => return Ok(()),
                false => start = range.span.end.clone(),
            }
        }
    }

    /// Writes `value` if the key's value is `expected` (`None`: if the key is absent).
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<CasOutcome, ClientError> {
        let (key, value) = (checked_key(key)?, checked_value(value)?);
        let mut call = self.core.call("raw compare and swap", Effect::Once);
        let request = kvrpcpb::RawCasRequest {
            key: key.clone(),
            value,
            previous_not_exist: expected.is_none(),
            previous_value: expected.unwrap_or_default(),
            cf: self.cf.clone(),
            ..Default::default()
        };
        let response = self.core.send_key(&mut call, &key, &request).await?;
        no_error(response.error)?;
        let previous = (!response.previous_not_exist).then_some(response.previous_value);
        Ok(CasOutcome { swapped: response.succeed, previous })
    }

    /// The time until a key vanishes: `None` if the key is absent, zero if it stays for good.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_ttl(&self, key: impl Into<Bytes>) -> Result<Option<Duration>, ClientError> {
        let key = checked_key(key)?;
        let mut call = self.core.call("raw get ttl", Effect::Read);
        let request =
            kvrpcpb::RawGetKeyTtlRequest { key: key.clone(), cf: self.cf.clone(), context: None };
        let response = self.core.send_key(&mut call, &key, &request).await?;
        no_error(response.error)?;
        Ok((!response.not_found).then(|| Duration::from_secs(response.ttl)))
    }

    /// Sums up the keys of `span` (family `default` only). Concurrent writes may or may not count.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn checksum(&self, span: KeyRange) -> Result<Checksum, ClientError> {
        let mut call = self.core.call("raw checksum", Effect::Read);
        let (mut total, mut start) = (Checksum::default(), span.start.clone());
        loop {
            let rest = KeyRange { start: start.clone(), end: span.end.clone() };
            if rest.is_empty() {
                return Ok(total);
            }
            let route = self.core.route(&mut call, &start).await?;
            let range = &route.descriptor.span;
            let part = rest.intersection(range);
            let part = kvrpcpb::KeyRange { start_key: part.start, end_key: part.end };
            let request = kvrpcpb::RawChecksumRequest { ranges: vec![part], ..Default::default() };
            match self.core.attempt(&call, &route, request).await? {
                Ok(response) => {
                    call.progressed();
                    no_error(response.error)?;
                    total.crc64_xor ^= response.checksum;
                    total.keys += response.total_kvs;
                    total.bytes += response.total_bytes;
                }
                Err(setback) => {
                    call.pause(&*self.core.runtime, vec![setback]).await?;
                    continue;
                }
            }
            match range.end.is_empty() {
                true => return Ok(total),
                false => start = range.end.clone(),
            }
        }
    }
}

/// A key above every range bound: it lies in the last range.
pub(crate) fn above_all() -> Bytes {
    Bytes::from_static(&[0xFF; 24])
}

pub(crate) fn checked_key(key: impl Into<Bytes>) -> Result<Bytes, ClientError> {
    let key = key.into();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let why = format!("{} bytes; there must be 1 to {KEY_BYTES_MAX}", key.len());
        return Err(ClientError::Invalid { what: "key", why });
    }
    Ok(key)
}

pub(crate) fn checked_value(value: impl Into<Bytes>) -> Result<Bytes, ClientError> {
    let value = value.into();
    if value.len() > VALUE_BYTES_MAX {
        let why = format!("{} bytes; at most {VALUE_BYTES_MAX} fit", value.len());
        return Err(ClientError::Invalid { what: "value", why });
    }
    Ok(value)
}

pub(crate) fn checked_limit(limit: u32) -> Result<(), ClientError> {
    if limit > SCAN_LIMIT_MAX {
        let why = format!("{limit} rows; at most {SCAN_LIMIT_MAX} come at once");
        return Err(ClientError::Invalid { what: "limit", why });
    }
    Ok(())
}

pub(crate) fn checked_count(count: usize) -> Result<(), ClientError> {
    if count > BATCH_KEYS_MAX {
        let why = format!("{count} keys; at most {BATCH_KEYS_MAX} go into one call");
        return Err(ClientError::Invalid { what: "batch", why });
    }
    Ok(())
}

fn checked_keys(
    keys: impl IntoIterator<Item = impl Into<Bytes>>,
) -> Result<Vec<RawKey>, ClientError> {
    let keys: Result<Vec<_>, _> =
        keys.into_iter().map(|key| checked_key(key).map(RawKey)).collect();
    let keys = keys?;
    checked_count(keys.len())?;
    Ok(keys)
}

fn plain(keys: &[RawKey]) -> Vec<Bytes> {
    keys.iter().map(|key| key.0.clone()).collect()
}

fn wire_pair(RawPair((key, value)): RawPair) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key, value, ..Default::default() }
}

fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

/// The raw API reports errors as a string.
fn no_error(message: String) -> Result<(), ClientError> {
    if message.is_empty() {
        return Ok(());
    }
    Err(undetermined("raw call", &message).unwrap_or_else(|| ClientError::server(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_know_is_not_taken_for_a_refusal() {
        let unknown = no_error("undetermined: no majority in time".into());
        assert!(matches!(unknown, Err(ClientError::Unknown { .. })), "{unknown:?}");
        let refused = no_error("the value is too large".into());
        assert!(!matches!(refused, Err(ClientError::Unknown { .. })), "{refused:?}");
        assert!(no_error(String::new()).is_ok());
    }
}

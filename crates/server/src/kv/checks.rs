//! What a request may ask for: sizes, and features that this server has.

use bytes::Bytes;
use cribwork_mvcc::raw::raw_cf;
use cribwork_proto::kvrpcpb::{self, Context};
use cribwork_types::limits::{BATCH_KEYS_MAX, KEY_BYTES_MAX, SCAN_LIMIT_MAX, VALUE_BYTES_MAX};
use cribwork_types::{Cf, ClusterId};

use crate::kv::failure::Failure;

fn refused<T>(text: String) -> Result<T, Failure> {
    Err(Failure::Refused(text))
}

/// A feature that this server does not have.
pub(crate) fn unsupported<T>(feature: &str) -> Result<T, Failure> {
    refused(format!("{feature} is not supported by this server"))
}

/// Refuses `feature` if the request asks for it.
pub(crate) fn without(feature: &str, asked_for: bool) -> Result<(), Failure> {
    if asked_for { unsupported(feature) } else { Ok(()) }
}

/// What every request must agree with, beside its range.
pub(crate) fn context(context: &Context, cluster: ClusterId) -> Result<(), Failure> {
    without("api_version other than V1", context.api_version != kvrpcpb::ApiVersion::V1 as i32)?;
    if context.cluster_id != 0 && context.cluster_id != cluster.get() {
        let asked = context.cluster_id;
        return refused(format!("this is cluster {cluster}, the request is for {asked}"));
    }
    Ok(())
}

/// The family behind a `cf` name of the raw API.
pub(crate) fn cf(name: &str) -> Result<Cf, Failure> {
    match raw_cf(name) {
        Some(cf) => Ok(cf),
        None => refused(format!("unknown cf {name:?}: there are default, lock and write")),
    }
}

/// A key's length.
pub(crate) fn key(key: &[u8]) -> Result<(), Failure> {
    match key.len() {
        0..=KEY_BYTES_MAX => Ok(()),
        length => refused(format!("a key of {length} bytes, at most {KEY_BYTES_MAX} are allowed")),
    }
}

/// A value's length.
pub(crate) fn value(value: &[u8]) -> Result<(), Failure> {
    match value.len() {
        0..=VALUE_BYTES_MAX => Ok(()),
        length => {
            refused(format!("a value of {length} bytes, at most {VALUE_BYTES_MAX} are allowed"))
        }
    }
}

/// How many keys, pairs or ranges one request names.
pub(crate) fn count(count: usize) -> Result<(), Failure> {
    match count {
        0..=BATCH_KEYS_MAX => Ok(()),
        _ => refused(format!("{count} keys in one request, at most {BATCH_KEYS_MAX} are allowed")),
    }
}

/// The number and the lengths of a request's keys.
pub(crate) fn keys(keys: &[Bytes]) -> Result<(), Failure> {
    count(keys.len())?;
    keys.iter().try_for_each(|one| key(one))
}

/// The limit of a raw scan.
pub(crate) fn scan_limit(limit: u32) -> Result<usize, Failure> {
    match limit {
        0..=SCAN_LIMIT_MAX => Ok(limit as usize),
        _ => refused(format!("a scan limit of {limit}, at most {SCAN_LIMIT_MAX} is allowed")),
    }
}

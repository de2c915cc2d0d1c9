//! Kv: reads and writes of single keys, raw or as transactions of one operation.
//!
//! Key: `"wkv_" ++ spread u32 ++ number u64`, filled up with zeros; the spread number is scrambled out of
//! the key's number, so that neighbours, and the hot keys of a skewed choice, lie in different ranges.
//!
//! Nothing is checked here, so a write whose answer was lost is simply made again.

mod load;
mod zipfian;

use std::sync::Arc;

use bytes::Bytes;
use cribwork_client::Client;
use cribwork_types::Runtime;
use cribwork_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use serde::Serialize;

use self::load::{Hand, preload};
use self::zipfian::Zipfian;
use crate::drive::drive;
use crate::keyspace::{KeySpace, scramble};
use crate::options::within;
use crate::setup::prepare;
use crate::{CommonOptions, Summary, WorkloadError};

const NAME: &str = "kv";
const TAG: [u8; 4] = *b"wkv_";
/// Tag, spread number and number.
const KEY_BYTES_MIN: u32 = 16;
const KEYS_MAX: u32 = 100_000_000;

/// Which API a workload uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Single keys without transactions.
    #[default]
    Raw,
    /// One transaction an operation.
    Txn,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Each as likely as any other.
    #[default]
    Uniform,
    /// Few keys are hot, as in YCSB.
    Zipfian,
}

/// What kv can be told.
#[derive(Clone, Debug)]
pub struct KvOptions {
    /// What every workload can be told.
    pub common: CommonOptions,
    /// Raw or transactions.
    pub api: Api,
    /// Operations that read, of 100.
    pub read_percent: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Number of keys.
    pub keys: u32,
    /// How keys are chosen.
    pub distribution: Distribution,
}

impl Default for KvOptions {
    /// Raw writes of 128 bytes to 100000 keys of 16 bytes, chosen evenly.
    fn default() -> Self {
        Self {
            common: CommonOptions::default(),
            api: Api::Raw,
            read_percent: 0,
            key_bytes: KEY_BYTES_MIN,
            value_bytes: 128,
            keys: 100_000,
            distribution: Distribution::Uniform,
        }
    }
}

impl KvOptions {
    fn check(&self) -> Result<(), WorkloadError> {
        self.common.check()?;
        within("read percent", self.read_percent, 0, 100)?;
        within("key size", self.key_bytes, KEY_BYTES_MIN, KEY_BYTES_MAX as u32)?;
        within("value size", self.value_bytes, 0, VALUE_BYTES_MAX as u32)?;
        within("keys", self.keys, 1, KEYS_MAX)
    }
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct KvReport {
    /// What every workload reports.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The keys and values of one run.
#[derive(Clone, Debug)]
struct Table {
    space: KeySpace,
    key_bytes: usize,
    keys: u32,
}

impl Table {
    fn spread(number: u32) -> u32 {
        (scramble(u64::from(number)) >> 32) as u32
    }

    fn slot(&self, number: u32) -> usize {
        self.space.slot(Self::spread(number))
    }

    fn key(&self, number: u32) -> Bytes {
        let mut key = self.space.prefix(Self::spread(number), self.key_bytes);
        key.extend_from_slice(&u64::from(number).to_be_bytes());
        key.resize(self.key_bytes, 0);
        key.into()
    }
}

/// Writes all keys first if there will be reads, then reads and writes for the time asked for.
///
/// # Errors
/// [`WorkloadError`] if the load could not be run.
pub async fn run_kv(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    options: &KvOptions,
) -> Result<KvReport, WorkloadError> {
    options.check()?;
    let space = KeySpace::new(TAG, options.common.ranges);
    prepare(client, runtime, &space).await?;
    let table = Table { space, key_bytes: options.key_bytes as usize, keys: options.keys };
    let table = Arc::new(table);
    let seed = options.common.seed.unwrap_or_else(|| runtime.random_u64());
    tracing::info!(seed, "kv begins");
    if options.read_percent > 0 {
        preload(client, runtime, &table, options, seed).await?;
    }
    let zipfian = match options.distribution {
        Distribution::Uniform => None,
        Distribution::Zipfian => Some(Arc::new(Zipfian::new(options.keys))),
    };
    let hands = (0..options.common.workers)
        .map(|worker| Hand::new(client, runtime, &table, options, zipfian.clone(), (seed, worker)))
        .collect();
    let (_, summary) = drive(NAME, runtime, &options.common, space.slots(), hands).await?;
    Ok(KvReport { summary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_size_asked_for_and_lie_in_their_slots() {
        for key_bytes in [16, 40] {
            let table = Table { space: KeySpace::new(TAG, 4), key_bytes, keys: 100 };
            let bounds = table.space.split_keys();
            let mut used = [0; 4];
            for number in 0..100 {
                let (key, slot) = (table.key(number), table.slot(number));
                assert_eq!(key.len(), key_bytes);
                assert_eq!(key[8..16], u64::from(number).to_be_bytes());
                assert!(bounds[slot] <= key && bounds.get(slot + 1).is_none_or(|next| *next > key));
                used[slot] += 1;
            }
            assert!(used.iter().all(|count| *count > 10), "{used:?}");
        }
    }

    #[test]
    fn options_that_cannot_be_right() {
        let good = KvOptions::default();
        assert!(good.check().is_ok());
        assert!(KvOptions { read_percent: 101, ..good.clone() }.check().is_err());
        assert!(KvOptions { key_bytes: 15, ..good.clone() }.check().is_err());
        assert!(KvOptions { keys: 0, ..good }.check().is_err());
    }

    #[test]
    fn the_report_is_the_summary() {
        let summary = Summary { workload: NAME, ..Default::default() };
        let report = serde_json::to_value(KvReport { summary: summary.clone() }).unwrap();
        assert_eq!(report, serde_json::to_value(summary).unwrap());
        assert_eq!(report.as_object().unwrap().len(), 14);
    }
}

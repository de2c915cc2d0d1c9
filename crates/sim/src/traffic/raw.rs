//! Raw reads, writes and swaps of single keys.

use std::ops::Range;

use bytes::Bytes;
use cribwork_checker::{Blob, Op};

use super::Worker;

pub(super) const KEYS: Range<u64> = 0..20;

/// Keys that nobody swaps: their writers do not wait for each other.
pub(super) const PLAIN: Range<u64> = 0..4;

pub(super) fn plain(number: u64) -> Bytes {
    format!("plain{number:02}").into()
}

pub(super) fn key(number: u64) -> Bytes {
    format!("raw{number:02}").into()
}

/// One operation on one key.
pub(super) async fn once(worker: &mut Worker) -> bool {
    let unique = worker.unique();
    if worker.random.chance(25) {
        let key = plain(worker.random.below(PLAIN.end));
        return match worker.random.chance(50) {
            true => get(worker, key).await,
            false => put(worker, key, unique, false).await,
        };
    }
    let key = key(worker.random.below(KEYS.end));
    match worker.random.below(10) {
        0..4 => get(worker, key).await,
        4..7 => put(worker, key, unique, true).await,
        7 => delete(worker, key).await,
        _ => swap(worker, key, unique).await,
    }
}

pub(super) async fn get(worker: &mut Worker, key: Bytes) -> bool {
    let begun = worker.begin();
    let result = worker.client.raw().get(key.clone()).await;
    if let Ok(value) = &result {
        worker.known.insert(key.clone(), value.clone());
    }
    let value = result.clone().ok().flatten().map(Blob::from);
    worker.record(begun, &result, Op::Get { key: key.into(), value })
}

async fn put(worker: &mut Worker, key: Bytes, unique: u64, atomic: bool) -> bool {
    let value = Bytes::from(unique.to_string());
    let begun = worker.begin();
    let raw = worker.client.raw();
    let raw = if atomic { raw.atomic() } else { raw };
    let result = raw.put(key.clone(), value.clone()).await;
    worker.record(begun, &result, Op::Put { key: key.into(), value: value.into() })
}

async fn delete(worker: &mut Worker, key: Bytes) -> bool {
    let begun = worker.begin();
    let result = worker.client.raw().atomic().delete(key.clone()).await;
    worker.record(begun, &result, Op::Delete { key: key.into() })
}

/// Swaps what it has just read, or what it has known for a while: without a read before it, a swap goes to
/// whoever led last.
async fn swap(worker: &mut Worker, key: Bytes, unique: u64) -> bool {
    let raw = worker.client.raw();
    let known = worker.known.remove(&key).filter(|_| worker.random.chance(70));
    let expected = match known {
        Some(known) => known,
        None => match raw.get(key.clone()).await {
            Ok(value) => value,
            Err(_) => return false,
        },
    };
    let value = Bytes::from(unique.to_string());
    let begun = worker.begin();
    let result = raw.compare_and_swap(key.clone(), expected.clone(), value.clone()).await;
    let answer = result.as_ref().ok();
    if let Some(answer) = answer {
        let now = if answer.swapped { Some(value.clone()) } else { answer.previous.clone() };
        worker.known.insert(key.clone(), now);
    }
    let op = Op::Cas {
        key: key.into(),
        expected: expected.map(Blob::from),
        value: value.into(),
        swapped: answer.map(|answer| answer.swapped),
        previous: answer.map(|answer| answer.previous.clone().map(Blob::from)),
    };
    worker.record(begun, &result, op)
}

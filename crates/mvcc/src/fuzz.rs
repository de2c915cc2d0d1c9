//! Hostile bytes for what transactions and the raw API read back from the store.

use bytes::Bytes;
use cribwork_fuzz::{Shape, target};
use cribwork_types::Timestamp;

use crate::raw::RawValue;
use crate::{Lock, LockKind, WriteKind, WriteRecord, WriteRef};

fn locks() -> Vec<Bytes> {
    let lock = Lock {
        kind: LockKind::Put,
        primary: Bytes::from_static(b"primary"),
        start_ts: Timestamp(10),
        ttl_ms: 3000,
        short_value: Some(Bytes::from_static(b"value")),
        txn_size: 2,
        for_update_ts: Timestamp(11),
        min_commit_ts: Timestamp(12),
        use_async_commit: true,
        secondaries: vec![Bytes::from_static(b"second"), Bytes::from_static(b"third")],
    };
    let kinds = [LockKind::Put, LockKind::Delete, LockKind::Lock, LockKind::Pessimistic];
    let of_kind = kinds.map(|kind| Lock { kind, ..lock.clone() });
    let bare = Lock { short_value: None, use_async_commit: false, secondaries: Vec::new(), ..lock };
    of_kind.iter().chain([&bare]).map(Lock::encode).collect()
}

#[test]
fn lock_records() {
    target("lock_records").seeds(locks()).run(|bytes| {
        let decoded = Lock::decode(Bytes::copy_from_slice(bytes));
        if let Ok(lock) = &decoded {
            assert_eq!(lock.encode(), bytes, "a lock has one encoding");
            // Whatever it says, a reader gets an answer.
            let _ = lock.verdict(b"key", Timestamp(11), &crate::ReadOptions::default());
            let _ = lock.is_expired(Timestamp(u64::MAX - 1));
        }
        Shape::decoded(&decoded, |lock| lock.secondaries.len())
    });
}

#[test]
fn write_records() {
    let record = |kind, short_value| WriteRecord {
        kind,
        start_ts: Timestamp(9),
        short_value,
        overlapped_rollback: true,
    };
    let kinds = [WriteKind::Put, WriteKind::Delete, WriteKind::Lock, WriteKind::Rollback];
    let empty = kinds.map(|kind| record(kind, None).encode());
    let full = kinds.map(|kind| record(kind, Some(Bytes::from_static(b"value"))).encode());
    target("write_records").seeds(empty).seeds(full).run(|bytes| {
        let decoded = WriteRef::decode(bytes);
        if let Ok(record) = decoded {
            assert_eq!(record.to_record().encode(), bytes, "a record has one encoding");
        }
        Shape::decoded(&decoded, |record| record.short_value.map_or(0, <[u8]>::len))
    });
}

#[test]
fn raw_values() {
    let value = |expires_at_ms| RawValue { expires_at_ms, value: "value" }.encode();
    target("raw_values").seeds([value(None), value(Some(77))]).run(|bytes| {
        let decoded = RawValue::decode(&Bytes::copy_from_slice(bytes));
        assert_eq!(decoded.as_ref().ok().map(|it| it.expires_at_ms), {
            RawValue::parse(bytes).ok().map(|it| it.expires_at_ms)
        });
        if let Ok(value) = &decoded {
            assert_eq!(value.encode(), bytes, "a value has one encoding");
            let _ = value.ttl_left_s(u64::MAX / 2);
        }
        Shape::decoded(&decoded, |value| value.value.len())
    });
}

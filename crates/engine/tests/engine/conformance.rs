//! What every engine must do, run against RocksDB and against its twin in memory.

use std::sync::Arc;

use crate::support::{RocksDir, batch_of, rows};
use bytes::Bytes;
use cribwork_engine::{Cursor, Engine, EngineError, KEY_STORED_BYTES_MAX, MemoryEngine};
use cribwork_types::{Cf, KeyRange, WriteBatch};

/// Runs `check` on a fresh engine of each kind.
fn on_each(check: impl Fn(Arc<dyn Engine>)) {
    check(MemoryEngine::new());
    let dir = RocksDir::new();
    check(dir.open());
}

fn put(cf: Cf, key: &'static str, value: &'static str) -> WriteBatch {
    batch_of(|batch| batch.put(cf, key, value))
}

fn keys(cursor: &mut dyn Cursor) -> Vec<Bytes> {
    let mut keys = Vec::new();
    let mut landed = cursor.seek_to_first().unwrap();
    while landed {
        keys.push(Bytes::copy_from_slice(cursor.key()));
        landed = cursor.next().unwrap();
    }
    keys
}

#[test]
fn families_are_apart() {
    on_each(|engine| {
        for cf in Cf::ALL {
            engine.write(&put(cf, "k", cf.name())).unwrap();
        }
        for cf in Cf::ALL {
            assert_eq!(engine.get(cf, b"k").unwrap().unwrap(), cf.name());
        }
        assert_eq!(engine.get(Cf::Raw, b"absent").unwrap(), None);
    });
}

#[test]
fn a_batch_takes_effect_in_its_order() {
    on_each(|engine| {
        let batch = batch_of(|batch| {
            batch.put(Cf::Raw, "a", "1");
            batch.put(Cf::Raw, "b", "1");
            batch.delete_range(Cf::Raw, KeyRange::new("a", "c"));
            batch.put(Cf::Raw, "a", "2");
            batch.put(Cf::Raw, "c", "1");
            batch.delete(Cf::Raw, "c");
            batch.delete(Cf::Raw, "never there");
        });
        engine.write(&batch).unwrap();
        assert_eq!(rows(&*engine, Cf::Raw), [("a".into(), "2".into())]);
    });
}

/// RocksDB writes batches of several threads together, and then by another way than the batch of one.
#[test]
fn a_range_delete_among_puts_holds_beside_other_writers() {
    on_each(|engine| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for cf in [Cf::Raft, Cf::Lock] {
                let (engine, stop) = (&engine, &stop);
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        engine.write(&put(cf, "k", "v")).unwrap();
                    }
                });
            }
            for round in 0..3000_u32 {
                let value = Bytes::from(round.to_be_bytes().to_vec());
                let batch = batch_of(|batch| {
                    batch.put(Cf::Raw, "a", value.clone());
                    batch.put(Cf::Raw, "m", value.clone());
                    batch.delete_range(Cf::Raw, KeyRange::new("b", "n"));
                    batch.put(Cf::Raw, "o", value.clone());
                });
                engine.write(&batch).unwrap();
                let found = ["a", "m", "o"].map(|key| engine.get(Cf::Raw, key.as_bytes()).unwrap());
                let expected = [Some(value.clone()), None, Some(value)];
                if found != expected {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                assert_eq!(found, expected, "round {round}");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn empty_keys_values_and_batches() {
    on_each(|engine| {
        engine.write(&WriteBatch::new()).unwrap();
        engine.write(&put(Cf::Raw, "", "")).unwrap();
        assert_eq!(engine.get(Cf::Raw, b"").unwrap().unwrap(), "");
        assert_eq!(rows(&*engine, Cf::Raw).len(), 1);
    });
}

#[test]
fn a_range_delete_without_end_reaches_the_longest_key() {
    on_each(|engine| {
        let longest = vec![0xFF; KEY_STORED_BYTES_MAX];
        let batch = batch_of(|batch| {
            batch.put(Cf::Raw, "a", "1");
            batch.put(Cf::Raw, longest.clone(), "1");
            batch.put(Cf::RawLock, longest.clone(), "1");
        });
        engine.write(&batch).unwrap();
        let delete = batch_of(|batch| batch.delete_range(Cf::Raw, KeyRange::new("b", "")));
        engine.write(&delete).unwrap();
        assert_eq!(rows(&*engine, Cf::Raw), [("a".into(), "1".into())]);
        assert_eq!(rows(&*engine, Cf::RawLock).len(), 1, "other families are untouched");

        let inverted = batch_of(|batch| batch.delete_range(Cf::Raw, KeyRange::new("b", "a")));
        engine.write(&inverted).unwrap();
        assert_eq!(rows(&*engine, Cf::Raw).len(), 1);
    });
}

#[test]
fn a_key_too_long_spoils_its_batch_and_nothing_else() {
    on_each(|engine| {
        let batch = batch_of(|batch| {
            batch.put(Cf::Raw, "a", "1");
            batch.put(Cf::Raw, vec![0; KEY_STORED_BYTES_MAX + 1], "1");
        });
        let error = engine.write(&batch).unwrap_err();
        assert!(matches!(error, EngineError::KeyTooLong { .. }), "{error}");
        assert!(rows(&*engine, Cf::Raw).is_empty());
        engine.write(&put(Cf::Raw, "a", "1")).unwrap();
    });
}

#[test]
fn a_snapshot_stays_as_it_was_and_outlives_its_engine() {
    on_each(|engine| {
        engine.write(&put(Cf::Raw, "a", "old")).unwrap();
        let snapshot = engine.snapshot();
        let change = batch_of(|batch| {
            batch.put(Cf::Raw, "a", "new");
            batch.put(Cf::Lock, "b", "new");
        });
        engine.write(&change).unwrap();
        engine.write(&batch_of(|batch| batch.delete_range(Cf::Raw, KeyRange::all()))).unwrap();
        engine.flush().unwrap();
        drop(engine);
        assert_eq!(snapshot.get(Cf::Raw, b"a").unwrap().unwrap(), "old");
        assert_eq!(snapshot.get(Cf::Lock, b"b").unwrap(), None);
        assert_eq!(keys(&mut *snapshot.cursor(Cf::Raw, &KeyRange::all())), ["a"]);
    });
}

#[test]
fn cursors_keep_their_bounds_in_both_directions() {
    on_each(|engine| {
        let fill = batch_of(|batch| {
            for key in ["a", "b", "d", "e", "g"] {
                batch.put(Cf::Write, key, key);
            }
        });
        engine.write(&fill).unwrap();
        let snapshot = engine.snapshot();
        let mut cursor = snapshot.cursor(Cf::Write, &KeyRange::new("b", "g"));
        assert_eq!(keys(&mut *cursor), ["b", "d", "e"]);
        assert!(!cursor.next().unwrap() && !cursor.prev().unwrap(), "nowhere stays nowhere");

        assert!(cursor.seek_to_last().unwrap());
        assert_eq!((cursor.key(), cursor.value()), (&b"e"[..], &b"e"[..]));
        assert!(cursor.prev().unwrap() && cursor.prev().unwrap() && !cursor.prev().unwrap());

        let mut seek =
            |key: &str| cursor.seek(key.as_bytes()).unwrap().then(|| cursor.key().to_vec());
        assert_eq!(seek("").unwrap(), b"b");
        assert_eq!(seek("c").unwrap(), b"d");
        assert_eq!(seek("f"), None);
        assert_eq!(seek("x"), None);
        let mut seek = |key: &str| {
            cursor.seek_for_prev(key.as_bytes()).unwrap().then(|| cursor.key().to_vec())
        };
        assert_eq!(seek("a"), None);
        assert_eq!(seek("c").unwrap(), b"b");
        assert_eq!(seek("d").unwrap(), b"d");
        assert_eq!(seek("x").unwrap(), b"e");

        for empty in [KeyRange::new("d", "d"), KeyRange::new("e", "b"), KeyRange::new("x", "")] {
            let mut cursor = snapshot.cursor(Cf::Write, &empty);
            assert!(!cursor.seek_to_first().unwrap() && !cursor.seek_to_last().unwrap(), "{empty}");
            assert!(!cursor.seek(b"d").unwrap() && !cursor.seek_for_prev(b"d").unwrap(), "{empty}");
        }
    });
}

#[test]
fn sizes_follow_the_data() {
    on_each(|engine| {
        let fill = batch_of(|batch| {
            for number in 0..200u32 {
                batch.put(Cf::Raw, format!("{number:03}"), noise(number));
            }
        });
        engine.write(&fill).unwrap();
        let all = KeyRange::all();
        let half = KeyRange::new("000", "100");
        for flushed in [false, true] {
            if flushed {
                engine.flush().unwrap();
            }
            let total = engine.approximate_size_bytes(Cf::Raw, &all);
            let part = engine.approximate_size_bytes(Cf::Raw, &half);
            assert!((150_000..300_000).contains(&total), "{total}");
            assert!((total / 3..total * 2 / 3).contains(&part), "{part} of {total}");
            assert!(engine.disk_usage().used_bytes >= 150_000);
        }
        assert_eq!(engine.approximate_size_bytes(Cf::Raw, &KeyRange::new("b", "a")), 0);
        assert_eq!(engine.approximate_size_bytes(Cf::Lock, &all), 0);
    });
}

/// A kilobyte that does not compress.
fn noise(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let step = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..1024).map(step).collect()
}

#[test]
fn a_crash_in_memory_leaves_a_prefix() {
    let engine = MemoryEngine::new();
    engine.write(&put(Cf::Raw, "a", "1")).unwrap();
    engine.sync().unwrap();
    engine.write(&put(Cf::Raw, "b", "1")).unwrap();
    engine.write(&batch_of(|batch| batch.delete_range(Cf::Raw, KeyRange::new("a", "b")))).unwrap();
    let held = |unsynced| {
        let crashed = engine.crash_keeping(unsynced);
        rows(&*crashed, Cf::Raw).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(held(0), ["a"]);
    assert_eq!(held(1), ["a", "b"]);
    assert_eq!(held(2), ["b"]);
    assert_eq!(held(9), ["b"]);
    assert_eq!(rows(&*engine, Cf::Raw).len(), 1, "the engine itself goes on");
}

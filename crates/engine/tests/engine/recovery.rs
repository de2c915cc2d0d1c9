//! What a RocksDB engine finds when it is opened again: data, a torn tail, damage, somebody else.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{RocksDir, batch_of, rows};
use cribwork_engine::{Engine, EngineError, EngineOptions, RocksEngine};
use cribwork_types::{Cf, CodedError, WriteBatch};

fn put(number: u32) -> WriteBatch {
    batch_of(|batch| batch.put(Cf::Raft, number.to_be_bytes().to_vec(), vec![b'v'; 1000]))
}

fn write(engine: &RocksEngine, numbers: std::ops::Range<u32>) {
    for number in numbers {
        engine.write(&put(number)).unwrap();
    }
    engine.sync().unwrap();
}

fn numbers(engine: &RocksEngine) -> Vec<u32> {
    let number = |key: &[u8]| u32::from_be_bytes(key.try_into().unwrap());
    rows(engine, Cf::Raft).iter().map(|(key, _)| number(key)).collect()
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

/// The log that holds data: RocksDB may keep an empty one beside it.
fn log(dir: &RocksDir) -> std::path::PathBuf {
    let length = |path: &std::path::PathBuf| fs::metadata(path).unwrap().len();
    dir.files(".log").into_iter().max_by_key(length).unwrap()
}

fn refusal(dir: &RocksDir) -> EngineError {
    dir.try_open().err().expect("the damage was not noticed")
}

#[test]
fn data_survives_with_and_without_a_flush() {
    let dir = RocksDir::new();
    let engine = dir.open();
    write(&engine, 0..10);
    engine.flush().unwrap();
    write(&engine, 10..20);
    drop(engine);
    for _ in 0..2 {
        assert_eq!(numbers(&dir.open()), (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_torn_tail_costs_only_the_record_it_tore() {
    let dir = RocksDir::new();
    write(&dir.open(), 0..100);
    // Into the body of the last record (of 1028 bytes), and into its header.
    for bytes in [500, 1025] {
        cut(&log(&dir), bytes);
        let engine = dir.open();
        assert_eq!(numbers(&engine), (0..99).collect::<Vec<_>>());
        // What came after a torn tail must not be mistaken for damage at the next start.
        write(&engine, 99..100);
        drop(engine);
        let engine = dir.open();
        assert_eq!(numbers(&engine).len(), 100);
        engine.write(&batch_of(|batch| batch.delete_range(Cf::Raft, Default::default()))).unwrap();
        write(&engine, 0..100);
    }
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused() {
    let dir = RocksDir::new();
    write(&dir.open(), 0..200);
    let log = log(&dir);
    flip(&log, fs::metadata(&log).unwrap().len() / 2);
    let error = refusal(&dir);
    assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
    assert_eq!(error.code(), "CW-ENGINE-CORRUPTION");
}

/// Two live log files, the older without its end: each is readable, together they are no prefix.
#[test]
fn a_hole_between_log_files_is_refused() {
    let dir = RocksDir::new();
    let engine = dir.open();
    // Not flushed, so that the first file stays when the raft family fills and the log moves on.
    engine.write(&batch_of(|batch| batch.put(Cf::Raw, "keeps the file", "1"))).unwrap();
    let mut number = 0;
    while dir.files(".log").len() < 2 {
        assert!(number < 100_000, "the log never moved on");
        engine.write(&put(number)).unwrap();
        number += 1;
    }
    write(&engine, number..number + 5);
    drop(engine);
    cut(&dir.files(".log")[0], 500);
    let error = refusal(&dir);
    assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
}

#[test]
fn a_damaged_table_file_is_an_error_and_not_an_absence() {
    let dir = RocksDir::new();
    let engine = dir.open();
    write(&engine, 0..100);
    engine.flush().unwrap();
    drop(engine);
    let table = dir.files(".sst").pop().unwrap();
    flip(&table, 20);
    let error = match dir.try_open() {
        Err(error) => error,
        Ok(engine) => engine.get(Cf::Raft, &0u32.to_be_bytes()).unwrap_err(),
    };
    assert!(matches!(error, EngineError::Corruption { .. }), "{error}");

    fs::remove_file(&table).unwrap();
    let error = refusal(&dir);
    assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
}

#[test]
fn a_directory_is_opened_once() {
    let dir = RocksDir::new();
    let engine = dir.open();
    let locked = EngineError::Locked { dir: dir.path().to_owned() };
    assert_eq!(refusal(&dir), locked);
    // A snapshot keeps the database open, and so the lock.
    let snapshot = engine.snapshot();
    drop(engine);
    assert_eq!(refusal(&dir), locked);
    drop(snapshot);
    dir.open();
}

#[test]
fn strange_directories_are_left_alone() {
    let dir = RocksDir::new();
    fs::write(dir.path().join("photo.jpg"), "x").unwrap();
    assert!(matches!(refusal(&dir), EngineError::ForeignDirectory { .. }));

    let dir = RocksDir::new();
    write(&dir.open(), 0..1);
    fs::write(dir.path().join("FORMAT"), "cribwork store, format 99\n").unwrap();
    let error = refusal(&dir);
    assert!(matches!(&error, EngineError::UnknownFormat { found, known: 1, .. } if found == "99"));
}

#[test]
fn a_missing_directory_is_made() {
    let dir = RocksDir::new();
    let deep = dir.path().join("a/b");
    let engine = RocksEngine::open(&deep, EngineOptions::small()).unwrap();
    let usage = engine.disk_usage();
    assert!(usage.capacity_bytes >= usage.available_bytes && usage.available_bytes > 0);
}

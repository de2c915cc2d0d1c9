//! Looking at a store that nobody runs: what is seen, what is refused, and that nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::support::{RocksDir, batch_of, view_rows};
use bytes::Bytes;
use cribwork_engine::{Engine, EngineError, StoppedStore, StoreIdentity, save_identity};
use cribwork_types::{Cf, ClusterId, StoreId};

const ROWS: u32 = 120;

/// A store with rows in a table file and rows in the log only.
fn stopped() -> RocksDir {
    let dir = RocksDir::new();
    let engine = dir.open();
    let identity = StoreIdentity { cluster: ClusterId(7), store: StoreId(3), boot_count: 1 };
    save_identity(&*engine, &identity).unwrap();
    for number in 0..ROWS {
        if number == ROWS / 2 {
            engine.flush().unwrap();
        }
        // Not to be compressed away: a flipped bit in padding would prove nothing.
        let mut state = u64::from(number) + 1;
        let value: Vec<u8> = (0..1000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let key = number.to_be_bytes().to_vec();
        engine.write(&batch_of(|batch| batch.put(Cf::Raw, key, value))).unwrap();
    }
    engine.sync().unwrap();
    dir
}

fn open(dir: &RocksDir) -> Result<StoppedStore, EngineError> {
    StoppedStore::open(dir.path())
}

fn rows(store: &StoppedStore) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    view_rows(&*store.view(), Cf::Raw)
}

/// Everything below a directory: contents and times of change.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, (Vec::new(), changed));
        } else {
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    found
}

#[test]
fn looking_sees_everything_and_changes_nothing() {
    let dir = stopped();
    let before = contents(dir.path());
    let store = open(&dir).unwrap();
    let found = rows(&store).unwrap();
    assert_eq!(found.len(), ROWS as usize);
    let identity = store.identity().unwrap().expect("it has joined");
    assert_eq!((identity.cluster, identity.store), (ClusterId(7), StoreId(3)));
    let families: Vec<Cf> = store.table_files().unwrap().iter().map(|file| file.cf).collect();
    assert!(families.contains(&Cf::Raw) && families.contains(&Cf::State), "{families:?}");
    assert!(store.log_bytes() > 50_000, "half of the rows are in the log only");
    drop(store);
    assert!(contents(dir.path()) == before, "looking has changed the directory");

    let engine = dir.open();
    assert_eq!(crate::support::rows(&*engine, Cf::Raw), found, "a node sees the same");
    assert_eq!(cribwork_engine::identity(&*engine).unwrap(), Some(identity));
}

#[test]
fn a_torn_tail_is_looked_past_and_left_there() {
    let dir = stopped();
    let log = dir.files(".log").pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(file.metadata().unwrap().len() - 300).unwrap();
    let before = contents(dir.path());
    assert_eq!(rows(&open(&dir).unwrap()).unwrap().len(), ROWS as usize - 1);
    assert!(contents(dir.path()) == before, "looking has changed the directory");
}

#[test]
fn a_store_in_use_is_refused_and_one_that_is_looked_at_does_not_start() {
    let dir = stopped();
    let locked = EngineError::Locked { dir: dir.path().to_owned() };
    let engine = dir.open();
    assert_eq!(open(&dir).err(), Some(locked.clone()));
    drop(engine);
    let (one, other) = (open(&dir).unwrap(), open(&dir).unwrap());
    assert_eq!(dir.try_open().err(), Some(locked.clone()));
    // A view keeps it open.
    let view = one.view();
    drop((one, other));
    assert_eq!(dir.try_open().err(), Some(locked));
    drop(view);
    dir.open();
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = RocksDir::new();
    let absent = dir.path().join("absent");
    for path in [&absent, &dir.path().to_owned()] {
        let refused = StoppedStore::open(path).err();
        assert_eq!(refused, Some(EngineError::NoStore { dir: path.clone() }));
    }
    assert!(!absent.exists() && contents(dir.path()).is_empty(), "nothing is made");
    fs::write(dir.path().join("photo.jpg"), "x").unwrap();
    let refused = open(&dir).err();
    assert_eq!(refused, Some(EngineError::ForeignDirectory { dir: dir.path().to_owned() }));

    let dir = stopped();
    fs::write(dir.path().join("FORMAT"), "cribwork store, format 99\n").unwrap();
    assert!(matches!(open(&dir), Err(EngineError::UnknownFormat { .. })));
}

/// Flips one bit and back again around `look`.
fn flipped<T>(path: &Path, at: u64, bit: u32, look: impl FnOnce() -> T) -> T {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
    let seen = look();
    file.write_all_at(&byte, at).unwrap();
    seen
}

/// What every start does, on a log that was synced. RocksDB alone loops for ever on one of these bits, and
/// takes the log for empty on another.
#[test]
fn any_bit_of_a_record_in_the_log_matters() {
    let dir = stopped();
    let log = dir.files(".log").pop().unwrap();
    let bytes = fs::read(&log).unwrap();
    // A key is in one record only: header and body of that record lie around it.
    let at = |number: u32| {
        let needle = [&[4][..], &number.to_be_bytes()].concat();
        bytes.windows(5).position(|window| window == needle).expect("the record's key") as u64
    };
    let middle = at(ROWS * 3 / 4);
    // 7 bytes of header, 12 of batch, tag, family and length before the key; the value behind it.
    let headers = (0..64).chain(middle - 22..middle + 8);
    let header_bits = headers.flat_map(|at| (0..8).map(move |bit| (at, bit)));
    let body_bits = (middle + 8..middle + 900).step_by(40).map(|at| (at, at as u32 % 8));
    for (at, bit) in header_bits.chain(body_bits) {
        let seen = flipped(&log, at, bit, || open(&dir).err());
        assert!(
            matches!(seen, Some(EngineError::Corruption { .. })),
            "bit {bit} of byte {at}: {seen:?}"
        );
    }
    assert_eq!(rows(&open(&dir).unwrap()).unwrap().len(), ROWS as usize, "all is flipped back");
}

#[test]
fn a_bit_of_a_table_file_is_an_error_or_makes_no_difference() {
    let dir = stopped();
    let file = open(&dir).unwrap().table_files().unwrap();
    let file = file.into_iter().find(|file| file.cf == Cf::Raw).expect("a file of the family");
    let path = dir.path().join("db").join(file.name);
    let whole = rows(&open(&dir).unwrap()).unwrap();
    let (mut noticed, mut tried) = (0, 0);
    for (number, at) in (0..file.bytes).step_by(file.bytes as usize / 200).enumerate() {
        let seen = flipped(&path, at, number as u32 % 8, || open(&dir).and_then(|it| rows(&it)));
        tried += 1;
        match seen {
            Ok(seen) => assert!(seen == whole, "byte {at}: other rows than were written"),
            Err(EngineError::Corruption { .. }) => noticed += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    // The rest are in what this reader has no use for, such as the filter.
    assert!(noticed > tried * 9 / 10, "{noticed} of {tried} were noticed");
}

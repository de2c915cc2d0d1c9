//! A simulated disk: what was not synced can be lost, it can fail or fill up, and bits on it can flip.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;
use cribwork_engine::{Cursor, DiskUsage, Engine, EngineError, EngineSnapshot};
use cribwork_types::{Cf, KeyRange, WriteBatch};
use parking_lot::Mutex;

use crate::random::Random;
use crate::store::{Store, StoreKind};

/// How the disk misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DiskFault {
    /// It does not.
    None,
    /// Writes fail.
    WriteFails,
    /// Syncs fail, and what they should have made durable is gone with the next crash.
    SyncFails,
    /// There is no room.
    Full,
}

/// The disk of one host. It outlives the node.
pub(crate) struct SimDisk {
    /// What the node of this life writes to; another object after a crash.
    store: Mutex<Store>,
    fault: AtomicU8,
    syncs: AtomicU64,
    /// A sync failed: what it should have made durable is gone, and with it whatever comes later, whether
    /// later syncs succeed or not, until the machine starts again.
    lost: AtomicBool,
    /// Which part of all keys lies in a damaged block: those whose hash is this, of [`BLOCKS`]; beyond
    /// it, none does. A checksum finds the damage whenever the block is read.
    damaged: AtomicU64,
}

/// Blocks that a disk is taken to have.
const BLOCKS: u64 = 64;

impl SimDisk {
    /// # Errors
    /// If there is no room for a RocksDB.
    pub(crate) fn new(kind: StoreKind) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            store: Mutex::new(Store::new(kind)?),
            fault: AtomicU8::new(DiskFault::None as u8),
            syncs: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            damaged: AtomicU64::new(BLOCKS),
        }))
    }

    /// The process ended; with `power` the machine did, too: of what was written since the last sync,
    /// only a prefix is there.
    pub(crate) fn crash(&self, power: Option<&mut Random>) {
        let mut store = self.store.lock();
        let crashed = match self.lost.swap(false, Ordering::Relaxed) {
            true => store.lose_unsynced(),
            false => store.crash(power),
        };
        if let Err(error) = crashed {
            panic!("a store cannot be opened after a crash: {error:#}");
        }
    }

    pub(crate) fn set_fault(&self, fault: DiskFault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// A bit flips in a block drawn from `number`.
    pub(crate) fn flip_a_bit(&self, number: u64) {
        self.damaged.store(number % BLOCKS, Ordering::Relaxed);
    }

    /// Fails no more, and what it holds is readable again.
    pub(crate) fn mend(&self) {
        self.set_fault(DiskFault::None);
        self.damaged.store(BLOCKS, Ordering::Relaxed);
    }

    fn check_block(&self, cf: Cf, key: &[u8]) -> Result<(), EngineError> {
        let damaged = self.damaged.load(Ordering::Relaxed);
        if damaged == BLOCKS {
            return Ok(());
        }
        let hash = key.iter().fold(cf as u64, |hash, byte| {
            crate::random::mix(hash.wrapping_mul(31).wrapping_add(u64::from(*byte)))
        });
        match hash % BLOCKS == damaged {
            true => {
                let detail = "block checksum mismatch (simulated)".to_owned();
                Err(EngineError::Corruption { what: "read", detail })
            }
            false => Ok(()),
        }
    }

    /// How often something was made durable: part of the trace.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.store.lock().engine()
    }

    fn check(&self, what: &'static str, failing: DiskFault) -> Result<(), EngineError> {
        let fault = self.fault.load(Ordering::Relaxed);
        let detail = "simulated".to_owned();
        match fault {
            _ if fault == failing as u8 => Err(EngineError::Io { what, detail }),
            _ if fault == DiskFault::Full as u8 => Err(EngineError::DiskFull { what, detail }),
            _ => Ok(()),
        }
    }
}

/// The disk as one life of the node sees it.
pub(crate) struct Mounted {
    disk: Arc<SimDisk>,
    engine: Arc<dyn Engine>,
}

impl Mounted {
    pub(crate) fn new(disk: Arc<SimDisk>) -> Arc<Self> {
        let engine = disk.engine();
        Arc::new(Self { disk, engine })
    }
}

impl Engine for Mounted {
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        self.disk.check("write", DiskFault::WriteFails)?;
        self.engine.write(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let checked = self.disk.check("sync", DiskFault::SyncFails);
        if checked.is_err() {
            self.disk.lost.store(true, Ordering::Relaxed);
        }
        checked?;
        self.disk.syncs.fetch_add(1, Ordering::Relaxed);
        match self.disk.lost.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.engine.sync(),
        }
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.disk.check_block(cf, key)?;
        self.engine.get(cf, key)
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(View { disk: self.disk.clone(), snapshot: self.engine.snapshot() })
    }

    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        self.engine.approximate_size_bytes(cf, range)
    }

    fn disk_usage(&self) -> DiskUsage {
        self.engine.disk_usage()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.sync()
    }
}

/// A snapshot that is read from the disk.
struct View {
    disk: Arc<SimDisk>,
    snapshot: Arc<dyn EngineSnapshot>,
}

impl EngineSnapshot for View {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.disk.check_block(cf, key)?;
        self.snapshot.get(cf, key)
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn Cursor + Send + '_> {
        Box::new(Head { disk: &self.disk, cf, cursor: self.snapshot.cursor(cf, range) })
    }
}

/// A cursor that reads from the disk.
struct Head<'a> {
    disk: &'a SimDisk,
    cf: Cf,
    cursor: Box<dyn Cursor + Send + 'a>,
}

impl Head<'_> {
    fn read(&self, landed: Result<bool, EngineError>) -> Result<bool, EngineError> {
        let landed = landed?;
        if landed {
            self.disk.check_block(self.cf, self.cursor.key())?;
        }
        Ok(landed)
    }
}

impl Cursor for Head<'_> {
    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        let landed = self.cursor.seek_to_first();
        self.read(landed)
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        let landed = self.cursor.seek_to_last();
        self.read(landed)
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let landed = self.cursor.seek(key);
        self.read(landed)
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let landed = self.cursor.seek_for_prev(key);
        self.read(landed)
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        let landed = self.cursor.next();
        self.read(landed)
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        let landed = self.cursor.prev();
        self.read(landed)
    }

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn value(&self) -> &[u8] {
        self.cursor.value()
    }
}

//! The sizes that somebody who runs a node may want to change.

/// How much memory and disk the engine may take. The defaults suit a node with 2 cores and 4 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Block cache shared by all families, bytes. Index and filter blocks live in it.
    pub block_cache_bytes: usize,
    /// Memtable of the `raft` family, bytes. Larger than the others: most log entries are purged
    /// before they would be flushed, and what is never flushed costs no compaction.
    pub raft_memtable_bytes: usize,
    /// Memtable of every other family, bytes. Small: the search in a memtable's skip list is the
    /// largest CPU cost of a write, and grows with the memtable.
    pub data_memtable_bytes: usize,
    /// Bytes of all memtables together; over it RocksDB flushes the largest.
    pub memtables_bytes_max: usize,
    /// Bytes of write-ahead log; over it RocksDB flushes the families that hold on to the oldest.
    pub wal_bytes_max: u64,
    /// Threads that flush and compact.
    pub background_jobs: i32,
    /// Table files kept open.
    pub open_files_max: i32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 128 << 20,
            raft_memtable_bytes: 32 << 20,
            data_memtable_bytes: 16 << 20,
            memtables_bytes_max: 192 << 20,
            wal_bytes_max: 256 << 20,
            background_jobs: 2,
            open_files_max: 2048,
        }
    }
}

impl EngineOptions {
    /// Small sizes, for many stores in one process (tests, demos).
    pub fn small() -> Self {
        Self {
            block_cache_bytes: 8 << 20,
            raft_memtable_bytes: 4 << 20,
            data_memtable_bytes: 2 << 20,
            memtables_bytes_max: 24 << 20,
            wal_bytes_max: 32 << 20,
            background_jobs: 2,
            open_files_max: 256,
        }
    }
}

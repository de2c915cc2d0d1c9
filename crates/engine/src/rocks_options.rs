//! How RocksDB is set up.

use cribwork_types::Cf;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

use crate::{EngineError, EngineOptions};

/// Options that the Rust binding has no function for; see [`database`].
const TEXT_OPTIONS: &str = "track_and_verify_wals=true";
/// Bits a key in the bloom filters: 1 % false positives.
const BLOOM_BITS: f64 = 10.0;
/// Memtables of one family, the one in use included, before writes stall.
const MEMTABLES_MAX: i32 = 4;
const BLOCK_BYTES: usize = 16 << 10;
const INFO_LOG_FILES: usize = 4;
const INFO_LOG_BYTES: usize = 8 << 20;

/// Options of the whole database.
///
/// On recovery, three things have to hold: a record that the crash cut short at the end of the log
/// is dropped silently (it was never synced); anything else that does not check out is refused, since
/// it may have been acknowledged; and what survives is a prefix of what was written.
/// - `TolerateCorruptedTailRecords` gives the first two. `PointInTime`, RocksDB's default, stops
///   silently at damage in the middle of the log and so forgets synced writes; `AbsoluteConsistency`
///   refuses a torn tail, and no node would start after a power cut. What it cannot tell from a
///   torn tail is a damaged length field within the last 32 KiB of a log file.
/// - It does tolerate a torn tail in *each* log file, though: when the log has just moved on to a new
///   file, a power cut may tear the unsynced end of the old file and keep the start of the new one,
///   which is a hole. `track_and_verify_wals` records in each file where its predecessor ended,
///   so that such a hole is refused as corruption.
/// - Recycled log files would carry old records behind the torn tail, so they are off; `log_check` refuses
///   what claims to be one.
pub(crate) fn database(options: &EngineOptions, is_new: bool) -> Result<Options, EngineError> {
    let mut db = Options::default()
        .get_options_from_string(TEXT_OPTIONS)
        .map_err(|error| EngineError::from_rocks("set options", error))?;
    db.create_if_missing(is_new);
    db.create_missing_column_families(is_new);
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    db.set_recycle_log_file_num(0);
    db.set_paranoid_checks(true);
    db.set_max_total_wal_size(options.wal_bytes_max);
    db.set_db_write_buffer_size(options.memtables_bytes_max);
    db.set_max_background_jobs(options.background_jobs);
    db.set_max_open_files(options.open_files_max);
    db.set_bytes_per_sync(1 << 20);
    // Obsolete files are deleted in the background, not by the reader that held them last.
    db.set_avoid_unnecessary_blocking_io(true);
    db.set_log_level(LogLevel::Info);
    db.set_keep_log_file_num(INFO_LOG_FILES);
    db.set_max_log_file_size(INFO_LOG_BYTES);
    db.set_stats_dump_period_sec(0);
    Ok(db)
}

/// Every family with its options, and RocksDB's own `default`, which stays empty.
pub(crate) fn families(options: &EngineOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let mut families: Vec<_> = Cf::ALL
        .into_iter()
        .map(|cf| ColumnFamilyDescriptor::new(cf.name(), family(cf, options, &cache)))
        .collect();
    families
        .push(ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, Options::default()));
    families
}

fn family(cf: Cf, options: &EngineOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let memtable_bytes = match cf {
        // Read in order and never for a key that may be absent, so a filter would only cost.
        Cf::Raft => options.raft_memtable_bytes,
        _ => {
            table.set_bloom_filter(BLOOM_BITS, false);
            options.data_memtable_bytes
        }
    };
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_write_buffer_size(memtable_bytes);
    family.set_max_write_buffer_number(MEMTABLES_MAX);
    family.set_target_file_size_base(2 * memtable_bytes as u64);
    family.set_max_bytes_for_level_base(8 * memtable_bytes as u64);
    family
}

//! A look at a store's log files before RocksDB reads them.
//!
//! RocksDB writes records of two sets of kinds: plain ones, and others into log files that it *recycles*,
//! that is, writes over. Its reader (11.8) goes by the kind before it looks at the checksum. If one flipped bit
//! makes a plain record one of a recycled file, then in the middle of the log the reader loops for ever, and
//! at the beginning it takes the record for an old one, and with it the whole log for empty: everything in
//! it, synced or not, would be lost without a word. Nothing is ever recycled here
//! (`rocks_options`), so such a kind is damage. All else is covered by the checksums.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::EngineError;

#[cfg(test)]
mod fuzz;

/// Records do not cross bounds of blocks of this size.
const BLOCK_BYTES: usize = 32 << 10;
/// `checksum u32, length u16, kind u8`, little-endian.
const HEADER_BYTES: usize = 7;
/// Kinds that only recycled files have: whole, first, middle and last; sizes of timestamps; predecessor.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Checks every write-ahead log and every manifest, which has the same form, in `database`.
pub(crate) fn check_logs(database: &Path) -> Result<(), EngineError> {
    let fail = |path: &Path, error| EngineError::from_io("read log", path, &error);
    let files = std::fs::read_dir(database).map_err(|error| fail(database, error))?;
    for file in files {
        let path = file.map_err(|error| fail(database, error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if !name.ends_with(".log") && !name.starts_with("MANIFEST-") {
            continue;
        }
        let found = File::open(&path).and_then(recycled_record);
        if let Some((at, kind)) = found.map_err(|error| fail(&path, error))? {
            let path = path.display();
            let detail = format!("{path}: the record at {at} says that it is of kind {kind}");
            return Err(EngineError::Corruption { what: "log", detail });
        }
    }
    Ok(())
}

/// Offset and kind of the first record that cannot be.
fn recycled_record(mut file: impl Read) -> io::Result<Option<(usize, u8)>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut before = 0;
    loop {
        block.clear();
        file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let mut rest = &block[..];
        while let Some(([.., low, high, kind], body)) = rest.split_first_chunk::<HEADER_BYTES>() {
            if RECYCLED.contains(kind) {
                return Ok(Some((before + block.len() - rest.len(), *kind)));
            }
            // Behind the end of a block, or of a file that was torn, the checksums say what is wrong.
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            rest = body.get(length..).unwrap_or_default();
        }
        before += block.len();
        if block.len() < BLOCK_BYTES {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let [low, high] = length.to_le_bytes();
        [&[1, 2, 3, 4, low, high, kind][..], &vec![5; usize::from(length)]].concat()
    }

    #[test]
    fn records_are_found_by_their_lengths_and_within_their_blocks() {
        let found = |bytes: &[u8]| recycled_record(bytes).unwrap();
        // Bodies are full of fives, which would be a kind.
        let plain = [record(130, 20), record(1, 600), record(3, 0)].concat();
        assert_eq!(found(&plain), None);
        assert_eq!(found(&[]), None);
        for kind in RECYCLED {
            let damaged = [&plain[..], &record(kind, 9)].concat();
            assert_eq!(found(&damaged), Some((plain.len(), kind)));
            // A torn end is not looked at.
            assert_eq!(found(&[&plain[..], &record(1, 900)[..800]].concat()), None);
        }
        // A block whose last bytes are too few for a header, and one more record behind them.
        let filler = record(1, (BLOCK_BYTES - HEADER_BYTES - 3) as u16);
        let two = [&filler[..], &[0; 3], &record(6, 1)].concat();
        assert_eq!(found(&two), Some((BLOCK_BYTES, 6)));
    }
}

//! Hostile bytes for the look at RocksDB's logs.

use cribwork_fuzz::{Shape, measure, target};

use super::*;

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let [low, high] = (body.len() as u16).to_le_bytes();
    [&[1, 2, 3, 4, low, high, kind][..], body].concat()
}

#[test]
fn rocksdb_logs() {
    let plain =
        [record(130, &[5; 20]), record(1, b"whole"), record(2, b"first"), record(4, b"last")];
    let full = record(1, &[7; BLOCK_BYTES - 2 * HEADER_BYTES]);
    let crossing = [full, plain.concat()].concat();
    let recycled = RECYCLED.map(|kind| [plain.concat(), record(kind, b"x")].concat());
    let length_max = BLOCK_BYTES + 4_096;
    let logs = target("rocksdb_logs").seed(plain.concat()).seed(crossing).seeds(recycled);
    logs.length_max(length_max).memory_unbounded().run(|bytes| {
        let (found, held) = measure(|| recycled_record(bytes));
        assert!(held <= 2 * BLOCK_BYTES, "{held} bytes held: more than a block");
        let found = found.expect("bytes in memory can be read");
        if let Some((at, kind)) = found {
            assert_eq!(bytes[at + HEADER_BYTES - 1], kind, "it says where");
            assert!(RECYCLED.contains(&kind));
        }
        Shape::of(&found.map(|(at, kind)| (at / BLOCK_BYTES, kind)))
    });
}

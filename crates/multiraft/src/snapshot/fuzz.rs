//! Hostile bytes for the parts of a snapshot.

use cribwork_fuzz::{Shape, target};

use super::*;
use crate::fuzz;

fn encode_head(head: &Head) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64(head.call);
    put_bytes(&mut out, &head.header);
    put_bytes(&mut out, &head.applied.encode());
    put_bytes(&mut out, &head.descriptor.encode());
    out.freeze()
}

/// The checksum of a chunk stands behind its number and flags.
fn sum(bytes: &mut [u8]) {
    if bytes.len() >= 9 {
        let sum = crc32c::crc32c(&bytes[9..]);
        bytes[5..9].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn snapshot_chunks() {
    let seeds = [encode_chunk(0, OFFER, b"head"), encode_chunk(9, LAST, b"")];
    target("snapshot_chunks").seeds(seeds).repair(sum).run(|bytes| {
        let decoded = decode_chunk(Bytes::copy_from_slice(bytes));
        if let Ok((number, flags, part)) = &decoded {
            assert_eq!(encode_chunk(*number, *flags, part), bytes, "one encoding");
        }
        Shape::decoded(&decoded, |(_, _, part)| part.len())
    });
}

/// Puts the checksum of the applied record inside right.
fn seal_applied(bytes: &mut [u8]) {
    let length = |bytes: &[u8], at: usize| {
        let length = bytes.get(at..at + 4)?;
        Some(length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    };
    let Some(header) = length(bytes, 8) else { return };
    let at = 12 + header;
    let Some(applied) = length(bytes, at) else { return };
    if let Some(record) = bytes.get_mut(at + 4..at + 4 + applied) {
        fuzz::seal(record);
    }
}

#[test]
fn snapshot_heads() {
    let header = Bytes::from_static(b"header");
    let seed = Head { call: 3, header, applied: fuzz::applied(), descriptor: fuzz::descriptor() };
    let seed = encode_head(&seed);
    target("snapshot_heads").seed(seed).repair(seal_applied).run(|bytes| {
        let decoded = head(Bytes::copy_from_slice(bytes));
        if let Ok(head) = &decoded {
            assert_eq!(encode_head(head), bytes, "a head has one encoding");
        }
        Shape::decoded(&decoded, |head| head.descriptor.replicas.len())
    });
}

//! Changes to valid encodings that tend to break decoders: lengths and counts first of all.

use crate::Random;

/// Numbers at which something ends: a sign, a width, a limit.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    9,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFF,
    0x1_0000,
    0x00FF_FFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    u64::MAX,
];
const WIDTHS: [usize; 4] = [1, 2, 4, 8];
/// Most changes to one input.
const CHANGES_MAX: usize = 6;
/// Most bytes that one change copies or invents.
const CHUNK_BYTES_MAX: usize = 64;

/// A new input out of the corpus, of at most `length_max` bytes.
pub(crate) fn input(
    random: &mut Random,
    corpus: &[Vec<u8>],
    words: &[Vec<u8>],
    length_max: usize,
) -> Vec<u8> {
    // Now and then without any model, for what no mutation of valid bytes reaches.
    if corpus.is_empty() || random.once_in(32) {
        let length = random.below(CHUNK_BYTES_MAX.min(length_max) + 1);
        return (0..length).map(|_| random.u64() as u8).collect();
    }
    let mut bytes = random.one_of(corpus).clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        change(random, &mut bytes, corpus, words);
    }
    bytes.truncate(length_max);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[Vec<u8>]) {
    let at = random.below(bytes.len() + 1);
    match random.below(12) {
        0 => flip(random, bytes),
        1 => set(bytes, at, &[random.u64() as u8]),
        2..=4 => number(random, bytes, at),
        5 => bytes.truncate(at),
        6 => {
            let end = (at + random.below(CHUNK_BYTES_MAX)).min(bytes.len());
            bytes.drain(at..end);
        }
        7 => {
            let end = (at + random.below(CHUNK_BYTES_MAX)).min(bytes.len());
            let chunk = bytes[at..end].to_vec();
            let times = 1 + random.below(4);
            let to = random.below(bytes.len() + 1);
            insert(bytes, to, &chunk.repeat(times));
        }
        8 => {
            let other = random.one_of(corpus);
            let from = random.below(other.len() + 1);
            match random.once_in(2) {
                // The rest of the other.
                true => {
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                false => {
                    let end = (from + random.below(CHUNK_BYTES_MAX)).min(other.len());
                    insert(bytes, at, &other[from..end]);
                }
            }
        }
        9 => {
            let chunk: Vec<u8> =
                (0..random.below(CHUNK_BYTES_MAX)).map(|_| random.u64() as u8).collect();
            insert(bytes, at, &chunk);
        }
        10 => {
            let any = random.u64() as u8;
            let fill = *random.one_of(&[0, 0xFF, b'0', any]);
            insert(bytes, at, &vec![fill; random.below(CHUNK_BYTES_MAX)]);
        }
        _ if words.is_empty() => flip(random, bytes),
        _ => {
            let word = random.one_of(words);
            match random.once_in(2) {
                true => set(bytes, at, word),
                false => insert(bytes, at, word),
            }
        }
    }
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Overwrites as far as there is room.
fn set(bytes: &mut [u8], at: usize, new: &[u8]) {
    let room = bytes.len() - at;
    bytes[at..].iter_mut().zip(&new[..new.len().min(room)]).for_each(|(old, new)| *old = *new);
}

fn insert(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.splice(at..at, new.iter().copied());
}

/// Changes an integer: to a number at which something ends, to the count of bytes that are there or
/// nearly so, or by one.
fn number(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let width = *random.one_of(&WIDTHS);
    let left = bytes.len() - at;
    let old = bytes[at..].iter().take(width).fold(0, |old, byte| old << 8 | u64::from(*byte));
    let new = match random.below(4) {
        0 => *random.one_of(&NUMBERS),
        1 => (left + 4).wrapping_sub(random.below(24)) as u64,
        2 => old.wrapping_add(1),
        _ => old.wrapping_sub(1),
    };
    let new = match random.once_in(3) {
        true => varint(new),
        false => new.to_be_bytes()[8 - width..].to_vec(),
    };
    match random.once_in(8) {
        true => insert(bytes, at, &new),
        false => set(bytes, at, &new),
    }
}

/// As protobuf writes it.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_bounded_repeatable_and_different() {
        let corpus = vec![b"valid".to_vec(), vec![0; 200], Vec::new()];
        let words = vec![b"word".to_vec()];
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut random = Random::new(seed);
            (0..2_000).map(|_| input(&mut random, &corpus, &words, 300)).collect()
        };
        let first = inputs(1);
        assert_eq!(first, inputs(1));
        assert_ne!(first, inputs(2));
        assert!(first.iter().all(|input| input.len() <= 300));
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert!(distinct.len() > 1_500, "{}", distinct.len());
        assert!(first.iter().any(|input| input.windows(4).any(|part| part == b"word")));
    }

    #[test]
    fn varints() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xAC, 2]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }
}

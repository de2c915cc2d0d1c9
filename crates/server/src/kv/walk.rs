//! Long reads in steps, so that one of them neither holds up everything else on its thread nor
//! gathers more than an answer may hold.

use bytes::{Bytes, BytesMut};
use cribwork_proto::kvrpcpb::KvPair;
use cribwork_types::KeyRange;
use cribwork_types::limits::MESSAGE_BYTES_MAX;

use crate::kv::answer::pairs_bytes;
use crate::kv::failure::Failure;

/// Rows of the first step, and of steps over large rows.
const STEP_ROWS_MIN: usize = 16;
/// Most rows of a step.
const STEP_ROWS_MAX: usize = 1024;
/// Bytes that a step should come to.
const STEP_BYTES: usize = 256 << 10;

/// Where a scan has got to.
pub(crate) struct Walk {
    /// What is left of the interval, plain keys.
    rest: KeyRange,
    reverse: bool,
    /// Rows that may still be returned.
    left: usize,
    step: usize,
}

impl Walk {
    /// From one end of `keys` to the other, at most `limit` rows.
    pub(crate) fn new(keys: KeyRange, reverse: bool, limit: usize) -> Self {
        Self { rest: keys, reverse, left: limit, step: STEP_ROWS_MIN }
    }

    /// The next step: from where, and how many rows; none at the end.
    pub(crate) fn step(&self) -> Option<(&KeyRange, usize)> {
        let done = self.left == 0 || self.rest.is_empty();
        (!done).then_some((&self.rest, self.step.min(self.left)))
    }

    /// A step read `rows`, each with its key, which were fewer than asked for only at the end.
    pub(crate) fn advance(&mut self, rows: &[KvPair]) {
        let asked = self.step.min(self.left);
        self.left -= rows.len().min(self.left);
        let last = rows.last().filter(|_| rows.len() >= asked);
        match last.map(|row| &row.key) {
            // Below the empty key there is nothing, while an empty end would mean no end.
            None => self.left = 0,
            Some(key) if self.reverse && key.is_empty() => self.left = 0,
            Some(key) if self.reverse => self.rest.end = key.clone(),
            Some(key) => self.rest.start = after(key),
        }
        let row_bytes = pairs_bytes(rows) / rows.len().max(1) + 1;
        self.step = (STEP_BYTES / row_bytes).clamp(STEP_ROWS_MIN, STEP_ROWS_MAX);
    }
}

/// The first key behind `key`.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.extend_from_slice(&[0]);
    next.freeze()
}

/// Bytes of a message that are left for what is not rows.
const HEADROOM_BYTES: usize = 64 << 10;

/// How many bytes an answer may still take in.
pub(crate) struct Room(usize);

impl Room {
    /// As much as one message may hold.
    pub(crate) fn new() -> Self {
        Self(MESSAGE_BYTES_MAX - HEADROOM_BYTES)
    }

    /// Makes room for `rows`.
    pub(crate) fn take(&mut self, rows: &[KvPair]) -> Result<(), Failure> {
        match self.0.checked_sub(pairs_bytes(rows)) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(Failure::Refused(format!(
                "the answer would exceed {MESSAGE_BYTES_MAX} bytes: ask for fewer rows"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: std::ops::Range<u32>, reverse: bool, count: usize) -> Vec<KvPair> {
        let pair = |number: u32| KvPair {
            key: Bytes::copy_from_slice(&number.to_be_bytes()),
            ..Default::default()
        };
        let mut all: Vec<_> = keys.map(pair).collect();
        if reverse {
            all.reverse();
        }
        all.truncate(count);
        all
    }

    fn walk(reverse: bool, limit: usize) -> Vec<u32> {
        let number = |key: &[u8]| u32::from_be_bytes(key[..4].try_into().unwrap());
        let mut walk =
            Walk::new(KeyRange::new(vec![0; 4], 5000_u32.to_be_bytes().to_vec()), reverse, limit);
        let mut seen = Vec::new();
        while let Some((rest, count)) = walk.step() {
            let start = number(&rest.start) + u32::from(rest.start.len() > 4);
            let found = rows(start..number(&rest.end), reverse, count);
            walk.advance(&found);
            seen.extend(found.iter().map(|row| number(&row.key)));
        }
        seen
    }

    #[test]
    fn steps_meet_every_row_once_in_order() {
        assert!(walk(false, usize::MAX).into_iter().eq(0..5000));
        assert!(walk(true, usize::MAX).into_iter().eq((0..5000).rev()));
        assert!(walk(false, 1234).into_iter().eq(0..1234));
        assert!(walk(true, 17).into_iter().eq((4983..5000).rev()));
        assert!(walk(true, 0).is_empty());
    }

    #[test]
    fn a_reverse_walk_ends_at_the_empty_key() {
        let mut walk = Walk::new(KeyRange::all(), true, 100);
        let empty = vec![KvPair::default(); STEP_ROWS_MIN];
        walk.advance(&empty);
        assert!(walk.step().is_none());
    }

    #[test]
    fn an_answer_is_bounded() {
        let mut room = Room::new();
        let value = Bytes::from(vec![0; MESSAGE_BYTES_MAX - HEADROOM_BYTES - 1000]);
        room.take(&[KvPair { value, ..Default::default() }]).unwrap();
        let value = Bytes::from(vec![0; 1000]);
        assert!(room.take(&[KvPair { value, ..Default::default() }]).is_err());
    }

    #[test]
    fn an_answer_of_the_smallest_rows_fits_a_message() {
        use prost::Message;
        let row = KvPair { key: Bytes::from_static(b"k"), ..Default::default() };
        let mut room = Room::new();
        let mut answer = cribwork_proto::kvrpcpb::ScanResponse::default();
        while room.take(std::slice::from_ref(&row)).is_ok() {
            answer.pairs.push(row.clone());
        }
        assert!(answer.pairs.len() > 100_000 && answer.encoded_len() < MESSAGE_BYTES_MAX);
    }
}

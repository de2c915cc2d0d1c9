//! What waits for one peer: a bounded queue for each class, and the choice of what enters the next
//! frame. Pure.

use std::collections::VecDeque;

use crate::options::{FRAME_BULK_MESSAGES, FRAME_MESSAGES_MAX};
use crate::{Class, LaneLimit, MESSAGE_OVERHEAD_BYTES, Message, TransportOptions};

#[derive(Default)]
struct Lane {
    messages: VecDeque<Message>,
    bytes: usize,
}

/// Bytes that a message may take in a frame.
pub(crate) fn cost(message: &Message) -> usize {
    message.payload.len() + MESSAGE_OVERHEAD_BYTES
}

impl Lane {
    fn pop_if(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<(Message, usize)> {
        let cost = cost(self.messages.front()?);
        if !fits(cost) {
            return None;
        }
        self.bytes -= cost;
        self.messages.pop_front().map(|message| (message, cost))
    }
}

/// The content of one frame.
#[derive(Default)]
pub(crate) struct Batch {
    /// In the order of [`Class::ALL`], and of sending within a class.
    pub(crate) messages: Vec<Message>,
    /// Messages of each class.
    pub(crate) counts: [usize; 3],
    /// Upper bound of the encoded size.
    pub(crate) bytes: usize,
    /// The part of `bytes` that is bulk.
    pub(crate) bulk_bytes: usize,
}

/// The three queues of a link.
#[derive(Default)]
pub(crate) struct Lanes([Lane; 3]);

impl Lanes {
    /// Queues a message; answers whether its lane was empty, or gives up if the lane is full.
    pub(crate) fn push(
        &mut self,
        class: Class,
        message: Message,
        limit: LaneLimit,
    ) -> Option<bool> {
        let lane = &mut self.0[class as usize];
        let cost = cost(&message);
        let was_empty = lane.messages.is_empty();
        let fits = lane.messages.len() < limit.messages_max
            && (was_empty || lane.bytes + cost <= limit.bytes_max);
        if !fits {
            return None;
        }
        lane.bytes += cost;
        lane.messages.push_back(message);
        Some(was_empty)
    }

    /// True if something waits in a lane that is `allowed` to send.
    pub(crate) fn has_work(&self, allowed: [bool; 3]) -> bool {
        self.0.iter().zip(allowed).any(|(lane, allowed)| allowed && !lane.messages.is_empty())
    }

    /// Takes what enters the next frame. Control goes first, then data; bulk has an allowance of
    /// its own in each frame, so that it neither starves nor delays what shares the frame by more.
    pub(crate) fn take(&mut self, allowed: [bool; 3], options: &TransportOptions) -> Batch {
        let mut batch = Batch::default();
        for class in Class::ALL {
            let lane = &mut self.0[class as usize];
            let (bytes_max, messages_max) = match class {
                Class::Control | Class::Data => {
                    (options.frame_bytes_max, FRAME_MESSAGES_MAX - FRAME_BULK_MESSAGES)
                }
                Class::Bulk => (options.frame_bulk_bytes_max, FRAME_MESSAGES_MAX),
            };
            if !allowed[class as usize] {
                continue;
            }
            // Control and data share their allowance; the first message of an allowance always fits.
            let mut used = if class == Class::Bulk { 0 } else { batch.bytes };
            while batch.messages.len() < messages_max {
                let Some((message, cost)) =
                    lane.pop_if(|cost| used == 0 || used + cost <= bytes_max)
                else {
                    break;
                };
                used += cost;
                batch.bytes += cost;
                batch.counts[class as usize] += 1;
                batch.messages.push(message);
            }
            if class == Class::Bulk {
                batch.bulk_bytes = used;
            }
        }
        batch
    }

    /// Drops everything; answers how many messages of each class that were.
    pub(crate) fn clear(&mut self) -> [usize; 3] {
        std::mem::take(&mut self.0).map(|lane| lane.messages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(call: u64, bytes: usize) -> Message {
        Message {
            range: 1.into(),
            from: 1.into(),
            to: 2.into(),
            kind: 0,
            call,
            payload: vec![0; bytes].into(),
        }
    }

    fn options() -> TransportOptions {
        TransportOptions {
            frame_bytes_max: 1000,
            frame_bulk_bytes_max: 200,
            ..TransportOptions::default()
        }
    }

    const LIMIT: LaneLimit = LaneLimit { messages_max: 100, bytes_max: 10_000 };

    fn calls(batch: &Batch) -> Vec<u64> {
        batch.messages.iter().map(|message| message.call).collect()
    }

    #[test]
    fn control_first_then_data_then_a_little_bulk() {
        let mut lanes = Lanes::default();
        for call in 20..24 {
            lanes.push(Class::Bulk, message(call, 36), LIMIT).unwrap();
        }
        lanes.push(Class::Data, message(10, 36), LIMIT).unwrap();
        lanes.push(Class::Control, message(1, 36), LIMIT).unwrap();
        let batch = lanes.take([true; 3], &options());
        assert_eq!(calls(&batch), [1, 10, 20, 21]);
        assert_eq!((batch.bytes, batch.bulk_bytes, batch.counts), (400, 200, [1, 1, 2]));
        assert_eq!(calls(&lanes.take([true, true, false], &options())), [0; 0]);
        assert_eq!(calls(&lanes.take([true; 3], &options())), [22, 23]);
    }

    #[test]
    fn a_message_larger_than_a_frame_travels_without_other_data() {
        let mut lanes = Lanes::default();
        for (call, bytes) in [(1, 10), (2, 5000), (3, 10)] {
            lanes.push(Class::Data, message(call, bytes), LIMIT).unwrap();
        }
        for expected in [1, 2, 3] {
            assert_eq!(calls(&lanes.take([true; 3], &options())), [expected]);
        }
        assert!(!lanes.has_work([true; 3]));
    }

    #[test]
    fn a_lane_is_bounded_by_count_and_by_bytes() {
        let mut lanes = Lanes::default();
        let few = LaneLimit { messages_max: 2, bytes_max: 1000 };
        assert_eq!(lanes.push(Class::Data, message(1, 2000), few), Some(true));
        assert_eq!(lanes.push(Class::Data, message(2, 0), few), None);
        assert_eq!(lanes.push(Class::Control, message(3, 0), few), Some(true));
        assert_eq!(lanes.push(Class::Control, message(4, 0), few), Some(false));
        assert_eq!(lanes.push(Class::Control, message(5, 0), few), None);
        assert_eq!(lanes.clear(), [2, 1, 0]);
        assert_eq!(lanes.push(Class::Data, message(6, 0), few), Some(true));
    }
}

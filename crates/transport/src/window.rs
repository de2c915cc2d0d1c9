//! What is under way on one stream: frames sent and not yet acknowledged. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Class, TransportError, TransportOptions};

struct InFlight {
    bytes: usize,
    bulk_bytes: usize,
}

/// The frames under way. Sequence numbers start at 1 with every stream.
#[derive(Default)]
pub(crate) struct Window {
    frames: VecDeque<InFlight>,
    bytes: usize,
    bulk_bytes: usize,
    acked: u64,
    /// When the receiver last showed that it is there, or when it was last owed nothing.
    progress_at: Duration,
}

impl Window {
    /// Which classes may enter the next frame.
    pub(crate) fn allows(&self, options: &TransportOptions) -> [bool; 3] {
        let frames = self.frames.len();
        let data = frames < options.window_frames_max && self.bytes < options.window_bytes_max;
        let mut allowed = [data; 3];
        allowed[Class::Control as usize] |=
            frames < options.window_frames_max + options.control_reserve_frames;
        allowed[Class::Bulk as usize] &= self.bulk_bytes < options.window_bulk_bytes_max;
        allowed
    }

    /// Notes a frame as sent and gives it its sequence number.
    pub(crate) fn sent(&mut self, bytes: usize, bulk_bytes: usize, now: Duration) -> u64 {
        if self.frames.is_empty() {
            self.progress_at = now;
        }
        self.frames.push_back(InFlight { bytes, bulk_bytes });
        self.bytes += bytes;
        self.bulk_bytes += bulk_bytes;
        self.acked + self.frames.len() as u64
    }

    /// Takes a cumulative ack; answers how many frames it covers.
    pub(crate) fn acked(&mut self, sequence: u64, now: Duration) -> Result<usize, TransportError> {
        let covered = sequence.checked_sub(self.acked).and_then(|n| usize::try_from(n).ok());
        let covered = covered
            .filter(|covered| *covered <= self.frames.len())
            .ok_or(TransportError::Protocol { why: "an ack for a frame that is not under way" })?;
        for frame in self.frames.drain(..covered) {
            self.bytes -= frame.bytes;
            self.bulk_bytes -= frame.bulk_bytes;
        }
        self.acked = sequence;
        self.progress_at = now;
        Ok(covered)
    }

    /// True if the receiver owes an ack for longer than the link can be blamed for.
    pub(crate) fn is_stalled(&self, now: Duration, options: &TransportOptions) -> bool {
        let millis =
            (self.bytes as u64).saturating_mul(1000) / options.stall_bytes_per_second.max(1);
        let limit = options.stall_limit + Duration::from_millis(millis);
        !self.frames.is_empty() && now.saturating_sub(self.progress_at) > limit
    }

    /// Frames under way.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn options() -> TransportOptions {
        TransportOptions {
            window_frames_max: 2,
            window_bytes_max: 100,
            window_bulk_bytes_max: 10,
            control_reserve_frames: 1,
            ..TransportOptions::default()
        }
    }

    #[test]
    fn a_full_window_leaves_room_for_control() {
        let mut window = Window::default();
        assert_eq!(window.allows(&options()), [true; 3]);
        assert_eq!(window.sent(20, 10, NOW), 1);
        assert_eq!(window.allows(&options()), [true, true, false]);
        assert_eq!(window.sent(80, 0, NOW), 2);
        assert_eq!(window.allows(&options()), [true, false, false]);
        assert_eq!(window.sent(1, 0, NOW), 3);
        assert_eq!(window.allows(&options()), [false; 3]);
        assert_eq!(window.acked(3, NOW), Ok(3));
        assert_eq!(window.allows(&options()), [true; 3]);
        assert_eq!(window.sent(1, 0, NOW), 4);
    }

    #[test]
    fn acks_for_the_past_or_the_future_are_violations() {
        let mut window = Window::default();
        window.sent(1, 0, NOW);
        window.sent(1, 0, NOW);
        assert!(window.acked(3, NOW).is_err());
        assert_eq!(window.acked(2, NOW), Ok(2));
        assert_eq!(window.acked(2, NOW), Ok(0));
        assert!(window.acked(1, NOW).is_err());
    }

    #[test]
    fn stalls_only_while_an_ack_is_owed() {
        let options = options();
        let late = NOW + options.stall_limit * 2;
        let mut window = Window::default();
        assert!(!window.is_stalled(late, &options));
        window.sent(1, 0, NOW);
        assert!(!window.is_stalled(NOW, &options));
        assert!(window.is_stalled(late, &options));
        window.acked(1, late).unwrap();
        assert!(!window.is_stalled(late * 2, &options));
        window.sent(1, 0, late * 2);
        assert!(!window.is_stalled(late * 2, &options));
    }
}

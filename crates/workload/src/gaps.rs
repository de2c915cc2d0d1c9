//! The longest times without success: of the workload as a whole, and of each of its ranges.
//!
//! A range's time runs only while some operation waits there: a range that nobody asks is not
//! unavailable. It starts again with every success there.
//!
//! All times are [`cribwork_types::Runtime::now`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The own ranges (by slot) that one operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    first: usize,
    second: Option<usize>,
}

impl Touched {
    /// An operation on one key.
    pub(crate) fn one(slot: usize) -> Self {
        Self { first: slot, second: None }
    }

    /// An operation on two keys, in the same range or not.
    pub(crate) fn two(first: usize, second: usize) -> Self {
        Self { first, second: (second != first).then_some(second) }
    }

    fn slots(self) -> impl Iterator<Item = usize> {
        std::iter::once(self.first).chain(self.second)
    }
}

/// One range's.
#[derive(Debug, Default)]
struct RangeGap {
    waiting: u32,
    /// When the current time without success began; meaningless while nobody waits.
    since: Duration,
    longest: Duration,
}

/// Shared by all workers of one run.
#[derive(Debug)]
pub(crate) struct Gaps {
    last_success_us: AtomicU64,
    longest_us: AtomicU64,
    ranges: Vec<Mutex<RangeGap>>,
}

impl Gaps {
    /// The load begins at `now`.
    pub(crate) fn new(slots: usize, now: Duration) -> Self {
        Self {
            last_success_us: AtomicU64::new(micros(now)),
            longest_us: AtomicU64::new(0),
            ranges: (0..slots).map(|_| Mutex::default()).collect(),
        }
    }

    /// An operation begins to wait.
    pub(crate) fn begin(&self, touched: Touched, now: Duration) {
        for slot in touched.slots() {
            let mut range = self.ranges[slot].lock();
            if range.waiting == 0 {
                range.since = now;
            }
            range.waiting += 1;
        }
    }

    /// It is answered, or has given up.
    pub(crate) fn end(&self, touched: Touched, now: Duration, success: bool) {
        for slot in touched.slots() {
            let mut range = self.ranges[slot].lock();
            range.longest = range.longest.max(now.saturating_sub(range.since));
            range.waiting -= 1;
            if success {
                // Not backwards: another worker may have come here first with a later time.
                range.since = range.since.max(now);
            }
        }
        if success {
            let now = micros(now);
            let before = self.last_success_us.fetch_max(now, Ordering::Relaxed);
            self.longest_us.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
        }
    }

    /// The load ends at `now`: the longest time of the whole, and of any range.
    pub(crate) fn finish(&self, now: Duration) -> (Duration, Duration) {
        let last = micros(now).saturating_sub(self.last_success_us.load(Ordering::Relaxed));
        let whole = last.max(self.longest_us.load(Ordering::Relaxed));
        let range = self.ranges.iter().map(|range| {
            let range = range.lock();
            match range.waiting {
                0 => range.longest,
                _ => range.longest.max(now.saturating_sub(range.since)),
            }
        });
        (Duration::from_micros(whole), range.max().unwrap_or_default())
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_whole_counts_from_success_to_success() {
        let gaps = Gaps::new(1, ms(100));
        let touched = Touched::one(0);
        for (begin, end, success) in [(100, 130, true), (130, 170, false), (170, 200, true)] {
            gaps.begin(touched, ms(begin));
            gaps.end(touched, ms(end), success);
        }
        assert_eq!(gaps.finish(ms(210)).0, ms(70), "a failure ends nothing");
        assert_eq!(gaps.finish(ms(500)).0, ms(300), "nor does the end of the run");
    }

    #[test]
    fn a_range_that_nobody_asks_is_not_unavailable() {
        let gaps = Gaps::new(2, ms(0));
        gaps.begin(Touched::one(0), ms(0));
        gaps.end(Touched::one(0), ms(10), true);
        gaps.begin(Touched::one(0), ms(900));
        gaps.end(Touched::one(0), ms(920), true);
        assert_eq!(gaps.finish(ms(5000)).1, ms(20));
    }

    #[test]
    fn one_dead_range_shows_although_others_succeed() {
        let gaps = Gaps::new(2, ms(0));
        gaps.begin(Touched::one(1), ms(0));
        for t in 0..10 {
            gaps.begin(Touched::one(0), ms(t * 100));
            gaps.end(Touched::one(0), ms(t * 100 + 100), true);
        }
        assert_eq!(gaps.finish(ms(1000)), (ms(100), ms(1000)), "still waiting");
        gaps.end(Touched::one(1), ms(1200), false);
        assert_eq!(gaps.finish(ms(1200)).1, ms(1200), "giving up counts");
    }

    #[test]
    fn success_of_one_restarts_the_time_of_all_that_wait() {
        let gaps = Gaps::new(1, ms(0));
        gaps.begin(Touched::one(0), ms(0));
        gaps.begin(Touched::one(0), ms(50));
        gaps.end(Touched::one(0), ms(60), true);
        gaps.end(Touched::one(0), ms(100), true);
        assert_eq!(gaps.finish(ms(100)).1, ms(60));
    }

    #[test]
    fn both_ranges_of_an_operation_count_once_each() {
        let gaps = Gaps::new(3, ms(0));
        for touched in [Touched::two(1, 1), Touched::two(0, 2)] {
            gaps.begin(touched, ms(0));
            gaps.end(touched, ms(30), true);
        }
        assert_eq!(gaps.finish(ms(30)), (ms(30), ms(30)));
        assert!(gaps.ranges.iter().all(|range| range.lock().waiting == 0));
    }
}

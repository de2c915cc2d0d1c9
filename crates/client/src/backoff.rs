//! How long to wait before the next attempt, and when to give up.

use std::time::Duration;

use cribwork_types::Runtime;

const FIRST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);
/// Retries without a pause (a server told us where to go) before pauses begin all the same: two
/// servers that point at each other must not make a busy loop.
const IMMEDIATE_MAX: u32 = 3;

/// Exponential pauses with jitter: between half and all of 2, 4, 8 ... 500 ms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    pauses: u32,
    immediate: u32,
}

impl Backoff {
    /// The next pause.
    pub(crate) fn next(&mut self, runtime: &dyn Runtime) -> Duration {
        let full = FIRST.saturating_mul(1 << self.pauses.min(16)).min(LONGEST);
        self.pauses += 1;
        let half = full / 2;
        let spread = half.as_micros() as u64 + 1;
        half + Duration::from_micros(runtime.random_u64() % spread)
    }

    /// The pause before a retry that should succeed at once: none, a few times.
    pub(crate) fn next_immediate(&mut self, runtime: &dyn Runtime) -> Duration {
        self.immediate += 1;
        if self.immediate <= IMMEDIATE_MAX {
            return Duration::ZERO;
        }
        self.next(runtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRuntime;

    #[test]
    fn pauses_grow_to_a_bound() {
        let runtime = TestRuntime::new();
        let mut backoff = Backoff::default();
        for full in [2, 4, 8, 16, 32, 64, 128, 256, 500, 500, 500] {
            let pause = backoff.next(&*runtime);
            let full = Duration::from_millis(full);
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }

    #[test]
    fn immediate_retries_end() {
        let runtime = TestRuntime::new();
        let mut backoff = Backoff::default();
        let pauses: Vec<bool> =
            (0..5).map(|_| backoff.next_immediate(&*runtime).is_zero()).collect();
        assert_eq!(pauses, [true, true, true, false, false]);
    }
}

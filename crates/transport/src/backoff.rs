//! Pauses between attempts to connect: exponential, with jitter, so that the peers of a node that
//! returns do not all call at the same instant.

use std::time::Duration;

pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next pause: between half of the nominal one and all of it. `random` is uniform.
    pub(crate) fn pause(&mut self, random: u64) -> Duration {
        let nominal = self.next.min(self.max);
        self.next = nominal.saturating_mul(2).min(self.max);
        let half = nominal / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(random % spread)
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_starts_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(1000));
        for nominal in [50, 100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.pause(u64::MAX / 3);
            assert!(pause >= ms(nominal) / 2 && pause <= ms(nominal), "{pause:?} of {nominal} ms");
        }
        backoff.reset();
        assert_eq!(backoff.pause(0), ms(25));
    }
}

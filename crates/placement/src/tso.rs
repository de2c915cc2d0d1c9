//! Timestamp arithmetic, as in TiKV's placement driver: a window of physical time is persisted ahead,
//! and timestamps inside it are handed out from memory.
//!
//! Invariant: of one history of recoveries, every timestamp is larger than all before it. Handed-out
//! physical parts are below the persisted window, and a recovery starts at the persisted window, so
//! what an earlier leader handed out lies below, whatever the clocks say. (Keeping two leaders from
//! handing out at the same time is the host's business: it checks its lease after [`Tso::take`].)
//!
//! The wall clock only pulls the physical part up. If it stands behind, timestamps count on.

use cribwork_types::Timestamp;
use cribwork_types::seeded::{Bug, has};

/// How far ahead a window is persisted, milliseconds. A new one is due when less than half is left,
/// so this costs the placement group one write each 1.5 s.
pub const WINDOW_MS: u64 = 3_000;
/// How far the wall clock may stand ahead of the last physical part (or of the wall clock seen at the
/// last window, if that is later) to be believed, milliseconds. A clock set to a far future by mistake
/// would otherwise carry all timestamps there for good.
pub const FORWARD_JUMP_MAX_MS: u64 = 3_600_000;
/// First physical part that no longer fits into a timestamp, milliseconds: in the year 4199.
pub const PHYSICAL_LIMIT_MS: u64 = 1 << (u64::BITS - Timestamp::LOGICAL_BITS);

/// Why no timestamps were handed out. The state is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TsoError {
    /// Zero timestamps, or more than one physical part has.
    #[error(
        "cannot hand out {asked} timestamps at once: between 1 and {}",
        Timestamp::LOGICAL_LIMIT
    )]
    BadCount {
        /// How many were asked for.
        asked: u32,
    },
    /// All of the persisted window is used up; a new one must be persisted first. Retryable.
    #[error("timestamps up to {window_ms} ms are used up and no later window is persisted")]
    WindowExhausted {
        /// Upper end (exclusive) of the persisted window, Unix milliseconds.
        window_ms: u64,
    },
    /// The wall clock stands more than [`FORWARD_JUMP_MAX_MS`] ahead.
    #[error("the wall clock jumped from {last_ms} ms to {wall_ms} ms")]
    ClockJump {
        /// What it was measured against, Unix milliseconds.
        last_ms: u64,
        /// The wall clock, Unix milliseconds.
        wall_ms: u64,
    },
}

/// Timestamps `first()..=last()`, handed out together; all in one physical part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Physical part of all, Unix milliseconds.
    pub physical_ms: u64,
    /// Logical part of the last.
    pub logical_last: u64,
    /// How many.
    pub count: u32,
}

impl Batch {
    /// The smallest timestamp.
    pub fn first(&self) -> Timestamp {
        Timestamp::new(self.physical_ms, self.logical_last + 1 - u64::from(self.count))
    }

    /// The largest timestamp.
    pub fn last(&self) -> Timestamp {
        Timestamp::new(self.physical_ms, self.logical_last)
    }
}

/// The state of the timestamp oracle on the placement leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tso {
    /// Physical part of the next timestamp, unless the clock pulls it up.
    physical_ms: u64,
    /// Logical part of the next timestamp; may be the limit, then the physical part moves first.
    logical: u64,
    /// Physical parts must stay below.
    window_ms: u64,
}

impl Tso {
    /// Starts after a restart or a change of leader. `persisted_window_ms` is the last window that the
    /// group persisted. Nothing can be handed out before [`Self::window_persisted`].
    ///
    /// Here, and only here, the wall clock is believed however far ahead it stands: the cluster may
    /// have been switched off for any time. (Not if it does not fit into a timestamp at all.)
    pub fn recover(persisted_window_ms: Option<u64>, now_wall_ms: u64) -> Self {
        let window_ms = persisted_window_ms.unwrap_or(0).min(PHYSICAL_LIMIT_MS);
        let believed = if now_wall_ms < PHYSICAL_LIMIT_MS - WINDOW_MS { now_wall_ms } else { 0 };
        let physical_ms = if has(Bug::WindowIgnored) { believed } else { window_ms.max(believed) };
        Self { physical_ms, logical: 0, window_ms }
    }

    /// The upper end of the window to persist now, Unix milliseconds, if less than half of a window is
    /// left. Call it on a short timer; report success with [`Self::window_persisted`].
    pub fn window_needed(&self, now_wall_ms: u64) -> Option<u64> {
        let wall_ms = self.check_clock(now_wall_ms).unwrap_or(0);
        let from_ms = self.physical_ms.max(wall_ms);
        let left_ms = self.window_ms.saturating_sub(from_ms);
        let wanted_ms = (from_ms + WINDOW_MS).min(PHYSICAL_LIMIT_MS);
        (left_ms < WINDOW_MS / 2 && wanted_ms > self.window_ms).then_some(wanted_ms)
    }

    /// A window up to `upper_ms` (exclusive) is durable on a majority.
    pub fn window_persisted(&mut self, upper_ms: u64) {
        self.window_ms = self.window_ms.max(upper_ms.min(PHYSICAL_LIMIT_MS));
    }

    /// Hands out `count` timestamps within one physical part. Timestamps keep close to the wall clock
    /// as far as the window allows.
    ///
    /// # Errors
    /// [`TsoError`]; nothing was handed out.
    pub fn take(&mut self, count: u32, now_wall_ms: u64) -> Result<Batch, TsoError> {
        let wanted = u64::from(count);
        if count == 0 || wanted > Timestamp::LOGICAL_LIMIT {
            return Err(TsoError::BadCount { asked: count });
        }
        let wall_ms = self.check_clock(now_wall_ms)?;
        let (mut physical_ms, mut logical) = (self.physical_ms, self.logical);
        let reachable_ms = wall_ms.min(self.window_ms.saturating_sub(1));
        if reachable_ms > physical_ms {
            (physical_ms, logical) = (reachable_ms, 0);
        }
        if logical + wanted > Timestamp::LOGICAL_LIMIT {
            (physical_ms, logical) = (physical_ms + 1, 0);
        }
        if physical_ms >= self.window_ms {
            return Err(TsoError::WindowExhausted { window_ms: self.window_ms });
        }
        (self.physical_ms, self.logical) = (physical_ms, logical + wanted);
        Ok(Batch { physical_ms, logical_last: self.logical - 1, count })
    }

    /// Physical part of the newest timestamp, or where the first will start, Unix milliseconds.
    pub fn physical_ms(&self) -> u64 {
        self.physical_ms
    }

    /// Upper end (exclusive) of the persisted window, Unix milliseconds.
    pub fn window_ms(&self) -> u64 {
        self.window_ms
    }

    /// The wall clock, if it is to be believed.
    fn check_clock(&self, wall_ms: u64) -> Result<u64, TsoError> {
        // An oracle that nobody asks still renews its window from the clock.
        let last_ms = self.physical_ms.max(self.window_ms.saturating_sub(WINDOW_MS));
        if wall_ms.saturating_sub(last_ms) > FORWARD_JUMP_MAX_MS {
            return Err(TsoError::ClockJump { last_ms, wall_ms });
        }
        Ok(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn serving(now: u64) -> Tso {
        let mut tso = Tso::recover(None, now);
        tso.window_persisted(tso.window_needed(now).unwrap());
        tso
    }

    #[test]
    fn serves_nothing_before_a_window_is_persisted() {
        let mut tso = Tso::recover(Some(NOW), NOW - 500);
        assert_eq!(tso.take(1, NOW - 400), Err(TsoError::WindowExhausted { window_ms: NOW }));
        assert_eq!(tso.window_needed(NOW - 400), Some(NOW + WINDOW_MS));
        tso.window_persisted(NOW + WINDOW_MS);
        let batch = tso.take(3, NOW - 400).unwrap();
        assert_eq!(batch, Batch { physical_ms: NOW, logical_last: 2, count: 3 });
        assert_eq!((batch.first(), batch.last()), (Timestamp::new(NOW, 0), Timestamp::new(NOW, 2)));
    }

    #[test]
    fn renews_when_half_is_left() {
        let tso = serving(NOW);
        assert_eq!(tso.window_ms(), NOW + WINDOW_MS);
        assert_eq!(tso.window_needed(NOW + WINDOW_MS / 2), None);
        let later = NOW + WINDOW_MS / 2 + 1;
        assert_eq!(tso.window_needed(later), Some(later + WINDOW_MS));
    }

    #[test]
    fn a_batch_stays_inside_one_physical_part() {
        let mut tso = serving(NOW);
        let full = Timestamp::LOGICAL_LIMIT as u32;
        assert_eq!(tso.take(full - 1, NOW).unwrap().physical_ms, NOW);
        assert_eq!(
            tso.take(2, NOW).unwrap(),
            Batch { physical_ms: NOW + 1, logical_last: 1, count: 2 }
        );
        assert_eq!(tso.take(full, NOW).unwrap().physical_ms, NOW + 2);
        assert_eq!(tso.take(0, NOW), Err(TsoError::BadCount { asked: 0 }));
        assert_eq!(tso.take(full + 1, NOW), Err(TsoError::BadCount { asked: full + 1 }));
    }

    #[test]
    fn a_used_up_window_is_an_error_that_changes_nothing() {
        let mut tso = serving(NOW);
        let full = Timestamp::LOGICAL_LIMIT as u32;
        // The clock is past the window: go to its last millisecond, not beyond.
        assert_eq!(tso.take(full, NOW + WINDOW_MS + 50).unwrap().physical_ms, NOW + WINDOW_MS - 1);
        let before = tso.clone();
        assert!(matches!(tso.take(1, NOW + WINDOW_MS), Err(TsoError::WindowExhausted { .. })));
        assert_eq!(tso, before);
        tso.window_persisted(tso.window_needed(NOW + WINDOW_MS).unwrap());
        assert_eq!(tso.take(1, NOW + WINDOW_MS).unwrap().physical_ms, NOW + WINDOW_MS);
    }

    #[test]
    fn a_clock_that_goes_back_is_counted_over() {
        let mut tso = serving(NOW);
        let first = tso.take(1, NOW + 10).unwrap();
        let second = tso.take(1, NOW - 100_000).unwrap();
        assert_eq!((second.physical_ms, second.logical_last), (NOW + 10, first.logical_last + 1));
    }

    #[test]
    fn a_far_jump_ahead_is_refused_and_moves_nothing() {
        let mut tso = serving(NOW);
        let before = tso.clone();
        let far = NOW + FORWARD_JUMP_MAX_MS + 1;
        assert_eq!(tso.take(1, far), Err(TsoError::ClockJump { last_ms: NOW, wall_ms: far }));
        assert_eq!((tso.window_needed(far), &tso), (None, &before));
        assert!(tso.take(1, far - 1).is_ok(), "the limit itself is believed");
        assert!(tso.take(1, NOW + 5).is_ok(), "and a clock set right again serves");
    }

    #[test]
    fn idle_days_are_no_jump() {
        let mut tso = serving(NOW);
        let mut now = NOW;
        for _ in 0..100 {
            now += FORWARD_JUMP_MAX_MS / 2;
            tso.window_persisted(tso.window_needed(now).unwrap());
        }
        assert_eq!(tso.take(1, now).unwrap().physical_ms, now);
    }

    #[test]
    fn the_end_of_time_is_an_error() {
        let last = PHYSICAL_LIMIT_MS - 1;
        let mut tso = Tso::recover(Some(last), u64::MAX);
        tso.window_persisted(tso.window_needed(last).unwrap());
        assert_eq!(tso.take(1, last).unwrap().physical_ms, last);
        assert_eq!(tso.window_needed(last), None);
        assert!(tso.take(u32::from(u16::MAX) * 4, last).is_ok());
        assert!(matches!(tso.take(9, last), Err(TsoError::WindowExhausted { .. })));
        assert!(matches!(tso.take(1, u64::MAX), Err(TsoError::ClockJump { .. })));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u32),
        Renew { succeeds: bool },
        Clock(i64),
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..=Timestamp::LOGICAL_LIMIT as u32 + 1).prop_map(Step::Take),
            4 => (1_u32..10).prop_map(Step::Take),
            2 => any::<bool>().prop_map(|succeeds| Step::Renew { succeeds }),
            3 => (-5_000_i64..5_000).prop_map(Step::Clock),
            1 => (-10_000_000_000_i64..10_000_000_000).prop_map(Step::Clock),
            1 => Just(Step::Crash),
        ]
    }

    proptest! {
        #[test]
        fn timestamps_only_rise(steps in proptest::collection::vec(step(), 1..200)) {
            let mut wall = NOW;
            let mut persisted = None;
            let mut tso = Tso::recover(persisted, wall);
            let mut newest = Timestamp::ZERO;
            for step in steps {
                match step {
                    Step::Clock(by) => wall = wall.saturating_add_signed(by),
                    Step::Crash => tso = Tso::recover(persisted, wall),
                    Step::Renew { succeeds } => {
                        if let Some(upper) = tso.window_needed(wall) {
                            prop_assert!(upper > tso.window_ms());
                            // A write whose outcome is unknown may be durable all the same.
                            persisted = Some(upper);
                            if succeeds { tso.window_persisted(upper); }
                        }
                    }
                    Step::Take(count) => {
                        let before = tso.clone();
                        match tso.take(count, wall) {
                            Ok(batch) => {
                                prop_assert!(batch.first() > newest);
                                prop_assert_eq!(batch.last().get() - batch.first().get() + 1, u64::from(count));
                                prop_assert!(batch.physical_ms < persisted.unwrap());
                                newest = batch.last();
                            }
                            Err(_) => prop_assert_eq!(&tso, &before),
                        }
                    }
                }
            }
        }
    }
}

//! Places where the simulator makes things go worse than they would by themselves: a message lost, a batch
//! cut short, an answer that never comes. All of it is legal, and rare in life; code that cannot stand it
//! is wrong. FoundationDB calls this BUGGIFY.
//!
//! Without the feature `seeded-bugs`, which only the simulator turns on, [`strikes`] is a constant `false`.

use std::time::Duration;

use crate::Runtime;

/// A place, and one time in how many it strikes where it is at work.
macro_rules! quirks {
    ($($(#[doc = $what:literal])+ $variant:ident = $name:literal, 1 in $rate:literal,)+) => {
        /// A place that can be made worse.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Quirk {
            $($(#[doc = $what])+ $variant,)+
        }

        impl Quirk {
            /// All of them.
            pub const ALL: &'static [Quirk] = &[$(Quirk::$variant,)+];

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Quirk::$variant => $name,)+
                }
            }

            /// It strikes one time in so many.
            pub const fn rate(self) -> u64 {
                match self {
                    $(Quirk::$variant => $rate,)+
                }
            }
        }
    };
}

quirks! {
    /// A message between nodes is lost.
    LoseMessage = "lose-message", 1 in 300,
    /// A stream between nodes breaks.
    BreakStream = "break-stream", 1 in 2000,
    /// A snapshot stops half-way.
    StopSnapshot = "stop-snapshot", 1 in 10,
    /// A replica campaigns although it hears its leader.
    Campaign = "campaign", 1 in 3000,
    /// One append has a batch of the log to itself.
    SmallLogBatch = "small-log-batch", 1 in 2,
    /// The log waits a while before it writes a batch: a slow disk.
    SlowLog = "slow-log", 1 in 30,
    /// Not all that is committed is applied at once.
    SmallApplyRound = "small-apply-round", 1 in 2,
    /// The answer to a client is lost, so that it cannot know the outcome.
    LoseAnswer = "lose-answer", 1 in 200,
    /// A request is refused as if the node were too busy.
    RefuseBusy = "refuse-busy", 1 in 50,
    /// A write stands still between its evaluation and its proposal: the machine is busy elsewhere.
    HeldWrite = "held-write", 1 in 40,
    /// A read stands still between its snapshot and the look at the lease.
    HeldRead = "held-read", 1 in 10,
    /// A leader appends a few entries that do nothing, without waiting for them.
    EmptyEntries = "empty-entries", 1 in 4,
    /// A part of a snapshot is lost.
    LosePart = "lose-part", 1 in 20,
    /// Those who should hear of a transfer of leadership do so late, when it may have been given up.
    HoldTransfer = "hold-transfer", 1 in 2,
    /// Whoever makes a membership joint does not stay for the second step.
    LeaveJoint = "leave-joint", 1 in 2,
    /// An instance is closed and built anew, as after a failure.
    Rebuild = "rebuild", 1 in 12,
    /// Ranges are split by themselves from a few KiB on.
    SmallRanges = "small-ranges", 1 in 1,
    /// Replicas are compared all the time.
    EagerVerify = "eager-verify", 1 in 1,
    /// Replicas go cold as soon as they may.
    EagerCold = "eager-cold", 1 in 1,
}

/// Longest time that something stands still, milliseconds: two leases.
const HOLD_MAX_MS: u64 = 1000;

/// Stands still for a while, if `quirk` strikes.
pub async fn hold_up(quirk: Quirk, runtime: &dyn Runtime) {
    if strikes(quirk) {
        let pause = Duration::from_millis(runtime.random_u64() % HOLD_MAX_MS);
        runtime.sleep(pause).await;
    }
}

#[cfg(feature = "seeded-bugs")]
mod on {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::Quirk;

    static AT_WORK: AtomicU32 = AtomicU32::new(0);
    static STATE: AtomicU64 = AtomicU64::new(0);

    /// Puts these quirks to work, and no others; `seed` decides when they strike.
    pub fn put_to_work(quirks: &[Quirk], seed: u64) {
        let mask = quirks.iter().fold(0, |mask, quirk| mask | 1 << *quirk as u8);
        AT_WORK.store(mask, Ordering::Relaxed);
        STATE.store(seed, Ordering::Relaxed);
    }

    /// Whether `quirk` is at work.
    pub fn at_work(quirk: Quirk) -> bool {
        AT_WORK.load(Ordering::Relaxed) & 1 << quirk as u8 != 0
    }

    /// Whether `quirk` strikes here and now.
    pub fn strikes(quirk: Quirk) -> bool {
        if !at_work(quirk) {
            return false;
        }
        // SplitMix64 (Steele, Lea, Flood, 2014).
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let state = STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).is_multiple_of(quirk.rate())
    }
}

#[cfg(feature = "seeded-bugs")]
pub use on::{at_work, put_to_work, strikes};

/// Whether `quirk` is at work: never in this build.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub const fn at_work(_: Quirk) -> bool {
    false
}

/// Whether `quirk` strikes here and now: never in this build.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub const fn strikes(_: Quirk) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nothing_strikes_by_itself() {
        let mut names: Vec<_> = Quirk::ALL.iter().map(|quirk| quirk.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Quirk::ALL.len());
        assert!((0..10_000).all(|_| !Quirk::ALL.iter().any(|quirk| strikes(*quirk))));
    }
}

//! Which faults come, in which order and for how long: a pure function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::kind::Kind;

/// Shortest and longest time between one fault's recovery and the next fault, milliseconds.
const PAUSE_MS: (u64, u64) = (1500, 4000);

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// How long it lasts, without what making and undoing it takes.
    pub(crate) hold: Duration,
    /// Rest before it.
    pub(crate) pause: Duration,
    /// Decides everything else about it: which node, how far.
    pub(crate) pick: u64,
}

/// Faults without end: every kind once in random order, then again in another one.
#[derive(Debug)]
pub(crate) struct Schedule {
    random: StdRng,
    kinds: Vec<Kind>,
    round: Vec<Kind>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), kinds: kinds.to_vec(), round: Vec::new() }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    /// None only if there are no kinds.
    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.round.shuffle(&mut self.random);
        }
        let kind = self.round.pop()?;
        let (least, most) = kind.hold_ms();
        Some(Fault {
            kind,
            hold: Duration::from_millis(self.random.random_range(least..=most)),
            pause: Duration::from_millis(self.random.random_range(PAUSE_MS.0..=PAUSE_MS.1)),
            pick: self.random.random(),
        })
    }
}

/// The number of a node, out of `pick`.
pub(crate) fn victim(pick: u64, nodes: usize) -> usize {
    (pick % nodes as u64) as usize
}

/// `count` different nodes, beginning with the victim.
pub(crate) fn victims(pick: u64, count: usize, nodes: usize) -> Vec<usize> {
    (0..count.min(nodes)).map(|step| (victim(pick, nodes) + step) % nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::KINDS;

    #[test]
    fn the_seed_decides_everything() {
        let first = |seed| Schedule::new(seed, &KINDS).take(40).collect::<Vec<_>>();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn every_kind_comes_before_one_comes_twice() {
        let faults: Vec<_> = Schedule::new(3, &KINDS).take(2 * KINDS.len()).collect();
        for round in faults.chunks(KINDS.len()) {
            let mut kinds: Vec<_> = round.iter().map(|fault| fault.kind).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, KINDS);
        }
        for fault in faults {
            let (least, most) = fault.kind.hold_ms();
            assert!((least..=most).contains(&(fault.hold.as_millis() as u64)), "{fault:?}");
        }
        assert_eq!(Schedule::new(3, &[]).next(), None);
    }

    #[test]
    fn a_majority_is_of_different_nodes() {
        assert_eq!(victims(5, 2, 3), [2, 0]);
        assert_eq!(victims(5, 9, 3), [2, 0, 1]);
    }
}

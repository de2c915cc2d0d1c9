//! The search for an order of the calls of one key.
//!
//! Depth first. Four observations keep it short; each says of a witness, an order that respects real
//! time and the register, that another witness exists which the search does visit.
//!
//! 1. A call may come next if no call that is not placed yet ended before it began. Sorted by
//!    invocation these are a prefix of what is left, cut off at the earliest end.
//! 2. A call that only reads and may come next and fits the value is placed at once, without
//!    alternative: moved to the front it still fits, and nothing after it notices.
//! 3. A call that may never have happened is placed only where it changes the value and something wants
//!    the new one ([`Wanted`]). If a blind write follows it, the order without it is a witness too; so
//!    what follows looks at the value, and is either required or again such a call. Of several that do
//!    the same only the earliest is tried: it can stand in for the rest.
//! 4. What is placed and which value that left is remembered (Lowe's memory).

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::calls::{ABSENT, Call, Calls, Effect, Value};

/// How a search ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// An order was found.
    Linearized,
    /// There is none.
    Stuck {
        /// Most required calls that any attempt placed.
        placed: usize,
        /// The value after them.
        state: Value,
        /// Indexes of the required calls of which none could come next.
        waiting: Vec<usize>,
    },
    /// Too many steps.
    Exhausted,
}

/// Searches; every call tried at a place is a step.
pub(super) fn search(calls: &Calls<'_>, steps_max: u64) -> Ended {
    Search::new(calls).run(steps_max)
}

/// A call by its position among the required or the optional ones.
#[derive(Clone, Copy, Debug)]
enum Place {
    Required(usize),
    Optional(usize),
}

/// A point in the search with the choices that are left there.
struct Fork {
    choices: Vec<Place>,
    /// Length of the trail when the point was reached.
    trail: usize,
    state: Value,
    lowest: usize,
}

/// The values that a call which may come next looks at.
#[derive(Debug, Default)]
struct Wanted {
    values: BTreeSet<Value>,
    /// Each of them wants any value but this.
    others: BTreeSet<Value>,
    /// What silent swaps look for.
    silent: BTreeSet<Value>,
}

impl Wanted {
    fn by_required(&mut self, effect: Effect) {
        match effect {
            Effect::Read(value) | Effect::Swap(value, _) => {
                self.values.insert(value);
            }
            Effect::ReadOther(value) => {
                self.others.insert(value);
            }
            // It fits every value. Where it does nothing, it fits before the optional call too.
            Effect::Either(value, _) => {
                self.values.insert(value);
                self.silent.insert(value);
            }
            Effect::Write(_) => {}
        }
    }

    /// Swaps that may never have happened want a value only if theirs is wanted in turn.
    fn by_swaps(&mut self, mut swaps: Vec<Effect>) {
        loop {
            let before = self.values.len();
            swaps.retain(|swap| match *swap {
                Effect::Swap(expected, value) if self.has(value) => {
                    self.values.insert(expected);
                    false
                }
                Effect::Swap(..) => true,
                _ => false,
            });
            if self.values.len() == before {
                return;
            }
        }
    }

    fn has(&self, value: Value) -> bool {
        self.values.contains(&value)
            || self.others.len() > 1
            || self.others.iter().any(|other| *other != value)
    }

    /// Whether the call, which may never have happened, is worth placing at `state`.
    fn wants(&self, effect: Effect, state: Value) -> bool {
        // A swap can keep the value from a silent one, which cannot go first then.
        let competes = !effect.is_blind() && self.silent.contains(&state);
        effect.apply(state).is_some_and(|after| after != state && (competes || self.has(after)))
    }
}

/// What determines all that can follow: where the placed calls end, those placed beyond, the optional
/// ones placed, and the value.
type Seen = (usize, Vec<usize>, Vec<u64>, Value);

/// Only membership is asked, so the order of the set decides nothing; the hasher has no random key.
type Memory = HashSet<Seen, BuildHasherDefault<DefaultHasher>>;

struct Search<'a> {
    required: &'a [Call],
    optional: &'a [Call],
    placed: Vec<bool>,
    /// Bit `i` of the words: whether `optional[i]` is placed.
    taken: Vec<u64>,
    /// All required calls before this one are placed.
    lowest: usize,
    /// Required calls placed.
    count: usize,
    state: Value,
    trail: Vec<Place>,
    memory: Memory,
    /// The most that was placed, the value then, and what waited.
    best: (usize, Value, Vec<usize>),
}

impl<'a> Search<'a> {
    fn new(calls: &'a Calls<'_>) -> Self {
        Self {
            required: &calls.required,
            optional: &calls.optional,
            placed: vec![false; calls.required.len()],
            taken: vec![0; calls.optional.len().div_ceil(64)],
            lowest: 0,
            count: 0,
            state: ABSENT,
            trail: Vec::new(),
            memory: Memory::default(),
            best: (0, ABSENT, Vec::new()),
        }
    }

    fn run(mut self, steps_max: u64) -> Ended {
        let mut steps = 0;
        let mut forks = vec![self.fork()];
        while self.count < self.required.len() {
            let Some(fork) = forks.last_mut() else {
                let (placed, state, waiting) = self.best;
                return Ended::Stuck { placed, state, waiting };
            };
            let (trail, state, lowest) = (fork.trail, fork.state, fork.lowest);
            let choice = fork.choices.pop();
            self.undo(trail, state, lowest);
            match choice {
                None => {
                    forks.pop();
                }
                Some(choice) => {
                    steps += 1;
                    if steps > steps_max {
                        return Ended::Exhausted;
                    }
                    self.place(choice);
                    let next = self.fork();
                    forks.push(next);
                }
            }
        }
        Ended::Linearized
    }

    /// Places what only reads, then says what else may come next.
    fn fork(&mut self) -> Fork {
        let candidates = self.read();
        if self.count > self.best.0 || self.best.2.is_empty() {
            let waiting = candidates.iter().map(|&at| self.required[at].index).collect();
            self.best = (self.count, self.state, waiting);
        }
        let choices = if self.remember() { self.choices(&candidates) } else { Vec::new() };
        Fork { choices, trail: self.trail.len(), state: self.state, lowest: self.lowest }
    }

    /// Places every read that fits, and returns which required calls may come next then.
    fn read(&mut self) -> Vec<usize> {
        loop {
            let candidates = self.candidates();
            let fits = |&&at: &&usize| {
                let effect = self.required[at].effect;
                effect.only_reads() && effect.apply(self.state).is_some()
            };
            match candidates.iter().find(fits) {
                Some(&at) => self.place(Place::Required(at)),
                None => return candidates,
            }
        }
    }

    /// Required calls that may come next, by invocation.
    fn candidates(&self) -> Vec<usize> {
        let mut earliest_end = u64::MAX;
        let mut candidates = Vec::new();
        for at in self.lowest..self.required.len() {
            let call = &self.required[at];
            if call.invoke > earliest_end {
                break;
            }
            if !self.placed[at] {
                earliest_end = earliest_end.min(call.complete);
                candidates.push(at);
            }
        }
        candidates
    }

    /// What may come next and fits, the most promising last: required calls by their ends, then, to be
    /// tried when those fail, calls that may never have happened.
    fn choices(&self, candidates: &[usize]) -> Vec<Place> {
        let mut choices = self.optional_choices(candidates);
        let mut fitting: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|&at| self.required[at].effect.apply(self.state).is_some())
            .collect();
        fitting.sort_by_key(|&at| std::cmp::Reverse(self.required[at].complete));
        choices.extend(fitting.into_iter().map(Place::Required));
        choices
    }

    fn optional_choices(&self, candidates: &[usize]) -> Vec<Place> {
        let ends = candidates.iter().map(|&at| self.required[at].complete);
        let earliest_end = ends.min().unwrap_or(u64::MAX);
        let open = self.optional.partition_point(|call| call.invoke <= earliest_end);
        let free: Vec<usize> = (0..open).filter(|&at| !self.is_taken(at)).collect();
        if free.is_empty() {
            return Vec::new();
        }
        let mut wanted = Wanted::default();
        candidates.iter().for_each(|&at| wanted.by_required(self.required[at].effect));
        wanted.by_swaps(free.iter().map(|&at| self.optional[at].effect).collect());
        let mut effects = BTreeSet::new();
        let mut choices = Vec::new();
        for &at in &free {
            let effect = self.optional[at].effect;
            if wanted.wants(effect, self.state) && effects.insert(effect) {
                choices.push(Place::Optional(at));
            }
        }
        choices
    }

    fn is_taken(&self, at: usize) -> bool {
        self.taken[at / 64] & (1 << (at % 64)) != 0
    }

    fn place(&mut self, place: Place) {
        let call = match place {
            Place::Required(at) => {
                self.placed[at] = true;
                self.count += 1;
                while self.placed.get(self.lowest) == Some(&true) {
                    self.lowest += 1;
                }
                &self.required[at]
            }
            Place::Optional(at) => {
                self.taken[at / 64] |= 1 << (at % 64);
                &self.optional[at]
            }
        };
        self.state = call.effect.apply(self.state).unwrap_or(self.state);
        self.trail.push(place);
    }

    /// Takes back everything since the trail was `length` long.
    fn undo(&mut self, length: usize, state: Value, lowest: usize) {
        for place in self.trail.drain(length..) {
            match place {
                Place::Required(at) => {
                    self.placed[at] = false;
                    self.count -= 1;
                }
                Place::Optional(at) => self.taken[at / 64] &= !(1 << (at % 64)),
            }
        }
        self.state = state;
        self.lowest = lowest;
    }

    /// Whether this point is new.
    fn remember(&mut self) -> bool {
        let mut beyond = Vec::new();
        let mut rest = self.count - self.lowest;
        for at in self.lowest.. {
            if rest == 0 {
                break;
            }
            if self.placed[at] {
                beyond.push(at);
                rest -= 1;
            }
        }
        self.memory.insert((self.lowest, beyond, self.taken.clone(), self.state))
    }
}

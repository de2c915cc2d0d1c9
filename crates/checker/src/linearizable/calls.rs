//! The operations of one key as calls on a register.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, History, Op, Operation, Outcome};

/// A value of the register by number; [`ABSENT`] if the key does not exist.
pub(super) type Value = u32;

/// The value of a key that does not exist.
pub(super) const ABSENT: Value = 0;

/// Any value that no call names.
pub(super) const OTHER: Value = Value::MAX;

/// What a call does, given its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Needs this value, leaves it.
    Read(Value),
    /// Needs any other value, leaves it: a compare-and-swap that lost and does not say to whom.
    ReadOther(Value),
    /// Needs nothing, leaves this value.
    Write(Value),
    /// Needs the first value, leaves the second.
    Swap(Value, Value),
    /// Leaves the second value if it finds the first: a compare-and-swap that does not say.
    Either(Value, Value),
}

impl Effect {
    /// The value after it, or `None` if it cannot happen at `state`.
    pub(super) fn apply(self, state: Value) -> Option<Value> {
        match self {
            Effect::Read(value) => (state == value).then_some(state),
            Effect::ReadOther(value) => (state != value).then_some(state),
            Effect::Write(value) => Some(value),
            Effect::Swap(expected, value) => (state == expected).then_some(value),
            Effect::Either(expected, value) => Some(if state == expected { value } else { state }),
        }
    }

    /// Whether it never changes the value.
    pub(super) fn only_reads(self) -> bool {
        matches!(self, Effect::Read(_) | Effect::ReadOther(_))
    }

    /// Whether it is the same whatever the value was.
    pub(super) fn is_blind(self) -> bool {
        matches!(self, Effect::Write(_))
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// In the history.
    pub(super) index: usize,
    pub(super) invoke: u64,
    /// `u64::MAX` if it has no end.
    pub(super) complete: u64,
    pub(super) effect: Effect,
}

/// The calls of one key.
#[derive(Debug, Default)]
pub(super) struct Calls<'a> {
    /// Those that happened, by invocation.
    pub(super) required: Vec<Call>,
    /// Those that may have happened, by invocation: writes and swaps.
    pub(super) optional: Vec<Call>,
    /// Answers that no register gives, whatever else happens.
    pub(super) absurd: Vec<(&'static str, usize)>,
    /// How many operations were looked at.
    pub(super) taking_part: usize,
    values: Vec<&'a Blob>,
    numbers: BTreeMap<&'a Blob, Value>,
}

impl<'a> Calls<'a> {
    /// The calls of the operations at `indexes`, which are of one key.
    pub(super) fn new(history: &'a History, indexes: &[usize]) -> Self {
        let mut calls = Self::default();
        for &index in indexes {
            if let Some(operation) = history.get(index) {
                calls.add(index, operation);
            }
        }
        calls.required.sort_by_key(|call| call.invoke);
        calls.optional.sort_by_key(|call| call.invoke);
        calls.drop_unseen();
        calls
    }

    /// The value that `number` stands for.
    pub(super) fn value(&self, number: Value) -> Option<&'a Blob> {
        let position = (number as usize).checked_sub(1)?;
        self.values.get(position).copied()
    }

    fn number(&mut self, value: Option<&'a Blob>) -> Value {
        let Some(value) = value else { return ABSENT };
        let next = self.values.len() as Value + 1;
        let number = *self.numbers.entry(value).or_insert(next);
        if number == next {
            self.values.push(value);
        }
        number
    }

    fn add(&mut self, index: usize, operation: &'a Operation) {
        let known = match operation.outcome {
            Outcome::Ok => true,
            Outcome::Unknown => false,
            Outcome::Failed => return,
        };
        let Some(effect) = self.effect(index, &operation.op, known) else { return };
        self.taking_part += 1;
        let complete = operation.complete.filter(|_| known).unwrap_or(u64::MAX);
        let call = Call { index, invoke: operation.invoke, complete, effect };
        if known {
            self.required.push(call);
        } else {
            self.optional.push(call);
        }
    }

    /// `None` if the operation says nothing and does nothing.
    fn effect(&mut self, index: usize, op: &'a Op, known: bool) -> Option<Effect> {
        match op {
            Op::Get { value, .. } if known => Some(Effect::Read(self.number(value.as_ref()))),
            Op::Put { value, .. } => Some(Effect::Write(self.number(Some(value)))),
            Op::Delete { .. } => Some(Effect::Write(ABSENT)),
            Op::Cas { expected, value, swapped, previous, .. } => {
                let expected = self.number(expected.as_ref());
                let value = self.number(Some(value));
                let found = previous.as_ref().map(|found| self.number(found.as_ref()));
                if !known {
                    // That it did not swap is the same as that it never happened.
                    return (expected != value).then_some(Effect::Swap(expected, value));
                }
                match (*swapped, found) {
                    (Some(true), Some(found)) if found != expected => {
                        self.absurd.push(("swapped although it found another value", index));
                        None
                    }
                    (Some(false), Some(found)) if found == expected => {
                        self.absurd.push(("did not swap although it found the value", index));
                        None
                    }
                    (Some(true), _) => Some(Effect::Swap(expected, value)),
                    (None, Some(found)) if found == expected => Some(Effect::Swap(expected, value)),
                    (_, Some(found)) => Some(Effect::Read(found)),
                    (Some(false), None) => Some(Effect::ReadOther(expected)),
                    (None, None) => Some(Effect::Either(expected, value)),
                }
            }
            _ => None,
        }
    }

    /// Drops calls that may have happened and leave a value that nothing can have seen.
    ///
    /// Sound: take any order that is a witness, and let such a call that leaves `v` be in it. What comes
    /// after it, up to the next blind write or the end, looks at no value: a read or a swap would have
    /// to name `v`, one that takes "any other" would have to name another value than `v`, and then `v`
    /// counts as seen. That leaves [`Effect::Either`], which fits any value. So all that comes in
    /// between, and the blind write after it, are as legal without the call. Removed, the rest is a
    /// witness still. Deletions leave [`ABSENT`]; an optional swap that went takes with it what only it
    /// can have seen, hence the loop.
    ///
    /// A value that is seen only as "any other" is as good as any such value: it becomes [`OTHER`].
    fn drop_unseen(&mut self) {
        loop {
            let mut named = BTreeSet::new();
            let mut others = BTreeSet::new();
            for call in self.required.iter().chain(&self.optional) {
                match call.effect {
                    Effect::Read(value) | Effect::Swap(value, _) | Effect::Either(value, _) => {
                        named.insert(value);
                    }
                    Effect::ReadOther(value) => {
                        others.insert(value);
                    }
                    Effect::Write(_) => {}
                }
            }
            let before = self.optional.len();
            self.optional.retain_mut(|call| {
                let (Effect::Write(value) | Effect::Swap(_, value)) = &mut call.effect else {
                    return true;
                };
                let is_other = others.len() > 1 || others.iter().any(|other| other != value);
                if !named.contains(value) && is_other {
                    // Nobody names it, and only who is no other names what is not other.
                    *value = if others.contains(value) { *value } else { OTHER };
                }
                named.contains(value) || is_other
            });
            if self.optional.len() == before {
                return;
            }
        }
    }
}

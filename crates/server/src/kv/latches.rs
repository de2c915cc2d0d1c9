//! In-memory locks on keys, held while a command is evaluated, replicated and applied.
//!
//! A latch is a *slot*: the hash of a key. Two keys that share a slot wait for each other without
//! need, which is harmless. A command takes its slots one by one in ascending order, so no cycle of
//! waiting can close; each slot is handed on in the order of arrival.
//!
//! Invariants:
//! - at most one owner a slot;
//! - a place in a queue is given up when the future that waits in it is dropped, and a slot that was
//!   handed to such a future at the same moment is handed on.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cribwork_types::Cf;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Independently locked parts of the table.
const SHARDS: usize = 64;

/// The slot of `key` in the key space of `cf` (transactions count as [`Cf::Lock`]).
pub(crate) fn slot(cf: Cf, key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(cf as u8);
    hasher.write(key);
    hasher.finish()
}

/// Too many commands wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyWaiters;

/// A slot that is held.
struct Queue {
    owner: u64,
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// All latches of a store.
pub(crate) struct Latches {
    shards: Box<[Mutex<HashMap<u64, Queue>>]>,
    waiters: AtomicUsize,
    waiters_max: usize,
    next_owner: AtomicU64,
}

/// Slots that a command holds; dropping it hands them on.
pub(crate) struct Held {
    latches: Arc<Latches>,
    owner: u64,
    slots: Vec<u64>,
    waited: bool,
}

impl Latches {
    /// No latch is held; at most `waiters_max` commands may wait.
    pub(crate) fn new(waiters_max: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            waiters: AtomicUsize::new(0),
            waiters_max,
            next_owner: AtomicU64::new(0),
        })
    }

    /// Takes all `slots`, waiting as long as it takes.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        mut slots: Vec<u64>,
    ) -> Result<Held, TooManyWaiters> {
        slots.sort_unstable();
        slots.dedup();
        let owner = self.next_owner.fetch_add(1, Ordering::Relaxed);
        let (latches, taken) = (self.clone(), Vec::with_capacity(slots.len()));
        let mut held = Held { latches, owner, slots: taken, waited: false };
        for slot in slots {
            let turn = self.enter(slot, owner)?;
            // Noted before the wait: whoever drops this future gives its place up with the rest.
            held.slots.push(slot);
            if let Some(turn) = turn {
                let _waiting = Waiting(&self.waiters);
                held.waited = true;
                // The sender stays in the queue until it is used, or this owner leaves.
                let _ = turn.await;
            }
        }
        Ok(held)
    }

    fn shard(&self, slot: u64) -> &Mutex<HashMap<u64, Queue>> {
        &self.shards[slot as usize % SHARDS]
    }

    /// Takes a free slot, or a place in its queue.
    fn enter(
        &self,
        slot: u64,
        owner: u64,
    ) -> Result<Option<oneshot::Receiver<()>>, TooManyWaiters> {
        match self.shard(slot).lock().entry(slot) {
            Entry::Vacant(free) => {
                free.insert(Queue { owner, waiting: VecDeque::new() });
                Ok(None)
            }
            Entry::Occupied(mut taken) => {
                if self.waiters.fetch_add(1, Ordering::Relaxed) >= self.waiters_max {
                    self.waiters.fetch_sub(1, Ordering::Relaxed);
                    return Err(TooManyWaiters);
                }
                let (sender, turn) = oneshot::channel();
                taken.get_mut().waiting.push_back((owner, sender));
                Ok(Some(turn))
            }
        }
    }

    /// Hands a slot on if `owner` holds it, else gives its place in the queue up.
    fn leave(&self, slot: u64, owner: u64) {
        let mut shard = self.shard(slot).lock();
        let Entry::Occupied(mut taken) = shard.entry(slot) else { return };
        let queue = taken.get_mut();
        if queue.owner != owner {
            queue.waiting.retain(|(waiting, _)| *waiting != owner);
            return;
        }
        match queue.waiting.pop_front() {
            Some((next, turn)) => {
                queue.owner = next;
                // If the next one is being dropped right now, it leaves as the owner and hands on.
                let _ = turn.send(());
            }
            None => drop(taken.remove()),
        }
    }
}

impl Held {
    /// True if not all slots were free.
    pub(crate) fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            self.latches.leave(slot, self.owner);
        }
    }
}

/// Counts a wait down, however it ends. [`Latches::enter`] counted it up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

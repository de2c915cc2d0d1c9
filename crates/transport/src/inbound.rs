//! The inbound streams: at most one live stream a peer, the newest.
//!
//! A peer that lost its connection opens a new one while the old one may still hold frames. The new
//! one is admitted only after the old one has stopped for good, so that nothing old is handed over
//! after something new.

use std::collections::HashMap;
use std::sync::Arc;

use cribwork_types::StoreId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::handshake::{Hello, Refusal};
use crate::options::INBOUND_STREAMS_MAX;

/// One admitted stream.
pub(crate) struct Slot {
    pub(crate) from: StoreId,
    incarnation: u64,
    attempt: u64,
    /// False once the stream must hand over nothing more; locked while a frame is handed over.
    live: Mutex<bool>,
    stopped: Notify,
}

impl Slot {
    /// Runs `deliver` unless the stream was stopped. A stop waits for it.
    pub(crate) fn if_live<T>(&self, deliver: impl FnOnce() -> T) -> Option<T> {
        let live = self.live.lock();
        live.then(deliver)
    }

    /// Completes when the stream must end.
    pub(crate) async fn stopped(&self) {
        self.stopped.notified().await;
    }

    fn stop(&self) {
        *self.live.lock() = false;
        self.stopped.notify_one();
    }
}

#[derive(Default)]
struct State {
    slots: HashMap<StoreId, Arc<Slot>>,
    closed: bool,
}

/// All inbound streams of a transport.
#[derive(Default)]
pub(crate) struct Inbound(Mutex<State>);

impl Inbound {
    /// Admits a stream with a checked handshake and stops the older one of the same peer.
    pub(crate) fn admit(&self, hello: &Hello) -> Result<Arc<Slot>, Refusal> {
        let slot = Arc::new(Slot {
            from: hello.from,
            incarnation: hello.incarnation,
            attempt: hello.attempt,
            live: Mutex::new(true),
            stopped: Notify::new(),
        });
        let old = {
            let mut state = self.0.lock();
            if state.closed {
                return Err(Refusal::Stopping);
            }
            let old = state.slots.get(&hello.from);
            if old.is_none() && state.slots.len() >= INBOUND_STREAMS_MAX {
                return Err(Refusal::TooMany);
            }
            if old.is_some_and(|old| {
                old.incarnation == hello.incarnation && old.attempt >= hello.attempt
            }) {
                return Err(Refusal::Stale { from: hello.from });
            }
            state.slots.insert(hello.from, Arc::clone(&slot))
        };
        if let Some(old) = old {
            old.stop();
        }
        Ok(slot)
    }

    /// Forgets a stream that has ended.
    pub(crate) fn remove(&self, slot: &Arc<Slot>) {
        let mut state = self.0.lock();
        if state.slots.get(&slot.from).is_some_and(|current| Arc::ptr_eq(current, slot)) {
            state.slots.remove(&slot.from);
        }
    }

    /// Stops all streams and admits no more.
    pub(crate) fn close(&self) {
        let slots = {
            let mut state = self.0.lock();
            state.closed = true;
            std::mem::take(&mut state.slots)
        };
        for slot in slots.values() {
            slot.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use cribwork_types::ClusterId;

    use super::*;

    fn hello(from: u64, incarnation: u64, attempt: u64) -> Hello {
        let (cluster, from, to) = (ClusterId(1), StoreId(from), StoreId(9));
        Hello { protocol: 1, cluster, from, to, incarnation, attempt }
    }

    #[test]
    fn the_newest_stream_of_a_peer_wins() {
        let inbound = Inbound::default();
        let first = inbound.admit(&hello(1, 7, 5)).unwrap();
        let other = inbound.admit(&hello(2, 7, 5)).unwrap();
        assert!(matches!(inbound.admit(&hello(1, 7, 5)), Err(Refusal::Stale { .. })));
        assert!(matches!(inbound.admit(&hello(1, 7, 4)), Err(Refusal::Stale { .. })));
        assert_eq!(first.if_live(|| 1), Some(1));

        let second = inbound.admit(&hello(1, 7, 6)).unwrap();
        assert_eq!(first.if_live(|| 1), None);
        let restarted = inbound.admit(&hello(1, 3, 1)).unwrap();
        assert_eq!(second.if_live(|| 1), None);

        // The end of an old stream leaves the new one alone.
        inbound.remove(&first);
        assert!(matches!(inbound.admit(&hello(1, 3, 1)), Err(Refusal::Stale { .. })));
        inbound.close();
        assert_eq!(restarted.if_live(|| 1).or(other.if_live(|| 1)), None);
        assert!(matches!(inbound.admit(&hello(3, 1, 1)), Err(Refusal::Stopping)));
    }

    #[test]
    fn streams_are_bounded() {
        let inbound = Inbound::default();
        let admit = |from| inbound.admit(&hello(from, 1, 1));
        let slots: Vec<_> = (0..INBOUND_STREAMS_MAX as u64).map(|n| admit(n).unwrap()).collect();
        assert!(matches!(admit(u64::MAX), Err(Refusal::TooMany)));
        inbound.remove(&slots[0]);
        assert!(admit(u64::MAX).is_ok());
    }
}

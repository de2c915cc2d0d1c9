//! Which nodes are alive, by one small message per pair of nodes and period: what replaces the
//! heartbeats of thousands of idle groups.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::codec::Reader;
use cribwork_types::{CodecError, StoreId};
use dashmap::DashMap;

const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug)]
struct Peer {
    heard: Duration,
    incarnation: u64,
}

/// What this node has heard of the others.
pub(crate) struct Liveness {
    store: StoreId,
    incarnation: u64,
    timeout: Duration,
    peers: DashMap<StoreId, Peer>,
    clock: std::sync::Arc<dyn cribwork_types::Runtime>,
}

impl Liveness {
    pub(crate) fn new(
        store: StoreId,
        incarnation: u64,
        timeout: Duration,
        clock: std::sync::Arc<dyn cribwork_types::Runtime>,
    ) -> Self {
        Self { store, incarnation, timeout, peers: DashMap::new(), clock }
    }

    /// The message that this node sends: its life, a random number drawn at start.
    pub(crate) fn ping(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(VERSION);
        out.put_u64(self.incarnation);
        out.freeze()
    }

    /// Takes a peer's message. True if the peer was dead, or lives a new life.
    pub(crate) fn heard(&self, from: StoreId, payload: Bytes) -> Result<bool, CodecError> {
        let mut reader = Reader::new("liveness", payload);
        reader.version(VERSION)?;
        let incarnation = reader.u64()?;
        let was = self.incarnation(from);
        self.peers.insert(from, Peer { heard: self.clock.now(), incarnation });
        Ok(was != Some(incarnation))
    }

    /// The peer's connection was reset: most likely its process died. It counts as dead unless it is
    /// heard from again.
    pub(crate) fn reset(&self, peer: StoreId) {
        if let Some(mut entry) = self.peers.get_mut(&peer) {
            entry.heard = self.clock.now().saturating_sub(self.timeout);
        }
    }

    /// This node itself slept for `gap` between two sweeps (a stopped process, a starved machine): it
    /// heard nobody in that time, which says nothing about the others.
    pub(crate) fn excuse(&self, gap: Duration, period: Duration) {
        if gap < period * 2 {
            return;
        }
        let now = self.clock.now();
        for mut peer in self.peers.iter_mut() {
            peer.heard = (peer.heard + gap - period).min(now);
        }
    }

    /// True if the store was heard from lately. This node is alive to itself.
    pub(crate) fn is_live(&self, store: StoreId) -> bool {
        self.incarnation(store).is_some()
    }

    /// The life that a live store is in.
    pub(crate) fn incarnation(&self, store: StoreId) -> Option<u64> {
        if store == self.store {
            return Some(self.incarnation);
        }
        let peer = *self.peers.get(&store)?;
        let silent = self.clock.now().saturating_sub(peer.heard);
        (silent < self.timeout).then_some(peer.incarnation)
    }
}

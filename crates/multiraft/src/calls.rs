//! Requests that wait for an answer from another node.

use std::time::Duration;

use bytes::Bytes;
use cribwork_types::StoreId;
use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// How long a call may stay unanswered before the driver's sweep gives it up. One deadline for all,
/// so that a call costs no timer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

struct Call {
    to: StoreId,
    /// Given up when this is older than [`CALL_TIMEOUT`]; `None` for calls with a deadline of their
    /// own.
    since: Option<Duration>,
    answer: oneshot::Sender<Bytes>,
}

/// Open calls by number. No number is used twice, so a late answer finds nobody: not by this life of the
/// process, and not by the next, because each begins at a random one. A peer may have been busy with a question
/// for so long that whoever asked was restarted meanwhile.
pub(crate) struct Calls {
    next: AtomicU64,
    open: DashMap<u64, Call>,
}

impl Calls {
    /// No call is open. `first`, a random number, is the one of the first.
    pub(crate) fn new(first: u64) -> Self {
        Self { next: AtomicU64::new(first), open: DashMap::new() }
    }

    fn insert(&self, to: StoreId, since: Option<Duration>) -> (u64, oneshot::Receiver<Bytes>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, receiver) = oneshot::channel();
        self.open.insert(number, Call { to, since, answer });
        (number, receiver)
    }

    /// Opens a call to `to`; the receiver fails when the call is given up.
    pub(crate) fn open(&self, to: StoreId, now: Duration) -> (u64, oneshot::Receiver<Bytes>) {
        self.insert(to, Some(now))
    }

    /// Opens a call whose caller keeps the time.
    pub(crate) fn open_slow(&self, to: StoreId) -> (u64, oneshot::Receiver<Bytes>) {
        self.insert(to, None)
    }

    /// Hands an answer to its caller, if that still waits for this peer.
    pub(crate) fn answer(&self, from: StoreId, number: u64, payload: Bytes) {
        let call = self.open.remove_if(&number, |_, call| call.to == from);
        if let Some((_, call)) = call {
            let _ = call.answer.send(payload);
        }
    }

    /// The caller no longer waits.
    pub(crate) fn drop_call(&self, number: u64) {
        self.open.remove(&number);
    }

    /// Fails every call to `peer`: its connection broke.
    pub(crate) fn fail_all(&self, peer: StoreId) {
        self.open.retain(|_, call| call.to != peer);
    }

    /// Fails calls that are too old.
    pub(crate) fn expire(&self, now: Duration) {
        self.open.retain(|_, call| {
            call.since.is_none_or(|since| now.saturating_sub(since) < CALL_TIMEOUT)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_answered_failed_and_expired() {
        let calls = Calls::new(u64::MAX);
        let (one, mut first) = calls.open(StoreId(1), Duration::ZERO);
        let (_, mut second) = calls.open(StoreId(2), Duration::ZERO);
        let (_, mut third) = calls.open(StoreId(3), Duration::from_secs(9));
        calls.answer(StoreId(2), one, Bytes::from_static(b"forged"));
        assert!(first.try_recv().is_err(), "only the peer that was asked may answer");
        calls.answer(StoreId(1), one, Bytes::from_static(b"yes"));
        assert_eq!(&first.try_recv().unwrap()[..], b"yes");
        calls.fail_all(StoreId(2));
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        calls.expire(Duration::from_secs(10));
        assert_eq!(third.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        calls.expire(Duration::from_secs(12));
        assert_eq!(third.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}

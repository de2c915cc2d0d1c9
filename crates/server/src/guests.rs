//! Who is connected to a port, and who has to leave when there are too many.
//!
//! Everything that a connection may take is bounded by itself (streams, windows, headers), so the number of
//! connections bounds the whole. Nobody is turned away at the door, because then whoever comes first
//! and stays could keep all others out: the one that is least likely to be missed is shown out instead.
//!
//! Invariants: at most [`Guests::new`]'s number of connections are kept, and as many requests whose
//! message has not arrived as a port has room for; beyond, the connection ends that has been silent
//! longest, or holds the most such requests.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cribwork_types::Runtime;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A connection that has said nothing for this long goes before any that has: clients speak at once.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// How much a port takes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestLimits {
    /// Connections.
    pub(crate) connections_max: usize,
    /// Requests of all connections whose body has not ended.
    pub(crate) open_requests_max: usize,
}

/// The connections of one port.
pub(crate) struct Guests {
    limits: GuestLimits,
    runtime: Arc<dyn Runtime>,
    present: Mutex<Present>,
}

/// Who is there and stays: a connection that has to leave counts no more from that moment on, or all others
/// would have to leave as well before it is gone.
#[derive(Default)]
struct Present {
    next: u64,
    staying: BTreeMap<u64, Seat>,
    open_requests: usize,
}

struct Seat {
    stay: Arc<Stay>,
    open_requests: usize,
}

/// One connection. It leaves when the last of these is dropped.
pub(crate) struct Guest {
    number: u64,
    guests: Arc<Guests>,
    stay: Arc<Stay>,
}

/// What is known of a connection; apart from [`Guest`], whose drop takes the lock under which this is read.
struct Stay {
    number: u64,
    /// Given when it has to end.
    leave: CancellationToken,
    /// It has to end because of what it is, not because the node stops.
    shown_out: AtomicBool,
    /// Whether it has sent anything.
    spoken: AtomicBool,
    /// Runtime clock in milliseconds when it was last heard.
    heard_ms: AtomicU64,
}

impl Stay {
    fn end(&self, why: &str) {
        tracing::debug!(guest = self.number, "{why}: a connection is closed");
        self.shown_out.store(true, Ordering::Relaxed);
        self.leave.cancel();
    }
}

impl Present {
    /// Takes away the one with the lowest rank; what is returned is to be told.
    fn show_out<K: Ord>(&mut self, rank: impl Fn(&Seat) -> K) -> Option<Arc<Stay>> {
        let seat = self.staying.values().min_by_key(|seat| rank(seat))?;
        let stay = seat.stay.clone();
        self.leave(stay.number);
        Some(stay)
    }

    fn leave(&mut self, number: u64) {
        if let Some(seat) = self.staying.remove(&number) {
            self.open_requests -= seat.open_requests;
        }
    }
}

impl Guests {
    pub(crate) fn new(limits: GuestLimits, runtime: Arc<dyn Runtime>) -> Arc<Self> {
        Arc::new(Self { limits, runtime, present: Mutex::default() })
    }

    fn now_ms(&self) -> u64 {
        self.runtime.now().as_millis() as u64
    }

    /// Takes one more in; `stop` ends it as well.
    pub(crate) fn admit(self: &Arc<Self>, stop: &CancellationToken) -> Arc<Guest> {
        let now_ms = self.now_ms();
        let mut present = self.present.lock();
        present.next += 1;
        let number = present.next;
        let stay = Arc::new(Stay {
            number,
            leave: stop.child_token(),
            shown_out: AtomicBool::new(false),
            spoken: AtomicBool::new(false),
            heard_ms: AtomicU64::new(now_ms),
        });
        present.staying.insert(number, Seat { stay: stay.clone(), open_requests: 0 });
        let mut leaver = None;
        if present.staying.len() > self.limits.connections_max {
            let silent_ms = now_ms.saturating_sub(FIRST_WORDS.as_millis() as u64);
            leaver = present.show_out(|seat| {
                let heard = seat.stay.heard_ms.load(Ordering::Relaxed);
                let mute = !seat.stay.spoken.load(Ordering::Relaxed) && heard <= silent_ms;
                // Mute ones first, then those heard longest ago.
                (!mute, heard)
            });
        }
        drop(present);
        if let Some(leaver) = leaver {
            leaver.end("too many connections");
        }
        Arc::new(Guest { number, guests: self.clone(), stay })
    }
}

impl Guest {
    /// Given when the connection has to end.
    pub(crate) fn leave(&self) -> &CancellationToken {
        &self.stay.leave
    }

    /// True if it has to make room: then nothing more that it sends is served.
    pub(crate) fn is_shown_out(&self) -> bool {
        self.stay.shown_out.load(Ordering::Relaxed)
    }

    /// It sent something.
    pub(crate) fn heard(&self) {
        self.stay.spoken.store(true, Ordering::Relaxed);
        self.stay.heard_ms.store(self.guests.now_ms(), Ordering::Relaxed);
    }

    /// Begins a request whose body has not ended; none if the connection has to leave, as it may by this
    /// very request.
    pub(crate) fn open_request(self: &Arc<Self>) -> Option<OpenRequest> {
        let mut present = self.guests.present.lock();
        let seat = present.staying.get_mut(&self.number)?;
        seat.open_requests += 1;
        present.open_requests += 1;
        let mut leaver = None;
        if present.open_requests > self.guests.limits.open_requests_max {
            leaver = present.show_out(|seat| Reverse(seat.open_requests));
        }
        let stays = present.staying.contains_key(&self.number);
        drop(present);
        if let Some(leaver) = leaver {
            leaver.end("too many open requests");
        }
        stays.then(|| OpenRequest(self.clone()))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.present.lock().leave(self.number);
    }
}

/// A request whose body has not ended, until it is dropped.
pub(crate) struct OpenRequest(Arc<Guest>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut present = self.0.guests.present.lock();
        if let Some(seat) = present.staying.get_mut(&self.0.number) {
            seat.open_requests -= 1;
            present.open_requests -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::TokioRuntime;

    fn guests(connections_max: usize, open_requests_max: usize) -> Arc<Guests> {
        let runtime = Arc::new(TokioRuntime::new(Handle::current()));
        Guests::new(GuestLimits { connections_max, open_requests_max }, runtime)
    }

    fn heard_at(guest: &Guest, ms: u64) {
        guest.stay.spoken.store(true, Ordering::Relaxed);
        guest.stay.heard_ms.store(ms, Ordering::Relaxed);
    }

    #[tokio::test(start_paused = true)]
    async fn one_too_many_shows_out_the_one_that_is_silent_longest() {
        let (guests, stop) = (guests(3, 9), CancellationToken::new());
        tokio::time::advance(FIRST_WORDS).await;
        let [a, b, c] = [(); 3].map(|()| guests.admit(&stop));
        heard_at(&a, 700);
        heard_at(&b, 600);
        heard_at(&c, 650);
        let d = guests.admit(&stop);
        let left = |guests: [&Guest; 4]| guests.map(|guest| guest.leave().is_cancelled());
        assert_eq!(left([&a, &b, &c, &d]), [false, true, false, false]);
        assert_eq!(guests.present.lock().staying.len(), 3, "before it is gone");
        drop(b);

        // One that has never said a word goes first, once it had the time to.
        tokio::time::advance(FIRST_WORDS * 2).await;
        heard_at(&a, 1);
        let e = guests.admit(&stop);
        assert_eq!(left([&a, &c, &d, &e]), [false, false, true, false]);
        stop.cancel();
        assert!(e.leave().is_cancelled(), "the node's own stop ends all");
    }

    #[tokio::test]
    async fn one_request_too_many_shows_out_who_holds_the_most() {
        let (guests, stop) = (guests(9, 5), CancellationToken::new());
        let [modest, greedy] = [(); 2].map(|()| guests.admit(&stop));
        let one = modest.open_request();
        let many: Vec<_> = (0..4).map(|_| greedy.open_request()).collect();
        assert!(many.iter().all(Option::is_some) && !greedy.leave().is_cancelled());
        let another = modest.open_request();
        assert!(greedy.leave().is_cancelled() && !modest.leave().is_cancelled());
        // What the greedy one still begins, and has not ended yet, drives nobody else out.
        let more: Vec<_> = (0..9).map(|_| greedy.open_request()).collect();
        assert!(more.iter().all(Option::is_none), "none of it is begun");
        let third = modest.open_request();
        assert!(!modest.leave().is_cancelled());
        assert_eq!(guests.present.lock().open_requests, 3);
        drop((one, many, another, more, third));
        assert_eq!(guests.present.lock().open_requests, 0);
    }
}

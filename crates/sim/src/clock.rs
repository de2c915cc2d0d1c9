//! Clocks and tasks of one host: simulated time, run fast or slow, and a wall clock that jumps.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cribwork_types::{BoxFuture, Runtime};
use parking_lot::Mutex;

use crate::random::Random;

/// Unix time at which every simulation begins, milliseconds.
const EPOCH_MS: i64 = 1_800_000_000_000;

const MILLION: u64 = 1_000_000;

/// The one clock that everything else follows: time since the simulation began.
pub(crate) type SimTime = Arc<AtomicU64>;

/// What the simulator can do to the time of one host.
pub(crate) struct HostClock {
    /// Nanoseconds since the simulation began, as of the last step.
    stepped: SimTime,
    /// How the host's wall clock is wrong for good, milliseconds.
    wall_base_ms: i64,
    /// And for now, on top.
    wall_off_ms: AtomicI64,
    /// Its seconds, in millionths of real ones.
    rate: u64,
    paused: AtomicBool,
    /// Tasks that wanted to run while the host was paused.
    stopped: Mutex<Vec<Waker>>,
}

impl HostClock {
    /// `drift` is by how many millionths the clock runs fast (or, negative, slow); `wall_base_ms` by how
    /// much its wall clock is wrong.
    pub(crate) fn new(stepped: SimTime, drift: i64, wall_base_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            stepped,
            wall_base_ms,
            wall_off_ms: AtomicI64::new(0),
            rate: MILLION.saturating_add_signed(drift),
            paused: AtomicBool::new(false),
            stopped: Mutex::default(),
        })
    }

    /// Sets the wall clock wrong by `off_ms` more than it is anyway.
    pub(crate) fn set_wall(&self, off_ms: i64) {
        self.wall_off_ms.store(off_ms, Ordering::Relaxed);
    }

    /// No task of the host makes a step until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        let stopped = std::mem::take(&mut *self.stopped.lock());
        stopped.into_iter().for_each(Waker::wake);
    }

    /// Within a host's own step its runtime knows the time best; outside, the last step's end counts.
    fn sim_now(&self) -> Duration {
        let inside = turmoil::in_simulation().then(turmoil::sim_elapsed).flatten();
        inside.unwrap_or_else(|| Duration::from_nanos(self.stepped.load(Ordering::Relaxed)))
    }

    fn local(&self, duration: Duration) -> Duration {
        scaled(duration, self.rate, MILLION)
    }

    fn real(&self, duration: Duration) -> Duration {
        scaled(duration, MILLION, self.rate)
    }
}

fn scaled(duration: Duration, by: u64, of: u64) -> Duration {
    let nanos = duration.as_nanos().saturating_mul(u128::from(by)) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The runtime of one life of one host. Everything runs on the host's only thread.
pub(crate) struct SimRuntime {
    clock: Arc<HostClock>,
    random: Mutex<Random>,
}

impl SimRuntime {
    /// `seed` decides every random choice of this life.
    pub(crate) fn new(clock: Arc<HostClock>, seed: Random) -> Arc<Self> {
        Arc::new(Self { clock, random: Mutex::new(seed) })
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Duration {
        self.clock.local(self.clock.sim_now())
    }

    fn wall_ms(&self) -> u64 {
        let since = self.clock.sim_now().as_millis() as i64;
        let off = self.clock.wall_base_ms + self.clock.wall_off_ms.load(Ordering::Relaxed);
        let wall = EPOCH_MS + since + off;
        wall.max(0) as u64
    }

    fn random_u64(&self) -> u64 {
        self.random.lock().next()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        tokio::spawn(Pausable { task, clock: self.clock.clone() });
    }

    fn spawn_worker(&self, _name: &str, worker: BoxFuture<()>) {
        self.spawn(worker);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let real = self.clock.real(duration);
        Box::pin(async move { tokio::time::sleep(real).await })
    }
}

/// A task that stands still while its host is paused.
struct Pausable {
    task: BoxFuture<()>,
    clock: Arc<HostClock>,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.clock.paused.load(Ordering::Relaxed) {
            self.clock.stopped.lock().push(context.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_shows_more_and_sleeps_less() {
        let stepped = SimTime::default();
        stepped.store(10 * 1_000_000_000, Ordering::Relaxed);
        let clock = HostClock::new(stepped, 100_000, 0);
        let runtime = SimRuntime::new(clock.clone(), Random::new(1, 1));
        assert_eq!(runtime.now(), Duration::from_secs(11));
        assert_eq!(clock.real(Duration::from_millis(1100)), Duration::from_secs(1));
        clock.set_wall(-5_000);
        assert_eq!(runtime.wall_ms(), EPOCH_MS as u64 + 5_000);
    }
}

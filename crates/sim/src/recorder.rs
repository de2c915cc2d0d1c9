//! What happened: the history that the checkers judge, and the trace hash.

use std::sync::Arc;
use std::time::Duration;

use cribwork_checker::{History, Op, Operation, Outcome};
use parking_lot::Mutex;

/// FNV-1a over everything that was noted (Fowler, Noll, Vo): equal for equal runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    pub(crate) fn hash(self) -> u64 {
        self.0
    }
}

#[derive(Default)]
struct State {
    history: History,
    trace: Trace,
    /// What could not be recorded: the simulator itself is wrong then.
    flaws: Vec<String>,
}

/// Shared by all clients and the simulator.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<State>>);

/// Simulated time, from within a host.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// An operation that has begun.
pub(crate) struct Begun {
    process: u64,
    invoke: u64,
    is_final: bool,
}

impl Begun {
    pub(crate) fn new(process: u64, is_final: bool) -> Self {
        Self { process, invoke: now().as_nanos() as u64, is_final }
    }
}

impl Recorder {
    /// An operation has ended.
    pub(crate) fn ended(&self, begun: Begun, outcome: Outcome, op: Op) {
        let Begun { process, invoke, is_final } = begun;
        let complete = Some(now().as_nanos() as u64);
        self.push(Operation { process, invoke, complete, outcome, is_final, op });
    }

    /// An observation of the simulator itself.
    pub(crate) fn observed(&self, at: Duration, process: u64, op: Op) {
        let at = at.as_nanos() as u64;
        let outcome = Outcome::Ok;
        let (invoke, complete) = (at, Some(at));
        self.push(Operation { process, invoke, complete, outcome, is_final: false, op });
    }

    fn push(&self, operation: Operation) {
        let mut state = self.0.lock();
        match serde_json::to_vec(&operation) {
            Ok(text) => state.trace.note(&text),
            Err(error) => state.flaws.push(error.to_string()),
        }
        if let Err(error) = state.history.push(operation) {
            state.flaws.push(error.to_string());
        }
    }

    /// Something that is no operation, for the trace hash.
    pub(crate) fn note(&self, what: &str) {
        self.0.lock().trace.note(what.as_bytes());
    }

    /// Operations so far.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().history.len()
    }

    /// Everything, and what could not be recorded.
    pub(crate) fn take(&self) -> (History, Trace, Vec<String>) {
        let state = std::mem::take(&mut *self.0.lock());
        (state.history, state.trace, state.flaws)
    }
}

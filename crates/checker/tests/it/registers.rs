//! A linearizable store of registers under concurrent clients, some of which never learn what became of
//! their operation.

use cribwork_checker::{Blob, History, Op, Operation, Outcome};
use std::collections::BTreeMap;

use crate::rng::Rng;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) operations: usize,
    pub(crate) keys: usize,
    pub(crate) clients: usize,
    /// Operations in a hundred whose client gets no answer.
    pub(crate) unknown_percent: usize,
    /// Whether values are few and come again; else every write has its own.
    pub(crate) few_values: bool,
}

/// One operation under way.
struct Flight {
    process: u64,
    invoke: u64,
    op: Op,
    /// Whether it has had its effect.
    done: bool,
    silent: bool,
}

struct Simulation {
    rng: Rng,
    load: Load,
    now: u64,
    next_process: u64,
    state: BTreeMap<Blob, Blob>,
    written: usize,
    history: History,
}

/// A history that is linearizable by construction: each operation has its effect at one moment between
/// its begin and its end, or, without an answer, at one moment after its begin, or never. Ends with
/// final reads of all keys.
pub(crate) fn simulate(seed: u64, load: Load) -> History {
    let mut simulation = Simulation {
        rng: Rng::new(seed),
        load,
        now: 0,
        next_process: load.clients as u64,
        state: BTreeMap::new(),
        written: 0,
        history: History::default(),
    };
    simulation.run();
    simulation.finish();
    simulation.history
}

impl Simulation {
    fn run(&mut self) {
        let mut clients: Vec<Flight> = Vec::new();
        let mut strays: Vec<Flight> = Vec::new();
        for process in 0..self.load.clients as u64 {
            let flight = self.begin(process);
            clients.push(flight);
        }
        while self.history.len() < self.load.operations {
            self.now += 1;
            if !strays.is_empty() && self.rng.percent(10) {
                let at = self.rng.below(strays.len());
                let mut stray = strays.swap_remove(at);
                self.effect(&mut stray.op);
            }
            let at = self.rng.below(clients.len());
            if clients[at].silent {
                // The client gives up and is another process from then on.
                let process = self.next_process;
                self.next_process += 1;
                let next = self.begin(process);
                let flight = std::mem::replace(&mut clients[at], next);
                self.record(&flight, Outcome::Unknown);
                if self.rng.percent(70) {
                    strays.push(flight);
                }
            } else if clients[at].done {
                let next = self.begin(clients[at].process);
                let flight = std::mem::replace(&mut clients[at], next);
                self.record(&flight, Outcome::Ok);
            } else {
                let flight = &mut clients[at];
                flight.done = true;
                let mut op = flight.op.clone();
                self.effect(&mut op);
                clients[at].op = op;
            }
        }
        // Whoever is under way gets no answer any more.
        for flight in clients {
            self.record(&flight, Outcome::Unknown);
        }
    }

    fn begin(&mut self, process: u64) -> Flight {
        self.now += 1;
        let key = Blob::from(format!("k{}", self.rng.below(self.load.keys)));
        self.written += 1;
        let value = if self.load.few_values { self.rng.below(3) } else { self.written };
        let value = Blob::from(format!("v{value}"));
        let expected = match self.rng.percent(60) {
            true => self.state.get(&key).cloned(),
            false => self.rng.percent(50).then(|| Blob::from("v1")),
        };
        let op = match self.rng.below(10) {
            0..4 => Op::Get { key, value: None },
            4..7 => Op::Put { key, value },
            7 => Op::Delete { key },
            _ => Op::Cas { key, expected, value, swapped: None, previous: None },
        };
        let silent = self.rng.percent(self.load.unknown_percent);
        Flight { process, invoke: self.now, op, done: false, silent }
    }

    /// Has its effect and gets its answer.
    fn effect(&mut self, op: &mut Op) {
        match op {
            Op::Get { key, value } => *value = self.state.get(key).cloned(),
            Op::Put { key, value } => {
                self.state.insert(key.clone(), value.clone());
            }
            Op::Delete { key } => {
                self.state.remove(key);
            }
            Op::Cas { key, expected, value, swapped, previous } => {
                let found = self.state.get(key).cloned();
                let swaps = found == *expected;
                if swaps {
                    self.state.insert(key.clone(), value.clone());
                }
                // Answers say both, one, or nothing.
                let says = self.rng.below(10);
                *swapped = (says != 0).then_some(swaps);
                *previous = (says > 3).then_some(found);
            }
            _ => {}
        }
    }

    fn record(&mut self, flight: &Flight, outcome: Outcome) {
        self.now += 1;
        let mut op = flight.op.clone();
        if outcome == Outcome::Unknown {
            match &mut op {
                Op::Get { value, .. } => *value = None,
                Op::Cas { swapped, previous, .. } => (*swapped, *previous) = (None, None),
                _ => {}
            }
        }
        self.push(flight.process, flight.invoke, outcome, false, op);
    }

    fn push(&mut self, process: u64, invoke: u64, outcome: Outcome, is_final: bool, op: Op) {
        let complete = Some(self.now);
        let operation = Operation { process, invoke, complete, outcome, is_final, op };
        self.history.push(operation).unwrap();
    }

    fn finish(&mut self) {
        for key in 0..self.load.keys {
            let key = Blob::from(format!("k{key}"));
            let value = self.state.get(&key).cloned();
            let (process, invoke) = (self.next_process, self.now + 1);
            self.now += 2;
            self.push(process, invoke, Outcome::Ok, true, Op::Get { key, value });
        }
    }
}

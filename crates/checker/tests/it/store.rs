//! A transactional store of versions under concurrent clients, with a dump at the end.

use cribwork_checker::{
    Blob, Dump, History, Isolation, Op, Operation, Outcome, Step, Txn, Version, decode_list,
    encode_list,
};
use std::collections::{BTreeMap, BTreeSet};

use crate::rng::Rng;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) transactions: usize,
    pub(crate) keys: usize,
    pub(crate) clients: usize,
    pub(crate) isolation: Isolation,
    /// Transactions in a hundred whose client gets no answer to the commit.
    pub(crate) unknown_percent: usize,
    /// Registers beside the lists.
    pub(crate) registers: bool,
}

/// One transaction under way.
struct Flight {
    invoke: u64,
    start_ts: u64,
    steps: Vec<Step>,
    left: usize,
    own: BTreeMap<Blob, Option<Blob>>,
    read: BTreeSet<Blob>,
}

struct Simulation {
    rng: Rng,
    load: Load,
    now: u64,
    ts: u64,
    element: u64,
    process: u64,
    versions: BTreeMap<Blob, Vec<Version>>,
    history: History,
}

/// A history with the promised isolation by construction, and the versions of all keys. Ends with a
/// final transaction that reads all of them.
pub(crate) fn simulate(seed: u64, load: Load) -> (History, Dump) {
    let mut simulation = Simulation {
        rng: Rng::new(seed),
        load,
        now: 0,
        ts: 0,
        element: 0,
        process: 0,
        versions: BTreeMap::new(),
        history: History::default(),
    };
    simulation.run();
    simulation.finish();
    let mut dump = Dump::default();
    for (key, versions) in simulation.versions {
        dump.insert(key, versions);
    }
    (simulation.history, dump)
}

impl Simulation {
    fn run(&mut self) {
        let mut flights: Vec<Flight> = (0..self.load.clients).map(|_| self.begin()).collect();
        while self.history.len() < self.load.transactions {
            self.now += 1;
            let at = self.rng.below(flights.len());
            if flights[at].left > 0 {
                self.step(&mut flights[at]);
            } else {
                let flight = std::mem::replace(&mut flights[at], self.begin());
                self.end(flight);
            }
        }
    }

    fn begin(&mut self) -> Flight {
        self.now += 1;
        self.ts += 1;
        let (own, read) = (BTreeMap::new(), BTreeSet::new());
        let left = 1 + self.rng.below(4);
        Flight { invoke: self.now, start_ts: self.ts, steps: Vec::new(), left, own, read }
    }

    fn visible(&self, flight: &Flight, key: &Blob) -> Option<Blob> {
        flight.own.get(key).cloned().unwrap_or_else(|| {
            let versions = self.versions.get(key).into_iter().flatten();
            let newest = versions.rev().find(|version| version.commit_ts <= flight.start_ts);
            newest.and_then(|version| version.value.clone())
        })
    }

    fn step(&mut self, flight: &mut Flight) {
        flight.left -= 1;
        let number = self.rng.below(self.load.keys);
        let list = !self.load.registers || self.rng.percent(60);
        let key = Blob::from(format!("{}{number}", if list { "l" } else { "r" }));
        let found = self.visible(flight, &key);
        self.element += 1;
        let step = match (list, self.rng.below(10)) {
            (true, 0..5) => {
                flight.read.insert(key.clone());
                let elements = decode_list(found.as_deref().unwrap_or_default()).unwrap();
                Step::List { key, elements }
            }
            (true, _) => {
                flight.read.insert(key.clone());
                let mut list = decode_list(found.as_deref().unwrap_or_default()).unwrap();
                list.push(self.element);
                flight.own.insert(key.clone(), Some(encode_list(&list).into()));
                Step::Append { key, element: self.element }
            }
            (false, 0..5) => {
                flight.read.insert(key.clone());
                Step::Get { key, value: found }
            }
            (false, 5..9) => {
                let value = Blob::from(format!("v{}", self.element));
                flight.own.insert(key.clone(), Some(value.clone()));
                Step::Put { key, value }
            }
            (false, _) => {
                flight.own.insert(key.clone(), None);
                Step::Delete { key }
            }
        };
        flight.steps.push(step);
    }

    /// Commits unless another transaction came first, in the sense of the isolation.
    fn end(&mut self, flight: Flight) {
        let writes = !flight.own.is_empty();
        let mut excluded: BTreeSet<&Blob> = flight.own.keys().collect();
        if self.load.isolation == Isolation::Serializable {
            excluded.extend(&flight.read);
        }
        let newest = |key: &&Blob| self.versions.get(*key).and_then(|versions| versions.last());
        let late = excluded.iter().filter_map(newest).any(|v| v.commit_ts > flight.start_ts);
        let commits = !writes || !late && self.rng.percent(95);
        let mut commit_ts = None;
        if writes && commits {
            self.ts += 1;
            commit_ts = Some(self.ts);
            for (key, value) in &flight.own {
                let (commit_ts, start_ts, value) = (self.ts, flight.start_ts, value.clone());
                let version = Version { commit_ts, start_ts, value };
                self.versions.entry(key.clone()).or_default().push(version);
            }
        }
        let outcome = match self.rng.percent(self.load.unknown_percent) {
            true => Outcome::Unknown,
            false if commits => Outcome::Ok,
            false => Outcome::Failed,
        };
        let commit_ts = commit_ts.filter(|_| outcome == Outcome::Ok);
        self.record(flight, commit_ts, outcome, false);
    }

    fn record(&mut self, flight: Flight, commit_ts: Option<u64>, outcome: Outcome, is_final: bool) {
        self.now += 1;
        self.process += 1;
        let (process, invoke, complete) = (self.process, flight.invoke, Some(self.now));
        let (start_ts, steps, isolation) = (flight.start_ts, flight.steps, self.load.isolation);
        let op = Op::Txn(Txn { start_ts, commit_ts, steps, isolation });
        let operation = Operation { process, invoke, complete, outcome, is_final, op };
        self.history.push(operation).unwrap();
    }

    fn finish(&mut self) {
        let mut flight = self.begin();
        for number in 0..self.load.keys {
            let key = Blob::from(format!("l{number}"));
            let list = self.visible(&flight, &key).unwrap_or_default();
            flight.steps.push(Step::List { key, elements: decode_list(&list).unwrap() });
            if self.load.registers {
                let key = Blob::from(format!("r{number}"));
                let value = self.visible(&flight, &key);
                flight.steps.push(Step::Get { key, value });
            }
        }
        self.record(flight, None, Outcome::Ok, true);
    }
}

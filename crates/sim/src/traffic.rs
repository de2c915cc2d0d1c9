//! What clients do: the real client library, over the simulated network.

mod append;
mod bank;
mod finals;
mod raw;
mod register;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cribwork_checker::{Op, Outcome};
use cribwork_client::{Client, ClientError, ClientOptions, GrpcConnector};
use cribwork_types::StoreId;
use parking_lot::Mutex;

use crate::clock::{HostClock, SimRuntime, SimTime};
use crate::cluster::CLIENTS;
use crate::faults::Order;
use crate::host::address;
use crate::network::SimNetwork;
use crate::plan::Plan;
use crate::random::Random;
use crate::recorder::{Begun, Recorder};

pub(crate) use bank::TOTAL as BANK_TOTAL;

/// Longest pause of a worker between two operations.
const THINK_MAX: Duration = Duration::from_millis(160);
/// Successes in a row that a worker needs once everything is whole again.
const CALM_SUCCESSES: u32 = 3;

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The cluster is made.
    Setup,
    /// Load, with faults.
    Load,
    /// Everything is whole: every worker must get on.
    Calm,
    /// All is read.
    Final,
    /// Clients are done.
    Done,
}

const PHASES: [Phase; 5] = [Phase::Setup, Phase::Load, Phase::Calm, Phase::Final, Phase::Done];

/// What clients and the simulator share.
pub(crate) struct Shared {
    phase: AtomicU8,
    /// Workers that have not got on yet in [`Phase::Calm`].
    pub(crate) struggling: AtomicU64,
    pub(crate) recorder: Recorder,
    /// What the administrator has to do.
    pub(crate) orders: Mutex<Vec<Order>>,
    /// What kept an operation from success last, for the report.
    pub(crate) last_error: Mutex<String>,
    seed: u64,
    nodes: usize,
    ranges: u32,
    stepped: SimTime,
}

impl Shared {
    pub(crate) fn new(plan: &Plan, recorder: Recorder) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(Phase::Setup as u8),
            struggling: AtomicU64::new(0),
            recorder,
            orders: Mutex::default(),
            last_error: Mutex::default(),
            seed: plan.seed,
            nodes: plan.nodes,
            ranges: plan.ranges,
            stepped: SimTime::default(),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// A runtime for one client; its clock is right.
    fn runtime(&self, client: usize) -> Arc<SimRuntime> {
        let clock = HostClock::new(self.stepped.clone(), 0, 0);
        SimRuntime::new(clock, Random::new(self.seed, 1000 + client as u64))
    }

    /// A client of the cluster, as soon as one can be had.
    async fn connect(&self, client: usize) -> Client {
        let runtime = self.runtime(client);
        let mut options = ClientOptions::new((1..=self.nodes).map(address));
        options.timeout = Duration::from_secs(5);
        options.attempt_timeout = Duration::from_secs(1);
        options.connect_timeout = Duration::from_millis(500);
        options.lock_ttl = Duration::from_secs(1);
        loop {
            let connector = GrpcConnector::new(
                runtime.clone(),
                options.connect_timeout,
                options.attempt_timeout,
            )
            .with_dial(Arc::new(SimNetwork));
            let connected =
                Client::connect_with(options.clone(), Arc::new(connector), runtime.clone()).await;
            match connected {
                Ok(client) => return client,
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn failed(&self, error: &ClientError) {
        *self.last_error.lock() = error.to_string();
    }
}

/// One worker: its client, its choices, its record.
struct Worker {
    process: u64,
    client: Client,
    random: Random,
    shared: Arc<Shared>,
    /// Operations so far: makes values unique.
    count: u64,
    /// What it last knew of keys that it swaps.
    known: BTreeMap<Bytes, Option<Bytes>>,
    is_final: bool,
}

impl Worker {
    fn new(shared: &Arc<Shared>, client: &Client, process: u64) -> Self {
        Self {
            process,
            client: client.clone(),
            random: Random::new(shared.seed, 2000 + process),
            shared: shared.clone(),
            count: 0,
            known: BTreeMap::new(),
            is_final: false,
        }
    }

    fn begin(&self) -> Begun {
        Begun::new(self.process, self.is_final)
    }

    /// A number that no other operation of this run gets.
    fn unique(&mut self) -> u64 {
        self.count += 1;
        self.process * 1_000_000 + self.count
    }

    /// Records a call that ended; true if it succeeded.
    fn record<T>(&self, begun: Begun, result: &Result<T, ClientError>, op: Op) -> bool {
        let outcome = match result {
            Ok(_) => Outcome::Ok,
            Err(ClientError::Unknown { .. }) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        if let Err(error) = result {
            self.shared.failed(error);
        }
        self.shared.recorder.ended(begun, outcome, op);
        outcome == Outcome::Ok
    }

    /// Works until everything is calm and it has got on.
    async fn run<F: AsyncFnMut(&mut Worker) -> bool>(mut self, mut once: F) {
        let mut successes = 0;
        loop {
            let calm = self.shared.phase() >= Phase::Calm;
            if calm && successes >= CALM_SUCCESSES {
                break;
            }
            let succeeded = once(&mut self).await;
            successes = if succeeded && calm { successes + 1 } else { 0 };
            let think = self.random.below(THINK_MAX.as_millis() as u64);
            tokio::time::sleep(Duration::from_millis(think)).await;
        }
        self.shared.struggling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does `work` again until it succeeds.
async fn insist<T, Fut: Future<Output = Result<T, ClientError>>>(
    shared: &Shared,
    mut work: impl FnMut() -> Fut,
) -> T {
    loop {
        match work().await {
            Ok(value) => return value,
            Err(error) => shared.failed(&error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts all clients on their hosts.
pub(crate) fn start(sim: &mut turmoil::Sim<'_>, plan: &Plan, shared: &Arc<Shared>) {
    let workers = plan.workers;
    let count = workers.raw + workers.append + workers.register + workers.bank + 3;
    shared.struggling.store(count, Ordering::Relaxed);
    for (number, name) in CLIENTS.into_iter().enumerate() {
        let shared = shared.clone();
        sim.client(name, async move {
            run_client(shared, number, workers).await;
            Ok(())
        });
    }
}

async fn wait_for(shared: &Shared, phase: Phase) {
    while shared.phase() < phase {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn run_client(shared: Arc<Shared>, number: usize, workers: crate::plan::Workers) {
    if number == 0 {
        set_up(&shared).await;
        shared.enter(Phase::Load);
    }
    wait_for(&shared, Phase::Load).await;
    let client = shared.connect(number).await;
    let mut process = number as u64;
    let mut tasks = Vec::new();
    // Every other worker of each kind runs here.
    let mut here = |kind: u64, count: u64| {
        (0..count)
            .filter(|at| (at + kind) % CLIENTS.len() as u64 == number as u64)
            .map(|_| {
                process += CLIENTS.len() as u64;
                Worker::new(&shared, &client, process)
            })
            .collect::<Vec<_>>()
    };
    for worker in here(0, workers.raw) {
        tasks.push(tokio::spawn(worker.run(raw::once)));
    }
    for worker in here(1, workers.append) {
        tasks.push(tokio::spawn(worker.run(append::once)));
    }
    for worker in here(0, workers.register) {
        tasks.push(tokio::spawn(worker.run(register::once)));
    }
    for worker in here(1, workers.bank) {
        tasks.push(tokio::spawn(worker.run(bank::transfer)));
    }
    for worker in here(0, 1) {
        tasks.push(tokio::spawn(worker.run(bank::read_all)));
    }
    for worker in here(0, 2) {
        tasks.push(tokio::spawn(worker.run(register::timestamp)));
    }
    let administrator = tokio::spawn(administrate(shared.clone(), client.clone(), number));
    for task in tasks {
        // A worker that panics ends the simulation by itself.
        let _ = task.await;
    }
    let _ = administrator.await;
    if number == 0 {
        wait_for(&shared, Phase::Final).await;
        let mut reader = Worker::new(&shared, &client, 1_000);
        reader.is_final = true;
        finals::read_everything(reader).await;
        shared.enter(Phase::Done);
    }
}

async fn set_up(shared: &Arc<Shared>) {
    let runtime = shared.runtime(100);
    let connector =
        GrpcConnector::new(runtime.clone(), Duration::from_millis(500), Duration::from_secs(1))
            .with_dial(Arc::new(SimNetwork));
    let admin = cribwork_client::AdminClient::with_connector(
        ClientOptions::new([address(1)]),
        Arc::new(connector),
        runtime,
    );
    insist(shared, async || match admin.init(shared.ranges).await {
        Err(error) if error.to_string().contains("already") => Ok(()),
        other => other.map(|_| ()),
    })
    .await;
    let client = shared.connect(101).await;
    let keys = raw::KEYS.step_by(5).map(raw::key).chain(append::KEYS.step_by(4).map(append::key));
    let keys: Vec<_> = keys.collect();
    insist(shared, || client.split(keys.clone())).await;
    bank::open(&mut Worker::new(shared, &client, 1_001)).await;
}

/// Carries out the administrator's orders. What it is asked for may fail: faults are about.
async fn administrate(shared: Arc<Shared>, client: Client, number: usize) {
    while number == 0 && shared.phase() < Phase::Calm {
        let order = shared.orders.lock().pop();
        match order {
            None => tokio::time::sleep(Duration::from_millis(50)).await,
            Some(order) => {
                let limit = Duration::from_secs(6);
                let done = tokio::time::timeout(limit, carry_out(&shared, &client, order)).await;
                shared.recorder.note(&format!("{order:?} {done:?}"));
            }
        }
    }
}

/// A key drawn from `number`, among those that are in use: writes are under way on both sides of it.
pub(crate) fn split_key(number: u64) -> Vec<u8> {
    let near = match number % 5 {
        4 => raw::plain(number / 5 % raw::PLAIN.end),
        0 => raw::key(number / 4 % raw::KEYS.end),
        1 => append::key(number / 4 % append::KEYS.end),
        2 => register::key(number / 4 % register::KEYS.end),
        _ => bank::key(number / 4 % 8),
    };
    [&near[..], &(number % 1000).to_string().into_bytes()[..]].concat()
}

async fn carry_out(shared: &Shared, client: &Client, order: Order) -> Result<(), ClientError> {
    match order {
        Order::Split(number) => {
            let keys = (0..number % 3 + 1).map(|at| split_key(number / 3 + at));
            client.split(keys).await.map(drop)
        }
        Order::Merge(number) if number.is_multiple_of(7) => {
            let below = if number.is_multiple_of(2) { "4MiB" } else { "0B" };
            client.admin().config("merge_below", Some(below)).await.map(drop)
        }
        Order::Merge(number) => {
            let ranges = client.ranges(cribwork_types::KeyRange::all(), 0).await?;
            for at in 0..(number % 3 + 1).min(ranges.len() as u64) {
                let range = ranges[(number / 5 + at * 2) as usize % ranges.len()].range.id;
                // Many have no neighbour, or are busy.
                let begun = client.admin().merge(range, None).await;
                shared.recorder.note(&format!("merge {range} {begun:?}"));
            }
            Ok(())
        }
        Order::TransferLeader(number) => {
            let ranges = client.ranges(cribwork_types::KeyRange::all(), 0).await?;
            if ranges.is_empty() {
                return Ok(());
            }
            let transfers = (0..number % 5 + 1).map(|at| {
                let placed = &ranges[(number / 5 + at) as usize % ranges.len()];
                let store = StoreId((number / 7 + at) % shared.nodes as u64 + 1);
                let (admin, range) = (client.admin(), placed.range.id);
                async move { admin.transfer_leader(range, store).await }
            });
            futures::future::join_all(transfers).await.into_iter().collect()
        }
    }
}

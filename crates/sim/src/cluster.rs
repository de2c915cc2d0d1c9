//! The simulated cluster: hosts, network, one clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::SimTime;
use crate::host::Host;
use crate::moves::Leaving;
use crate::plan::Plan;
use crate::random::Random;

/// Time that one step simulates. Hosts see each other's packets at its bounds.
const TICK: Duration = Duration::from_millis(2);
/// Packets under way on one TCP connection; a simulated sender that exceeds it panics.
const TCP_CAPACITY: usize = 64 * 1024;

/// Hosts of clients.
pub(crate) const CLIENTS: [&str; 2] = ["client1", "client2"];

pub(crate) struct Cluster<'s> {
    pub(crate) sim: turmoil::Sim<'s>,
    pub(crate) hosts: Vec<Arc<Host>>,
    stepped: SimTime,
}

impl Cluster<'_> {
    /// # Errors
    /// If there is no room for the disks.
    pub(crate) fn new(plan: &Plan, limit: Duration) -> anyhow::Result<Self> {
        let mut random = Random::new(plan.seed, 2);
        let mut sim = turmoil::Builder::new()
            .rng_seed(random.next())
            .simulation_duration(limit)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_micros(500))
            .max_message_latency(random.millis(2..12))
            .tcp_capacity(TCP_CAPACITY)
            .enable_random_order()
            .build();
        let stepped = SimTime::default();
        let leaving = Leaving::default();
        let hosts = (1..=plan.nodes)
            .map(|number| Host::new(number, plan, stepped.clone(), leaving.clone()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for host in &hosts {
            let machine = host.clone();
            sim.host(host.name.as_str(), move || machine.clone().live());
        }
        Ok(Self { sim, hosts, stepped })
    }

    /// One step; true once every client is done.
    pub(crate) fn step(&mut self) -> turmoil::Result<bool> {
        let done = self.sim.step()?;
        self.stepped.store(self.sim.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(done)
    }

    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(crate) fn is_up(&mut self, host: usize) -> bool {
        self.sim.is_host_running(self.hosts[host].name.as_str())
    }

    /// The process of a node ends at once; with `power` its machine does, too.
    pub(crate) fn crash(&mut self, host: usize, power: Option<&mut Random>) {
        let host = self.hosts[host].clone();
        self.sim.crash(host.name.as_str());
        host.forget();
        host.clock.resume();
        host.disk.crash(power);
    }

    pub(crate) fn restart(&mut self, host: usize) {
        if !self.is_up(host) {
            let name = self.hosts[host].name.clone();
            self.sim.bounce(name);
        }
    }

    /// Every link works as at the start.
    pub(crate) fn mend_network(&mut self) {
        let names: Vec<String> = self.hosts.iter().map(|host| host.name.clone()).collect();
        let all = names.iter().map(String::as_str).chain(CLIENTS);
        let all: Vec<&str> = all.collect();
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                self.sim.release(*a, *b);
                self.sim.repair(*a, *b);
            }
        }
    }
}

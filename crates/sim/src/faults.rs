//! What breaks when, and how it is mended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{CLIENTS, Cluster};
use crate::disk::DiskFault;
use crate::plan::{FaultKind, Plan};
use crate::random::Random;
use crate::recorder::Recorder;

/// How a fault ends.
#[derive(Clone, Debug)]
enum Mend {
    /// Not the end of a fault but one more, planned with the others.
    Stop(usize),
    Restart(usize),
    /// These links deliver again.
    Links(Vec<(String, String)>),
    /// The next link of a list is cut, after that of another order mended.
    Swizzle {
        cut: Vec<(String, String)>,
        mend: Vec<(String, String)>,
    },
    /// The link changes between cut and whole, so many times more.
    Flap {
        link: (String, String),
        left: u32,
    },
    Quick(Vec<(String, String)>),
    Resume(usize),
    Wall(usize),
    Disk(usize),
}

/// An order to the cluster's administrator, carried out by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Split at a few keys drawn from this number.
    Split(u64),
    /// Merge a few ranges drawn from this number with their neighbours, or have the cluster do so by itself.
    Merge(u64),
    /// Hand a few ranges drawn from this number to stores drawn from it.
    TransferLeader(u64),
}

/// The next machine that takes in a snapshot loses power.
struct Trap {
    until: Duration,
    /// Snapshots that each node has taken in, when it was looked at last.
    installed: Vec<Option<u64>>,
}

/// How long a trap waits for a snapshot.
const TRAP_MAX: Duration = Duration::from_secs(10);

/// The saboteur.
pub(crate) struct Faults {
    random: Random,
    kinds: Vec<(FaultKind, u64)>,
    pause: Duration,
    next: Duration,
    mends: Vec<(Duration, Mend)>,
    trap: Option<Trap>,
    /// How many of each kind came.
    pub(crate) counts: BTreeMap<FaultKind, u64>,
    recorder: Recorder,
}

impl Faults {
    pub(crate) fn new(plan: &Plan, recorder: &Recorder, from: Duration) -> Self {
        Self {
            random: Random::new(plan.seed, 3),
            kinds: plan.faults.clone(),
            pause: plan.pause,
            next: from + plan.pause,
            mends: Vec::new(),
            trap: None,
            counts: BTreeMap::new(),
            recorder: recorder.clone(),
        }
    }

    /// Mends what is due, and breaks something if it is time; what the administrator has to do.
    pub(crate) fn step(&mut self, cluster: &mut Cluster<'_>) -> Option<Order> {
        let now = cluster.now();
        self.mend_due(cluster, now);
        self.bury(cluster, now);
        self.spring(cluster, now);
        if now < self.next || self.kinds.is_empty() {
            return None;
        }
        let spread = self.pause.as_millis() as u64;
        self.next = now + self.random.millis(spread / 2..spread * 3 / 2 + 1);
        let kind = self.choose();
        *self.counts.entry(kind).or_default() += 1;
        self.recorder.note(&format!("{now:?} {kind:?}"));
        tracing::info!(?now, ?kind, "fault");
        self.inject(kind, cluster, now)
    }

    /// Ends every fault.
    pub(crate) fn mend_all(&mut self, cluster: &mut Cluster<'_>) {
        self.mends.clear();
        self.trap = None;
        cluster.mend_network();
        for host in 0..cluster.hosts.len() {
            cluster.hosts[host].clock.resume();
            cluster.hosts[host].clock.set_wall(0);
            cluster.hosts[host].disk.mend();
            cluster.restart(host);
        }
        self.quick(cluster, &all_links(cluster));
    }

    /// A node whose store failed is dead; somebody repairs its disk and starts it again.
    pub(crate) fn bury(&mut self, cluster: &mut Cluster<'_>, now: Duration) {
        for host in 0..cluster.hosts.len() {
            let Some(why) = cluster.hosts[host].fatal().filter(|_| cluster.is_up(host)) else {
                continue;
            };
            self.recorder.note(&format!("{now:?} fatal {host} {why}"));
            tracing::info!(?now, host, why, "a node stopped by itself");
            // After a failed sync nobody knows what the disk holds: the kernel may have dropped it.
            cluster.crash(host, Some(&mut self.random));
            let after = now + self.random.millis(200..3000);
            self.mends.push((after, Mend::Restart(host)));
        }
    }

    fn choose(&mut self) -> FaultKind {
        let total: u64 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(total.max(1));
        for (kind, weight) in &self.kinds {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        self.kinds[0].0
    }

    /// Mostly about as long as a lease or an election, sometimes much longer.
    fn a_while(&mut self) -> Duration {
        match self.random.chance(70) {
            true => self.random.millis(100..1500),
            false => self.random.millis(1500..8000),
        }
    }

    fn host(&mut self, cluster: &Cluster<'_>) -> usize {
        self.random.below(cluster.hosts.len() as u64) as usize
    }

    fn inject(
        &mut self,
        kind: FaultKind,
        cluster: &mut Cluster<'_>,
        now: Duration,
    ) -> Option<Order> {
        match kind {
            FaultKind::Split => return Some(Order::Split(self.random.next())),
            FaultKind::Merge => return Some(Order::Merge(self.random.next())),
            FaultKind::TransferLeader => return Some(Order::TransferLeader(self.random.next())),
            FaultKind::ChangeMembers => {
                // One a node at most: which of them leads what is theirs to know.
                for host in &cluster.hosts {
                    if self.random.chance(60) {
                        host.changes.lock().push(self.random.next());
                    }
                }
            }
            FaultKind::Crash
            | FaultKind::CrashPlacement
            | FaultKind::PowerLoss
            | FaultKind::PowerLossMajority
            | FaultKind::PowerLossAll => self.stop(kind, cluster, now),
            FaultKind::PowerLossSnapshot => {
                self.trap = Some(Trap { until: now + TRAP_MAX, installed: installed(cluster) });
            }
            FaultKind::Halves => self.halve(cluster, now),
            FaultKind::RestartStorm => self.restart_all(cluster, now),
            FaultKind::IsolatePlacement => self.cut_off_placement(cluster, now),
            FaultKind::Amnesia => self.cut_off_and_restart(cluster, now),
            FaultKind::Pause => {
                let host = self.host(cluster);
                cluster.hosts[host].clock.pause();
                let links = links_of(cluster, host);
                for (a, b) in &links {
                    cluster.sim.hold(a.as_str(), b.as_str());
                }
                let end = now + self.a_while();
                self.mends.push((end, Mend::Links(links)));
                self.mends.push((end, Mend::Resume(host)));
            }
            FaultKind::ClockJump => {
                let host = self.host(cluster);
                let off = self.random.within(0..20_000) as i64 - 10_000;
                cluster.hosts[host].clock.set_wall(off);
                self.mends.push((now + self.random.millis(500..10_000), Mend::Wall(host)));
            }
            FaultKind::WriteFails | FaultKind::SyncFails | FaultKind::DiskFull => {
                let fault = match kind {
                    FaultKind::WriteFails => DiskFault::WriteFails,
                    FaultKind::SyncFails => DiskFault::SyncFails,
                    _ => DiskFault::Full,
                };
                let host = self.host(cluster);
                cluster.hosts[host].disk.set_fault(fault);
                self.mends.push((now + self.random.millis(20..2000), Mend::Disk(host)));
            }
            FaultKind::BitFlip => {
                let host = self.host(cluster);
                cluster.hosts[host].disk.flip_a_bit(self.random.next());
                let end = now + self.a_while();
                self.mends.push((end, Mend::Disk(host)));
            }
            _ => self.disturb(kind, cluster, now),
        }
        None
    }

    /// Ends lives.
    fn stop(&mut self, kind: FaultKind, cluster: &mut Cluster<'_>, now: Duration) {
        let count = cluster.hosts.len();
        let first = match kind {
            FaultKind::CrashPlacement => placement_leader(cluster).unwrap_or(0),
            _ => self.host(cluster),
        };
        let (victims, power) = match kind {
            FaultKind::Crash | FaultKind::CrashPlacement => (1, false),
            FaultKind::PowerLoss => (1, true),
            FaultKind::PowerLossMajority => (count / 2 + 1, true),
            _ => (count, true),
        };
        for host in (0..victims).map(|next| (first + next) % count) {
            if cluster.is_up(host) {
                cluster.crash(host, power.then_some(&mut self.random));
                // The disk of a machine that is started again is in order.
                cluster.hosts[host].disk.mend();
            }
            let after = match self.random.chance(50) {
                true => self.random.millis(20..400),
                false => self.a_while(),
            };
            self.mends.push((now + after, Mend::Restart(host)));
        }
    }

    /// The power goes at once: what is synced a moment later is not.
    fn spring(&mut self, cluster: &mut Cluster<'_>, now: Duration) {
        let Some(trap) = self.trap.take().filter(|trap| now < trap.until) else { return };
        let seen = installed(cluster);
        let more = |(before, after): (&Option<u64>, &Option<u64>)| {
            before.zip(*after).is_some_and(|(before, after)| after > before)
        };
        let Some(host) = trap.installed.iter().zip(&seen).position(more) else {
            self.trap = Some(Trap { installed: seen, ..trap });
            return;
        };
        self.recorder.note(&format!("{now:?} power off {host}"));
        cluster.crash(host, Some(&mut self.random));
        cluster.hosts[host].disk.mend();
        let after = self.random.millis(20..1500);
        self.mends.push((now + after, Mend::Restart(host)));
    }

    /// Each node is on one of two sides, each client on one of them or between them.
    fn halve(&mut self, cluster: &Cluster<'_>, now: Duration) {
        let hosts: Vec<(String, bool)> =
            cluster.hosts.iter().map(|host| (host.name.clone(), self.random.chance(50))).collect();
        let mut links = Vec::new();
        for (at, (a, side)) in hosts.iter().enumerate() {
            let others = hosts[at + 1..].iter().filter(|(_, other)| other != side);
            links.extend(others.map(|(b, _)| (a.clone(), b.clone())));
        }
        for client in CLIENTS.into_iter().filter(|_| self.random.chance(60)).collect::<Vec<_>>() {
            let side = self.random.chance(50);
            let others = hosts.iter().filter(|(_, other)| *other != side);
            links.extend(others.map(|(host, _)| (host.clone(), client.to_owned())));
        }
        let end = now + self.a_while();
        self.cut(cluster, links, end);
    }

    /// All machines restart a few times, close together: in the middle of elections.
    fn restart_all(&mut self, cluster: &Cluster<'_>, now: Duration) {
        for host in 0..cluster.hosts.len() {
            let mut at = now;
            for _ in 0..self.random.within(1..6) {
                at += self.random.millis(1..300);
                self.mends.push((at, Mend::Stop(host)));
                at += self.random.millis(5..150);
                self.mends.push((at, Mend::Restart(host)));
            }
        }
    }

    /// What the others have promised to a node that is cut off, they may have forgotten.
    fn cut_off_and_restart(&mut self, cluster: &Cluster<'_>, now: Duration) {
        let alone = self.host(cluster);
        let mut links = links_of(cluster, alone);
        links.retain(|(_, other)| !CLIENTS.contains(&other.as_str()));
        let end = now + self.a_while();
        self.cut(cluster, links, end);
        for host in (0..cluster.hosts.len()).filter(|host| *host != alone) {
            let at = now + self.random.millis(0..100);
            self.mends.push((at, Mend::Stop(host)));
            self.mends.push((at + self.random.millis(5..150), Mend::Restart(host)));
        }
    }

    /// The old leader of placement goes on answering one client while the other one finds a new leader.
    fn cut_off_placement(&mut self, cluster: &Cluster<'_>, now: Duration) {
        let Some(leader) = placement_leader(cluster) else { return };
        let spared = *self.random.pick(&CLIENTS);
        let mut links = links_of(cluster, leader);
        links.retain(|(_, other)| other != spared);
        let end = now + self.random.millis(1500..6000);
        self.cut(cluster, links, end);
    }

    /// Makes the network worse.
    fn disturb(&mut self, kind: FaultKind, cluster: &mut Cluster<'_>, now: Duration) {
        let host = self.host(cluster);
        let end = now + self.a_while();
        let mut links = links_of(cluster, host);
        // Clients that still reach a node which nobody else reaches are what is dangerous.
        if kind != FaultKind::CutClient && self.random.chance(60) {
            links.retain(|(_, other)| !CLIENTS.contains(&other.as_str()));
        }
        match kind {
            FaultKind::Isolate => self.cut(cluster, links, end),
            FaultKind::Ring => self.cut(cluster, chords(cluster), end),
            FaultKind::CutClient => {
                let client = *self.random.pick(&CLIENTS);
                links.retain(|(_, other)| other == client);
                self.cut(cluster, links, end);
            }
            FaultKind::OneWay => {
                let deaf = self.random.chance(50);
                for (a, b) in &links {
                    let (from, to) = if deaf { (b, a) } else { (a, b) };
                    cluster.sim.partition_oneway(from.as_str(), to.as_str());
                }
                self.mends.push((end, Mend::Links(links)));
            }
            FaultKind::Hold => {
                let link = self.random.pick(&links).clone();
                cluster.sim.hold(link.0.as_str(), link.1.as_str());
                self.mends.push((end, Mend::Links(vec![link])));
            }
            FaultKind::Slow => {
                let latency = self.random.millis(20..600);
                for (a, b) in &links {
                    cluster.sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency);
                }
                self.mends.push((end, Mend::Quick(links)));
            }
            FaultKind::Flap => {
                let link = self.random.pick(&links).clone();
                let left = self.random.within(4..20) as u32;
                self.mends.push((now, Mend::Flap { link, left }));
            }
            _ => {
                let mend = self.shuffled(&links);
                self.mends.push((now, Mend::Swizzle { cut: links, mend }));
            }
        }
    }

    fn shuffled(&mut self, links: &[(String, String)]) -> Vec<(String, String)> {
        let mut rest = links.to_vec();
        let mut order = Vec::new();
        while !rest.is_empty() {
            order.push(rest.swap_remove(self.random.below(rest.len() as u64) as usize));
        }
        order
    }

    /// Packets are lost, which ends the connections they belong to, or only late, as when TCP sends
    /// them again.
    fn cut(&mut self, cluster: &Cluster<'_>, links: Vec<(String, String)>, end: Duration) {
        let lost = self.random.chance(50);
        for (a, b) in &links {
            match lost {
                true => cluster.sim.partition(a.as_str(), b.as_str()),
                false => cluster.sim.hold(a.as_str(), b.as_str()),
            }
        }
        self.mends.push((end, Mend::Links(links)));
    }

    fn mend_due(&mut self, cluster: &mut Cluster<'_>, now: Duration) {
        let (due, later) = self.mends.drain(..).partition(|(at, _)| *at <= now);
        self.mends = later;
        let due: Vec<(Duration, Mend)> = due;
        for (_, mend) in due {
            self.mend(mend, cluster, now);
        }
    }

    fn mend(&mut self, mend: Mend, cluster: &mut Cluster<'_>, now: Duration) {
        match mend {
            Mend::Stop(host) if cluster.is_up(host) => {
                let power = self.random.chance(50);
                cluster.crash(host, power.then_some(&mut self.random));
            }
            Mend::Stop(_) => {}
            Mend::Restart(host) => {
                cluster.hosts[host].disk.mend();
                cluster.restart(host);
            }
            Mend::Links(links) => links.iter().for_each(|link| whole(cluster, link)),
            Mend::Quick(links) => self.quick(cluster, &links),
            Mend::Resume(host) => cluster.hosts[host].clock.resume(),
            Mend::Wall(host) => cluster.hosts[host].clock.set_wall(0),
            Mend::Disk(host) => cluster.hosts[host].disk.mend(),
            Mend::Swizzle { mut cut, mut mend } => {
                match (cut.pop(), mend.last()) {
                    (Some((a, b)), _) => cluster.sim.partition(a.as_str(), b.as_str()),
                    (None, Some(_)) => {
                        mend.pop().iter().for_each(|link| whole(cluster, link));
                    }
                    (None, None) => return,
                }
                let at = now + self.random.millis(20..1500);
                self.mends.push((at, Mend::Swizzle { cut, mend }));
            }
            Mend::Flap { link, left } => {
                match left % 2 {
                    0 if left > 0 => cluster.sim.partition(link.0.as_str(), link.1.as_str()),
                    _ => whole(cluster, &link),
                }
                if left > 0 {
                    let at = now + self.random.millis(20..600);
                    self.mends.push((at, Mend::Flap { link, left: left - 1 }));
                }
            }
        }
    }

    fn quick(&self, cluster: &Cluster<'_>, links: &[(String, String)]) {
        for (a, b) in links {
            let usual = Duration::from_millis(5);
            cluster.sim.set_link_max_message_latency(a.as_str(), b.as_str(), usual);
        }
    }
}

fn whole(cluster: &Cluster<'_>, (a, b): &(String, String)) {
    cluster.sim.release(a.as_str(), b.as_str());
    cluster.sim.repair(a.as_str(), b.as_str());
}

/// The links of one node, to nodes and clients.
fn links_of(cluster: &Cluster<'_>, host: usize) -> Vec<(String, String)> {
    let own = &cluster.hosts[host].name;
    let others = cluster.hosts.iter().map(|other| other.name.as_str()).filter(|other| other != own);
    others.chain(CLIENTS).map(|other| (own.clone(), other.to_owned())).collect()
}

fn all_links(cluster: &Cluster<'_>) -> Vec<(String, String)> {
    (0..cluster.hosts.len()).flat_map(|host| links_of(cluster, host)).collect()
}

/// Links between nodes that are no neighbours in a ring; of three nodes, one link.
fn chords(cluster: &Cluster<'_>) -> Vec<(String, String)> {
    let count = cluster.hosts.len();
    let name = |host: usize| cluster.hosts[host].name.clone();
    let mut links = Vec::new();
    for a in 0..count {
        for b in a + 1..count {
            let apart = (b - a).min(count - (b - a));
            if apart > 1 || (count == 3 && (a, b) == (0, 1)) {
                links.push((name(a), name(b)));
            }
        }
    }
    links
}

/// Snapshots that each node has taken in, in its present life.
fn installed(cluster: &Cluster<'_>) -> Vec<Option<u64>> {
    cluster.hosts.iter().map(|host| Some(host.multi()?.snapshots_installed())).collect()
}

fn placement_leader(cluster: &Cluster<'_>) -> Option<usize> {
    let leads = |host: &std::sync::Arc<crate::host::Host>| {
        let replica = host.multi()?.replica(cribwork_types::RangeId::PLACEMENT)?;
        replica.leader().is_self.then_some(())
    };
    cluster.hosts.iter().position(|host| leads(host).is_some())
}

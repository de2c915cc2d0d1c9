//! Does one fault: makes it, waits, undoes it, and waits until the cluster is whole again.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, READY_LIMIT};
use crate::kind::Kind;
use crate::nft::Rule;
use crate::process::Process;
use crate::schedule::{Fault, victim, victims};
use crate::throttle::Throttle;
use crate::{clock, damage};

/// Packets lost of a hundred.
const LOSS_PERCENT: u32 = 30;
/// Time between two commands of an administrator.
const ADMIN_PERIOD: Duration = Duration::from_millis(400);
/// Most splits of one fault: not all of them are merged again.
const SPLITS_MAX: u32 = 4;

/// Unix time in milliseconds, by the real clock: only nodes' clocks jump.
pub(crate) fn unix_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64() * 1e3
}

/// A fault that is over.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) kind: Kind,
    /// What it hit.
    pub(crate) target: String,
    /// When it began, was undone, and when the cluster was whole again; Unix milliseconds.
    pub(crate) begun_ms: f64,
    pub(crate) undone_ms: f64,
    pub(crate) ready_ms: f64,
    /// What was to be expected but is worth knowing.
    pub(crate) notes: Vec<String>,
    /// What should not have happened.
    pub(crate) problems: Vec<String>,
    /// Whether the cluster became whole in time.
    pub(crate) recovered: bool,
}

/// Does one fault.
///
/// # Errors
/// If the harness itself failed or is to stop: the fault may still be there.
pub(crate) fn strike(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<Done> {
    let begun_ms = unix_ms();
    let target = act(cluster, fault).with_context(|| format!("fault {}", fault.kind.name()))?;
    let undone_ms = unix_ms();
    let Target { name: target, mut notes, mut problems } = target;
    let recovered = recover(cluster, fault.kind, &mut notes, &mut problems)?;
    let ready_ms = unix_ms();
    Ok(Done { kind: fault.kind, target, begun_ms, undone_ms, ready_ms, notes, problems, recovered })
}

/// What a fault hit.
pub(crate) struct Target {
    name: String,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Target {
    fn node(cluster: &Cluster, number: usize) -> Self {
        Self::new(cluster.nodes[number].setup.name.clone())
    }

    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), notes: Vec::new(), problems: Vec::new() }
    }

    /// Adds what was to be expected.
    pub(crate) fn note(&mut self, said: String) {
        self.notes.push(said);
    }

    /// Adds what should not have happened.
    pub(crate) fn problem(&mut self, said: String) {
        self.problems.push(said);
    }
}

/// Whether a node whose disk fails so may end rather than go on.
fn may_end(kind: Kind) -> bool {
    matches!(kind, Kind::FailingDisk | Kind::DiskFull | Kind::PowerCutOne | Kind::PowerCutAll)
}

fn recover(
    cluster: &mut Cluster,
    kind: Kind,
    notes: &mut Vec<String>,
    problems: &mut Vec<String>,
) -> anyhow::Result<bool> {
    let until = Instant::now() + READY_LIMIT;
    loop {
        for node in &mut cluster.nodes {
            if let Some(how) = node.revive()? {
                let said = format!("{} ended by itself: {how}", node.setup.name);
                let list = if may_end(kind) { &mut *notes } else { &mut *problems };
                list.push(said);
            }
        }
        // In short turns, so that a node which ends while the others are awaited is started again.
        let error = match cluster.wait_ready(Duration::from_secs(2)) {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        cluster.stop.check()?;
        if Instant::now() >= until {
            problems.push(format!("not recovered after {READY_LIMIT:?}: {error:#}"));
            return Ok(false);
        }
    }
}

fn act(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<Target> {
    let nodes = cluster.nodes.len();
    let one = victim(fault.pick, nodes);
    match fault.kind {
        Kind::KillOne => kill(cluster, fault, &[one]),
        Kind::KillMajority => kill(cluster, fault, &victims(fault.pick, nodes / 2 + 1, nodes)),
        Kind::KillAll => kill(cluster, fault, &victims(fault.pick, nodes, nodes)),
        Kind::PowerCutOne => power_cut(cluster, fault.hold, &[one]),
        Kind::PowerCutAll => power_cut(cluster, fault.hold, &victims(fault.pick, nodes, nodes)),
        Kind::Pause => pause(cluster, fault, one),
        Kind::Partition | Kind::PartitionOneWay | Kind::PartitionLeader | Kind::Loss => {
            network(cluster, fault, one)
        }
        Kind::ClockJump => clock_jump(cluster, fault, one),
        Kind::SlowDisk => slow_disk(cluster, fault, one),
        Kind::FailingDisk => failing_disk(cluster, fault, one),
        Kind::DiskFull => disk_full(cluster, fault, one),
        Kind::BitFlipTable => damage::flip_table(cluster, fault, one),
        Kind::BitFlipLog => damage::flip_log(cluster, fault, one),
        Kind::RollingRestart => rolling_restart(cluster, fault, one),
        Kind::Admin => admin(cluster, fault),
    }
}

fn names(cluster: &Cluster, numbers: &[usize]) -> String {
    let names = numbers.iter().map(|number| cluster.nodes[*number].setup.name.as_str());
    names.collect::<Vec<_>>().join(" ")
}

fn kill(cluster: &mut Cluster, fault: &Fault, numbers: &[usize]) -> anyhow::Result<Target> {
    // All signals first: waiting for one to be gone would give the others time.
    for number in numbers {
        cluster.nodes[*number].signal("KILL")?;
    }
    for number in numbers {
        cluster.nodes[*number].kill9();
    }
    cluster.stop.sleep(fault.hold)?;
    for number in numbers {
        cluster.nodes[*number].start()?;
    }
    Ok(Target::new(names(cluster, numbers)))
}

/// Cuts the disks of some nodes off, and with them the nodes; then the power is back, and nothing runs.
///
/// The nodes are stopped first. An fdatasync that is under way when ext4 is cut off may succeed though its
/// data are lost (Linux 6.18: in 2 of 40 cuts of one process that appends and syncs; in 0 of 40 if it is
/// stopped before). After a real power cut nobody is left who could act on such an answer.
pub(crate) fn cut(cluster: &mut Cluster, hold: Duration, numbers: &[usize]) -> anyhow::Result<()> {
    for number in numbers {
        cluster.nodes[*number].signal("STOP")?;
    }
    for number in numbers {
        cluster.nodes[*number].disk.as_ref().context("no disk")?.cut()?;
    }
    for number in numbers {
        cluster.nodes[*number].kill9();
    }
    cluster.stop.sleep(hold)?;
    for number in numbers {
        cluster.nodes[*number].disk.as_ref().context("no disk")?.remount(&cluster.stop)?;
    }
    Ok(())
}

fn power_cut(cluster: &mut Cluster, hold: Duration, numbers: &[usize]) -> anyhow::Result<Target> {
    cut(cluster, hold, numbers)?;
    for number in numbers {
        cluster.nodes[*number].start()?;
    }
    Ok(Target::new(names(cluster, numbers)))
}

fn pause(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    cluster.nodes[one].signal("STOP")?;
    let slept = cluster.stop.sleep(fault.hold);
    cluster.nodes[one].signal("CONT")?;
    slept?;
    Ok(Target::node(cluster, one))
}

fn network(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let leader = fault.kind == Kind::PartitionLeader;
    let one = if leader { cluster.busiest()? } else { one };
    let network = cluster.network.as_ref().context("no namespaces")?;
    let others = network.others(one);
    match fault.kind {
        Kind::Partition => network.set(one, &Rule::Apart(others))?,
        Kind::PartitionOneWay => network.set(one, &Rule::NotHear(others))?,
        Kind::PartitionLeader => network.set(one, &Rule::Alone)?,
        _ => {
            for number in 0..cluster.nodes.len() {
                network.set(number, &Rule::Lossy(LOSS_PERCENT, network.others(number)))?;
            }
        }
    }
    cluster.stop.sleep(fault.hold)?;
    for number in 0..cluster.nodes.len() {
        network.heal(number)?;
    }
    let lossy = fault.kind == Kind::Loss;
    Ok(if lossy { Target::new("all nodes") } else { Target::node(cluster, one) })
}

fn clock_jump(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let jump_s = clock::jump_s(fault.pick);
    let clock = cluster.nodes[one].clock.as_ref().context("no clock")?;
    clock.set(jump_s)?;
    cluster.stop.sleep(fault.hold)?;
    clock.set(0)?;
    Ok(Target::new(format!("{} by {jump_s:+} s", names(cluster, &[one]))))
}

fn slow_disk(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let node = &mut cluster.nodes[one];
    let throttle = Throttle::new(&node.disk.as_ref().context("no disk")?.number()?)?;
    throttle.take(node.pid()?)?;
    cluster.stop.sleep(fault.hold)?;
    drop(throttle);
    Ok(Target::node(cluster, one))
}

fn failing_disk(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let only_sync = fault.pick >> 63 == 0;
    let failing = cluster.nodes[one].failing.as_ref().context("nothing preloaded")?;
    failing.fail(only_sync)?;
    cluster.stop.sleep(fault.hold)?;
    failing.heal()?;
    let what = if only_sync { "sync" } else { "sync and write" };
    Ok(Target::new(format!("{}, {what}", names(cluster, &[one]))))
}

/// The log has room set aside in advance: only with many bytes written does the node notice.
fn disk_full(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let disk = cluster.nodes[one].disk.as_ref().context("no disk")?;
    disk.fill()?;
    let mut writer = Command::new(cluster.binary());
    writer.args(["workload", "kv", "--value-size", "32KiB", "--keys", "500", "--ranges", "1"]);
    writer.args(["--duration", &format!("{}ms", fault.hold.as_millis())]);
    writer.args(["--endpoints", &cluster.endpoints()]);
    let writer = Process::start(writer, &cluster.nodes[one].setup.directory, "writer");
    let slept = cluster.stop.sleep(fault.hold);
    disk.free()?;
    drop(writer?);
    slept?;
    Ok(Target::node(cluster, one))
}

fn rolling_restart(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let nodes = cluster.nodes.len();
    let mut target = Target::new("each node");
    for step in 0..nodes {
        if let Err(error) = cluster.bounce((one + step) % nodes, fault.hold) {
            cluster.stop.check()?;
            target.problem(format!("{error:#}"));
            break;
        }
    }
    Ok(target)
}

fn admin(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<Target> {
    let mut random = StdRng::seed_from_u64(fault.pick);
    let until = Instant::now() + fault.hold;
    let (mut splits, mut merges, mut moves, mut refused) = (0, 0, 0, 0);
    while Instant::now() < until {
        let what = random.random_range(0..6);
        let done = if splits < SPLITS_MAX && what < 2 {
            let table = if random.random() { "bank" } else { "wreg" };
            let hex: String = table.bytes().map(|byte| format!("{byte:02x}")).collect();
            let key = format!("0x{hex}{:08x}", random.random::<u32>());
            cluster.command(&["split", &key, "--timeout", "3s"]).map(|_| splits += 1)
        } else if what == 2 {
            merge(cluster, random.random()).map(|()| merges += 1)
        } else {
            let (choice, store) =
                (random.random::<u64>(), random.random_range(0..cluster.nodes.len()));
            transfer(cluster, choice, store + 1).map(|()| moves += 1)
        };
        refused += u32::from(done.is_err());
        cluster.stop.sleep(ADMIN_PERIOD)?;
    }
    let done = format!("{splits} splits, {merges} merges, {moves} leaders moved");
    Ok(Target::new(format!("{done}, {refused} refused")))
}

/// The number of a range.
fn some_range(cluster: &Cluster, choice: u64) -> anyhow::Result<String> {
    let ranges = cluster.command(&["ranges", "--timeout", "3s"])?;
    let ranges = ranges.as_array().filter(|ranges| !ranges.is_empty()).context("no ranges")?;
    Ok(ranges[choice as usize % ranges.len()]["id"].to_string())
}

fn merge(cluster: &Cluster, choice: u64) -> anyhow::Result<()> {
    let id = some_range(cluster, choice)?;
    cluster.command(&["merge", &id, "--timeout", "10s"]).map(|_| ())
}

fn transfer(cluster: &Cluster, choice: u64, store: usize) -> anyhow::Result<()> {
    let id = some_range(cluster, choice)?;
    cluster.command(&["transfer-leader", &id, &store.to_string(), "--timeout", "3s"]).map(|_| ())
}

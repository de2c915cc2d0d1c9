//! What one seed stands for: the cluster, the load, and which faults may come.
//!
//! Each run gets its own choice of faults, not a bit of everything: some bugs hide while others keep the
//! system busy. Swarm testing (Groce and others, ISSTA 2012).

use std::time::Duration;

use cribwork_types::quirk::Quirk;
use cribwork_types::seeded::Bug;
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::store::StoreKind;

/// What can go wrong, and what operators do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The process of one node dies; what it wrote stays.
    Crash,
    /// One machine loses power, and with it what was not synced.
    PowerLoss,
    /// A majority of the machines does, at once.
    PowerLossMajority,
    /// All machines do, at once.
    PowerLossAll,
    /// A machine does right after it has taken in a snapshot.
    PowerLossSnapshot,
    /// All machines restart again and again within a second or two.
    RestartStorm,
    /// One node is cut off from the others, which all restart at once.
    Amnesia,
    /// One node hears nobody and is heard by nobody.
    Isolate,
    /// One node is heard but hears nobody, or the other way round.
    OneWay,
    /// Two groups of nodes that do not see each other, each with some of the clients.
    Halves,
    /// Each node sees only its neighbours.
    Ring,
    /// The links of some nodes are cut one by one and mended in another order.
    Swizzle,
    /// One link comes and goes.
    Flap,
    /// The packets of one link are kept and come late, all at once.
    Hold,
    /// The packets of one node take long.
    Slow,
    /// One node stands still for longer than leases and locks live.
    Pause,
    /// The wall clock of one node jumps.
    ClockJump,
    /// The disk of one node fails to write.
    WriteFails,
    /// The disk of one node fails to sync.
    SyncFails,
    /// The disk of one node is full.
    DiskFull,
    /// A bit flips on the disk of one node: a block cannot be read for a while.
    BitFlip,
    /// A client loses its links to one node.
    CutClient,
    /// A range is split.
    Split,
    /// A range absorbs its neighbour.
    Merge,
    /// Leadership of a range is handed over.
    TransferLeader,
    /// Replicas of a range come, go, or change places.
    ChangeMembers,
    /// The leader of placement, and so of timestamps, dies.
    CrashPlacement,
    /// It is cut off from the other nodes and from one client; another client still reaches it.
    IsolatePlacement,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 28] = [
        FaultKind::Crash,
        FaultKind::PowerLoss,
        FaultKind::PowerLossMajority,
        FaultKind::PowerLossAll,
        FaultKind::PowerLossSnapshot,
        FaultKind::RestartStorm,
        FaultKind::Amnesia,
        FaultKind::Isolate,
        FaultKind::OneWay,
        FaultKind::Halves,
        FaultKind::Ring,
        FaultKind::Swizzle,
        FaultKind::Flap,
        FaultKind::Hold,
        FaultKind::Slow,
        FaultKind::Pause,
        FaultKind::ClockJump,
        FaultKind::WriteFails,
        FaultKind::SyncFails,
        FaultKind::DiskFull,
        FaultKind::BitFlip,
        FaultKind::CutClient,
        FaultKind::Split,
        FaultKind::Merge,
        FaultKind::TransferLeader,
        FaultKind::ChangeMembers,
        FaultKind::CrashPlacement,
        FaultKind::IsolatePlacement,
    ];
}

/// How much of what else a seed draws there is in a run with a theme.
const OTHERS_PERCENT: u64 = 50;
const OTHERS_WEIGHT_MAX: u64 = 4;

/// What a run is mostly about.
///
/// A sequence of events that needs several rare ones in a row hardly ever comes about while everything
/// goes wrong at once. So every other seed has a theme, by its number: some faults and quirks come for
/// certain and often, beside a part of what the seed draws anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Theme {
    /// None: even seeds.
    Everything,
    /// Members come and go, on five nodes whose halves lose each other: seeds 8n + 1.
    Members,
    /// Logs are cut at once, and snapshots are lost in parts or with the power: seeds 8n + 3.
    Snapshots,
    /// Ranges are split and merged, over slow disks, while leaders are cut off: seeds 8n + 5.
    Splits,
    /// Leaderships are handed over, and the request for it is late: seeds 8n + 7.
    Transfers,
}

impl Theme {
    /// The theme of `seed`.
    pub fn of(seed: u64) -> Self {
        match seed % 8 {
            1 => Theme::Members,
            3 => Theme::Snapshots,
            5 => Theme::Splits,
            7 => Theme::Transfers,
            _ => Theme::Everything,
        }
    }

    /// Faults that come for certain, with their weights.
    fn faults(self) -> &'static [(FaultKind, u64)] {
        match self {
            Theme::Everything => &[],
            Theme::Members => &[
                (FaultKind::ChangeMembers, 24),
                (FaultKind::Halves, 6),
                (FaultKind::TransferLeader, 4),
            ],
            Theme::Snapshots => &[
                (FaultKind::PowerLossSnapshot, 12),
                (FaultKind::Isolate, 8),
                (FaultKind::ChangeMembers, 8),
                (FaultKind::Crash, 4),
            ],
            Theme::Splits => &[
                (FaultKind::Split, 24),
                (FaultKind::Merge, 24),
                (FaultKind::Isolate, 8),
                (FaultKind::Halves, 4),
            ],
            Theme::Transfers => &[(FaultKind::TransferLeader, 24), (FaultKind::Crash, 4)],
        }
    }

    /// Quirks that are at work for certain.
    fn quirks(self) -> &'static [Quirk] {
        match self {
            Theme::Everything => &[],
            Theme::Members => &[Quirk::LeaveJoint, Quirk::HeldRead],
            Theme::Snapshots => &[Quirk::LosePart, Quirk::EmptyEntries],
            Theme::Splits => &[Quirk::SlowLog],
            Theme::Transfers => &[Quirk::HoldTransfer],
        }
    }

    /// Shapes what a seed has drawn.
    fn shape(self, plan: &mut Plan, random: &mut Random) {
        if self == Theme::Everything {
            return;
        }
        // Else nothing gets as far as it should before the next thing happens to it.
        plan.faults.retain(|_| random.chance(OTHERS_PERCENT));
        plan.faults.iter_mut().for_each(|(_, weight)| *weight = (*weight).min(OTHERS_WEIGHT_MAX));
        for (kind, weight) in self.faults() {
            plan.faults.retain(|(other, _)| other != kind);
            plan.faults.push((*kind, *weight));
        }
        plan.quirks.extend(self.quirks());
        plan.pause = random.millis(200..900);
        if self == Theme::Snapshots {
            plan.log_entries_max = random.within(6..20);
        }
    }
}

/// Everything that one run follows.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What everything else comes from.
    pub seed: u64,
    /// What the run is mostly about.
    pub theme: Theme,
    /// Simulated time of load with faults; set-up, calm and final reads come on top.
    #[serde(skip)]
    pub duration: Duration,
    /// Nodes; ranges begin with replicas on three of them.
    pub nodes: usize,
    /// Ranges at the start.
    pub ranges: u32,
    /// Workers of each kind of traffic.
    pub workers: Workers,
    /// Faults that may come, each with its weight.
    pub faults: Vec<(FaultKind, u64)>,
    /// Mean time between two faults.
    #[serde(skip)]
    pub pause: Duration,
    /// By how many millionths the clock of each node runs fast or slow.
    pub drift: Vec<i64>,
    /// By how many milliseconds the wall clock of each node is wrong.
    pub wall_off_ms: Vec<i64>,
    /// Entries after which a log is cut; few, so that replicas that fall behind need snapshots.
    pub log_entries_max: u64,
    /// What goes worse than it would by itself, during load.
    #[serde(skip)]
    pub quirks: Vec<Quirk>,
    /// What the nodes store their data in.
    pub store: StoreKind,
    /// The bug that is put in.
    #[serde(skip)]
    pub bug: Option<Bug>,
}

/// How many workers do what.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Workers {
    /// Raw gets, puts, deletes and swaps.
    pub raw: u64,
    /// Transactions that append to lists.
    pub append: u64,
    /// Transactions on registers.
    pub register: u64,
    /// Transfers of money.
    pub bank: u64,
}

/// Clocks differ by at most twice this, millionths: within the drift that leases allow for.
const DRIFT_MAX: u64 = 20_000;

/// Wall clocks are wrong by at most this, milliseconds: more than a window of timestamps.
const WALL_OFF_MAX_MS: u64 = 5_000;

impl Plan {
    /// The plan of `seed`.
    pub fn new(seed: u64, duration: Duration) -> Self {
        let mut random = Random::new(seed, 1);
        let theme = Theme::of(seed);
        let nodes = match theme {
            Theme::Members => 5,
            _ => *random.pick(&[3, 3, 4, 5]),
        };
        let mut faults = Vec::new();
        for kind in FaultKind::ALL {
            // What operators do goes on beside all faults.
            let (chance, weight_max) = match kind {
                FaultKind::Split
                | FaultKind::Merge
                | FaultKind::TransferLeader
                | FaultKind::ChangeMembers => (70, 20),
                _ => (45, 8),
            };
            if random.chance(chance) {
                faults.push((kind, random.within(1..weight_max)));
            }
        }
        let drift =
            (0..nodes).map(|_| random.below(2 * DRIFT_MAX) as i64 - DRIFT_MAX as i64).collect();
        let off = if random.chance(50) { WALL_OFF_MAX_MS } else { 1 };
        let wall_off_ms = (0..nodes).map(|_| random.below(2 * off) as i64 - off as i64).collect();
        let mut plan = Self {
            wall_off_ms,
            seed,
            theme,
            duration,
            nodes,
            ranges: random.within(1..7) as u32,
            workers: Workers {
                raw: random.within(2..6),
                append: random.within(1..5),
                register: random.within(1..4),
                bank: random.within(1..4),
            },
            faults,
            pause: random.millis(300..3000),
            drift,
            log_entries_max: if random.chance(80) { random.within(10..150) } else { 10_000 },
            quirks: Quirk::ALL.iter().copied().filter(|_| random.chance(25)).collect(),
            store: StoreKind::Memory,
            bug: None,
        };
        theme.shape(&mut plan, &mut random);
        plan
    }

    /// The same with a bug in it.
    pub fn with_bug(self, bug: Option<Bug>) -> Self {
        Self { bug, ..self }
    }

    /// The same over another store.
    pub fn with_store(self, store: StoreKind) -> Self {
        Self { store, ..self }
    }

    /// The same without one kind of fault.
    pub fn without(&self, kind: FaultKind) -> Self {
        let mut plan = self.clone();
        plan.faults.retain(|(other, _)| *other != kind);
        plan
    }
}

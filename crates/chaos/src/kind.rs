//! The kinds of faults: their names, what they do, how long they last and what they need.

use serde::Serialize;

/// What a machine must be able to do for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Need {
    /// Network namespaces with rules of their own.
    Network,
    /// A file system of its own for each node, on a loop device.
    Disk,
    /// A file system that can be cut off from its disk.
    PowerCut,
    /// Limits on what a process may write in a second.
    Throttle,
    /// A clock of its own for each node.
    Clock,
    /// Calls of the C library that can be made to fail.
    Eio,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    KillOne,
    KillMajority,
    KillAll,
    Pause,
    Partition,
    PartitionOneWay,
    PartitionLeader,
    Loss,
    ClockJump,
    SlowDisk,
    FailingDisk,
    DiskFull,
    #[serde(rename = "bit-flip-sst")]
    BitFlipTable,
    BitFlipLog,
    PowerCutOne,
    PowerCutAll,
    RollingRestart,
    Admin,
}

/// All of them, in the order of [`Kind`].
pub(crate) const KINDS: [Kind; 18] = [
    Kind::KillOne,
    Kind::KillMajority,
    Kind::KillAll,
    Kind::Pause,
    Kind::Partition,
    Kind::PartitionOneWay,
    Kind::PartitionLeader,
    Kind::Loss,
    Kind::ClockJump,
    Kind::SlowDisk,
    Kind::FailingDisk,
    Kind::DiskFull,
    Kind::BitFlipTable,
    Kind::BitFlipLog,
    Kind::PowerCutOne,
    Kind::PowerCutAll,
    Kind::RollingRestart,
    Kind::Admin,
];

impl Kind {
    /// As it is written on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::KillOne => "kill-one",
            Kind::KillMajority => "kill-majority",
            Kind::KillAll => "kill-all",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::PartitionOneWay => "partition-one-way",
            Kind::PartitionLeader => "partition-leader",
            Kind::Loss => "loss",
            Kind::ClockJump => "clock-jump",
            Kind::SlowDisk => "slow-disk",
            Kind::FailingDisk => "failing-disk",
            Kind::DiskFull => "disk-full",
            Kind::BitFlipTable => "bit-flip-sst",
            Kind::BitFlipLog => "bit-flip-log",
            Kind::PowerCutOne => "power-cut-one",
            Kind::PowerCutAll => "power-cut-all",
            Kind::RollingRestart => "rolling-restart",
            Kind::Admin => "admin",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }

    /// One sentence.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Kind::KillOne => "kill -9 of one node, then a restart",
            Kind::KillMajority => "kill -9 of a majority at once, then a restart",
            Kind::KillAll => "kill -9 of all nodes at once, then a restart",
            Kind::Pause => "SIGSTOP of one node, then SIGCONT",
            Kind::Partition => "one node and the others do not hear each other; clients reach all",
            Kind::PartitionOneWay => "one node does not hear the others, they hear it",
            Kind::PartitionLeader => "the node that leads most is cut off from nodes and clients",
            Kind::Loss => "every node loses 30 % of the packets that other nodes send it",
            Kind::ClockJump => "the wall clock of one node jumps and jumps back",
            Kind::SlowDisk => "one node writes at most 256 KiB and 40 times a second",
            Kind::FailingDisk => "fsync, fdatasync and writes of one node fail with EIO",
            Kind::DiskFull => "the disk of one node is full, then has room again",
            Kind::BitFlipTable => {
                "one bit of a table file of one node is flipped, then flipped back"
            }
            Kind::BitFlipLog => "one bit of the log of one node is flipped, then flipped back",
            Kind::PowerCutOne => {
                "the disk of one node loses all that was not synced, then a restart"
            }
            Kind::PowerCutAll => "the disks of all nodes at once lose all that was not synced",
            Kind::RollingRestart => "each node in turn is told to stop (SIGTERM) and started again",
            Kind::Admin => "ranges are split and merged, and leaders moved, at random",
        }
    }

    /// Shortest and longest time that it lasts, milliseconds.
    pub(crate) fn hold_ms(self) -> (u64, u64) {
        match self {
            Kind::KillOne | Kind::KillMajority => (500, 4000),
            Kind::KillAll | Kind::PowerCutAll => (0, 1500),
            Kind::Pause => (300, 6000),
            Kind::PowerCutOne => (200, 3000),
            Kind::Partition | Kind::PartitionOneWay | Kind::PartitionLeader => (2000, 8000),
            Kind::Loss | Kind::SlowDisk | Kind::DiskFull | Kind::Admin => (4000, 8000),
            Kind::ClockJump | Kind::FailingDisk => (2000, 6000),
            Kind::BitFlipTable => (4000, 8000),
            Kind::BitFlipLog => (200, 3000),
            Kind::RollingRestart => (500, 1500),
        }
    }

    /// What it needs beside processes and signals.
    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Kind::KillOne | Kind::KillMajority | Kind::KillAll | Kind::Pause => &[],
            Kind::RollingRestart | Kind::Admin | Kind::BitFlipTable | Kind::BitFlipLog => &[],
            Kind::Partition | Kind::PartitionOneWay | Kind::PartitionLeader | Kind::Loss => {
                &[Need::Network]
            }
            Kind::ClockJump => &[Need::Clock],
            Kind::SlowDisk => &[Need::Disk, Need::Throttle],
            Kind::FailingDisk => &[Need::Eio],
            Kind::DiskFull => &[Need::Disk],
            Kind::PowerCutOne | Kind::PowerCutAll => &[Need::Disk, Need::PowerCut],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_those_of_reports() {
        for kind in KINDS {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            let (least, most) = kind.hold_ms();
            assert!(least <= most, "{kind:?}");
        }
        assert_eq!(Kind::from_name("nothing"), None);
    }
}

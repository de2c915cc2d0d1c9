//! Faults on real processes: nodes of the real binary, in network namespaces and on file systems of
//! their own, under load, while a seeded *nemesis* crashes, pauses, partitions and starves them.
//!
//! What it cannot simulate it does not need to: kernel, disk cache, sockets and clocks are real. What a
//! machine cannot do is probed first and reported as skipped, never passed over in silence.
//!
//! Data flow: `args` -> `probe` says what is possible -> `cluster` makes network, disks and nodes
//! -> `load` starts the workloads -> `schedule` chooses faults from the seed and `nemesis` does
//! them -> the workloads judge what they saw -> `stores` compares what is left on the stopped nodes' disks
//! -> `gaps` lays the faults over the history -> `report`.
//!
//! Invariant: whatever ends a run (success, failure, Ctrl-C), processes, mounts, loop devices, cgroups
//! and namespaces are gone afterwards: each has an owner that removes it when dropped.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a harness of real processes: it has only the real clock and real threads"
)]

mod args;
mod clock;
mod cluster;
mod damage;
mod disk;
mod eio;
mod gaps;
mod html;
mod kind;
mod load;
mod nemesis;
mod network;
mod nft;
mod node;
mod power_cuts;
mod probe;
mod process;
mod report;
mod run;
mod schedule;
mod shell;
mod stop;
mod stores;
mod throttle;
mod timeline;

pub use run::main;

//! Tunables of a node's Raft groups. The defaults are what the tests and the design assume.

use std::time::Duration;

use cribwork_types::StoreId;
use cribwork_types::seeded::{Bug, has};

/// How a node runs its groups.
#[derive(Clone, Debug)]
pub struct MultiRaftOptions {
    /// This node's store.
    pub store: StoreId,
    /// How long a follower refuses votes after its leader's last message, and how long a leader may
    /// serve without hearing from a majority. openraft has one number for both.
    pub lease: Duration,
    /// How often the driver renews the lease of a leader that serves reads but appends nothing.
    pub lease_renewal: Duration,
    /// How long after its last read a range's lease is renewed.
    pub read_activity: Duration,
    /// Period of liveness messages between each pair of nodes, and of the driver's sweep.
    pub liveness_period: Duration,
    /// A peer not heard from for this long is taken for dead.
    pub liveness_timeout: Duration,
    /// Elections under way from which on no more are begun, but for ranges that somebody waits for.
    pub elections_max: usize,
    /// Most campaigns that one look at the replicas starts.
    pub campaigns_per_sweep: usize,
    /// How long a proposal may wait for its fate before its outcome is reported as undetermined.
    pub fate_timeout: Duration,
    /// How long a read or an evaluation waits for leadership to be proven.
    pub read_timeout: Duration,
    /// How long a transfer of leadership may take before the old leader rebuilds its instance.
    pub transfer_timeout: Duration,
    /// Entries after which the log is cut, and how many of them stay for slow followers.
    pub log_entries_max: u64,
    /// Entries kept behind the newest snapshot position.
    pub log_entries_kept: u64,
    /// Bytes of entries after which the log is cut.
    pub log_bytes_max: u64,
    /// Bytes of entries that each live replica keeps in memory.
    pub tail_cache_bytes_max: usize,
    /// How long a message that only carries a commit index is held back for a better one.
    pub lazy_commit: Duration,
}

impl MultiRaftOptions {
    /// Defaults for `store`.
    pub fn new(store: StoreId) -> Self {
        Self {
            store,
            lease: Duration::from_millis(500),
            lease_renewal: Duration::from_millis(200),
            read_activity: Duration::from_secs(5),
            liveness_period: Duration::from_millis(150),
            liveness_timeout: Duration::from_millis(500),
            elections_max: 16,
            campaigns_per_sweep: 64,
            fate_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(2),
            transfer_timeout: Duration::from_secs(1),
            log_entries_max: 10_000,
            log_entries_kept: 2_000,
            log_bytes_max: 64 << 20,
            tail_cache_bytes_max: 1 << 20,
            lazy_commit: Duration::from_millis(5),
        }
    }

    /// Time limit of a vote round. openraft wants `heartbeat_timeout < vote_timeout < lease`.
    pub(crate) fn vote_timeout(&self) -> Duration {
        self.lease * 4 / 5
    }

    /// Time limit of one heartbeat.
    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        self.lease * 2 / 5
    }

    /// The part of the lease within which a leader reads without a round trip: the whole minus a
    /// bound on clock drift (5 %) and a margin for the time between the check and its use.
    pub fn safe_lease(&self) -> Duration {
        if has(Bug::LeaseTooLong) {
            return self.lease * 3 / 2;
        }
        (self.lease * 95 / 100).saturating_sub(Duration::from_millis(25))
    }
}

/// Commands that may wait in one range's batcher; over it proposals fail with `Busy`.
pub(crate) const PROPOSALS_QUEUED_MAX: usize = 4096;
/// Bytes that may wait in one range's batcher.
pub(crate) const PROPOSAL_BYTES_QUEUED_MAX: usize = 64 << 20;
/// Bytes of commands that the batcher puts into one entry (a larger command gets its own).
pub(crate) const ENTRY_BYTES_TARGET: usize = 1 << 20;
/// Bytes of entries that one read of the log returns.
pub(crate) const LOG_READ_BYTES_MAX: usize = 1 << 20;
/// Apply jobs of all groups that may wait; one per live replica suffices.
pub(crate) const APPLY_QUEUE_MAX: usize = 4096;
/// Bytes of mutations that one apply round writes at once.
pub(crate) const APPLY_ROUND_BYTES_MAX: usize = 8 << 20;
/// Append messages that one inbound stream may hold before its peer has to send again.
pub(crate) const INBOUND_STREAM_MAX: usize = 256;
/// Append requests of one outbound stream that may wait for their answers.
pub(crate) const PIPELINE_MAX: usize = 32;
/// Bytes after which a snapshot chunk is full. The transport's lowest class wants small messages, so
/// that a frame of them holds up nothing; one value may make a chunk larger.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 96 << 10;
/// Largest snapshot that a node takes in, bytes: it is installed as one batch, from memory.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 512 << 20;
/// Snapshots that a node sends at once.
pub(crate) const SNAPSHOTS_SENT_MAX: usize = 2;
/// Snapshots that a node receives at once.
pub(crate) const SNAPSHOTS_RECEIVED_MAX: usize = 4;
/// Messages that wait for one replica's instance to be built.
pub(crate) const WAKING_MESSAGES_MAX: usize = 64;

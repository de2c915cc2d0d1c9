//! openraft behind one object-safe trait.
//!
//! Everything in this module is generic over openraft's async runtime; the rest of the crate sees
//! [`Instance`] and [`InstanceFactory`] only, so neither generics nor openraft's types leak.

mod codec;
mod instance;
mod log_store;
mod network;
mod outbound;
mod state_machine;
mod streams;
mod types;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_transport::Message;
use cribwork_types::{BoxFuture, ReplicaId, StoreId};

pub(crate) use codec::without_log;
pub(crate) use instance::OpenraftFactory;
pub(crate) use streams::stream_append;

use crate::error::RaftError;
use crate::log::RangeLog;
use crate::position::VoteRecord;
use crate::replica::Replica;

/// Why openraft did not take or finish a proposal.
#[derive(Clone, Debug)]
pub(crate) enum WriteError {
    /// Refused before it was appended.
    NotLeader,
    /// Refused before it was appended: prove leadership, then try again.
    LeaseExpired,
    /// Appended, then discarded here under another leader; it may still be committed there.
    Discarded,
    /// The instance stopped.
    Fatal(String),
}

/// Why the members did not change.
#[derive(Clone, Debug)]
pub(crate) enum ChangeError {
    /// As with any proposal.
    Write(WriteError),
    /// Refused for what it asks, or while another change is open.
    Refused(&'static str),
}

/// A change of a group's members.
#[derive(Clone, Debug)]
pub(crate) enum MembersChange {
    AddLearner(ReplicaId, StoreId),
    /// Learners that become voters, voters that go and learners that go.
    Voters {
        incoming: BTreeSet<ReplicaId>,
        outgoing: BTreeSet<ReplicaId>,
        learners: BTreeSet<ReplicaId>,
    },
    /// Leaves a joint membership for its later set.
    Flatten,
}

/// One live Raft group member.
pub(crate) trait Instance: Send + Sync + 'static {
    /// The newest durable vote: who leads, if it is committed.
    fn vote(&self) -> VoteRecord;

    /// Appends `payload` if this replica leads in `term`; completes once it is applied here.
    fn write(&self, term: u64, payload: Bytes) -> BoxFuture<Result<(), WriteError>>;

    /// Asks a majority whether this replica leads, and waits until what was committed then is
    /// applied. Gives the term. What openraft takes for proof is not enough: see [`crate::acks`].
    fn confirm(&self, limit: Duration) -> BoxFuture<Result<u64, WriteError>>;

    /// Hands over a message of another member.
    fn deliver(&self, from: StoreId, message: Message);

    /// Asks for votes by a pre-vote round, unless this replica leads.
    fn campaign(&self) -> BoxFuture<()>;

    /// Renews the lease of this leader.
    fn heartbeat(&self) -> BoxFuture<()>;

    /// Hands leadership to `to`.
    fn transfer(&self, to: ReplicaId) -> BoxFuture<()>;

    /// Changes the members if this replica leads in `term`; completes once the last step is applied
    /// here.
    fn change_members(
        &self,
        term: u64,
        change: MembersChange,
    ) -> BoxFuture<Result<(), ChangeError>>;

    /// True if this member votes by the newest membership in its log, applied or not.
    fn votes(&self) -> bool;

    /// The last entry of `member`'s log that is known to agree with this leader's.
    fn matched(&self, member: ReplicaId) -> Option<u64>;

    /// True if `target` holds every entry of this leader's log, as far as this leader knows.
    fn caught_up(&self, target: ReplicaId) -> bool;

    /// Takes a snapshot position at what is applied, and cuts the log behind it, keeping `keep`
    /// entries.
    fn cut_log(&self, keep: u64) -> BoxFuture<()>;

    /// As [`Self::cut_log`], but only the very first entry, so that who has none gets a snapshot.
    fn cut_first(&self) -> BoxFuture<()>;

    /// Tries unreachable members again at once.
    fn reset_backoff(&self, member: ReplicaId) -> BoxFuture<()>;

    /// Why the instance stopped, if it did.
    fn fatal(&self) -> Option<String>;

    /// Stops the instance's tasks.
    fn shutdown(&self) -> BoxFuture<()>;
}

/// Builds instances.
pub(crate) trait InstanceFactory: Send + Sync + 'static {
    /// Builds an instance over a log that is open and seeded. `restore` lets a leader resume in its
    /// old term; only a first start in this process may ask for that.
    fn build(
        &self,
        replica: Arc<Replica>,
        log: Arc<RangeLog>,
        restore: bool,
    ) -> BoxFuture<Result<Arc<dyn Instance>, RaftError>>;
}

/// Kinds of transport messages. Requests are even, answers odd.
pub(crate) mod kind {
    /// Append of a pipelined stream: `life u64, stream u64, append`.
    pub(crate) const APPEND: u8 = 2;
    pub(crate) const APPEND_RESULT: u8 = 3;
    /// A single append: a heartbeat.
    pub(crate) const HEARTBEAT: u8 = 4;
    pub(crate) const HEARTBEAT_RESULT: u8 = 5;
    pub(crate) const VOTE: u8 = 6;
    pub(crate) const VOTE_RESULT: u8 = 7;
    pub(crate) const PRE_VOTE: u8 = 8;
    pub(crate) const PRE_VOTE_RESULT: u8 = 9;
    pub(crate) const TRANSFER: u8 = 10;
    pub(crate) const TRANSFER_RESULT: u8 = 11;
    pub(crate) const SNAPSHOT: u8 = 12;
    pub(crate) const SNAPSHOT_RESULT: u8 = 13;
    /// Between nodes, not groups.
    pub(crate) const LIVENESS: u8 = 14;
    /// The receiver holds no log of the range and needs a snapshot.
    pub(crate) const NEEDS_SNAPSHOT: u8 = 16;

    /// The receiver does not know the range: who leads it, or wants to, is asked where it lies.
    pub(crate) const WHO_IS_THIS: u8 = 18;
    /// The answer: the range's descriptor.
    pub(crate) const INTRODUCTION: u8 = 20;
    /// The receiver is no member any more: the range's descriptor.
    pub(crate) const GONE: u8 = 22;
    /// The sender's store was rid of the replica that the receiver, its leader, has among its members.
    pub(crate) const BURIED: u8 = 24;

    /// Between nodes: which of these ranges does the receiver lead?
    pub(crate) const WHO_LEADS: u8 = 26;
    /// The answer: of some ranges, that the sender's replica leads them, or does not, and in which term.
    pub(crate) const LEADS: u8 = 28;
    /// As [`WHO_LEADS`], of ranges that the receiver seems to lead: it says so, too, if it does not.
    pub(crate) const STILL_LEADS: u8 = 30;

    /// True for kinds that answer a call.
    pub(crate) fn is_answer(kind: u8) -> bool {
        kind % 2 == 1
    }
}

//! One openraft instance: built, watched, spoken to.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cribwork_transport::{Class, Message};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{BoxFuture, ReplicaId, StoreId};
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError as Openraft,
};
use openraft::impls::OneshotResponder;
use openraft::raft::Precondition;
use openraft::raft::{AppendEntriesRequest, ClientWriteResult, VoteRequest};
use openraft::{
    AsyncRuntime, ChangeMembers, Config, LinearizerOption, Raft, ReadPolicy, SnapshotPolicy,
};

use super::log_store::LogStore;
use super::network::NetworkFactory;
use super::state_machine::{RaftSnapshot, StateMachine, stored_membership};
use super::streams::InboundStreams;
use super::types::{self, Commands, CommittedLeaderId, OnStore, Types};
use super::{ChangeError, Instance, InstanceFactory, MembersChange, WriteError, codec, kind};
use crate::error::RaftError;
use crate::log::RangeLog;
use crate::options::MultiRaftOptions;
use crate::position::VoteRecord;
use crate::replica::Replica;
use crate::snapshot::{Complete, Taken};

pub(super) type RaftOf<A> = Raft<Types<A>, StateMachine<A>>;

/// Builds instances over openraft with async runtime `A`.
pub(crate) struct OpenraftFactory<A>(PhantomData<fn() -> A>);

impl<A> OpenraftFactory<A> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

fn config(options: &MultiRaftOptions, restore: bool) -> Result<Config, String> {
    let config = Config {
        cluster_name: "cribwork".into(),
        election_timeout_min: options.vote_timeout().as_millis() as u64,
        election_timeout_max: options.lease.as_millis() as u64,
        heartbeat_interval: options.heartbeat_timeout().as_millis() as u64,
        max_payload_entries: 256,
        // Snapshots and purges are the driver's decision: it knows bytes, openraft knows entries.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.log_entries_kept,
        purge_batch_size: 512,
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(64),
        // Per-node liveness replaces the tick of each group.
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        enable_pre_vote: Some(true),
        backoff: "20ms 40ms 80ms ...500ms".into(),
        enable_leader_restore: Some(restore),
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}

impl<A> InstanceFactory for OpenraftFactory<A>
where
    A: AsyncRuntime,
    RaftOf<A>: Send + Sync,
{
    fn build(
        &self,
        replica: Arc<Replica>,
        log: Arc<RangeLog>,
        restore: bool,
    ) -> BoxFuture<Result<Arc<dyn Instance>, RaftError>> {
        Box::pin(async move {
            let range = replica.range_id();
            let fatal = |why: String| RaftError::Fatal { range, why };
            let config = config(&replica.shared().options, restore).map_err(fatal)?;
            let raft = RaftOf::<A>::new(
                replica.replica_id().get(),
                Arc::new(config),
                NetworkFactory::<A>::new(replica.clone()),
                LogStore::<A>::new(log.clone()),
                StateMachine::<A>::new(replica.clone()),
            )
            .await
            .map_err(|error| fatal(error.to_string()))?;
            let instance =
                Arc::new(Live { raft, replica, log, streams: InboundStreams::<A>::new() });
            instance.watch_votes(restore);
            Ok(instance as Arc<dyn Instance>)
        })
    }
}

struct Live<A: AsyncRuntime> {
    raft: RaftOf<A>,
    replica: Arc<Replica>,
    log: Arc<RangeLog>,
    streams: InboundStreams<A>,
}

impl<A> Live<A>
where
    A: AsyncRuntime,
    RaftOf<A>: Send + Sync,
{
    /// Tells the replica of every vote saved from now on, until the instance stops. The vote found
    /// on disk counts only for a leader that resumes; for others it says who led in an earlier life.
    fn watch_votes(&self, restore: bool) {
        let mut votes = self.raft.watch_vote_progress();
        let replica = Arc::downgrade(&self.replica);
        let log = self.log.clone();
        let found = if restore { None } else { log.vote() };
        self.replica.shared().runtime.spawn(Box::pin(async move {
            loop {
                if let Some(replica) = replica.upgrade()
                    && let Some(vote) = log.vote()
                    && Some(vote) != found
                {
                    replica.vote_changed(vote);
                }
                if votes.changed().await.is_err() {
                    return;
                }
            }
        }));
    }

    fn answer(&self, to: StoreId, request: &Message, kind: u8, payload: Bytes) {
        let message = Message {
            range: request.range,
            from: request.to,
            to: request.from,
            kind,
            call: request.call,
            payload,
        };
        self.replica.shared().send(to, Class::Control, message);
    }

    /// Runs a request against openraft and answers it with what `run` makes of it; no answer on a
    /// fatal error or damaged bytes, so that the caller times out and tries again.
    fn respond<R, F>(&self, from: StoreId, message: Message, kind: u8, run: R)
    where
        R: FnOnce(RaftOf<A>, Bytes) -> F,
        F: Future<Output = Option<Bytes>> + Send + 'static,
    {
        let (raft, replica) = (self.raft.clone(), self.replica.clone());
        let payload = message.payload.clone();
        let work = run(raft, payload);
        replica.shared().runtime.clone().spawn(Box::pin(async move {
            let Some(payload) = work.await else { return };
            let reply = Message {
                range: message.range,
                from: message.to,
                to: message.from,
                kind,
                call: message.call,
                payload,
            };
            replica.shared().send(from, Class::Control, reply);
        }));
    }

    fn deliver_vote(&self, from: StoreId, message: Message, pre_vote: bool) {
        let Ok(mut request) = codec::decode_vote_request::<A>(message.payload.clone()) else {
            self.replica.shared().metrics.malformed_messages.inc();
            return;
        };
        let kind = if pre_vote { kind::PRE_VOTE_RESULT } else { kind::VOTE_RESULT };
        request.leadership_transfer |= has(Bug::PromiseBroken);
        let may_grant = self.replica.may_grant(message.from, request.leadership_transfer);
        // openraft would keep the promise in the round before the vote.
        if !may_grant || (pre_vote && has(Bug::PromiseBroken)) {
            let response = self.vote_response(may_grant);
            self.answer(from, &message, kind, codec::encode_vote_response::<A>(&response));
            return;
        }
        let behind = request.last_log_id < self.log.bounds().1.map(types::log_id);
        if pre_vote && behind {
            // Somebody is in a hurry whom this one cannot elect, and may succeed where that one does not.
            let replica = &self.replica;
            replica.last_wait_ms.store(replica.now_ms().max(1), Ordering::Relaxed);
        }
        self.respond(from, message, kind, move |raft, _| ask(raft, request, pre_vote));
    }

    /// Collects a chunk; the last one installs the snapshot. Whatever goes wrong is answered with
    /// nothing, so that the sender starts over at once.
    fn deliver_snapshot(&self, from: StoreId, message: Message) {
        let replica = self.replica.clone();
        let complete = match replica.shared().incoming.take(from, &message, &replica) {
            Ok(Taken::Part) => return,
            Ok(Taken::Accepted) => {
                let yes = Bytes::from_static(&[1]);
                return self.answer(from, &message, kind::SNAPSHOT_RESULT, yes);
            }
            Ok(Taken::Whole(complete)) => *complete,
            Err(why) => {
                let (range, metrics) = (message.range, &replica.shared().metrics);
                tracing::warn!(%range, store = %from, why, "snapshot refused");
                metrics.snapshots_refused.inc();
                return self.answer(from, &message, kind::SNAPSHOT_RESULT, Bytes::new());
            }
        };
        self.respond(from, message, kind::SNAPSHOT_RESULT, move |raft, _| async move {
            Some(install(raft, complete).await.unwrap_or_default())
        });
    }

    fn vote_response(&self, granted: bool) -> openraft::raft::VoteResponse<Types<A>> {
        let vote = types::vote(self.vote());
        let last = self.log.bounds().1.map(types::log_id);
        openraft::raft::VoteResponse::new(vote, last, granted)
    }
}

async fn ask<A: AsyncRuntime>(
    raft: RaftOf<A>,
    request: VoteRequest<Types<A>>,
    pre_vote: bool,
) -> Option<Bytes> {
    let response = match pre_vote {
        true => raft.pre_vote(request).await,
        false => raft.vote(request).await,
    };
    response.ok().map(|response| codec::encode_vote_response::<A>(&response))
}

async fn install<A: AsyncRuntime>(raft: RaftOf<A>, complete: Complete) -> Option<Bytes> {
    let vote = codec::decode_vote(complete.header).ok()?;
    let meta = openraft::SnapshotMeta {
        last_log_id: complete.applied.position.map(types::log_id),
        last_membership: stored_membership(&complete.applied),
    };
    let snapshot = RaftSnapshot { meta, snapshot: complete.data };
    let response = raft.install_full_snapshot(vote, snapshot).await.ok()?;
    Some(codec::encode_vote(&response.vote))
}

async fn append_one<A: AsyncRuntime>(raft: RaftOf<A>, payload: Bytes) -> Option<Bytes> {
    let request: AppendEntriesRequest<Types<A>> = codec::decode_append(payload).ok()?;
    let prev = request.prev_log_id;
    let last = request.entries.last().map(|entry| entry.log_id).or(prev);
    let response = raft.append_entries(request).await.ok()?;
    if response.is_conflict() && prev.is_none() {
        return None;
    }
    Some(codec::encode_append_result::<A>(&response.into_stream_result(prev, last)))
}

/// Takes a snapshot position at `applied`, and cuts the log up to `upto`.
async fn purge<A: AsyncRuntime>(raft: RaftOf<A>, applied: u64, upto: Option<u64>) {
    let _ = raft.trigger().snapshot().await;
    let Some(upto) = upto else { return };
    let mut done = raft.watch_snapshot_progress();
    if done.wait_until(|at| at.is_some_and(|at| at.index >= applied)).await.is_ok() {
        let _ = raft.trigger().purge_log(upto).await;
    }
}

fn ids(replicas: BTreeSet<ReplicaId>) -> BTreeSet<u64> {
    replicas.into_iter().map(ReplicaId::get).collect()
}

fn changes(change: MembersChange) -> ChangeMembers<u64, OnStore> {
    match change {
        MembersChange::AddLearner(id, store) => {
            ChangeMembers::AddNodes([(id.get(), OnStore(store))].into())
        }
        MembersChange::Voters { incoming, outgoing, learners } => ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(ids(incoming)),
            ChangeMembers::RemoveVoters(ids(outgoing)),
            ChangeMembers::RemoveNodes(ids(learners)),
        ]),
        // No change of its own: openraft takes the next step from a joint membership.
        MembersChange::Flatten => ChangeMembers::AddVoterIds(BTreeSet::new()),
    }
}

fn change_refused<A: AsyncRuntime>(error: &ClientWriteError<Types<A>>) -> ChangeError {
    use openraft::errors::ChangeMembershipError as Change;
    match error {
        ClientWriteError::ForwardToLeader(forward) => ChangeError::Write(refused(forward)),
        ClientWriteError::ChangeMembershipError(Change::InProgress(_)) => {
            ChangeError::Refused("an earlier change is not committed yet")
        }
        ClientWriteError::ChangeMembershipError(Change::EmptyMembership(_)) => {
            ChangeError::Refused("the last voter stays")
        }
        ClientWriteError::ChangeMembershipError(_) => {
            ChangeError::Refused("it does not follow from the members now")
        }
        // What was appended may still be committed, by another leader.
        _ => ChangeError::Write(WriteError::Discarded),
    }
}

fn refused<A: AsyncRuntime>(forward: &ForwardToLeader<Types<A>>) -> WriteError {
    match forward.reason {
        ForwardReason::LeaseExpired => WriteError::LeaseExpired,
        _ => WriteError::NotLeader,
    }
}

impl<A> Instance for Live<A>
where
    A: AsyncRuntime,
    RaftOf<A>: Send + Sync,
{
    fn vote(&self) -> VoteRecord {
        let unvoted =
            VoteRecord { term: 0, candidate: self.replica.replica_id(), committed: false };
        self.log.vote().unwrap_or(unvoted)
    }

    fn write(&self, term: u64, payload: Bytes) -> BoxFuture<Result<(), WriteError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let (responder, answer) =
                OneshotResponder::<Types<A>, ClientWriteResult<Types<A>>>::new_pair();
            let mut write = raft.write(Commands(payload));
            if !has(Bug::StaleEvaluation) {
                write = write.with_leader(CommittedLeaderId::new(term));
            }
            write
                .responder(responder)
                .await
                .map_err(|fatal| WriteError::Fatal(fatal.to_string()))?;
            match answer.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(refused(&forward)),
                Ok(Err(_)) => Err(WriteError::Discarded),
                Err(_) => Err(WriteError::Fatal("the instance stopped".into())),
            }
        })
    }

    fn confirm(&self, limit: Duration) -> BoxFuture<Result<u64, WriteError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(limit);
            match raft.ensure_linearizable(option).await {
                Ok(read) => Ok(read.committed_leader_id().term),
                Err(Openraft::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    Err(refused(&forward))
                }
                Err(Openraft::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                    Err(WriteError::LeaseExpired)
                }
                Err(Openraft::Fatal(fatal)) => Err(WriteError::Fatal(fatal.to_string())),
            }
        })
    }

    fn deliver(&self, from: StoreId, message: Message) {
        match message.kind {
            kind::APPEND => {
                let shared = self.replica.shared().clone();
                self.streams.push(&shared, &self.raft, from, message);
            }
            kind::HEARTBEAT => {
                self.respond(from, message, kind::HEARTBEAT_RESULT, append_one::<A>);
            }
            kind::VOTE => self.deliver_vote(from, message, false),
            kind::PRE_VOTE => self.deliver_vote(from, message, true),
            kind::TRANSFER => {
                self.respond(from, message, kind::TRANSFER_RESULT, |raft, payload| async move {
                    let request = codec::decode_transfer::<A>(payload).ok()?;
                    let accepted = raft.handle_transfer_leader(request).await.ok()?.is_ok();
                    Some(codec::encode_flag(accepted))
                });
            }
            kind::SNAPSHOT => self.deliver_snapshot(from, message),
            _ => {
                self.replica.shared().metrics.malformed_messages.inc();
            }
        }
    }

    fn campaign(&self) -> BoxFuture<()> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let _ = raft.trigger().elect(!has(Bug::NoPreVote)).await;
        })
    }

    fn heartbeat(&self) -> BoxFuture<()> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let _ = raft.trigger().heartbeat().await;
        })
    }

    fn transfer(&self, to: ReplicaId) -> BoxFuture<()> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let _ = raft.trigger().transfer_leader(to.get()).await;
        })
    }

    fn change_members(
        &self,
        term: u64,
        change: MembersChange,
    ) -> BoxFuture<Result<(), ChangeError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let committed_leader_id = CommittedLeaderId::new(term);
            let only_in_term = [Precondition::CommittedLeaderId { committed_leader_id }];
            match raft.change_membership_if(changes(change), false, only_in_term).await {
                Ok(_) => Ok(()),
                Err(Openraft::APIError(error)) => Err(change_refused(&error)),
                Err(Openraft::Fatal(fatal)) => {
                    Err(ChangeError::Write(WriteError::Fatal(fatal.to_string())))
                }
            }
        })
    }

    fn votes(&self) -> bool {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.raft.metrics();
        let state = metrics.borrow_watched();
        let me = self.replica.replica_id().get();
        state.membership_config.voter_ids().any(|voter| voter == me)
    }

    fn matched(&self, member: ReplicaId) -> Option<u64> {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.raft.data_metrics();
        let data = metrics.borrow_watched();
        let members = data.replication.as_ref()?;
        let (_, matched) = members.iter().find(|(id, _)| **id == member.get())?;
        matched.as_ref().map(|at| at.index)
    }

    fn caught_up(&self, target: ReplicaId) -> bool {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.raft.data_metrics();
        let data = metrics.borrow_watched();
        let matched = data.replication.as_ref().and_then(|members| {
            members.iter().find(|(id, _)| **id == target.get()).and_then(|(_, matched)| *matched)
        });
        matched >= data.local_committed && matched.is_some()
    }

    fn cut_log(&self, keep: u64) -> BoxFuture<()> {
        let applied = self.replica.applied_index();
        Box::pin(purge(self.raft.clone(), applied, applied.checked_sub(keep)))
    }

    fn cut_first(&self) -> BoxFuture<()> {
        let nothing_cut = self.log.bounds().0.is_none();
        Box::pin(purge(self.raft.clone(), self.replica.applied_index(), nothing_cut.then_some(0)))
    }

    fn reset_backoff(&self, member: ReplicaId) -> BoxFuture<()> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let _ = raft.trigger().reset_backoff([member.get()]).await;
        })
    }

    fn fatal(&self) -> Option<String> {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.raft.metrics();
        let state = metrics.borrow_watched();
        state.running_state.as_ref().err().map(ToString::to_string)
    }

    fn shutdown(&self) -> BoxFuture<()> {
        self.streams.clear();
        let raft = self.raft.clone();
        Box::pin(async move {
            let _ = raft.shutdown().await;
        })
    }
}

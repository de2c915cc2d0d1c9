//! What a node makes of what it finds on its disk.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests unwrap")]

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_engine::{LogWriterMetrics, LogWriterOptions, MemoryEngine};
use cribwork_types::ReplicaRole;
use prometheus_client::registry::Registry;

use super::*;
use crate::log::tests::OneThread;
use crate::observer::NoObserver;
use crate::position::VoteRecord;
use crate::raft::kind;
use crate::records::encode_vote;
use crate::seed::put_record;

fn open(engine: Arc<MemoryEngine>, store: StoreId) -> MultiRaft {
    let runtime = Arc::new(OneThread);
    let writer = LogWriter::start(
        engine.clone(),
        runtime.clone(),
        LogWriterOptions::default(),
        LogWriterMetrics::register(&mut Registry::default()),
        Arc::new(|error| panic!("{error}")),
    );
    let metrics = MultiRaftMetrics::register(&mut Registry::default());
    let parts = NodeParts { engine, writer, runtime, observer: Arc::new(NoObserver), metrics };
    MultiRaft::open(MultiRaftOptions::new(store), parts).unwrap()
}

const RANGE: RangeId = RangeId(7);

fn member(id: u64, store: u64) -> ReplicaDescriptor {
    ReplicaDescriptor { id: ReplicaId(id), store: StoreId(store), role: ReplicaRole::Voter }
}

/// Store 2 of a range on two stores, which has stored the vote that made replica 71 on store 1 leader of
/// term 5.
fn follower(initialised: bool) -> MultiRaft {
    let replicas = vec![member(71, 1), member(72, 2)];
    let descriptor = RangeDescriptor { id: RANGE, replicas, ..RangeDescriptor::default() };
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    put_record(&mut batch, &ReplicaRecord { id: ReplicaId(72), initialised, descriptor });
    let vote = VoteRecord { term: 5, candidate: ReplicaId(71), committed: true };
    batch.put(Cf::Raft, keys::vote(RANGE), encode_vote(vote));
    engine.write(&batch).unwrap();
    open(engine, StoreId(2))
}

fn led_by(multi: &MultiRaft) -> (u64, Option<ReplicaId>) {
    let view = multi.replica(RANGE).unwrap().leader();
    (view.term, view.leader.map(|it| it.id))
}

/// A message of store 1.
fn tell(multi: &MultiRaft, kind: u8, payload: Bytes) {
    let (range, nobody) = (RangeId::PLACEMENT, ReplicaId(0));
    let message = Message { range, from: nobody, to: nobody, kind, call: 0, payload };
    Inbound { shared: multi.shared.clone() }.on_message(StoreId(1), message);
}

/// Store 1 is alive, and has said that its replica leads in term 7.
fn led_in_term_7() -> MultiRaft {
    let multi = follower(true);
    assert!(!multi.replica(RANGE).unwrap().has_live_leader(), "not heard of yet");
    tell(&multi, kind::LIVENESS, multi.shared.liveness.ping());
    tell(&multi, kind::LEADS, claim(71, 7));
    assert_eq!(led_by(&multi), (7, Some(ReplicaId(71))));
    assert!(multi.replica(RANGE).unwrap().has_live_leader());
    multi
}

fn claim(leader: u64, term: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(1);
    [RANGE.get(), leader, term].iter().for_each(|number| out.put_u64(*number));
    out.freeze()
}

/// A snapshot is preceded by its leader's vote. If the power goes in between, the vote is all there is, and
/// the leader does not repeat it: it sees one that has it already.
#[tokio::test]
async fn a_replica_without_data_remembers_whom_it_follows() {
    assert_eq!(led_by(&follower(false)), (5, Some(ReplicaId(71))));
}

/// The simulator's seeds 57 and 163: a vote for a candidate of an earlier term came after the leader's store
/// had told of a later one.
#[tokio::test]
async fn a_late_vote_hides_no_newer_leader() {
    let multi = led_in_term_7();
    let late = VoteRecord { term: 6, candidate: ReplicaId(72), committed: false };
    multi.replica(RANGE).unwrap().vote_changed(late);
    assert_eq!(led_by(&multi), (7, Some(ReplicaId(71))));
    multi.replica(RANGE).unwrap().vote_changed(VoteRecord { term: 8, ..late });
    assert_eq!(led_by(&multi), (8, None));
}

/// Else nobody would be elected with the vote of a member that was away while its leader was deposed.
#[tokio::test]
async fn who_leads_no_more_says_so() {
    let multi = led_in_term_7();
    tell(&multi, kind::LEADS, claim(0, 7));
    assert!(multi.replica(RANGE).unwrap().has_live_leader(), "it has nothing newer to tell");
    tell(&multi, kind::LEADS, claim(0, 8));
    assert!(!multi.replica(RANGE).unwrap().has_live_leader());
    assert_eq!(led_by(&multi), (7, None));
}

/// A follower with a slow disk may answer an append after its leader's store was restarted. Simulator, seed
/// 186: the new life took it for the answer to a question of its own, about another range, which had the same
/// number.
#[tokio::test]
async fn an_answer_to_an_earlier_life_finds_nobody() {
    let store_1 = || open(MemoryEngine::new(), StoreId(1));
    let (asked, _) = store_1().shared.calls.open(StoreId(2), Duration::ZERO);
    let multi = store_1();
    let mut asked_now: Vec<_> =
        (0..1000).map(|_| multi.shared.calls.open(StoreId(2), Duration::ZERO)).collect();
    let (range, payload) = (RangeId::PLACEMENT, Bytes::from_static(b"late"));
    let (from, to) = (ReplicaId(0), ReplicaId(0));
    let late = Message { range, from, to, kind: kind::APPEND_RESULT, call: asked, payload };
    Inbound { shared: multi.shared.clone() }.on_message(StoreId(2), late);
    for (_, answer) in &mut asked_now {
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }
}

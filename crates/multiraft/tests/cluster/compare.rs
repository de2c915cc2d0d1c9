//! Stopped stores: brought up to each other in memory, and compared.

use std::sync::Arc;

use cribwork_engine::{Engine, MemoryEngine};
use cribwork_multiraft::{Comparison, NewRange, Outcome, RangeComparison, StoreView, compare};
use cribwork_types::{Cf, KeyRange, RangeId, ReplicaId, StoreId, WriteBatch};

use crate::harness::{Cluster, RANGE, bound, one_put, stores};

const RIGHT: RangeId = RangeId(2);

type Stopped = Vec<(StoreId, Arc<MemoryEngine>)>;

/// Three stopped stores; the one that is returned heard nothing of a split and of the puts around it.
async fn stopped_with_one_behind() -> (Stopped, StoreId) {
    let mut cluster = Cluster::start().await;
    for name in ["a", "z"] {
        cluster.put(RANGE, name, "first").await;
    }
    cluster.settle(RANGE).await;
    let leader = cluster.leader(RANGE).await;
    let leads = |store: &StoreId| cluster.replica(*store, RANGE).unwrap().leader().is_self;
    let late = stores().into_iter().find(|store| !leads(store)).unwrap();
    cluster.wire.isolate(late);
    cluster.put(RANGE, "b", "second").await;
    cluster.put(RANGE, "y", "second").await;
    let replicas = stores().map(|store| (store, ReplicaId(store.get() + 200))).to_vec();
    let token = leader.token().await.unwrap();
    let right = NewRange { id: RIGHT, replicas };
    leader.split(&token, bound("m"), right).await.unwrap();
    cluster.put(RANGE, "a", "third").await;
    cluster.put(RIGHT, "z", "third").await;
    // What was applied last may not be on disk: that is what a power cut leaves.
    (stores().map(|store| (store, cluster.kill(store))).to_vec(), late)
}

fn compared(stopped: &Stopped) -> Comparison {
    let views: Vec<_> = stopped.iter().map(|(store, engine)| (*store, engine.snapshot())).collect();
    let views: Vec<_> =
        views.iter().map(|(store, view)| StoreView { store: *store, snapshot: &**view }).collect();
    compare(&views).unwrap()
}

fn of(comparison: &Comparison, range: RangeId) -> &RangeComparison {
    comparison.ranges.iter().find(|it| it.range == range).expect("the range")
}

fn engine(stopped: &Stopped, store: StoreId) -> &MemoryEngine {
    &stopped.iter().find(|(other, _)| *other == store).unwrap().1
}

#[tokio::test]
async fn a_store_that_slept_through_a_split_is_brought_up_and_equal() {
    let (stopped, late) = stopped_with_one_behind().await;
    let comparison = compared(&stopped);
    assert_eq!(comparison.ranges.len(), 2);
    for range in &comparison.ranges {
        assert_eq!(range.outcome, Outcome::Equal, "{range:?}");
        assert_eq!(range.replicas.len(), 3, "{range:?}");
        let prints =
            range.replicas.iter().map(|it| (&it.fingerprint.descriptor, it.fingerprint.hash));
        assert!(prints.clone().all(|it| Some(it) == prints.clone().next()), "{range:?}");
    }
    let replica = |range| {
        let range = of(&comparison, range);
        range.replicas.iter().find(|it| it.store == late).unwrap()
    };
    assert!(replica(RANGE).replayed >= 4, "{comparison:?}");
    assert_eq!(replica(RIGHT).applied_index, None, "made by the split that was replayed");
    assert_eq!(of(&comparison, RANGE).replicas[0].fingerprint.rows(), 2);
    assert_eq!(of(&comparison, RIGHT).replicas[0].fingerprint.rows(), 2);
}

#[tokio::test]
async fn any_row_that_differs_is_found_and_named() {
    let (stopped, late) = stopped_with_one_behind().await;
    let mut delete = WriteBatch::new();
    delete.delete(Cf::Raw, "y");
    // Another value, a row too many, and one that is gone: on the right side of the split.
    let mistakes = [
        (one_put("z", "fourth"), "7a: 5 bytes against 6 bytes"),
        (one_put("zz", "x"), "7a7a: nothing against 1 bytes"),
        (delete, "79: 6 bytes against nothing"),
    ];
    for (mistake, words) in mistakes {
        let damaged = stores().into_iter().rev().find(|store| *store != late).unwrap();
        let stopped: Stopped =
            stopped.iter().map(|(store, engine)| (*store, engine.crash())).collect();
        engine(&stopped, damaged).write(&mistake).unwrap();
        let comparison = compared(&stopped);
        assert_eq!(of(&comparison, RANGE).outcome, Outcome::Equal);
        match &of(&comparison, RIGHT).outcome {
            Outcome::Different(said) => {
                assert!(said.contains(words) && said.contains("family raw"), "{said}");
            }
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn without_a_log_that_goes_on_nothing_is_claimed() {
    let (stopped, late) = stopped_with_one_behind().await;
    let mut cut = WriteBatch::new();
    cut.delete_range(Cf::Raft, KeyRange::all());
    for store in stores().into_iter().filter(|store| *store != late) {
        engine(&stopped, store).write(&cut).unwrap();
    }
    let comparison = compared(&stopped);
    // Which store is named depends on how far the crash has let the two others come.
    for (range, reasons) in
        [(RANGE, &["no log has all"][..]), (RIGHT, &["no log has all", "holds nothing of it yet"])]
    {
        match &of(&comparison, range).outcome {
            Outcome::NotCompared(said) => {
                assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
            }
            other => panic!("{range}: {other:?}"),
        }
    }
    let late = of(&comparison, RANGE).replicas.iter().find(|it| it.store == late).unwrap();
    assert_eq!(late.replayed, 0, "{comparison:?}");

    let alone = compared(&stopped[..1].to_vec());
    let said = |it: &RangeComparison| matches!(it.outcome, Outcome::NotCompared(_));
    assert!(alone.ranges.iter().all(said), "one store proves nothing: {alone:?}");
}

//! Latches one poll at a time, and many at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;

type Pending = Pin<Box<dyn Future<Output = Result<Held, TooManyWaiters>> + Send>>;

fn acquire(latches: &Arc<Latches>, slots: &[u64]) -> Pending {
    let (latches, slots) = (latches.clone(), slots.to_vec());
    Box::pin(async move { latches.acquire(slots).await })
}

fn poll(pending: &mut Pending) -> Option<Held> {
    match pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(held) => Some(held.unwrap()),
        Poll::Pending => None,
    }
}

fn is_idle(latches: &Latches) -> bool {
    latches.waiters.load(Ordering::Relaxed) == 0
        && latches.shards.iter().all(|shard| shard.lock().is_empty())
}

#[test]
fn a_slot_has_one_owner_and_is_handed_on_in_order_of_arrival() {
    let latches = Latches::new(8);
    let first = poll(&mut acquire(&latches, &[1])).unwrap();
    let (mut second, mut third) = (acquire(&latches, &[1]), acquire(&latches, &[1]));
    assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
    assert!(poll(&mut acquire(&latches, &[2])).is_some(), "another slot is free");
    drop(first);
    assert!(poll(&mut third).is_none(), "the second was there before");
    let second = poll(&mut second).unwrap();
    assert!(poll(&mut third).is_none());
    drop(second);
    drop(poll(&mut third).unwrap());
    assert!(is_idle(&latches));
}

#[test]
fn a_dropped_waiter_loses_no_turn() {
    let latches = Latches::new(8);
    // Dropped while it waits: the one behind it comes next.
    let first = poll(&mut acquire(&latches, &[1])).unwrap();
    let (mut second, mut third) = (acquire(&latches, &[1]), acquire(&latches, &[1]));
    assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
    drop(second);
    drop(first);
    let first = poll(&mut third).unwrap();
    // Dropped after the slot was handed to it, before it noticed.
    let (mut second, mut third) = (acquire(&latches, &[1]), acquire(&latches, &[1]));
    assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
    drop(first);
    drop(second);
    drop(poll(&mut third).unwrap());
    assert!(is_idle(&latches));
}

#[test]
fn a_dropped_waiter_gives_up_what_it_holds_already() {
    let latches = Latches::new(8);
    let second = poll(&mut acquire(&latches, &[2])).unwrap();
    let mut both = acquire(&latches, &[2, 1, 1]);
    assert!(poll(&mut both).is_none());
    let mut first = acquire(&latches, &[1]);
    assert!(poll(&mut first).is_none(), "slot 1 is held by the one that waits for slot 2");
    drop(both);
    assert!(poll(&mut first).is_some());
    drop((first, second));
    assert!(is_idle(&latches));
}

#[test]
fn waiting_is_bounded() {
    let latches = Latches::new(1);
    let first = poll(&mut acquire(&latches, &[1])).unwrap();
    let mut second = acquire(&latches, &[1]);
    assert!(poll(&mut second).is_none());
    let mut third = acquire(&latches, &[0, 1]);
    let refused = third.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(refused, Poll::Ready(Err(TooManyWaiters))));
    drop((first, second, third));
    assert!(is_idle(&latches));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_over_few_slots_exclude_each_other_and_all_finish() {
    let latches = Latches::new(1000);
    let inside: Arc<Vec<AtomicUsize>> = Arc::new((0..5).map(|_| AtomicUsize::new(0)).collect());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200_usize {
        let (latches, inside) = (latches.clone(), inside.clone());
        tasks.spawn(async move {
            // Named in any order, and some of them given up half-way.
            let slots = [number % 5, (number * 3 + 1) % 5, (number * 7 + 2) % 5];
            let taking = latches.acquire(slots.iter().map(|slot| *slot as u64).collect());
            let held = if number % 4 == 0 {
                tokio::select! { biased; held = taking => held, () = tokio::task::yield_now() => return }
            } else {
                taking.await
            };
            let _held = held.unwrap();
            let mut unique = slots.to_vec();
            unique.sort_unstable();
            unique.dedup();
            for slot in &unique {
                assert_eq!(inside[*slot].fetch_add(1, Ordering::SeqCst), 0);
            }
            tokio::task::yield_now().await;
            for slot in &unique {
                inside[*slot].fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(is_idle(&latches));
}

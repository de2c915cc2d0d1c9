//! Load through the foreign client while leaders move and ranges split: it must not notice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cribwork_tests::{Cluster, Load, Pulse};
use tikv_client::{Key, Transaction, TransactionClient, TransactionOptions};

use super::{begin, raw_client, txn_client};

const RAW_TASKS: u8 = 3;
const TXN_TASKS: u64 = 3;
const CAS_TASKS: u64 = 2;
const ROUNDS: usize = 16;
const ACCOUNTS: u64 = 12;
const OPENING: u64 = 100;

/// Choices that look random and are the same in every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

/// One task's own keys, which begin with `t` and its number.
fn raw_key(task: u8, spread: u8) -> Vec<u8> {
    vec![b't', task, spread]
}

#[track_caller]
fn assert_same(found: &BTreeMap<Vec<u8>, Vec<u8>>, model: &BTreeMap<Vec<u8>, Vec<u8>>, round: u64) {
    let keys: BTreeSet<_> = found.keys().chain(model.keys()).collect();
    let wrong = keys.into_iter().filter(|key| found.get(*key) != model.get(*key));
    let wrong: Vec<_> = wrong.map(|key| (key, found.get(key), model.get(key))).collect();
    assert!(wrong.is_empty(), "round {round}, key, found, expected: {wrong:?}");
}

/// Writes and reads keys that nobody else writes, and compares with what it wrote.
async fn raw_task(endpoints: Vec<String>, task: u8, pulse: Pulse) {
    let client = raw_client(endpoints).await;
    let mut choices = Choices(u64::from(task));
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0_u64.. {
        if !pulse.goes_on() {
            break;
        }
        let (key, value) = (raw_key(task, choices.byte()), round.to_be_bytes().to_vec());
        match choices.below(10) {
            0..=2 => {
                client.put(key.clone(), value.clone()).await.unwrap();
                model.insert(key, value);
            }
            3 => {
                client.delete(key.clone()).await.unwrap();
                model.remove(&key);
            }
            4 | 5 => {
                let pairs: BTreeMap<_, _> =
                    (0..20).map(|_| (raw_key(task, choices.byte()), value.clone())).collect();
                client.batch_put(pairs.clone()).await.unwrap();
                model.extend(pairs);
            }
            6 => {
                let end = match key[2].checked_add(8) {
                    Some(end) => raw_key(task, end),
                    None => vec![b't', task + 1],
                };
                client.delete_range(key.clone()..end.clone()).await.unwrap();
                model.retain(|stored, _| *stored < key || *stored >= end);
            }
            7 => {
                let found =
                    client.scan(raw_key(task, 0)..vec![b't', task + 1], 1000).await.unwrap();
                let found = found.into_iter().map(|pair| (Vec::from(pair.0), pair.1)).collect();
                assert_same(&found, &model, round);
            }
            _ => {
                let found = client.get(key.clone()).await.unwrap();
                assert_eq!(found.as_ref(), model.get(&key), "round {round}, key {key:?}");
            }
        }
        pulse.beat();
    }
}

/// The values from which a swap has succeeded: each may serve once.
type Swapped = Arc<Mutex<HashSet<Option<Vec<u8>>>>>;

/// Swaps one key, that others swap too, to values that nobody else writes.
async fn cas_task(endpoints: Vec<String>, task: u64, swapped: Swapped, pulse: Pulse) {
    let client = raw_client(endpoints).await.with_atomic_for_cas();
    let mut known = None;
    for round in 0.. {
        if !pulse.goes_on() {
            break;
        }
        let mine = format!("{task}/{round}").into_bytes();
        let swap = client.compare_and_swap("swapped".to_owned(), known.clone(), mine.clone());
        let (found, succeeded) = swap.await.unwrap();
        if succeeded {
            let first = swapped.lock().unwrap().insert(known.clone());
            assert!(first, "two swaps have succeeded from the same value {known:?}");
            pulse.beat();
        }
        known = if succeeded { Some(mine) } else { found };
    }
}

fn account(number: u64) -> Vec<u8> {
    [&[(number * 256 / ACCOUNTS) as u8], format!("account/{number}").as_bytes()].concat()
}

fn balance(value: Option<Vec<u8>>) -> u64 {
    u64::from_be_bytes(value.expect("an account").try_into().unwrap())
}

/// Whether a transaction may fail so: it lost to another one, or met a lock whose owner was slow.
/// That a reader is told `txn_not_found` is how this client handles a secondary lock that it meets
/// before the primary one.
fn is_contention(error: &tikv_client::Error) -> bool {
    let words = format!("{error:?}");
    ["conflict: Some", "txn_not_found: Some", "TxnNotFound", "ResolveLockError"]
        .iter()
        .any(|word| words.contains(word))
}

async fn transfer(txn: &mut Transaction, choices: &mut Choices) -> tikv_client::Result<()> {
    let from = choices.below(ACCOUNTS);
    let to = (from + 1 + choices.below(ACCOUNTS - 1)) % ACCOUNTS;
    let source = balance(txn.get(account(from)).await?);
    let target = balance(txn.get(account(to)).await?);
    let amount = choices.below(10).min(source);
    txn.put(account(from), (source - amount).to_be_bytes().to_vec()).await?;
    txn.put(account(to), (target + amount).to_be_bytes().to_vec()).await?;
    txn.commit().await.map(|_| ())
}

/// Moves money between accounts that others use too.
async fn txn_task(endpoints: Vec<String>, task: u64, pulse: Pulse) {
    let client = txn_client(endpoints).await;
    let mut choices = Choices(task);
    while pulse.goes_on() {
        let mut txn = begin(&client).await;
        match transfer(&mut txn, &mut choices).await {
            Ok(()) => pulse.beat(),
            Err(error) => {
                assert!(is_contention(&error), "{error:?}");
                // It may have ended; then there is nothing to roll back.
                let _ = txn.rollback().await;
            }
        }
    }
}

async fn total(client: &TransactionClient) -> tikv_client::Result<u64> {
    let now = client.current_timestamp().await?;
    let mut snapshot = client.snapshot(now, TransactionOptions::new_optimistic());
    let found = snapshot.batch_get((0..ACCOUNTS).map(account).map(Key::from)).await?;
    Ok(found.map(|pair| balance(Some(pair.1))).sum())
}

/// Adds up all accounts at one time after the other.
async fn total_task(endpoints: Vec<String>, pulse: Pulse) {
    let client = txn_client(endpoints).await;
    while pulse.goes_on() {
        match total(&client).await {
            Ok(total) => {
                assert_eq!(total, ACCOUNTS * OPENING, "a snapshot is of one moment");
                pulse.beat();
            }
            Err(error) => assert!(is_contention(&error), "{error:?}"),
        }
    }
}

async fn open_accounts(endpoints: Vec<String>) {
    let mut txn = begin(&txn_client(endpoints).await).await;
    for number in 0..ACCOUNTS {
        txn.put(account(number), OPENING.to_be_bytes().to_vec()).await.unwrap();
    }
    txn.commit().await.unwrap();
}

/// Moves a leader and splits a range; gives whether the leader has moved. The schedulers move leaders
/// too, so that a move may find another one under way.
fn disturb(cluster: &Cluster, round: usize, choices: &mut Choices) -> bool {
    let key = match round % 4 {
        0 => account(choices.below(ACCOUNTS)),
        task => raw_key(task as u8 - 1, choices.byte()),
    };
    let hex: String = key.iter().chain(&[round as u8]).map(|byte| format!("{byte:02x}")).collect();
    cluster.run(&["split", &format!("0x{hex}")]).ok();
    let ranges = cluster.json(&["ranges"]);
    let ranges = ranges.as_array().expect("a list");
    let range = &ranges[choices.below(ranges.len() as u64) as usize];
    let to = range["leader_store"].as_u64().unwrap() % 3 + 1;
    let moved = cluster.run(&["transfer-leader", &range["id"].to_string(), &to.to_string()]);
    if moved.code != Some(0) {
        eprintln!("{moved:?}");
    }
    moved.code == Some(0)
}

#[test]
fn clients_notice_neither_moving_leaders_nor_splits() {
    let cluster = Cluster::with_ranges(3, 4);
    let mut load = Load::new();
    load.block_on(open_accounts(cluster.endpoints()));
    let swapped = Swapped::default();
    for task in 0..RAW_TASKS {
        load.spawn(|pulse| raw_task(cluster.endpoints(), task, pulse));
    }
    for task in 0..CAS_TASKS {
        load.spawn(|pulse| cas_task(cluster.endpoints(), task, swapped.clone(), pulse));
    }
    for task in 0..TXN_TASKS {
        load.spawn(|pulse| txn_task(cluster.endpoints(), task, pulse));
    }
    load.spawn(|pulse| total_task(cluster.endpoints(), pulse));

    let mut choices = Choices(42);
    let mut moved = 0;
    for round in 0..ROUNDS {
        load.wait_for(20, Duration::from_secs(30));
        moved += usize::from(disturb(&cluster, round, &mut choices));
    }
    load.wait_for(50, Duration::from_secs(30));
    load.finish();
    assert!(moved * 2 > ROUNDS, "{moved} of {ROUNDS} leaders have moved on command");
    assert!(swapped.lock().unwrap().len() > 10, "swaps have succeeded");
    let status = cluster.json(&["status"]);
    assert!(status["ranges"].as_u64() > Some(ROUNDS as u64), "ranges have split: {status}");
    eprintln!("{} calls, {moved} moves, {} ranges", load.done(), status["ranges"]);
}

//! The Rust client of TiKV (`tikv-client`), as it is published, against our nodes.

use std::time::Duration;

use cribwork_tests::{Cluster, Load};
use tikv_client::{
    CheckLevel, Config, Key, KvPair, RawClient, TimestampExt, Transaction, TransactionClient,
    TransactionOptions,
};

mod load;

/// The client gives up an attempt after 2 s by default and makes another while the first may still
/// take effect; a busy machine must not bring that about.
fn config() -> Config {
    Config::default().with_timeout(Duration::from_secs(10))
}

async fn raw_client(endpoints: Vec<String>) -> RawClient {
    RawClient::new_with_config(endpoints, config()).await.unwrap()
}

async fn txn_client(endpoints: Vec<String>) -> TransactionClient {
    TransactionClient::new_with_config(endpoints, config()).await.unwrap()
}

async fn begin(client: &TransactionClient) -> Transaction {
    let options = TransactionOptions::new_optimistic().drop_check(CheckLevel::None);
    client.begin_with_options(options).await.unwrap()
}

/// A key in every one of 8 ranges.
fn key(number: u8) -> Vec<u8> {
    [&[number.wrapping_mul(0x20)], format!("tikv/{number}").as_bytes()].concat()
}

fn numbers(pairs: impl IntoIterator<Item = KvPair>) -> Vec<u8> {
    pairs.into_iter().map(|pair| pair.1[0]).collect()
}

#[test]
fn every_call_works_over_many_ranges() {
    let cluster = Cluster::with_ranges(3, 8);
    let clients = Load::new();
    clients.block_on(raw_calls(cluster.endpoints()));
    clients.block_on(compare_and_swap(cluster.endpoints()));
    clients.block_on(transactions(cluster.endpoints()));
    clients.block_on(conflicts(cluster.endpoints()));
    clients.block_on(unsupported(cluster.endpoints()));
}

async fn raw_calls(endpoints: Vec<String>) {
    let client = raw_client(endpoints).await;
    assert_eq!(client.get(key(0)).await.unwrap(), None);
    client.put(key(0), "").await.unwrap();
    assert_eq!(client.get(key(0)).await.unwrap(), Some(Vec::new()), "an empty value is a value");
    client.batch_put((0..8).map(|n| (key(n), vec![n]))).await.unwrap();
    assert_eq!(client.get(key(5)).await.unwrap(), Some(vec![5]));
    let mut some = numbers(client.batch_get([key(1), key(7), b"absent".to_vec()]).await.unwrap());
    some.sort_unstable();
    assert_eq!(some, [1, 7]);

    let all = || key(0)..b"\xFF\xFF".to_vec();
    assert_eq!(numbers(client.scan(all(), 100).await.unwrap()), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(numbers(client.scan(all(), 3).await.unwrap()), [0, 1, 2]);
    assert_eq!(numbers(client.scan(key(2)..=key(4), 100).await.unwrap()), [2, 3, 4]);
    // Over one range only: the client walks upwards even in reverse.
    assert_eq!(numbers(client.scan_reverse(key(3)..=key(3), 100).await.unwrap()), [3]);
    let keys: Vec<Key> = client.scan_keys(key(6)..=key(7), 100).await.unwrap();
    assert_eq!(keys, [Key::from(key(6)), Key::from(key(7))]);
    let two = client.batch_scan([key(0)..=key(1), key(4)..=key(5)], 100).await.unwrap();
    assert_eq!(numbers(two), [0, 1, 4, 5]);

    client.put_with_ttl(key(0), "soon gone", 1000).await.unwrap();
    let left = client.get_key_ttl_secs(key(0)).await.unwrap().unwrap();
    assert!((900..=1000).contains(&left), "{left} s left");
    client.delete(key(0)).await.unwrap();
    client.delete(key(0)).await.unwrap();
    client.batch_delete([key(1), key(2)]).await.unwrap();
    assert_eq!(numbers(client.scan(all(), 100).await.unwrap()), [3, 4, 5, 6, 7]);
    client.delete_range(key(3)..key(6)).await.unwrap();
    assert_eq!(numbers(client.scan(all(), 100).await.unwrap()), [6, 7]);
    client.delete_range(all()).await.unwrap();
    assert_eq!(client.scan(all(), 100).await.unwrap(), []);

    let large = vec![7; 3 << 20];
    client.put(key(1), large.clone()).await.unwrap();
    assert_eq!(client.get(key(1)).await.unwrap(), Some(large));
    client.delete(key(1)).await.unwrap();
}

async fn compare_and_swap(endpoints: Vec<String>) {
    let client = raw_client(endpoints).await.with_atomic_for_cas();
    let cas = |old: Option<&str>, new: &str| {
        let old = old.map(|old| old.as_bytes().to_vec());
        client.compare_and_swap("cas".to_owned(), old, new.as_bytes().to_vec())
    };
    let value = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(cas(Some("a"), "b").await.unwrap(), (None, false));
    assert_eq!(cas(None, "a").await.unwrap(), (None, true));
    assert_eq!(cas(None, "b").await.unwrap(), (value("a"), false));
    assert_eq!(cas(Some("x"), "b").await.unwrap(), (value("a"), false));
    assert_eq!(cas(Some("a"), "b").await.unwrap(), (value("a"), true));
    client.delete("cas".to_owned()).await.unwrap();
    assert_eq!(cas(None, "").await.unwrap(), (None, true));
    assert_eq!(cas(None, "a").await.unwrap(), (value(""), false), "an empty value is not absence");
}

async fn transactions(endpoints: Vec<String>) {
    let client = txn_client(endpoints).await;
    let mut txn = begin(&client).await;
    for n in 0..8 {
        assert_eq!(txn.get(key(n)).await.unwrap(), None, "raw values are another world");
        txn.put(key(n), vec![n]).await.unwrap();
    }
    assert_eq!(txn.get(key(3)).await.unwrap(), Some(vec![3]), "it sees its own writes");
    let mut before = begin(&client).await;
    let committed = txn.commit().await.unwrap().expect("it wrote something");
    assert_eq!(before.get(key(3)).await.unwrap(), None, "a snapshot does not change");

    let mut txn = begin(&client).await;
    assert!(txn.start_timestamp().version() > committed.version(), "timestamps rise");
    let all = || key(0)..b"\xFF\xFF".to_vec();
    assert_eq!(numbers(txn.scan(all(), 100).await.unwrap()), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(numbers(txn.scan(all(), 3).await.unwrap()), [0, 1, 2]);
    assert_eq!(numbers(txn.scan_reverse(key(5)..=key(5), 9).await.unwrap()), [5]);
    assert_eq!(numbers(txn.batch_get([key(2), key(7)]).await.unwrap()), [2, 7]);
    assert!(txn.key_exists(key(1)).await.unwrap());
    txn.delete(key(1)).await.unwrap();
    txn.put(key(2), "changed").await.unwrap();
    txn.commit().await.unwrap();

    let mut txn = begin(&client).await;
    assert!(!txn.key_exists(key(1)).await.unwrap());
    assert_eq!(txn.get(key(2)).await.unwrap().as_deref(), Some(&b"changed"[..]));
    txn.put(key(3), "never").await.unwrap();
    txn.rollback().await.unwrap();
    let now = client.current_timestamp().await.unwrap();
    let mut snapshot = client.snapshot(now, TransactionOptions::new_optimistic());
    assert_eq!(snapshot.get(key(3)).await.unwrap(), Some(vec![3]), "rolled back");

    let mut large = begin(&client).await;
    for n in 0..200_u8 {
        large.put([&key(n)[..], &[n]].concat(), vec![n; 1000]).await.unwrap();
    }
    large.commit().await.unwrap();
    let mut txn = begin(&client).await;
    let found = txn.batch_get((0..200_u8).map(|n| [&key(n)[..], &[n]].concat())).await.unwrap();
    assert_eq!(found.count(), 200);
}

async fn conflicts(endpoints: Vec<String>) {
    let client = txn_client(endpoints).await;
    let mut first = begin(&client).await;
    let mut second = begin(&client).await;
    for txn in [&mut first, &mut second] {
        txn.get("conflict/a".to_owned()).await.unwrap();
        txn.put("conflict/a".to_owned(), "x").await.unwrap();
        txn.put("\u{10FFFF}conflict/b".to_owned(), "x").await.unwrap();
    }
    first.commit().await.unwrap();
    let lost = format!("{:?}", second.commit().await.unwrap_err());
    assert!(lost.contains("conflict: Some") && lost.contains("conflict_commit_ts"), "{lost}");

    let mut txn = begin(&client).await;
    let exists = txn.insert("conflict/a".to_owned(), "y").await;
    let exists = match exists {
        Ok(()) => format!("{:?}", txn.commit().await.unwrap_err()),
        Err(error) => format!("{error:?}"),
    };
    assert!(exists.contains("already_exist: Some") || exists.contains("Duplicate"), "{exists}");
    let mut txn = begin(&client).await;
    assert_eq!(txn.get("conflict/a".to_owned()).await.unwrap().as_deref(), Some(&b"x"[..]));
}

/// What is not built yet is refused by name, at once, and harms nobody.
async fn unsupported(endpoints: Vec<String>) {
    let client = txn_client(endpoints).await;
    let optimistic = || TransactionOptions::new_optimistic().drop_check(CheckLevel::None);
    for (options, name) in [
        (optimistic().use_async_commit(), "use_async_commit"),
        (optimistic().try_one_pc(), "try_one_pc"),
    ] {
        let mut txn = client.begin_with_options(options).await.unwrap();
        txn.put("unsupported".to_owned(), "x").await.unwrap();
        let refused = format!("{:?}", txn.commit().await.unwrap_err());
        assert!(refused.contains(&format!("{name} is not supported")), "{refused}");
    }
    let options = TransactionOptions::new_pessimistic().drop_check(CheckLevel::None);
    let mut txn = client.begin_with_options(options).await.unwrap();
    let refused = txn.lock_keys(["unsupported".to_owned()]).await.unwrap_err();
    assert!(format!("{refused:?}").contains("KvPessimisticLock is not supported"), "{refused:?}");
    let mut txn = begin(&client).await;
    assert_eq!(txn.get("unsupported".to_owned()).await.unwrap(), None);
}

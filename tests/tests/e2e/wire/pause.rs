//! A node that is stopped for longer than a lease and wakes with requests waiting in its sockets: all of
//! what it believes is of the past.

use bytes::Bytes;
use cribwork_proto::kvrpcpb::RawGetRequest;
use cribwork_proto::pdpb;

use super::Wire;

/// Requests of each kind that wait for the node to wake.
const QUEUED: usize = 32;

fn tso(wire: &Wire) -> pdpb::TsoRequest {
    pdpb::TsoRequest { header: wire.header(), count: 1, ..Default::default() }
}

fn number(ts: &pdpb::Timestamp) -> i64 {
    (ts.physical << 18) + ts.logical
}

/// Moves the leadership of the range of `key` to store 1.
fn lead_from_store_1(wire: &Wire, key: &[u8]) {
    let range = wire.range_of(key).0.id.to_string();
    wire.cluster.run(&["transfer-leader", &range, "1"]).ok();
    assert_eq!(wire.range_of(key).1.store_id, 1);
}

#[test]
fn a_paused_leader_serves_nothing_stale_when_it_wakes() {
    let mut wire = Wire::start(3, 1);
    lead_from_store_1(&wire, b"k");
    // The connections must be there before the pause, and the lease fresh when it begins.
    let (tikv, pd) = (wire.tikv(1), wire.pd());
    let get = RawGetRequest {
        context: Some(wire.context(b"k")),
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    wire.ask(pd.clone().tso(tokio_stream::iter([tso(&wire)]))).unwrap();
    wire.put_and_get(b"k", b"old");
    let answer = wire.ask(tikv.clone().raw_get(get.clone())).unwrap().into_inner();
    assert_eq!(answer.value, "old");

    wire.cluster.node(0).signal("STOP");
    let ask = |mut tikv: super::TikvClient<_>| {
        let get = get.clone();
        wire.runtime.spawn(async move { tikv.raw_get(get).await })
    };
    let gets: Vec<_> = (0..QUEUED).map(|_| ask(tikv.clone())).collect();
    let ask = |mut pd: super::PdClient<_>| {
        let request = tokio_stream::iter([tso(&wire)]);
        wire.runtime.spawn(async move { pd.tso(request).await?.into_inner().message().await })
    };
    let times: Vec<_> = (0..QUEUED).map(|_| ask(pd.clone())).collect();

    let others = wire.cluster.endpoints()[1..].join(",");
    let limit = std::time::Duration::from_secs(60);
    let put = ["kv", "put", "k", "new", "--timeout", "30s", "--endpoints", &others];
    cribwork_tests::run(&put, limit).ok();
    let now = ["status", "--timeout", "30s", "--output", "json", "--endpoints", &others];
    let newest_ms = cribwork_tests::run(&now, limit).json()["tso_physical_ms"].as_i64().unwrap();

    wire.cluster.node(0).signal("CONT");
    let mut refused = 0;
    for get in gets {
        let answer = wire.ask(get).unwrap().map(tonic::Response::into_inner);
        match answer {
            Ok(answer) if answer.region_error.is_none() => assert_eq!(answer.value, "new"),
            _ => refused += 1,
        }
    }
    for time in times {
        if let Ok(Some(answer)) = wire.ask(time).unwrap() {
            let ts = answer.timestamp.unwrap_or_default();
            assert!(number(&ts) >= newest_ms << 18, "{ts:?} after {newest_ms} ms");
        }
    }
    eprintln!("{refused} of {QUEUED} gets were refused");
    wire.lives();
}

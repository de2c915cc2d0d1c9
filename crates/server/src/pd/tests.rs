//! The `PD` service as clients see it.

use bytes::Bytes;
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_proto::pdpb::pd_server::{Pd, PdServer};
use cribwork_proto::pdpb::{self, RequestHeader};
use cribwork_types::key;
use tokio_stream::StreamExt;
use tonic::{Code, Request};

use crate::place::tests::harness::{CLUSTER, Life};

fn header(cluster_id: u64) -> Option<RequestHeader> {
    Some(RequestHeader { cluster_id, sender_id: 0 })
}

fn query(key: &[u8]) -> Request<pdpb::GetRegionRequest> {
    let region_key = Bytes::copy_from_slice(key);
    Request::new(pdpb::GetRegionRequest {
        header: header(CLUSTER.get()),
        region_key,
        ..Default::default()
    })
}

#[test]
fn the_leader_is_one_of_the_members() {
    let life = Life::first(1);
    for cluster_id in [0, CLUSTER.get()] {
        let request = pdpb::GetMembersRequest { header: header(cluster_id) };
        let answer = life.wait(life.pd().get_members(Request::new(request))).unwrap().into_inner();
        let head = answer.header.unwrap();
        assert_eq!((head.cluster_id, head.error), (CLUSTER.get(), None));
        assert_eq!(answer.members.len(), 1);
        assert_eq!(answer.leader.as_ref(), answer.members.first());
        let url = format!("http://{}", life.plan.stores[0].address);
        assert_eq!(answer.members[0].client_urls, [url]);
    }
}

#[test]
fn another_clusters_requests_are_refused() {
    let life = Life::first(1);
    let pd = life.pd();
    let foreign = header(CLUSTER.get() + 1);
    let error = |head: Option<pdpb::ResponseHeader>| head.unwrap().error.unwrap().r#type();
    let request = pdpb::GetMembersRequest { header: foreign };
    let answer = life.wait(pd.get_members(Request::new(request))).unwrap().into_inner();
    assert_eq!(error(answer.header), pdpb::ErrorType::Unknown);
    assert!(answer.members.is_empty());
    let request = pdpb::GetRegionRequest { header: foreign, ..Default::default() };
    let answer = life.wait(pd.get_region(Request::new(request))).unwrap().into_inner();
    assert_eq!(error(answer.header), pdpb::ErrorType::Unknown);
    assert!(answer.region.is_none());
    let request = pdpb::AllocIdRequest { header: foreign };
    let answer = life.wait(pd.alloc_id(Request::new(request))).unwrap().into_inner();
    assert_eq!((error(answer.header), answer.id), (pdpb::ErrorType::Unknown, 0));
}

#[test]
fn lookups_at_the_bounds() {
    let life = Life::first(4);
    let pd = life.pd();
    let ranges = life.plan.ranges.clone();
    for (at, range) in ranges.iter().enumerate() {
        let found = life.wait(pd.get_region(query(&range.span.start))).unwrap().into_inner();
        let region = found.region.unwrap();
        assert_eq!((region.id, region.start_key), (range.id.get(), range.span.start.clone()));
        assert!(region.region_epoch.is_some());
        let before = life.wait(pd.get_prev_region(query(&range.span.start))).unwrap().into_inner();
        let wanted = at.checked_sub(1).map(|at| ranges[at].id.get());
        assert_eq!(before.region.map(|region| region.id), wanted);
        let mut below = range.span.start.to_vec();
        if let Some(last) = below.last_mut() {
            *last -= 1;
            let found = life.wait(pd.get_region(query(&below))).unwrap().into_inner();
            assert_eq!(found.region.map(|region| region.id), wanted, "just below the bound");
        }
    }
    let last = life.wait(pd.get_region(query(&[0xFF; 30]))).unwrap().into_inner().region.unwrap();
    assert_eq!((last.id, last.start_key), (ranges[4].id.get(), key::top_bound()));

    let scan = |start: &Bytes, end: &Bytes, limit| {
        let request = pdpb::ScanRegionsRequest {
            start_key: start.clone(),
            end_key: end.clone(),
            limit,
            header: None,
        };
        let answer = life.wait(pd.scan_regions(Request::new(request))).unwrap().into_inner();
        assert_eq!(answer.regions.len(), answer.region_metas.len());
        assert_eq!(answer.regions.len(), answer.leaders.len());
        answer.region_metas.into_iter().map(|region| region.id).collect::<Vec<_>>()
    };
    let (none, third) = (Bytes::new(), ranges[2].span.start.clone());
    assert_eq!(scan(&none, &none, 0), [1, 2, 3, 4, 5]);
    assert_eq!(scan(&none, &none, 2), [1, 2]);
    assert_eq!(scan(&none, &third, -1), [1, 2], "the end is outside");
    assert_eq!(scan(&third, &none, 10), [3, 4, 5]);
}

#[test]
fn the_safe_point_only_rises() {
    let life = Life::first(1);
    let raise = |life: &Life, safe_point| {
        let request = pdpb::UpdateGcSafePointRequest { header: None, safe_point };
        let answer = life.wait(life.pd().update_gc_safe_point(Request::new(request)));
        answer.unwrap().into_inner().new_safe_point
    };
    assert_eq!([raise(&life, 5), raise(&life, 3), raise(&life, 9)], [5, 5, 9]);
    let life = life.crash();
    assert_eq!(raise(&life, 1), 9);
    let service = |service: &'static [u8], ttl, safe_point| {
        let service_id = Bytes::from_static(service);
        let request =
            pdpb::UpdateServiceGcSafePointRequest { header: None, service_id, ttl, safe_point };
        let answer = life.wait(life.pd().update_service_gc_safe_point(Request::new(request)));
        answer.unwrap().into_inner().min_safe_point
    };
    assert_eq!(service(b"backup", 60, 20), 20);
    assert_eq!(service(b"cdc", 60, 15), 15);
    assert_eq!(service(b"cdc", 0, 15), 20, "removed");
}

#[test]
fn services_that_hold_back_the_safe_point_are_bounded() {
    let life = Life::first(1);
    let ask = |life: &Life, service_id: Bytes| {
        let ttl = 600;
        let request =
            pdpb::UpdateServiceGcSafePointRequest { header: None, service_id, ttl, safe_point: 5 };
        life.wait(life.pd().update_service_gc_safe_point(Request::new(request)))
    };
    // The longest would make a row that no store takes, and stop every replica that applies it.
    for length in [0, 257, 20_000] {
        let refused = ask(&life, Bytes::from(vec![b's'; length])).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{length}: {refused}");
    }
    for number in 0..256 {
        ask(&life, Bytes::from(format!("service {number}"))).unwrap();
    }
    let refused = ask(&life, Bytes::from_static(b"one more")).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    ask(&life, Bytes::from_static(b"service 7")).unwrap();
    let life = life.crash();
    ask(&life, Bytes::from_static(b"service 7")).unwrap();
}

#[test]
fn every_timestamp_request_gets_one_answer_with_its_count() {
    let life = Life::first(1);
    life.wait(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = tonic::transport::Server::builder().add_service(PdServer::new(life.pd()));
        tokio::spawn(serving.serve_with_incoming(incoming));
        let mut client = PdClient::connect(url).await.unwrap();
        let ask = |count| pdpb::TsoRequest {
            header: header(CLUSTER.get()),
            count,
            dc_location: String::new(),
        };
        let counts = [1, 64, 3, 1 << 18, 1];
        let requests = tokio_stream::iter(counts.map(ask));
        let mut answers = client.tso(requests).await.unwrap().into_inner();
        let mut last = 0;
        for count in counts {
            let answer = answers.next().await.unwrap().unwrap();
            let ts = answer.timestamp.unwrap();
            assert_eq!((answer.count, answer.header.unwrap().error), (count, None));
            assert!(ts.logical + 1 >= i64::from(count) && ts.logical < 1 << 18);
            let value = (ts.physical as u64) << 18 | ts.logical as u64;
            assert!(value - u64::from(count) >= last, "strictly rising");
            last = value;
        }
        assert!(answers.next().await.is_none());
        let mut answers = client.tso(tokio_stream::iter([ask(0)])).await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    });
}

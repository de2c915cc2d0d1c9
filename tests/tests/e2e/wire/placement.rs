//! Bad requests to the placement service, and commands with bad arguments.

use std::fmt::Debug;

use bytes::Bytes;
use cribwork_proto::pdpb::*;
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};

use super::Wire;

/// Checks that a call was refused in a typed way: by its status, or by the answer's header.
#[track_caller]
fn refused<T: Debug>(
    answer: Result<Response<T>, Status>,
    header: impl Fn(&T) -> Option<&ResponseHeader>,
) -> String {
    match answer {
        Err(status) => {
            let vague = matches!(status.code(), Code::Ok | Code::Unknown | Code::Internal);
            assert!(!vague && !status.message().is_empty(), "{status:?}");
            status.message().to_owned()
        }
        Ok(answer) => {
            let answer = answer.into_inner();
            let error = header(&answer).and_then(|header| header.error.as_ref());
            error.unwrap_or_else(|| panic!("not refused: {answer:?}")).message.clone()
        }
    }
}

#[test]
fn placement_refuses_what_makes_no_sense() {
    let mut wire = Wire::start(1, 2);
    let mut pd = wire.pd();
    let other = Some(RequestHeader { cluster_id: wire.cluster_id ^ 1, ..Default::default() });

    let members = wire.ask(pd.get_members(GetMembersRequest::default())).unwrap().into_inner();
    assert_eq!(members.header.unwrap().cluster_id, wire.cluster_id, "asked without a cluster");
    let leader = members.leader.expect("a leader");
    assert!(members.members.contains(&leader), "{leader:?}");

    let stores = GetAllStoresRequest { header: other, ..Default::default() };
    let words = refused(wire.ask(pd.get_all_stores(stores)), |it| it.header.as_ref());
    assert!(words.contains(&wire.cluster_id.to_string()), "both are named: {words}");
    let range = GetRegionRequest { header: other, ..Default::default() };
    refused(wire.ask(pd.get_region(range)), |it| it.header.as_ref());
    let store = GetStoreRequest { header: wire.header(), store_id: 77 };
    let words = refused(wire.ask(pd.get_store(store)), |it| it.header.as_ref());
    assert!(words.contains("77"), "{words}");

    let unknown =
        GetRegionByIdRequest { header: wire.header(), region_id: 999_999, ..Default::default() };
    if let Ok(answer) = wire.ask(pd.get_region_by_id(unknown)) {
        assert_eq!(answer.into_inner().region, None, "there is no such range");
    }
    let long = GetRegionRequest {
        header: wire.header(),
        region_key: Bytes::from(vec![0xFF; 1 << 20]),
        ..Default::default()
    };
    let top = wire.ask(pd.get_region(long)).unwrap().into_inner().region.expect("the top range");
    assert!(top.end_key.is_empty(), "{top:?}");
    for (start, end, limit, count) in
        [("z", "a", 0, 0), ("", "", i32::MIN, 3), ("", "", i32::MAX, 3), ("", "", 1, 1)]
    {
        let request = ScanRegionsRequest {
            header: wire.header(),
            start_key: start.into(),
            end_key: end.into(),
            limit,
        };
        let answer = wire.ask(pd.scan_regions(request)).unwrap().into_inner();
        assert_eq!(answer.regions.len(), count, "{start:?}..{end:?} limit {limit}: {answer:?}");
    }
    check_timestamps(&wire);
    check_commands(&wire);
    wire.lives();
}

/// A right request is answered with as many as asked for; a wrong one ends its stream, not the node.
fn check_timestamps(wire: &Wire) {
    let ask = |header: Option<RequestHeader>, counts: Vec<u32>| {
        let requests =
            counts.into_iter().map(move |count| TsoRequest { header, count, ..Default::default() });
        let exchange = async {
            let stream = wire.pd().tso(tokio_stream::iter(requests.collect::<Vec<_>>())).await?;
            stream.into_inner().collect::<Result<Vec<TsoResponse>, Status>>().await
        };
        wire.ask(exchange)
    };
    let answers = ask(wire.header(), vec![1, 64, 1000]).unwrap();
    assert_eq!(answers.iter().map(|answer| answer.count).collect::<Vec<_>>(), [1, 64, 1000]);
    let mut last = (0, 0);
    for answer in answers {
        let ts = answer.timestamp.expect("a timestamp");
        let first = (ts.physical, ts.logical + 1 - i64::from(answer.count));
        assert!(first > last && first.1 >= 0 && ts.logical < 1 << 18, "{first:?} after {last:?}");
        last = (ts.physical, ts.logical);
    }
    let other = Some(RequestHeader { cluster_id: wire.cluster_id ^ 1, ..Default::default() });
    for (header, count) in [(other, 1), (wire.header(), 0), (wire.header(), u32::MAX)] {
        match ask(header, vec![count]) {
            Err(status) => assert!(
                !matches!(status.code(), Code::Unknown | Code::Internal),
                "{count}: {status:?}"
            ),
            Ok(answers) => assert!(
                answers.iter().all(|answer| {
                    answer.header.as_ref().is_some_and(|header| header.error.is_some())
                }),
                "{count}: {answers:?}"
            ),
        }
    }
}

fn check_commands(wire: &Wire) {
    let long = "k".repeat(9000);
    wire.cluster.run(&["split", ""]).fails(64, &[]);
    let too_long = wire.cluster.run(&["split", &long]);
    assert!(matches!(too_long.code, Some(1 | 64)), "{too_long:?}");
    assert!(too_long.stderr.contains("8192"), "it says the limit: {too_long:?}");
    wire.cluster.run(&["transfer-leader", "0", "1"]).fails(1, &["hint"]);
    let put = wire.cluster.run(&["kv", "put", &long, "x"]);
    assert!(matches!(put.code, Some(1 | 64)) && put.stderr.contains("8192"), "{put:?}");
}

//! Answers of the `PD` service, computed from the leader's tables.

use cribwork_placement::StoreState;
use cribwork_proto::{metapb, pdpb};
use cribwork_types::{KeyRange, RangeId, StoreId};

use crate::ServerError;
use crate::place::view::StoreRow;
use crate::place::{Place, RangeRow};

/// Ranges that one scan returns at most.
const SCAN_RANGES_MAX: usize = 10_000;
/// What is reported as the version of this server: clients compare it with TiKV's.
const VERSION: &str = "8.5.0";

pub(super) fn header(place: &Place) -> Option<pdpb::ResponseHeader> {
    Some(pdpb::ResponseHeader { cluster_id: place.cluster().get(), error: None })
}

/// A header that says that the request is for another cluster.
pub(super) fn wrong_cluster(place: &Place, theirs: u64) -> Option<pdpb::ResponseHeader> {
    let ours = place.cluster();
    let message = format!("cluster mismatch: this is cluster {ours}, the request is for {theirs}");
    let error = pdpb::Error { r#type: pdpb::ErrorType::Unknown.into(), message };
    Some(pdpb::ResponseHeader { cluster_id: ours.get(), error: Some(error) })
}

/// The members of the placement group; the leader is one of them, byte for byte.
pub(super) fn members(place: &Place) -> pdpb::GetMembersResponse {
    let parts = place.parts();
    let member = |store: StoreId| {
        let info = parts.addresses.get(store)?;
        let url = format!("http://{}", info.address);
        Some(pdpb::Member {
            name: format!("store-{store}"),
            member_id: store.get(),
            peer_urls: vec![url.clone()],
            client_urls: vec![url],
            binary_version: VERSION.to_owned(),
            ..pdpb::Member::default()
        })
    };
    let mut stores = place.members();
    let is_live = |store: &StoreId| *store == parts.store || parts.multi.store_is_live(*store);
    let leading = place.leader_store().filter(is_live);
    // It may have become a member a moment ago.
    stores.extend(leading.filter(|leader| !stores.contains(leader)));
    let members: Vec<pdpb::Member> = stores.iter().filter_map(|store| member(*store)).collect();
    // Clients cannot do without a leader: if none is known, any live member passes requests on.
    let live = stores.iter().copied().find(is_live);
    let leader = leading.or(live).and_then(member).or_else(|| members.first().cloned());
    pdpb::GetMembersResponse { header: header(place), etcd_leader: leader.clone(), leader, members }
}

/// Clients cannot do without a leader. A member that is asked while there is none campaigns at once.
fn region(row: &RangeRow) -> (metapb::Region, Option<metapb::Peer>) {
    (row.descriptor.as_ref().into(), row.leader.or(row.heir).map(Into::into))
}

pub(super) fn one(place: &Place, row: Option<RangeRow>) -> pdpb::GetRegionResponse {
    let (region, leader) = match &row {
        Some(row) => {
            let (region, leader) = region(row);
            (Some(region), leader)
        }
        None => (None, None),
    };
    pdpb::GetRegionResponse { header: header(place), region, leader, ..Default::default() }
}

pub(super) fn by_id(place: &Place, id: u64) -> Result<pdpb::GetRegionResponse, ServerError> {
    Ok(one(place, place.range_by_id(RangeId(id))?))
}

fn limit(asked: i32) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => SCAN_RANGES_MAX,
        Ok(limit) => limit.min(SCAN_RANGES_MAX),
    }
}

pub(super) fn scan(
    place: &Place,
    request: &pdpb::ScanRegionsRequest,
) -> Result<pdpb::ScanRegionsResponse, ServerError> {
    let span = KeyRange::new(request.start_key.clone(), request.end_key.clone());
    let rows = place.ranges(&span, limit(request.limit))?;
    let found: Vec<_> = rows.iter().map(region).collect();
    Ok(pdpb::ScanRegionsResponse {
        header: header(place),
        region_metas: found.iter().map(|(region, _)| region.clone()).collect(),
        leaders: found.iter().map(|(_, leader)| leader.unwrap_or_default()).collect(),
        regions: found.into_iter().map(wire_region).collect(),
    })
}

fn wire_region((region, leader): (metapb::Region, Option<metapb::Peer>)) -> pdpb::Region {
    pdpb::Region { region: Some(region), leader, ..Default::default() }
}

pub(super) fn batch_scan(
    place: &Place,
    request: &pdpb::BatchScanRegionsRequest,
) -> Result<pdpb::BatchScanRegionsResponse, ServerError> {
    let mut regions: Vec<pdpb::Region> = Vec::new();
    let mut last = RangeId(0);
    for span in &request.ranges {
        let span = KeyRange::new(span.start_key.clone(), span.end_key.clone());
        let left = limit(request.limit).saturating_sub(regions.len());
        for row in place.ranges(&span, left)? {
            // Neighbouring spans may share a range.
            if row.descriptor.id != last {
                last = row.descriptor.id;
                regions.push(wire_region(region(&row)));
            }
        }
    }
    Ok(pdpb::BatchScanRegionsResponse { header: header(place), regions })
}

fn store(row: &StoreRow) -> metapb::Store {
    let state = match row.info.state {
        StoreState::Decommissioned => metapb::StoreState::Tombstone,
        StoreState::Decommissioning => metapb::StoreState::Offline,
        // A store that is down is still "up" to clients: they find out by themselves.
        _ => metapb::StoreState::Up,
    };
    metapb::Store {
        id: row.info.id.get(),
        address: row.info.address.clone(),
        peer_address: row.info.address.clone(),
        status_address: row.info.http.clone(),
        state: state.into(),
        version: VERSION.to_owned(),
        ..Default::default()
    }
}

pub(super) fn get_store(place: &Place, id: u64) -> Result<pdpb::GetStoreResponse, ServerError> {
    let rows = place.stores()?;
    let found = rows.iter().find(|row| row.info.id.get() == id).map(store);
    let missing = || ServerError::NotFound(format!("store {id}"));
    Ok(pdpb::GetStoreResponse { header: header(place), store: Some(found.ok_or_else(missing)?) })
}

/// All stores, or those that are not gone for good.
pub(super) fn all_stores(
    place: &Place,
    exclude_tombstones: bool,
) -> Result<pdpb::GetAllStoresResponse, ServerError> {
    let wanted =
        |row: &&StoreRow| !exclude_tombstones || row.info.state != StoreState::Decommissioned;
    let stores = place.stores()?.iter().filter(wanted).map(store).collect();
    Ok(pdpb::GetAllStoresResponse { header: header(place), stores })
}

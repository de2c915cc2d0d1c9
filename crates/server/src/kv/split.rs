//! `SplitRegion`: splits that a client asks for.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{SplitRegionRequest, SplitRegionResponse};
use cribwork_proto::metapb::Region;
use cribwork_types::key;

use crate::kv::call::{Call, Command};
use crate::kv::checks;
use crate::kv::core::Core;
use crate::kv::failure::{self, Failure};

/// Most keys of one request.
const SPLIT_KEYS_MAX: usize = 1024;

/// Bounds to split at, from the last to the first: then the part that is left to split is always the
/// left one, which keeps range id and leader. Every bound is an encoding, whichever API asks for it.
fn bounds(request: &SplitRegionRequest) -> Result<Vec<Bytes>, Failure> {
    let keys = match request.split_keys.is_empty() {
        true => std::slice::from_ref(&request.split_key),
        false => &request.split_keys,
    };
    if keys.len() > SPLIT_KEYS_MAX {
        let why = format!("{} split keys, at most {SPLIT_KEYS_MAX} are allowed", keys.len());
        return Err(Failure::Refused(why));
    }
    let mut bounds = Vec::with_capacity(keys.len());
    for plain in keys {
        checks::key(plain)?;
        if plain.is_empty() {
            return Err(Failure::Refused("a split key is empty".into()));
        }
        bounds.push(Bytes::from(key::encode(plain)));
    }
    bounds.sort_unstable_by(|one, other| other.cmp(one));
    bounds.dedup();
    Ok(bounds)
}

impl Command for SplitRegionRequest {
    async fn run(self, core: &Arc<Core>) -> Result<SplitRegionResponse, Failure> {
        let bounds = bounds(&self)?;
        let target = core.target(self.context())?;
        let token = target.replica.token().await?;
        let range = target.replica.descriptor();
        target.check(&core.multi, token.term(), &range)?;
        for bound in &bounds {
            if !range.span.contains(bound) {
                return Err(failure::key_not_in_region(bound, &range));
            }
        }
        let mut regions: Vec<Region> = Vec::with_capacity(bounds.len() + 1);
        let mut left = range.as_ref().clone();
        for bound in bounds {
            if bound == left.span.start {
                continue;
            }
            let (rest, right) = core.ranges.split_here(range.id, bound).await?;
            regions.push((&right).into());
            left = rest;
        }
        regions.push((&left).into());
        regions.reverse();
        Ok(SplitRegionResponse {
            left: regions.first().cloned(),
            right: regions.last().cloned(),
            regions,
            ..Default::default()
        })
    }
}

//! Before the load: the workload's own keys are split into ranges, and the leaders of these are
//! given time to spread over the nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_client::{Client, ClientError, Placed};
use cribwork_types::{CodedError, Runtime, StoreId};

use crate::WorkloadError;
use crate::drive::Pauses;
use crate::keyspace::KeySpace;

/// How long making all the bounds may take.
const SPLIT_LIMIT: Duration = Duration::from_secs(60);
/// How often one bound is asked for, if that is refused.
const SPLIT_ATTEMPTS: u32 = 5;
/// How long the leaders are given to spread; then the load begins all the same.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
const SETTLE_PERIOD: Duration = Duration::from_millis(100);
/// What a node is called that takes part.
const UP: &str = "up";

/// Splits and waits.
///
/// # Errors
/// [`WorkloadError::Setup`].
pub(crate) async fn prepare(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    space: &KeySpace,
) -> Result<(), WorkloadError> {
    if space.bounds().is_empty() {
        return Ok(());
    }
    let deadline = runtime.now() + SPLIT_LIMIT;
    retry(runtime, deadline, || split_missing(client, space))
        .await
        .map_err(|source| WorkloadError::Setup { stage: "split", source })?;
    settle(client, runtime, space).await;
    Ok(())
}

/// True if the same call may succeed later. An unknown outcome counts: whoever asks this makes calls
/// that find what is done already.
pub(crate) fn passes(error: &ClientError) -> bool {
    error.is_retryable() || matches!(error, ClientError::Unknown { .. })
}

/// Runs `work` again until it succeeds, fails for good, or the time is up. `work` must be one that
/// finds what is done already.
pub(crate) async fn retry<T, F>(
    runtime: &Arc<dyn Runtime>,
    deadline: Duration,
    mut work: impl FnMut() -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut pauses = Pauses::default();
    loop {
        let error = match work().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !passes(&error) || runtime.now() >= deadline {
            return Err(error);
        }
        tracing::debug!(%error, "set-up is tried again");
        pauses.wait(&**runtime).await;
    }
}

async fn split_missing(client: &Client, space: &KeySpace) -> Result<(), ClientError> {
    let ranges = client.ranges(space.span(), 0).await?;
    let admin = client.admin();
    for (bound, key) in space.bounds().iter().zip(space.split_keys()) {
        if begins_at(&ranges, bound) {
            continue;
        }
        let mut refusals = 0;
        while let Err(error) = admin.split(key.clone()).await {
            // An earlier request, whose answer was lost, may have made the bound.
            if begins_at(&client.ranges(space.span(), 0).await?, bound) {
                break;
            }
            // Somebody else may have split the same range meanwhile: then the node refuses for good
            // what it would do if asked again.
            refusals += 1;
            if refusals == SPLIT_ATTEMPTS || !matches!(error, ClientError::Refused { .. }) {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn begins_at(ranges: &[Placed], bound: &Bytes) -> bool {
    ranges.iter().any(|placed| placed.range.span.start == *bound)
}

async fn settle(client: &Client, runtime: &Arc<dyn Runtime>, space: &KeySpace) {
    let deadline = runtime.now() + SETTLE_LIMIT;
    let mut why = String::new();
    while runtime.now() < deadline {
        match imbalance(client, space).await {
            Ok(None) => return,
            Ok(Some(found)) => why = found,
            Err(error) => why = error.to_string(),
        }
        runtime.sleep(SETTLE_PERIOD).await;
    }
    tracing::warn!(why, "leaders have not spread; the load begins all the same");
}

async fn imbalance(client: &Client, space: &KeySpace) -> Result<Option<String>, ClientError> {
    let nodes = client.admin().nodes().await?;
    let up = nodes.iter().filter(|node| node.state == UP).count();
    let ranges = client.ranges(space.span(), 0).await?;
    Ok(judge(&ranges, &space.bounds(), up))
}

/// What is wrong with the distribution of the leaders of the ranges that begin at `bounds`: with N
/// of them, no store may lead more than `ceil(N / nodes) + 1`.
fn judge(ranges: &[Placed], bounds: &[Bytes], nodes: usize) -> Option<String> {
    let own: Vec<_> =
        ranges.iter().filter(|placed| bounds.contains(&placed.range.span.start)).collect();
    if own.len() < bounds.len() {
        return Some(format!("{} of {} ranges are known", own.len(), bounds.len()));
    }
    let mut led: HashMap<StoreId, usize> = HashMap::new();
    for placed in &own {
        match placed.leader {
            Some(leader) => *led.entry(leader.store).or_default() += 1,
            None => return Some(format!("range {} has no leader", placed.range.id)),
        }
    }
    let most = bounds.len().div_ceil(nodes.max(1)) + 1;
    led.into_iter()
        .filter(|(_, count)| *count > most)
        .max_by_key(|(store, count)| (*count, *store))
        .map(|(store, count)| format!("store {store} leads {count}, at most {most} are even"))
}

#[cfg(test)]
mod tests {
    use cribwork_types::{
        KeyRange, RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    };

    use super::*;

    fn placed(id: u64, start: &Bytes, leader: u64) -> Placed {
        let store = StoreId(leader);
        let replica = ReplicaDescriptor { id: ReplicaId(id), store, role: ReplicaRole::Voter };
        let span = KeyRange { start: start.clone(), end: Bytes::new() };
        let range = RangeDescriptor { id: RangeId(id), span, ..Default::default() };
        Placed { range, leader: (leader > 0).then_some(replica) }
    }

    fn cluster(leaders: &[u64]) -> (Vec<Placed>, Vec<Bytes>) {
        let bounds = KeySpace::new(*b"test", leaders.len() as u32).bounds();
        let own = bounds
            .iter()
            .zip(leaders)
            .zip(1..)
            .map(|((start, leader), id)| placed(id, start, *leader));
        // A range that is not the workload's own counts for nothing.
        let foreign = placed(99, &Bytes::from_static(b"other"), 1);
        (own.chain([foreign]).collect(), bounds)
    }

    #[test]
    fn one_more_than_even_is_even_enough() {
        let (ranges, bounds) = cluster(&[1, 1, 1, 2, 2, 3]);
        assert_eq!(judge(&ranges, &bounds, 3), None);
        let (ranges, bounds) = cluster(&[1, 1, 1, 1, 2, 3]);
        assert_eq!(judge(&ranges, &bounds, 3).unwrap(), "store 1 leads 4, at most 3 are even");
    }

    #[test]
    fn every_range_must_exist_and_be_led() {
        let (mut ranges, bounds) = cluster(&[1, 0, 2]);
        assert_eq!(judge(&ranges, &bounds, 3).unwrap(), "range 2 has no leader");
        ranges.remove(1);
        assert_eq!(judge(&ranges, &bounds, 3).unwrap(), "2 of 3 ranges are known");
    }
}

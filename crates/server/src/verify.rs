//! Are the replicas of a range equal? The leader's store has all of them take a fingerprint at one entry of
//! the log, and compares; on demand, and by itself, slowly, for ranges that have changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cribwork_multiraft::{FamilySums, MultiRaft, Replica};
use cribwork_proto::cribwork::admin::{
    FamilySum, ReadFingerprintRequest, ReplicaSums, VerifyRangeResponse,
};
use cribwork_types::quirk::{Quirk, at_work};
use cribwork_types::{ClusterId, RangeId, ReplicaDescriptor, Runtime, RuntimeExt, StoreId};
use futures::future::join_all;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::ranges::LocalRanges;
use crate::{AddressBook, PeerClients, ServerError};

/// How long a replica may take until it has applied the entry and summed up what it holds.
const REPLICA_LIMIT: Duration = Duration::from_secs(5);
/// How long the leader waits for a replica's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// Time between two ranges of the background check: a range of 96 MiB costs its stores a third of a
/// second of one core each.
const PERIOD: Duration = Duration::from_secs(60);
/// The same under [`Quirk::EagerVerify`].
const EAGER_PERIOD: Duration = Duration::from_secs(2);

/// Counters of comparisons.
#[derive(Clone, Debug, Default)]
pub(crate) struct VerifyMetrics {
    compared: Counter,
    differing: Counter,
    missing: Counter,
}

impl VerifyMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let counters = [
            ("compared", "Ranges whose replicas this store compared as leader", &m.compared),
            ("differing", "Replicas found to differ from the others: damage", &m.differing),
            ("missing", "Replicas that gave nothing to compare", &m.missing),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("cribwork_verify_{name}"), help, counter.clone());
        }
        m
    }
}

/// What comparisons need.
pub(crate) struct VerifierParts {
    pub(crate) store: StoreId,
    pub(crate) cluster: ClusterId,
    pub(crate) multi: MultiRaft,
    pub(crate) ranges: Arc<LocalRanges>,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) peers: Arc<PeerClients>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) metrics: VerifyMetrics,
}

/// Compares replicas of ranges that this store leads.
pub(crate) struct Verifier {
    parts: VerifierParts,
    /// Number of the look at which ranges were last compared by themselves, and the entry.
    compared: Mutex<BTreeMap<RangeId, (u64, u64)>>,
}

impl Verifier {
    pub(crate) fn new(parts: VerifierParts) -> Arc<Self> {
        Arc::new(Self { parts, compared: Mutex::default() })
    }

    /// Compares all replicas of `range` at one entry.
    ///
    /// # Errors
    /// [`ServerError`] if this store does not lead the range, or the entry cannot be committed.
    pub(crate) async fn compare(&self, range: RangeId) -> Result<VerifyRangeResponse, ServerError> {
        let replica = self.parts.ranges.replica(range)?;
        let index = replica.ask_for_fingerprints().await?;
        let members = replica.descriptor().replicas.clone();
        let asked = members.iter().map(|member| self.ask(*member, range, index));
        let replicas: Vec<ReplicaSums> = join_all(asked).await;
        let differing_stores = differing(&replicas, self.parts.store);
        let metrics = &self.parts.metrics;
        metrics.compared.inc();
        metrics.missing.inc_by(replicas.iter().filter(|it| !it.missing.is_empty()).count() as u64);
        if !differing_stores.is_empty() {
            metrics.differing.inc_by(differing_stores.len() as u64);
            tracing::error!(%range, index, stores = ?differing_stores, "REPLICAS DIFFER");
        }
        Ok(VerifyRangeResponse { range: range.get(), index, replicas, differing_stores })
    }

    /// What this store's replica held behind the entry at `index`.
    pub(crate) async fn read(
        &self,
        range: RangeId,
        index: u64,
    ) -> Result<ReplicaSums, ServerError> {
        let sums = self.parts.multi.fingerprint_at(range, index, REPLICA_LIMIT).await?;
        Ok(told(self.parts.store, sums))
    }

    async fn ask(&self, member: ReplicaDescriptor, range: RangeId, index: u64) -> ReplicaSums {
        let asked = async {
            match member.store == self.parts.store {
                true => self.read(range, index).await,
                false => self.ask_store(member.store, range, index).await,
            }
        };
        let missing = match self.parts.runtime.timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(sums)) => return sums,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its store does not answer".to_owned(),
        };
        let (store, replica) = (member.store.get(), member.id.get());
        ReplicaSums { store, replica, families: Vec::new(), missing }
    }

    async fn ask_store(
        &self,
        store: StoreId,
        range: RangeId,
        index: u64,
    ) -> Result<ReplicaSums, ServerError> {
        let unknown = || ServerError::NotFound(format!("store {store}"));
        let address = self.parts.addresses.get(store).ok_or_else(unknown)?.address;
        let mut client = self.parts.peers.node_client(&address).await?;
        let cluster_id = self.parts.cluster.get();
        let request = ReadFingerprintRequest { cluster_id, range: range.get(), index };
        Ok(client.read_fingerprint(request).await?.into_inner())
    }

    /// Compares, one after the other, ranges that have changed since. Runs until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let period = if at_work(Quirk::EagerVerify) { EAGER_PERIOD } else { PERIOD };
        let check = async {
            for look in 1.. {
                self.parts.runtime.sleep(period).await;
                if let Some(replica) = self.next() {
                    let (range, index) = (replica.range_id(), replica.applied_index());
                    match self.compare(range).await {
                        // The comparison has added an entry itself.
                        Ok(done) => drop(self.compared.lock().insert(range, (look, done.index))),
                        Err(error) => {
                            tracing::debug!(%range, index, %error, "replicas were not compared");
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = check => {}
        }
    }

    /// Of the ranges led here that have changed, the one whose last comparison is furthest back.
    fn next(&self) -> Option<Arc<Replica>> {
        let replicas = self.parts.multi.replicas();
        let mut compared = self.compared.lock();
        compared.retain(|range, _| self.parts.multi.replica(*range).is_some());
        let before =
            |replica: &Replica| compared.get(&replica.range_id()).copied().unwrap_or_default();
        replicas
            .iter()
            .filter(|replica| replica.range_id() != RangeId::PLACEMENT)
            .filter(|replica| replica.leader().is_self)
            .filter(|replica| replica.applied_index() > before(replica).1)
            .min_by_key(|replica| before(replica).0)
            .cloned()
    }
}

fn told(store: StoreId, sums: FamilySums) -> ReplicaSums {
    let family = |(cf, sum): &(cribwork_types::Cf, u64)| FamilySum {
        family: cf.name().to_owned(),
        sum: *sum,
    };
    ReplicaSums {
        store: store.get(),
        replica: sums.replica.get(),
        families: sums.sums.iter().map(family).collect(),
        missing: String::new(),
    }
}

/// Stores whose replica is not what most are; with two of a kind on either side, what the leader's is not.
fn differing(replicas: &[ReplicaSums], leader: StoreId) -> Vec<u64> {
    let there: Vec<&ReplicaSums> = replicas.iter().filter(|it| it.missing.is_empty()).collect();
    let alike = |one: &ReplicaSums| there.iter().filter(|it| it.families == one.families).count();
    let rank = |one: &ReplicaSums| (alike(one), one.store == leader.get());
    let Some(model) = there.iter().max_by_key(|one| rank(one)) else {
        return Vec::new();
    };
    there.iter().filter(|it| it.families != model.families).map(|it| it.store).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(store: u64, sum: u64) -> ReplicaSums {
        let families = vec![FamilySum { family: "raw".to_owned(), sum }];
        ReplicaSums { store, replica: 0, families, missing: String::new() }
    }

    fn silent(store: u64) -> ReplicaSums {
        ReplicaSums { store, missing: "down".to_owned(), ..ReplicaSums::default() }
    }

    #[test]
    fn the_minority_differs() {
        let odd = |replicas: &[ReplicaSums]| differing(replicas, StoreId(1));
        assert_eq!(odd(&[sums(1, 7), sums(2, 7), sums(3, 7)]), [0; 0]);
        assert_eq!(odd(&[sums(1, 7), sums(2, 8), sums(3, 7)]), [2]);
        // The leader itself may be the odd one.
        assert_eq!(odd(&[sums(1, 8), sums(2, 7), sums(3, 7)]), [1]);
        assert_eq!(odd(&[sums(1, 8), sums(2, 7)]), [2]);
        assert_eq!(odd(&[sums(1, 8), silent(2), sums(3, 8)]), [0; 0]);
        assert_eq!(odd(&[silent(1), silent(2)]), [0; 0]);
    }
}

//! Answering for placement on any node: by leading it, or by asking the node that does, once.

use std::time::Duration;

use cribwork_types::{BoxFuture, RuntimeExt, StoreId};
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::Place;
use crate::ServerError;

/// Metadata of a request that was passed on: its receiver leads or refuses.
pub(crate) const FORWARDED_METADATA: &str = "cribwork-forwarded";
/// How long a request is kept while placement has no leader.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(25);
/// Time limit of one forwarded call. A client gives a call two seconds in all, so a paused leader must
/// not use them up.
const CALL_TIMEOUT: Duration = Duration::from_millis(700);

/// Marks a request as passed on.
pub(crate) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED_METADATA, MetadataValue::from_static("1"));
    request
}

/// True if another node passed this request on.
pub(crate) fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED_METADATA)
}

impl Place {
    /// Runs `local` if this node leads placement, else `remote` with the leader's address, again
    /// while neither answers, within a limit.
    ///
    /// # Errors
    /// The last error met.
    pub(crate) async fn route<T, L, R>(
        &self,
        passed_on: bool,
        local: L,
        remote: R,
    ) -> Result<T, ServerError>
    where
        T: Send,
        L: Fn() -> BoxFuture<Result<T, ServerError>> + Send + Sync,
        R: Fn(String) -> BoxFuture<Result<T, ServerError>> + Send + Sync,
    {
        self.route_slow(passed_on, CALL_TIMEOUT, local, remote).await
    }

    /// As [`Place::route`] for work that takes the leader up to `limit`.
    pub(crate) async fn route_slow<T, L, R>(
        &self,
        passed_on: bool,
        limit: Duration,
        local: L,
        remote: R,
    ) -> Result<T, ServerError>
    where
        T: Send,
        L: Fn() -> BoxFuture<Result<T, ServerError>> + Send + Sync,
        R: Fn(String) -> BoxFuture<Result<T, ServerError>> + Send + Sync,
    {
        let runtime = &self.parts().runtime;
        let deadline = runtime.now() + PATIENCE;
        let mut attempt = 0;
        loop {
            let result = match self.leads() {
                true => local().await,
                false if passed_on => {
                    return Err(ServerError::NotPlacementLeader { leader: self.leader_store() });
                }
                false => self.remote(attempt, limit, &remote).await,
            };
            attempt += 1;
            match result {
                Err(error) if error.is_transient() && runtime.now() < deadline => {
                    runtime.sleep(RETRY).await;
                }
                result => return result,
            }
        }
    }

    async fn remote<T, R>(
        &self,
        attempt: usize,
        limit: Duration,
        remote: &R,
    ) -> Result<T, ServerError>
    where
        T: Send,
        R: Fn(String) -> BoxFuture<Result<T, ServerError>> + Send + Sync,
    {
        let unknown = ServerError::NotPlacementLeader { leader: None };
        let store = self.candidate(attempt).ok_or(unknown.clone())?;
        let address = self.parts().addresses.get(store).ok_or(unknown)?.address;
        self.parts().metrics.forwarded.inc();
        let call = self.parts().runtime.timeout(limit, remote(address.clone())).await;
        let result = call.unwrap_or(Err(ServerError::Timeout { what: "the placement leader" }));
        if let Err(ServerError::Transport(_) | ServerError::Timeout { .. }) = &result {
            self.parts().peers.forget(&address);
        }
        result
    }

    fn candidate(&self, attempt: usize) -> Option<StoreId> {
        let own = self.parts().store;
        let live = |store: &StoreId| *store != own && self.parts().multi.store_is_live(*store);
        let others = self.parts().addresses.all().into_iter().map(|info| info.id).collect();
        let leader = self.leader_store().filter(live);
        whom_to_ask(attempt, own, leader, self.members(), others)
    }
}

/// Whom to ask: the leader, if one is known, the first time; else, and from then on, the members, and then
/// all others, in turn. Whoever is thought to lead may not any more, and members may have moved while this
/// store was away.
fn whom_to_ask(
    attempt: usize,
    own: StoreId,
    leader: Option<StoreId>,
    members: Vec<StoreId>,
    mut others: Vec<StoreId>,
) -> Option<StoreId> {
    if let (0, Some(leader)) = (attempt, leader) {
        return Some(leader);
    }
    others.retain(|store| !members.contains(store));
    let mut all = [members, others].concat();
    all.retain(|store| *store != own);
    all.get(attempt % all.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_thought_to_lead_is_asked_once_and_then_everybody() {
        let ids = |ids: &[u64]| ids.iter().copied().map(StoreId).collect::<Vec<_>>();
        let ask = |attempt, leader: Option<u64>| {
            let leader = leader.map(StoreId);
            whom_to_ask(attempt, StoreId(4), leader, ids(&[1, 2, 3]), ids(&[1, 2, 3, 4, 5]))
        };
        assert_eq!(ask(0, Some(2)), Some(StoreId(2)));
        let later: Vec<_> = (1..=4).filter_map(|attempt| ask(attempt, Some(2))).collect();
        assert_eq!(later, ids(&[2, 3, 5, 1]));
        let leaderless: Vec<_> = (0..4).filter_map(|attempt| ask(attempt, None)).collect();
        assert_eq!(leaderless, ids(&[1, 2, 3, 5]));
        assert_eq!(whom_to_ask(0, StoreId(1), None, ids(&[1]), ids(&[1])), None);
    }
}

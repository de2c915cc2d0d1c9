//! Who the stores of the cluster are: nodes that join, members that move to another address, and nodes that
//! come back without their data.

use cribwork_placement::{IdAllocator, IdKind, StoreState};
use cribwork_proto::cribwork::admin::{RegisterRequest, RegisterResponse};
use cribwork_types::StoreId;

use super::Place;
use super::forward::forwarded;
use super::lead::Lead;
use super::rows;
use super::schedule::DOWN_AFTER;
use crate::{ServerError, StoreInfo};

/// In place of a process that registered: a store of the cluster's first plan, which has been heard of.
const PLANNED: u64 = 0;

/// Refuses what cannot be an address of another node.
fn check_address(address: &str) -> Result<(), ServerError> {
    let port = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match port {
        Some((host, Ok(port))) if !host.is_empty() && port != 0 && address.len() <= 300 => Ok(()),
        _ => Err(ServerError::Invalid(format!("{address:?} is no address, which is HOST:PORT"))),
    }
}

/// Whom a request to register is from.
enum Caller {
    /// A store that has an id.
    Known(StoreInfo),
    /// One that gets an id. At its address there was a store that has lost its data with it.
    New { replaces: Option<StoreInfo> },
}

/// What a registration changes.
struct Registered {
    info: StoreInfo,
    replaced: Option<StoreInfo>,
    ids: IdAllocator,
    is_new: bool,
}

impl Lead {
    /// True if nothing was heard of a store for as long as it takes to call it down. A leader that took
    /// over a moment ago cannot tell yet.
    fn is_silent(&self, store: StoreId, now: std::time::Duration) -> bool {
        let heard = self.heard.get(&store).map(|heard| heard.at).unwrap_or_default();
        let arrived = self.arrived.get(&store).copied().unwrap_or_default();
        now.saturating_sub(heard.max(arrived).max(self.since)) >= DOWN_AFTER
    }

    fn caller(
        &self,
        request: &RegisterRequest,
        now: std::time::Duration,
    ) -> Result<Caller, ServerError> {
        if request.store_id != 0 {
            let known = self.stores.get(&StoreId(request.store_id)).cloned();
            let missing = || ServerError::NotFound(format!("store {}", request.store_id));
            return known.map(Caller::Known).ok_or_else(missing);
        }
        let stays = |it: &&StoreInfo| {
            it.address == request.address && it.state != StoreState::Decommissioned
        };
        // Of several at one address only the last can be there.
        let Some(last) = self.stores.values().rev().find(stays) else {
            return Ok(Caller::New { replaces: None });
        };
        let (id, address) = (last.id, &last.address);
        match self.newcomers.get(&id) {
            None => Err(ServerError::Invalid(format!(
                "{address} is store {id} of this cluster and waits for its part of `init`; if it had \
                 that and has lost it, decommission store {id}"
            ))),
            Some(instance) if *instance == request.instance && *instance != PLANNED => {
                Ok(Caller::Known(last.clone()))
            }
            Some(_) if self.is_silent(id, now) => Ok(Caller::New { replaces: Some(last.clone()) }),
            Some(_) => Err(ServerError::Invalid(format!(
                "{address} is store {id} of this cluster, which was heard of a moment ago: a node \
                 that has lost its data is taken in once its store is silent"
            ))),
        }
    }

    fn registered(
        &self,
        request: &RegisterRequest,
        now: std::time::Duration,
    ) -> Result<Registered, ServerError> {
        let mut ids = self.ids.clone();
        let (id, state, replaces, is_new) = match self.caller(request, now)? {
            // A node that comes back is where it was in its life.
            Caller::Known(known) => (known.id, known.state, None, false),
            Caller::New { replaces } => {
                let id = StoreId(ids.reserve(IdKind::Store, 1)?);
                (id, StoreState::default(), replaces, true)
            }
        };
        let (address, http) = (request.address.clone(), request.http.clone());
        let info = StoreInfo { id, address, http, zone: request.zone.clone(), state };
        // What it held is made anew from the others, under new replica ids.
        let replaced = replaces.map(|it| StoreInfo { state: StoreState::Decommissioning, ..it });
        Ok(Registered { info, replaced, ids, is_new })
    }
}

impl Place {
    /// Makes a node that is no member a store of this cluster, or notes a member's new address.
    ///
    /// # Errors
    /// [`ServerError::NotFound`] for a store id that was never given out.
    pub async fn register(
        &self,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, ServerError> {
        self.serve_register(request, false).await
    }

    pub(crate) async fn serve_register(
        &self,
        request: RegisterRequest,
        passed_on: bool,
    ) -> Result<RegisterResponse, ServerError> {
        let remote = |address: String| -> cribwork_types::BoxFuture<_> {
            let place = self.clone();
            let ask = RegisterRequest { cluster_id: self.cluster().get(), ..request.clone() };
            Box::pin(async move {
                let mut client = place.parts().peers.node_client(&address).await?;
                Ok(client.register(forwarded(ask)).await?.into_inner())
            })
        };
        let local = || -> cribwork_types::BoxFuture<_> {
            let (place, request) = (self.clone(), request.clone());
            Box::pin(async move { place.register_here(&request).await })
        };
        self.route(passed_on, local, remote).await
    }

    async fn register_here(
        &self,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, ServerError> {
        check_address(&request.address)?;
        let now = self.parts().runtime.now();
        // One change: of two requests of one newcomer, the second finds the row of the first.
        let plan = |lead: &Lead| {
            let registered = lead.registered(request, now)?;
            let (info, replaced) = (&registered.info, registered.replaced.iter());
            let changed = [info].into_iter().chain(replaced);
            let changed = changed.filter(|it| lead.stores.get(&it.id) != Some(*it));
            let mut news: Vec<_> = changed.map(rows::store).collect();
            if registered.is_new {
                news.push(rows::ids(&registered.ids));
                news.push(rows::newcomer(info.id, request.instance));
            }
            Ok((news, registered))
        };
        let keep = |lead: &mut Lead, registered: &Registered| {
            let Registered { info, replaced, ids, is_new } = registered;
            if *is_new {
                lead.newcomers.insert(info.id, request.instance);
                lead.arrived.insert(info.id, now);
                lead.schedule_at = now;
            }
            lead.ids = ids.clone();
            for info in [info].into_iter().chain(replaced) {
                lead.stores.insert(info.id, info.clone());
            }
        };
        let Registered { info, replaced, .. } = self.change(plan, keep).await?;
        let id = info.id;
        if let Some(old) = replaced {
            let (old_id, address) = (old.id, &old.address);
            tracing::warn!(store = %id, replaces = %old_id, address, "a node came back without its data");
            self.parts().addresses.set(old);
            self.leader_changed();
        }
        self.parts().addresses.set(info);
        let members = self.members().into_iter().map(StoreId::get).collect();
        let stores = self.with_lead(|lead| lead.stores.values().map(Into::into).collect())?;
        Ok(RegisterResponse {
            cluster_id: self.cluster().get(),
            store_id: id.get(),
            stores,
            placement_members: members,
        })
    }

    /// Notes where a store is; what it was told to do is not its own to say.
    pub(super) async fn note_store(&self, said: StoreInfo) -> Result<(), ServerError> {
        check_address(&said.address)?;
        self.parts().addresses.set(said.clone());
        let row = |lead: &Lead| {
            let known = lead.stores.get(&said.id);
            let state = known.map(|known| known.state).unwrap_or_default();
            let info = StoreInfo { state, ..said.clone() };
            let news = known != Some(&info);
            Ok((news.then(|| rows::store(&info)).into_iter().collect(), info))
        };
        self.change(row, |lead, info| drop(lead.stores.insert(info.id, info.clone()))).await?;
        Ok(())
    }

    /// Notes that a store of the cluster's first plan has taken its part: a node under its address that
    /// has no data has lost it from now on.
    pub(super) async fn note_arrival(&self, store: StoreId) -> Result<(), ServerError> {
        let row = |lead: &Lead| {
            let news = !lead.newcomers.contains_key(&store);
            Ok((news.then(|| rows::newcomer(store, PLANNED)).into_iter().collect(), ()))
        };
        let keep = |lead: &mut Lead, (): &()| _ = lead.newcomers.entry(store).or_insert(PLANNED);
        self.change(row, keep).await
    }
}

//! What all parts of one client share: routes, channels, timestamps, background work.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cribwork_router::{ClientCache, Route};
use cribwork_types::{BoxFuture, Runtime, RuntimeExt, StoreId, Timestamp};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::backoff::Backoff;
use crate::call::{Call, Pause, Setback};
use crate::channel::{ChannelError, Connector, PdChannel, Placed};
use crate::request::Effect;
use crate::stores::{Slot, Stores};
use crate::tso::TsoBatcher;
use crate::txn::StatusCache;
use crate::{ClientError, ClientOptions};

/// Most finished transactions whose rest (commits of secondaries, rollbacks) is under way in the
/// background; over it callers do that work themselves before they get their answer.
const BACKGROUND_MAX: usize = 256;

/// Shared by every handle of one client.
pub(crate) struct Core {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) options: ClientOptions,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) pd: Arc<dyn PdChannel>,
    pub(crate) cache: RwLock<ClientCache>,
    pub(crate) stores: Stores,
    pub(crate) statuses: StatusCache,
    tso: TsoBatcher,
    background: Arc<Semaphore>,
}

impl Core {
    pub(crate) async fn connect(
        options: ClientOptions,
        connector: Arc<dyn Connector>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ClientError> {
        if options.endpoints.is_empty() {
            let why = "there must be at least one".to_owned();
            return Err(ClientError::Invalid { what: "endpoints", why });
        }
        let pd = connect_pd(&options, &*connector, &*runtime).await?;
        let tso = TsoBatcher::start(runtime.clone(), pd.clone(), options.timeout);
        Ok(Self {
            runtime,
            options,
            connector,
            pd,
            cache: RwLock::default(),
            stores: Stores::default(),
            statuses: StatusCache::default(),
            tso,
            background: Arc::new(Semaphore::new(BACKGROUND_MAX)),
        })
    }

    /// Begins a call with the client's time limit.
    pub(crate) fn call(&self, what: &'static str, effect: Effect) -> Call {
        Call::new(&*self.runtime, what, effect, self.options.timeout)
    }

    /// Asks the placement service until it answers or the call's time is up.
    pub(crate) async fn ask_pd<T, F>(
        &self,
        call: &mut Call,
        ask: impl Fn(Arc<dyn PdChannel>) -> F + Send + Sync,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ChannelError>> + Send,
        T: Send,
    {
        loop {
            let left = call.remaining(&*self.runtime);
            let setback = match self.runtime.timeout(left, ask(self.pd.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error @ ChannelError::Refused { retryable: false, .. })) => {
                    return Err(ClientError::from_channel(call.what, error));
                }
                Ok(Err(error)) => Setback::new(Pause::Grow, error.to_string()),
                Err(_) => {
                    let why = "the placement service does not answer".to_owned();
                    return Err(call.out_of_time(why));
                }
            };
            call.pause(&*self.runtime, vec![setback]).await?;
        }
    }

    /// A timestamp above every one handed out so far.
    pub(crate) async fn timestamp(&self, call: &Call) -> Result<Timestamp, ClientError> {
        let left = call.remaining(&*self.runtime);
        match self.runtime.timeout(left, self.tso.timestamp()).await {
            Ok(Ok(ts)) => Ok(ts),
            Ok(Err(error @ ChannelError::Refused { retryable: false, .. })) => {
                Err(ClientError::from_channel(call.what, error))
            }
            Ok(Err(error)) => Err(call.out_of_time(format!("no timestamp: {error}"))),
            Err(timed_out) => Err(call.out_of_time(format!("no timestamp: {timed_out}"))),
        }
    }

    /// Takes in what the placement service says about a range. It may lag behind what stores have
    /// said: the newer route counts.
    pub(crate) fn learn(&self, placed: Placed) -> Route {
        let descriptor = Arc::new(placed.range);
        let mut cache = self.cache.write();
        cache.insert(descriptor.clone(), placed.leader);
        let known = cache.route_by_id(descriptor.id);
        known.unwrap_or(Route { descriptor, leader: placed.leader })
    }

    /// The channel to a store, opened if there is none.
    pub(crate) async fn open(&self, store: StoreId, slot: &Slot) -> Result<(), ChannelError> {
        let open = async {
            let address = self.pd.get_store(store).await?.address;
            self.connector.connect_store(&address).await
        };
        // Twice: one part for the address, one for the connection.
        let limit = self.options.connect_timeout * 2;
        let open = slot.channel.get_or_try_init(|| open);
        match self.runtime.timeout(limit, open).await {
            Ok(outcome) => outcome.map(|_| ()),
            Err(timed_out) => Err(ChannelError::Unsent(format!("store {store}: {timed_out}"))),
        }
    }

    /// Forgets a channel that failed, and that its store leads anything.
    pub(crate) fn store_failed(&self, store: StoreId, slot: &Arc<Slot>) {
        if self.stores.fail(store, slot, self.runtime.now()) {
            tracing::debug!(%store, "store failed");
            self.cache.write().on_store_failed(store);
        }
    }

    /// Runs what nobody waits for, beside its caller if there is room and before it goes on if not.
    pub(crate) async fn background(&self, work: BoxFuture<()>) {
        match self.background.clone().try_acquire_owned() {
            Ok(permit) => self.runtime.spawn(Box::pin(async move {
                work.await;
                drop(permit);
            })),
            Err(_) => work.await,
        }
    }

    /// How long one attempt of `call` may take.
    pub(crate) fn attempt_limit(&self, call: &Call) -> Duration {
        self.options.attempt_timeout.min(call.remaining(&*self.runtime))
    }
}

/// Tries until some node answers for a cluster: it may be starting, or without a leader.
async fn connect_pd(
    options: &ClientOptions,
    connector: &dyn Connector,
    runtime: &dyn Runtime,
) -> Result<Arc<dyn PdChannel>, ClientError> {
    let deadline = runtime.now() + options.timeout;
    let mut backoff = Backoff::default();
    loop {
        let left = deadline.saturating_sub(runtime.now());
        let opening = connector.connect_pd(&options.endpoints);
        let why = match runtime.timeout(left, opening).await {
            Ok(Ok(pd)) => return Ok(pd),
            Ok(Err(error @ ChannelError::Refused { retryable: false, .. })) => {
                return Err(ClientError::from_channel("connect", error));
            }
            Ok(Err(error)) => error.to_string(),
            Err(timed_out) => timed_out.to_string(),
        };
        let pause = backoff.next(runtime);
        if runtime.now() + pause >= deadline {
            return Err(ClientError::Connect { why });
        }
        runtime.sleep(pause).await;
    }
}

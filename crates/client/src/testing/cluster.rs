//! A cluster in memory: three stores that check requests as real ones do, a placement service, and
//! faults that a test scripts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_proto::{errorpb, kvrpcpb as kv};
use cribwork_types::{
    ClusterId, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId,
    ReplicaRole, StoreId, Timestamp, key,
};
use parking_lot::Mutex;

use super::TestRuntime;
use super::data::Data;
use crate::{
    AdminChannel, Answer, ChannelError, Client, ClientOptions, Command, Connector, Members,
    PdChannel, Placed, StoreAddress, StoreChannel, UnaryAnswer, UnaryRequest,
};

/// What happens to a request.
pub(crate) enum Fault {
    Region(Box<errorpb::Error>),
    Unsent,
    /// The request never arrives, and nobody knows.
    LostRequest,
    /// It is executed, and nobody learns.
    LostAnswer,
    /// No answer, ever.
    Silent,
}

pub(crate) struct Cluster {
    pub(crate) runtime: Arc<TestRuntime>,
    pub(crate) ranges: Mutex<Vec<Placed>>,
    pub(crate) data: Mutex<Data>,
    /// Each is used up by the next request of its name.
    faults: Mutex<VecDeque<(&'static str, Fault)>>,
    /// Store and name of every request that was sent.
    pub(crate) log: Mutex<Vec<(u64, &'static str)>>,
    pub(crate) dead: Mutex<Vec<u64>>,
    pub(crate) tso: AtomicU64,
    pub(crate) tso_requests: AtomicU64,
    pub(crate) lookups: AtomicU64,
}

fn range(id: u64, start: Bytes, end: Bytes) -> Placed {
    let replicas: Vec<_> = (1..=3)
        .map(|store| ReplicaDescriptor {
            id: ReplicaId(id * 10 + store),
            store: StoreId(store),
            role: ReplicaRole::Voter,
        })
        .collect();
    let leader = Some(replicas[(id - 1) as usize % 3]);
    let range = RangeDescriptor {
        id: RangeId(id),
        span: KeyRange { start, end },
        epoch: RangeEpoch::INITIAL,
        replicas,
    };
    Placed { range, leader }
}

impl Cluster {
    /// Ranges up to each of `bounds` (plain keys) and one above them; leaders go round.
    pub(crate) fn new(bounds: &[&str]) -> Arc<Self> {
        let mut bounds: Vec<Bytes> =
            bounds.iter().map(|bound| key::encode(bound.as_bytes()).into()).collect();
        bounds.push(Bytes::new());
        let starts = std::iter::once(Bytes::new()).chain(bounds.clone());
        let ranges =
            starts.zip(&bounds).zip(1..).map(|((start, end), id)| range(id, start, end.clone()));
        Arc::new(Self {
            runtime: TestRuntime::new(),
            ranges: Mutex::new(ranges.collect()),
            data: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
            dead: Mutex::default(),
            tso: AtomicU64::new(Timestamp::new(1_700_000_000_000, 0).get()),
            tso_requests: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
        })
    }

    pub(crate) async fn client(self: &Arc<Self>) -> Client {
        let connector = Arc::new(Link { cluster: self.clone(), store: 0 });
        let options = ClientOptions::new(["fake"]);
        Client::connect_with(options, connector, self.runtime.clone()).await.unwrap()
    }

    pub(crate) fn fail_next(&self, name: &'static str, fault: Fault) {
        self.faults.lock().push_back((name, fault));
    }

    pub(crate) fn refuse_next(&self, name: &'static str, error: errorpb::Error) {
        self.fail_next(name, Fault::Region(Box::new(error)));
    }

    /// How many requests of this name were sent.
    pub(crate) fn sent(&self, name: &str) -> usize {
        self.log.lock().iter().filter(|(_, sent)| *sent == name).count()
    }

    /// Moves the leadership of a range.
    pub(crate) fn lead(&self, id: u64, store: u64) {
        let mut ranges = self.ranges.lock();
        let range = ranges.iter_mut().find(|placed| placed.range.id.get() == id).unwrap();
        range.leader = range.range.replica_on(StoreId(store));
    }

    /// Splits the range that holds `bound` there; the right part gets `id`.
    pub(crate) fn split(&self, bound: &str, id: u64) {
        let bound: Bytes = key::encode(bound.as_bytes()).into();
        let mut ranges = self.ranges.lock();
        let at = ranges.iter().position(|placed| placed.range.span.contains(&bound)).unwrap();
        let mut right = range(id, bound.clone(), ranges[at].range.span.end.clone());
        ranges[at].range.span.end = bound;
        ranges[at].range.epoch.version += 1;
        right.range.epoch = ranges[at].range.epoch;
        right.leader = ranges[at].leader.and_then(|leader| right.range.replica_on(leader.store));
        ranges.insert(at + 1, right);
    }

    fn take_fault(&self, name: &str) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let at = faults.iter().position(|(wanted, _)| *wanted == name)?;
        faults.remove(at).map(|(_, fault)| fault)
    }

    /// What a store checks before it serves.
    fn check(&self, store: u64, context: &kv::Context) -> Result<(), Box<errorpb::Error>> {
        let mut error = errorpb::Error::default();
        let peer = context.peer.unwrap();
        assert_eq!(peer.store_id, store, "sent to the wrong store");
        let ranges = self.ranges.lock();
        let id = RangeId(context.region_id);
        let Some(placed) = ranges.iter().find(|placed| placed.range.id == id) else {
            error.region_not_found = Some(errorpb::RegionNotFound { region_id: id.get() });
            return Err(Box::new(error));
        };
        if placed.leader.is_none_or(|leader| leader.store.get() != store) {
            let leader = placed.leader.map(Into::into);
            error.not_leader = Some(errorpb::NotLeader { region_id: id.get(), leader });
            return Err(Box::new(error));
        }
        if RangeEpoch::from(context.region_epoch.unwrap()) != placed.range.epoch {
            let current_regions = ranges.iter().map(|placed| (&placed.range).into()).collect();
            error.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
            return Err(Box::new(error));
        }
        Ok(())
    }

    async fn serve<T>(
        &self,
        store: u64,
        name: &'static str,
        context: &kv::Context,
        refuse: impl FnOnce(errorpb::Error) -> T,
        execute: impl FnOnce(&mut Data) -> T,
    ) -> Result<T, ChannelError> {
        let unknown = || ChannelError::Unknown("scripted".into());
        if self.dead.lock().contains(&store) {
            return Err(ChannelError::Unsent("dead".into()));
        }
        let fault = self.take_fault(name);
        if !matches!(fault, Some(Fault::Unsent)) {
            self.log.lock().push((store, name));
        }
        match fault {
            Some(Fault::Region(error)) => return Ok(refuse(*error)),
            Some(Fault::Unsent) => return Err(ChannelError::Unsent("scripted".into())),
            Some(Fault::LostRequest) => return Err(unknown()),
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::LostAnswer) | None => {}
        }
        if let Err(error) = self.check(store, context) {
            return Ok(refuse(*error));
        }
        let answer = execute(&mut self.data.lock());
        match fault {
            Some(_) => Err(unknown()),
            None => Ok(answer),
        }
    }

    fn find(&self, holds: impl Fn(&RangeDescriptor) -> bool) -> Option<Placed> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.ranges.lock().iter().find(|placed| holds(&placed.range)).cloned()
    }
}

/// The way to one store, or to placement.
struct Link {
    cluster: Arc<Cluster>,
    store: u64,
}

macro_rules! serve {
    ($link:ident, $message:ident, $requests:ident => $answers:ident:
     $($name:ident($response:ident) $execute:ident;)*) => {
        match &$message {
            $($requests::$name(request) => $link
                .cluster
                .serve(
                    $link.store,
                    stringify!($name),
                    request.context.as_ref().unwrap(),
                    |error| $answers::$name(kv::$response {
                        region_error: Some(error),
                        ..Default::default()
                    }),
                    |data| $answers::$name(data.$execute(request)),
                )
                .await,)*
            other => Err(ChannelError::refused(format!("{other:?}"))),
        }
    };
}

#[async_trait]
impl StoreChannel for Link {
    async fn call(&self, command: Command) -> Result<Answer, ChannelError> {
        serve! { self, command, Command => Answer:
            RawGet(RawGetResponse) raw_get;
            RawPut(RawPutResponse) raw_put;
            RawDelete(RawDeleteResponse) raw_delete;
            RawBatchGet(RawBatchGetResponse) raw_batch_get;
            RawBatchPut(RawBatchPutResponse) raw_batch_put;
            RawBatchDelete(RawBatchDeleteResponse) raw_batch_delete;
            RawDeleteRange(RawDeleteRangeResponse) raw_delete_range;
            RawScan(RawScanResponse) raw_scan;
            Get(GetResponse) get;
            BatchGet(BatchGetResponse) batch_get;
            Scan(ScanResponse) scan;
            Prewrite(PrewriteResponse) prewrite;
            Commit(CommitResponse) commit;
            BatchRollback(BatchRollbackResponse) batch_rollback;
            CheckTxnStatus(CheckTxnStatusResponse) check_status;
            CheckSecondaryLocks(CheckSecondaryLocksResponse) check_secondaries;
            ResolveLock(ResolveLockResponse) resolve;
            TxnHeartBeat(TxnHeartBeatResponse) heartbeat;
        }
    }

    async fn unary(&self, request: UnaryRequest) -> Result<UnaryAnswer, ChannelError> {
        serve! { self, request, UnaryRequest => UnaryAnswer:
            RawCompareAndSwap(RawCasResponse) compare_and_swap;
            RawChecksum(RawChecksumResponse) checksum;
        }
    }
}

#[async_trait]
impl PdChannel for Link {
    async fn tso(&self, count: u32) -> Result<Timestamp, ChannelError> {
        self.cluster.tso_requests.fetch_add(1, Ordering::Relaxed);
        // As a round trip does: whoever asks meanwhile has to wait for the next one.
        tokio::task::yield_now().await;
        if let Some(Fault::Unsent) = self.cluster.take_fault("Tso") {
            return Err(ChannelError::Unsent("scripted".into()));
        }
        let wall = Timestamp::new(
            1_700_000_000_000
                + cribwork_types::Runtime::now(&*self.cluster.runtime).as_millis() as u64,
            0,
        );
        let last = self.cluster.tso.load(Ordering::Relaxed).max(wall.get()) + u64::from(count);
        self.cluster.tso.store(last, Ordering::Relaxed);
        Ok(Timestamp(last))
    }

    async fn get_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError> {
        Ok(self.cluster.find(|range| range.span.contains(&key)))
    }

    async fn get_prev_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError> {
        let Some(found) = self.cluster.find(|range| range.span.contains(&key)) else {
            return Ok(None);
        };
        Ok(self
            .cluster
            .find(|range| !range.span.end.is_empty() && range.span.end == found.range.span.start))
    }

    async fn get_region_by_id(&self, id: RangeId) -> Result<Option<Placed>, ChannelError> {
        Ok(self.cluster.find(|range| range.id == id))
    }

    async fn scan_regions(&self, span: KeyRange, limit: u32) -> Result<Vec<Placed>, ChannelError> {
        let limit = if limit == 0 { usize::MAX } else { limit as usize };
        let ranges = self.cluster.ranges.lock();
        let inside = ranges.iter().filter(|placed| placed.range.span.overlaps(&span));
        Ok(inside.take(limit).cloned().collect())
    }

    async fn get_store(&self, id: StoreId) -> Result<StoreAddress, ChannelError> {
        Ok(StoreAddress { id, address: id.to_string() })
    }

    async fn get_all_stores(&self) -> Result<Vec<StoreAddress>, ChannelError> {
        let store = |id: u64| StoreAddress { id: StoreId(id), address: id.to_string() };
        Ok((1..=3).map(store).collect())
    }

    async fn members(&self) -> Result<Members, ChannelError> {
        Ok(Members { cluster: ClusterId(7), addresses: Vec::new(), leader: None })
    }

    async fn gc_safe_point(&self) -> Result<Timestamp, ChannelError> {
        Ok(Timestamp::ZERO)
    }

    async fn update_gc_safe_point(&self, ts: Timestamp) -> Result<Timestamp, ChannelError> {
        Ok(ts)
    }
}

#[async_trait]
impl Connector for Link {
    async fn connect_store(&self, address: &str) -> Result<Arc<dyn StoreChannel>, ChannelError> {
        let store = address.parse().unwrap();
        if self.cluster.dead.lock().contains(&store) {
            return Err(ChannelError::Unsent("connection refused".into()));
        }
        Ok(Arc::new(Link { cluster: self.cluster.clone(), store }))
    }

    async fn connect_pd(&self, _: &[String]) -> Result<Arc<dyn PdChannel>, ChannelError> {
        Ok(Arc::new(Link { cluster: self.cluster.clone(), store: 0 }))
    }

    async fn connect_admin(&self, _: &str) -> Result<Arc<dyn AdminChannel>, ChannelError> {
        Err(ChannelError::Unsent("no administration here".into()))
    }
}

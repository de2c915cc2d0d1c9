//! Running commands: admission, reads, latches, proposals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cribwork_multiraft::{MultiRaft, RaftError, ReadHandle, Replica, WriteToken};
use cribwork_proto::kvrpcpb::Context;
use cribwork_types::quirk::{Quirk, hold_up, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    ClusterId, RangeDescriptor, RangeId, Runtime, RuntimeExt, StoreId, Timestamp, WriteBatch,
};
use dashmap::DashMap;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, oneshot};

use crate::HybridClock;
use crate::kv::call::{Command, PointRead};
use crate::kv::checks;
use crate::kv::context::Target;
use crate::kv::failure::{self, Failure};
use crate::kv::latches::{Held, Latches};
use crate::kv::metrics::KvMetrics;
use crate::kv::parts::{KvLimits, KvParts, RangeOps};
use crate::kv::view::View;

/// How long the deletion of a span waits until no transactional write of its range is under way, and
/// those for it.
const SPAN_WAIT: Duration = Duration::from_secs(1);
/// How far ahead of the cluster's clock a timestamp may lie: as far as two clocks may plausibly be
/// apart. One read at a time that is far away would push all commits behind it.
const TS_AHEAD_MAX: Duration = Duration::from_secs(600);
/// Pause before asking again what became of a write.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// The state of the service.
pub(crate) struct Core {
    pub(crate) store: StoreId,
    cluster: ClusterId,
    pub(crate) multi: MultiRaft,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) ranges: Arc<dyn RangeOps>,
    pub(crate) limits: KvLimits,
    pub(crate) metrics: KvMetrics,
    latches: Arc<Latches>,
    /// By range: shared by transactional writes, exclusive to the deletion of a span, whose keys are
    /// not known beforehand: a command evaluated before it must not take effect after it. One for
    /// each range that was ever written here.
    spans: DashMap<RangeId, Arc<RwLock<()>>>,
    in_flight: AtomicUsize,
    /// Newest snapshot read from this store; commits computed here must be above it.
    max_ts: AtomicU64,
}

/// A snapshot that belongs to the range of a request.
pub(crate) struct Opened<'h> {
    pub(crate) view: View<'h>,
    pub(crate) range: &'h RangeDescriptor,
}

/// What a write takes before it is evaluated.
pub(crate) enum Locking {
    /// Nothing: it overwrites without looking.
    Nothing,
    /// Latches of the raw API.
    RawKeys(Vec<u64>),
    /// Latches of transactions.
    TxnKeys(Vec<u64>),
    /// Everything transactional of the range.
    Span,
}

/// What a write holds until its fate is known.
#[derive(Default)]
pub(crate) struct Hold {
    _keys: Option<Held>,
    _shared: Option<OwnedRwLockReadGuard<()>>,
    _exclusive: Option<OwnedRwLockWriteGuard<()>>,
}

impl Hold {
    fn is_empty(&self) -> bool {
        self._keys.is_none() && self._shared.is_none() && self._exclusive.is_none()
    }
}

/// A place among the commands in flight.
struct Place<'c>(&'c AtomicUsize);

impl<'c> Place<'c> {
    fn take(in_flight: &'c AtomicUsize) -> Self {
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self(in_flight)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    pub(crate) fn new(parts: KvParts) -> Arc<Self> {
        Arc::new(Self {
            latches: Latches::new(parts.limits.latch_waiters_max),
            store: parts.store,
            cluster: parts.cluster,
            multi: parts.multi,
            runtime: parts.runtime,
            clock: parts.clock,
            ranges: parts.ranges,
            limits: parts.limits,
            metrics: parts.metrics,
            spans: DashMap::new(),
            in_flight: AtomicUsize::new(0),
            max_ts: AtomicU64::new(0),
        })
    }

    /// Serves one command, if there is room for it.
    pub(crate) async fn serve<C: Command>(
        self: &Arc<Self>,
        command: C,
    ) -> Result<C::Answer, Failure> {
        let started = self.runtime.now();
        let outcome = match self.in_flight.load(Ordering::Relaxed) {
            count if count >= self.limits.commands_in_flight_max || strikes(Quirk::RefuseBusy) => {
                Err(self.busy("too many commands are under way"))
            }
            _ => {
                let _place = Place::take(&self.in_flight);
                command.run(self).await
            }
        };
        let took = self.runtime.now().saturating_sub(started);
        self.metrics.observe(C::KIND, took, outcome.as_ref().err());
        outcome
    }

    /// As [`Core::serve`], for callers who may go away at any time: a command that holds latches goes
    /// on without them.
    pub(crate) async fn serve_detached<C: Command>(
        self: &Arc<Self>,
        command: C,
    ) -> Result<C::Answer, Failure> {
        if !command.must_finish() {
            return self.serve(command).await;
        }
        let (done, outcome) = oneshot::channel();
        let core = self.clone();
        let run = async move { drop(done.send(core.serve(command).await)) };
        self.runtime.spawn(Box::pin(run));
        let lost = |_| Failure::Undetermined("the node is shutting down".into());
        outcome.await.map_err(lost).flatten()
    }

    pub(crate) fn busy(&self, reason: &str) -> Failure {
        failure::busy(reason, self.limits.busy_backoff_ms)
    }

    /// The replica that a request is for.
    pub(crate) fn target(&self, context: Option<&Context>) -> Result<Target, Failure> {
        self.target_among(context, |range| self.multi.replica(range))
    }

    /// As [`Core::target`], where the caller knows how to find replicas.
    pub(crate) fn target_among(
        &self,
        context: Option<&Context>,
        find: impl FnOnce(RangeId) -> Option<Arc<Replica>>,
    ) -> Result<Target, Failure> {
        let target = Target::find(context, self.store, find)?;
        if let Some(context) = context {
            checks::context(context, self.cluster)?;
        }
        Ok(target)
    }

    /// Checks that a view is one of what the request was made for.
    pub(crate) fn open<'h>(
        &self,
        target: &Target,
        handle: &'h ReadHandle,
    ) -> Result<Opened<'h>, Failure> {
        target.check(&self.multi, handle.token.term(), &handle.descriptor)?;
        Ok(Opened { view: View(&*handle.snapshot), range: &handle.descriptor })
    }

    /// Notes a read at `ts`, before its snapshot is taken. The newest of all moves nothing.
    pub(crate) fn raise_max_ts(&self, ts: Timestamp) {
        if ts != Timestamp::MAX {
            self.max_ts.fetch_max(ts.get(), Ordering::SeqCst);
        }
    }

    /// Refuses a timestamp that placement cannot have handed out. The newest of all stands for "no
    /// point in time" and passes.
    pub(crate) fn check_ts(&self, ts: Timestamp) -> Result<(), Failure> {
        let limit_ms = self.clock.now_ms() + TS_AHEAD_MAX.as_millis() as u64;
        match ts == Timestamp::MAX || ts.physical_ms() <= limit_ms {
            true => Ok(()),
            false => Err(Failure::Refused(format!(
                "timestamp {ts} lies more than {} s ahead of the cluster's clock",
                TS_AHEAD_MAX.as_secs()
            ))),
        }
    }

    /// As [`Core::check_ts`], for a timestamp that is written down: it has to be a point in time.
    pub(crate) fn check_written_ts(&self, ts: Timestamp) -> Result<(), Failure> {
        match ts {
            Timestamp::MAX => Err(Failure::Refused("the newest timestamp of all is none".into())),
            ts => self.check_ts(ts),
        }
    }

    /// A linearizable view for a request at `ts`.
    pub(crate) async fn read(&self, target: &Target, ts: Timestamp) -> Result<ReadHandle, Failure> {
        self.check_ts(ts)?;
        self.raise_max_ts(ts);
        Ok(target.replica.read().await?)
    }

    /// Serves a read of few keys.
    pub(crate) async fn point_read<R: PointRead>(&self, request: &R) -> Result<R::Answer, Failure> {
        let target = self.target(request.context())?;
        let handle = self.read(&target, request.ts()).await?;
        request.read(self, &self.open(&target, &handle)?)
    }

    /// Takes what a write needs.
    async fn hold(&self, range: RangeId, locking: Locking) -> Result<Hold, Failure> {
        let mut hold = Hold::default();
        let span = || self.spans.entry(range).or_default().clone();
        let busy = |_| self.busy("a range of keys is being deleted");
        let slots = match locking {
            Locking::Nothing => return Ok(hold),
            Locking::Span => {
                let all = self.runtime.timeout(SPAN_WAIT, span().write_owned()).await;
                let all = all.map_err(|_| self.busy("other writes are under way"))?;
                hold._exclusive = Some(all);
                return Ok(hold);
            }
            Locking::RawKeys(slots) => slots,
            Locking::TxnKeys(slots) => {
                let shared = self.runtime.timeout(SPAN_WAIT, span().read_owned()).await;
                hold._shared = Some(shared.map_err(busy)?);
                slots
            }
        };
        let slots = if has(Bug::NoLatches) { Vec::new() } else { slots };
        let held = self.latches.acquire(slots).await;
        let held = held.map_err(|_| self.busy("too many commands wait for latches"))?;
        if held.waited() {
            self.metrics.latch_waits.inc();
        }
        hold._keys = Some(held);
        Ok(hold)
    }

    /// Evaluates a write against a snapshot and proposes what comes of it. An answer that needs no
    /// write (done already, conflict, comparison failed) is a read, and is proven like one.
    pub(crate) async fn write<A>(
        self: &Arc<Self>,
        context: Option<&Context>,
        locking: Locking,
        evaluate: impl FnOnce(&Opened<'_>) -> Result<(WriteBatch, A), Failure> + Send,
    ) -> Result<A, Failure> {
        let target = self.target(context)?;
        let hold = self.hold(target.replica.range_id(), locking).await?;
        let handle = target.replica.evaluate().await?;
        let token = handle.token;
        let evaluated = self.open(&target, &handle).and_then(|at| evaluate(&at));
        // A snapshot holds back compaction: not for as long as a round takes.
        drop(handle);
        match evaluated {
            Ok((batch, answer)) if !batch.is_empty() => {
                self.propose(&target, token, batch, hold).await?;
                Ok(answer)
            }
            Err(failure @ Failure::Region(_)) => Err(failure),
            outcome => {
                self.prove(&target, token).await?;
                outcome.map(|(_, answer)| answer)
            }
        }
    }

    /// Proposes a write that hangs on nothing but the bounds of the range.
    pub(crate) async fn write_blind(
        self: &Arc<Self>,
        context: Option<&Context>,
        locking: Locking,
        build: impl FnOnce(&RangeDescriptor) -> Result<WriteBatch, Failure> + Send,
    ) -> Result<(), Failure> {
        let target = self.target(context)?;
        let hold = self.hold(target.replica.range_id(), locking).await?;
        let token = target.replica.token().await?;
        let range = target.replica.descriptor();
        target.check(&self.multi, token.term(), &range)?;
        // The write takes effect only under the token's epoch, so that the bounds checked here are
        // those that hold then.
        target.check_version(&self.multi, token.epoch())?;
        let batch = build(&range)?;
        match batch.is_empty() {
            true => self.prove(&target, token).await,
            false => self.propose(&target, token, batch, hold).await,
        }
    }

    async fn propose(
        self: &Arc<Self>,
        target: &Target,
        token: WriteToken,
        batch: WriteBatch,
        hold: Hold,
    ) -> Result<(), Failure> {
        self.metrics.proposals.inc();
        hold_up(Quirk::HeldWrite, &*self.runtime).await;
        match target.replica.propose(&token, batch).await {
            Ok(_) => Ok(()),
            Err(RaftError::EpochChanged { .. }) => Err(target.epoch_not_match(&self.multi)),
            Err(error) => {
                let failure = Failure::of_proposal(error);
                let open = matches!(failure, Failure::Undetermined(_));
                if open && !hold.is_empty() && !has(Bug::LatchesLetGo) {
                    let settling = settle(self.clone(), target.replica.clone(), token, hold);
                    self.runtime.spawn(Box::pin(settling));
                }
                Err(failure)
            }
        }
    }

    /// Proves that what was read under `token` was the state of the range at that time: this replica
    /// still leads in the same term, over the same bounds.
    async fn prove(&self, target: &Target, token: WriteToken) -> Result<(), Failure> {
        if has(Bug::RefusalUnproven) {
            return Ok(());
        }
        let now = target.replica.read().await?.token;
        if now.term() != token.term() {
            return Err(failure::not_leader(target.replica.range_id(), None));
        }
        target.check_version(&self.multi, now.epoch())
    }
}

#[cfg(test)]
impl Core {
    /// Holds the raw latch of `key`, as a slow command would.
    pub(crate) async fn latch_for_test(&self, key: &[u8]) -> Hold {
        let slot = crate::kv::latches::slot(cribwork_types::Cf::Raw, key);
        self.hold(RangeId(0), Locking::RawKeys(vec![slot])).await.unwrap()
    }
}

/// Holds the latches of a write whose outcome was given up until it is decided after all.
///
/// The entry may still sit in the log of this leader, ahead of everything that it proposes later. So
/// the fate is known once a later proposal of the same term has one, or once the term is over: a
/// later leadership of this replica begins with a barrier behind the entry.
async fn settle(core: Arc<Core>, replica: Arc<Replica>, token: WriteToken, hold: Hold) {
    let _place = Place::take(&core.in_flight);
    loop {
        let decided = match replica.propose(&token, WriteBatch::new()).await {
            Ok(_) => true,
            Err(RaftError::NotLeader { .. }) => {
                let view = replica.leader();
                !view.is_self || view.term != token.term()
            }
            Err(
                RaftError::EpochChanged { .. }
                | RaftError::RangeNotFound { .. }
                | RaftError::Shutdown,
            ) => true,
            Err(_) => false,
        };
        if decided {
            break;
        }
        core.runtime.sleep(SETTLE_PAUSE).await;
    }
    drop(hold);
}

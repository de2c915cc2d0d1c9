//! Ranges that have grown too large are split by their leader's store, near the middle of their bytes.
//!
//! Once a second the store looks at the sizes of the ranges it leads. One that is over the limit is walked
//! over, in pieces between which other work goes on; what comes out of the walk is a bound, and the rest is a
//! split as anybody may ask for one. Both sides are looked at again at once. What cannot be divided, or
//! takes its room with bytes that wait for compaction, is left alone until its size has moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cribwork_engine::{Engine, EngineError, EngineSnapshot};
use cribwork_multiraft::{MultiRaft, Replica};
use cribwork_router::{KeyForm, SplitSampler};
use cribwork_types::quirk::{Quirk, at_work};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, KeyRange, RangeId, Runtime, key};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::kv::RangeOps;
use crate::ranges::LocalRanges;
use crate::sizes::RangeSizes;

/// Above this a range is split, unless placement says otherwise.
pub(crate) const SPLIT_SIZE_BYTES: u64 = 96 << 20;
/// The limit under [`Quirk::SmallRanges`].
const SMALL_RANGE_BYTES: u64 = 4 << 10;
/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a range is left alone after a split of it that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Rows, and bytes, after which a walk lets others go on.
const WALK_ROWS: usize = 512;
const WALK_BYTES: usize = 256 << 10;

/// Counters of automatic splits.
#[derive(Clone, Debug, Default)]
pub(crate) struct AutosplitMetrics {
    done: Counter,
    failed: Counter,
    kept_whole: Counter,
}

impl AutosplitMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let counters = [
            ("splits", "Ranges split because of their size", &m.done),
            ("failures", "Splits because of size that failed", &m.failed),
            ("kept_whole", "Ranges found too large that could not be divided", &m.kept_whole),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("cribwork_autosplit_{name}"), help, counter.clone());
        }
        m
    }
}

/// A range that is too large and was not split.
struct KeptWhole {
    size_bytes: u64,
    why: String,
}

/// Splits the ranges that this store leads.
pub(crate) struct Splitter {
    multi: MultiRaft,
    ranges: Arc<LocalRanges>,
    engine: Arc<dyn Engine>,
    sizes: Arc<RangeSizes>,
    runtime: Arc<dyn Runtime>,
    metrics: AutosplitMetrics,
    limit_bytes: AtomicU64,
    kept: Mutex<BTreeMap<RangeId, KeptWhole>>,
    /// Ranges whose split has failed, until when they are left alone: runtime clock.
    failed: Mutex<BTreeMap<RangeId, Duration>>,
    /// Ranges of which the next heartbeat has to say that they are kept whole, or not any more.
    news: Mutex<BTreeSet<RangeId>>,
}

impl Splitter {
    pub(crate) fn new(
        multi: MultiRaft,
        ranges: Arc<LocalRanges>,
        engine: Arc<dyn Engine>,
        sizes: Arc<RangeSizes>,
        runtime: Arc<dyn Runtime>,
        metrics: AutosplitMetrics,
    ) -> Arc<Self> {
        let limit_bytes = AtomicU64::new(SPLIT_SIZE_BYTES);
        Arc::new(Self {
            multi,
            ranges,
            engine,
            sizes,
            runtime,
            metrics,
            limit_bytes,
            kept: Mutex::default(),
            failed: Mutex::default(),
            news: Mutex::default(),
        })
    }

    /// Placement has said from which size on ranges are split; 0 says nothing.
    pub(crate) fn set_limit(&self, bytes: u64) {
        if bytes > 0 {
            self.limit_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// From which size on a range is split.
    pub(crate) fn limit_bytes(&self) -> u64 {
        match at_work(Quirk::SmallRanges) {
            true => SMALL_RANGE_BYTES,
            false => self.limit_bytes.load(Ordering::Relaxed),
        }
    }

    /// Why `range`, which is too large, is not split.
    pub(crate) fn kept_whole(&self, range: RangeId) -> Option<String> {
        self.kept.lock().get(&range).map(|kept| kept.why.clone())
    }

    /// Ranges for which [`Splitter::kept_whole`] says something else than when this was last asked.
    pub(crate) fn take_news(&self) -> BTreeSet<RangeId> {
        std::mem::take(&mut *self.news.lock())
    }

    fn forget(&self, range: RangeId) {
        if self.kept.lock().remove(&range).is_some() {
            self.news.lock().insert(range);
        }
    }

    /// Looks once a period. Runs until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let look = async {
            loop {
                self.runtime.sleep(PERIOD).await;
                self.look().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = look => {}
        }
    }

    /// Splits, one after the other, what is too large, and what comes of it, until nothing is.
    async fn look(&self) {
        let (replicas, now) = (self.multi.replicas(), self.runtime.now());
        self.failed.lock().retain(|_, until| *until > now);
        self.kept.lock().retain(|range, _| {
            self.multi.replica(*range).is_some_and(|replica| replica.leader().is_self)
        });
        let mut large: Vec<RangeId> = replicas
            .iter()
            .map(|replica| replica.range_id())
            .filter(|range| self.sizes.of(*range) > self.limit_bytes())
            .collect();
        while let Some(range) = large.pop() {
            if let Some(replica) = self.multi.replica(range)
                && replica.leader().is_self
                && !replica.descriptor().is_joint()
                && !self.failed.lock().contains_key(&range)
                && self.is_due(&replica)
            {
                large.extend(self.split(&replica).await);
            }
        }
    }

    /// True if the range is too large now, and has changed since it was left whole.
    fn is_due(&self, replica: &Arc<Replica>) -> bool {
        let (range, size) = (replica.range_id(), self.sizes.look_at(replica));
        if size <= self.limit_bytes() {
            self.forget(range);
            return false;
        }
        let kept = self.kept.lock();
        kept.get(&range).is_none_or(|kept| size.abs_diff(kept.size_bytes) > kept.size_bytes / 4)
    }

    /// Splits one range; both sides if that went well.
    async fn split(&self, replica: &Arc<Replica>) -> Vec<RangeId> {
        let range = replica.range_id();
        let limit = self.limit_bytes();
        let bound = match self.find_bound(&replica.descriptor().span, self.sizes.of(range)).await {
            Ok(Found { bound: Some(bound), live_bytes }) if live_bytes > limit / 2 => bound,
            Ok(Found { bound, live_bytes }) => {
                self.keep_whole(range, bound.is_some().then_some(live_bytes));
                return Vec::new();
            }
            Err(error) => {
                tracing::warn!(%range, %error, "cannot look for a place to split at");
                return Vec::new();
            }
        };
        match self.ranges.split_here(range, bound).await {
            Ok((left, right)) => {
                tracing::info!(%range, right = %right.id, "split: it had grown too large");
                self.metrics.done.inc();
                self.forget(range);
                vec![left.id, right.id]
            }
            Err(error) => {
                // Leadership may have moved, or members change: the next look finds out.
                tracing::info!(%range, %error, "a range that is too large stays whole for now");
                self.metrics.failed.inc();
                self.failed.lock().insert(range, self.runtime.now() + AFTER_FAILURE);
                Vec::new()
            }
        }
    }

    /// Leaves a range alone until its size has moved: it has no middle, or only so many bytes of it live.
    fn keep_whole(&self, range: RangeId, live_bytes: Option<u64>) {
        let why = match live_bytes {
            None => {
                "unsplittable: prefix (its keys share what a bound could tell apart)".to_owned()
            }
            Some(live) => format!("only {live} bytes of it live, the rest waits for compaction"),
        };
        tracing::info!(%range, why, "a range that is too large stays whole");
        self.metrics.kept_whole.inc();
        let kept = KeptWhole { size_bytes: self.sizes.of(range), why };
        self.kept.lock().insert(range, kept);
        self.news.lock().insert(range);
    }

    /// Walks over everything in `span`.
    async fn find_bound(&self, span: &KeyRange, size_bytes: u64) -> Result<Found, EngineError> {
        let mut sampler = SplitSampler::new(size_bytes);
        let snapshot = self.engine.snapshot();
        for cf in Cf::DATA {
            let mut cursor = snapshot.cursor(cf, span);
            let mut found = cursor.seek_to_first()?;
            let (mut rows, mut bytes) = (0, 0);
            while found {
                let (key, value) = (cursor.key(), cursor.value().len());
                sampler.row(key, form(cf), value);
                (rows, bytes) = (rows + 1, bytes + key.len() + value);
                if rows >= WALK_ROWS || bytes >= WALK_BYTES {
                    (rows, bytes) = (0, 0);
                    tokio::task::yield_now().await;
                }
                found = cursor.next()?;
            }
            sampler.end_of_family();
        }
        let live_bytes = sampler.total_bytes();
        let bound = match has(Bug::SplitCutsNothing) {
            true => first_bound(span),
            false => sampler.choose(span),
        };
        if cfg!(debug_assertions)
            && let Some(bound) = &bound
        {
            let left = KeyRange { start: span.start.clone(), end: bound.clone() };
            let right = KeyRange { start: bound.clone(), end: span.end.clone() };
            for side in [left, right] {
                assert!(
                    holds_rows(&*snapshot, &side)?,
                    "a split that would leave nothing in {side}"
                );
            }
        }
        Ok(Found { bound, live_bytes })
    }
}

/// True if any row lies in `span`.
fn holds_rows(snapshot: &dyn EngineSnapshot, span: &KeyRange) -> Result<bool, EngineError> {
    for cf in Cf::DATA {
        if snapshot.cursor(cf, span).seek_to_first()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first bound inside of `span`: what the seeded bug divides by.
fn first_bound(span: &KeyRange) -> Option<Bytes> {
    let mut first = key::decode(&span.start).ok()?;
    first.push(0);
    Some(Bytes::from(key::encode(&first))).filter(|bound| span.contains(bound))
}

/// What a walk came to.
struct Found {
    bound: Option<Bytes>,
    live_bytes: u64,
}

fn form(cf: Cf) -> KeyForm {
    match cf {
        Cf::Lock => KeyForm::Encoded,
        Cf::Write | Cf::Default => KeyForm::Versioned,
        _ => KeyForm::Plain,
    }
}

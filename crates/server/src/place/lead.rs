//! What the placement leader holds in memory, how it comes to it, and how it changes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cribwork_placement::{Decision, Directory, IdAllocator, IdKind, Operator, RangeView, Tso};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, RangeId, ReplicaId, StoreId, Timestamp, WriteBatch};

use super::Place;
use super::rows::{self, MergeRow, Row, ServicePoint, Stored};
use super::settings::Settings;
use crate::{ServerError, StoreInfo};

/// What a store said of itself last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// Runtime clock.
    pub(super) at: Duration,
    pub(super) leaders: u64,
    pub(super) replicas: u64,
    pub(super) used_bytes: u64,
    pub(super) capacity_bytes: u64,
    /// It has told this leader of all its ranges.
    pub(super) full: bool,
}

/// Decisions that are remembered for those who ask why.
const HISTORY_MAX: usize = 512;

/// An operator that is under way.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) operator: Operator,
    pub(super) scheduler: &'static str,
    /// Runtime clock.
    pub(super) until: Duration,
    /// Where its new replica lives, and its id, once there is one.
    pub(super) replica: Option<(StoreId, ReplicaId)>,
    /// A step was asked for and has not been answered.
    pub(super) asking: bool,
    /// Steps that failed.
    pub(super) failures: u32,
    /// How the last step went, in words.
    pub(super) last: String,
}

/// The tables, in memory.
pub(super) struct Lead {
    pub(super) term: u64,
    pub(super) ids: IdAllocator,
    pub(super) tso: Tso,
    pub(super) safe_point: u64,
    pub(super) services: Vec<ServicePoint>,
    pub(super) stores: BTreeMap<StoreId, StoreInfo>,
    /// Which process registered a store that joined later.
    pub(super) newcomers: BTreeMap<StoreId, u64>,
    /// When this leader gave a store its id, runtime clock.
    pub(super) arrived: BTreeMap<StoreId, Duration>,
    pub(super) heard: BTreeMap<StoreId, Heard>,
    pub(super) directory: Directory,
    pub(super) sizes: BTreeMap<RangeId, u64>,
    /// Why ranges that are too large are not split.
    pub(super) kept_whole: BTreeMap<RangeId, String>,
    /// When this leader last saw a range's descriptor change, runtime clock.
    pub(super) changed: BTreeMap<RangeId, Duration>,
    pub(super) settings: Settings,
    /// The placement group itself, as of the last look.
    pub(super) group: Option<RangeView>,
    /// Runtime clock of the take-over: nobody is silent for longer than this leader listens.
    pub(super) since: Duration,
    /// What was decided lately, with the wall clock.
    pub(super) history: VecDeque<(u64, Decision)>,
    pub(super) running: Vec<Running>,
    /// Merges that are under way, by name.
    pub(super) merges: BTreeMap<u64, MergeRow>,
    /// Those that this leader is driving.
    pub(super) driven: BTreeSet<u64>,
    /// Ranges moved lately, until when they are left alone.
    pub(super) moved: BTreeMap<RangeId, Duration>,
    /// Runtime clock of the next look at the cluster.
    pub(super) schedule_at: Duration,
}

impl Lead {
    fn new(term: u64, stored: Stored, now: Duration, now_wall_ms: u64) -> Self {
        let mut directory = Directory::new();
        for descriptor in stored.ranges {
            directory.report(Arc::new(descriptor), None, 0);
        }
        Self {
            term,
            ids: stored.ids.unwrap_or_default(),
            tso: Tso::recover(stored.window_ms, now_wall_ms),
            safe_point: stored.safe_point,
            services: stored.services,
            stores: stored.stores.into_iter().map(|store| (store.id, store)).collect(),
            newcomers: stored.newcomers,
            arrived: BTreeMap::new(),
            heard: BTreeMap::new(),
            directory,
            sizes: BTreeMap::new(),
            kept_whole: BTreeMap::new(),
            changed: BTreeMap::new(),
            settings: Settings::new(stored.settings),
            group: None,
            since: now,
            history: VecDeque::new(),
            running: Vec::new(),
            merges: stored.merges.into_iter().map(|row| (row.id, row)).collect(),
            driven: BTreeSet::new(),
            moved: BTreeMap::new(),
            schedule_at: Duration::ZERO,
        }
    }

    /// Remembers a decision, or what became of one.
    pub(super) fn remember(&mut self, wall_ms: u64, decision: Decision) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((wall_ms, decision));
    }
}

impl Place {
    fn not_leader(&self) -> ServerError {
        ServerError::NotPlacementLeader { leader: self.leader_store() }
    }

    /// Who leads group 0, as its replica here sees it; on other stores, who said so last.
    pub(crate) fn leader_store(&self) -> Option<StoreId> {
        match self.holder() {
            Some(holder) => holder.leader().leader.map(|leader| leader.store),
            None => {
                let heard = self.inner.heard_leader.load(std::sync::atomic::Ordering::Relaxed);
                Some(StoreId(heard)).filter(|store| store.get() != 0)
            }
        }
    }

    /// True while this node holds the tables.
    pub(super) fn leads(&self) -> bool {
        self.inner.lead.lock().is_some()
    }

    /// Looks at the tables.
    pub(super) fn with_lead<T>(&self, look: impl FnOnce(&mut Lead) -> T) -> Result<T, ServerError> {
        match self.inner.lead.lock().as_mut() {
            Some(lead) => Ok(look(lead)),
            None => Err(self.not_leader()),
        }
    }

    /// Reads the tables as the new leader. The read proves leadership: an older leader's lease is
    /// over, so nobody else hands out timestamps, and what it persisted is seen here.
    pub(super) async fn take_over(&self) -> Result<(), ServerError> {
        let _writing = self.inner.writing.lock().await;
        let replica = self.replica().ok_or_else(|| self.not_leader())?;
        // What this leader proposed before, and does not know the fate of, is in the tables or never will be.
        let token = replica.token().await?;
        replica.propose(&token, WriteBatch::new()).await?;
        let handle = replica.read().await?;
        let term = handle.token.term();
        let mut stored = Stored::load(handle.snapshot.as_ref())?;
        if stored.cluster.is_none() {
            self.write(term, self.first_rows()).await?;
            let handle = replica.read().await?;
            stored = Stored::load(handle.snapshot.as_ref())?;
        }
        let mut lead = {
            let runtime = &self.parts().runtime;
            Lead::new(term, stored, runtime.now(), runtime.wall_ms())
        };
        for store in lead.stores.values() {
            self.parts().addresses.set(store.clone());
        }
        if let Some(upper_ms) = lead.tso.window_needed(self.parts().runtime.wall_ms()) {
            self.write(term, vec![rows::window(upper_ms)]).await?;
            lead.tso.window_persisted(upper_ms);
        }
        *self.inner.lead.lock() = Some(lead);
        self.parts().metrics.leading.set(1);
        Ok(())
    }

    /// The tables as the bootstrap plan makes them.
    fn first_rows(&self) -> Vec<Row> {
        let plan = &self.parts().plan;
        let stores = plan.stores.iter().map(|store| {
            rows::store(&StoreInfo {
                id: store.id,
                address: store.address.clone(),
                http: store.http.clone(),
                ..StoreInfo::default()
            })
        });
        let mut all: Vec<Row> = stores.collect();
        all.extend(plan.ranges.iter().map(rows::range));
        all.push(rows::ids(&plan.ids));
        all.push(rows::cluster(plan.cluster.get()));
        all
    }

    /// Proposes rows under `term`; they are applied when this returns. After a failure nobody knows
    /// what is stored, so the memory is dropped.
    async fn write(&self, term: u64, rows: Vec<Row>) -> Result<(), ServerError> {
        let result = self.try_write(term, rows).await;
        if result.is_err() {
            *self.inner.lead.lock() = None;
            self.parts().metrics.leading.set(0);
        }
        result
    }

    async fn try_write(&self, term: u64, rows: Vec<Row>) -> Result<(), ServerError> {
        let replica = self.replica().ok_or_else(|| self.not_leader())?;
        let token = replica.token().await?;
        if token.term() != term {
            return Err(self.not_leader());
        }
        let mut batch = WriteBatch::new();
        for (key, value) in rows {
            match value {
                Some(value) => batch.put(Cf::Meta, key, value),
                None => batch.delete(Cf::Meta, key),
            }
        }
        replica.propose(&token, batch).await?;
        Ok(())
    }

    /// Changes the tables: `plan` computes rows from memory, and `commit` takes them over into
    /// memory once they are applied.
    pub(super) async fn change<T>(
        &self,
        plan: impl FnOnce(&Lead) -> Result<(Vec<Row>, T), ServerError>,
        commit: impl FnOnce(&mut Lead, &T),
    ) -> Result<T, ServerError> {
        let _writing = self.inner.writing.lock().await;
        let (term, rows, outcome) =
            self.with_lead(|lead| plan(lead).map(|(rows, outcome)| (lead.term, rows, outcome)))??;
        if !rows.is_empty() {
            self.write(term, rows).await?;
        }
        self.with_lead(|lead| commit(lead, &outcome))?;
        Ok(outcome)
    }

    /// Persists the next window before the present one runs out.
    pub(super) async fn renew_window(&self) -> Result<(), ServerError> {
        let wall = self.parts().runtime.wall_ms();
        let Some(upper) = self.with_lead(|lead| lead.tso.window_needed(wall))? else {
            return Ok(());
        };
        if has(Bug::WindowNotPersisted) {
            return self.with_lead(|lead| lead.tso.window_persisted(upper));
        }
        let needed = |lead: &Lead| {
            let upper = lead.tso.window_needed(wall);
            Ok((upper.map(rows::window).into_iter().collect(), upper))
        };
        self.change(needed, |lead, upper| {
            if let Some(upper) = upper {
                lead.tso.window_persisted(*upper);
            }
        })
        .await?;
        Ok(())
    }

    /// The last of `count` new timestamps, all in one millisecond.
    pub(super) async fn take_timestamps(&self, count: u32) -> Result<Timestamp, ServerError> {
        use cribwork_placement::{PlacementError, TsoError};
        let wall = self.parts().runtime.wall_ms();
        let (term, taken) = self.with_lead(|lead| (lead.term, lead.tso.take(count, wall)))?;
        let batch = match taken {
            Err(TsoError::WindowExhausted { .. }) => {
                self.renew_window().await?;
                let wall = self.parts().runtime.wall_ms();
                self.with_lead(|lead| lead.tso.take(count, wall))?.map_err(PlacementError::from)?
            }
            taken => taken.map_err(PlacementError::from)?,
        };
        self.prove_leadership(term).await?;
        let metrics = &self.parts().metrics;
        metrics.timestamp_requests.inc();
        metrics.timestamps.inc_by(u64::from(count));
        self.parts().clock.observe(batch.last());
        Ok(batch.last())
    }

    /// This node still leads in `term`, by a clock read that comes after this call began.
    async fn prove_leadership(&self, term: u64) -> Result<(), ServerError> {
        if has(Bug::TsoUnproven) {
            return Ok(());
        }
        let replica = self.replica().ok_or_else(|| self.not_leader())?;
        let handle = match replica.try_read() {
            Some(handle) => handle,
            None => replica.read().await?,
        };
        match handle.token.term() == term {
            true => Ok(()),
            false => Err(self.not_leader()),
        }
    }

    /// The first of `count` new ids.
    pub(super) async fn reserve_ids(&self, kind: IdKind, count: u32) -> Result<u64, ServerError> {
        let reserve = |lead: &Lead| {
            let mut ids = lead.ids.clone();
            let first = ids.reserve(kind, u64::from(count))?;
            Ok((vec![rows::ids(&ids)], (first, ids)))
        };
        let (first, _) = self.change(reserve, |lead, (_, ids)| lead.ids = ids.clone()).await?;
        Ok(first)
    }

    /// Ranges that have moved lately.
    pub(super) fn recently_moved(lead: &mut Lead, now: Duration) -> BTreeSet<RangeId> {
        lead.moved.retain(|_, until| *until > now);
        lead.moved.keys().copied().collect()
    }
}

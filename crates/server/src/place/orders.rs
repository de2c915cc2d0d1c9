//! What people order, and what they ask about it. Orders that take a while are begun, and asked again
//! until they are done.

use cribwork_placement::{
    Candidate, Decision, Operator, StoreState, explain_range, explain_store, placement_members,
};
use cribwork_proto::cribwork::admin::{
    CandidateInfo, DecisionInfo, ExplainResponse, MergeRequest, MoveReplicaRequest, Progress,
    Setting,
};
use cribwork_types::{RangeId, ReplicaRole, StoreId, key};

use super::Place;
use super::lead::Lead;
use super::rows;
use crate::ServerError;

/// The name under which orders of people are remembered.
const ORDERED: &str = "ordered";

fn done(text: String) -> Progress {
    Progress { done: true, text, other_range: 0 }
}

fn under_way(text: String) -> Progress {
    Progress { done: false, text, other_range: 0 }
}

impl Place {
    /// Begins to move a replica, or says how far that is.
    pub(crate) fn move_replica(&self, ask: &MoveReplicaRequest) -> Result<Progress, ServerError> {
        let (now, wall_ms) = (self.parts().runtime.now(), self.parts().runtime.wall_ms());
        let progress = self.with_lead(|lead| lead.move_replica(ask, now, wall_ms))?;
        self.leader_changed();
        progress
    }

    /// Begins to merge a range with its right neighbour, or says how far that is.
    pub(crate) fn merge(&self, ask: &MergeRequest) -> Result<Progress, ServerError> {
        let (now, wall_ms) = (self.parts().runtime.now(), self.parts().runtime.wall_ms());
        let (range, watched) = (RangeId(ask.range), RangeId(ask.watched));
        let progress = self.with_lead(|lead| match ask.watched {
            0 => lead.begin_merge(range, now, wall_ms),
            _ => lead.watch_merge(range, watched),
        })?;
        self.leader_changed();
        progress
    }

    /// Puts a store out of service for a while, or back; how many leaders it has left.
    pub(crate) async fn drain(&self, store: StoreId, undo: bool) -> Result<Progress, ServerError> {
        let told = self.told(store)?;
        if told == StoreState::Decommissioned || (told == StoreState::Decommissioning && !undo) {
            let why = format!("store {store} is {}", told.name());
            return Err(ServerError::Invalid(why));
        }
        if undo {
            self.set_state(store, StoreState::Up).await?;
            return Ok(done(format!("store {store} is in service")));
        }
        self.set_state(store, StoreState::Draining).await?;
        let led = |lead: &mut Lead| {
            let entries = lead.directory.map().iter();
            entries.filter(|it| it.leader.is_some_and(|it| it.store == store)).count()
        };
        // Whoever answers leads placement.
        let leads_placement = store == self.parts().store && self.members().len() > 1;
        Ok(match self.with_lead(led)? {
            0 if leads_placement => under_way(format!("store {store} leads placement")),
            0 => done(format!("store {store} leads nothing: it can be stopped")),
            count => under_way(format!("store {store} leads {count} ranges")),
        })
    }

    /// Has a store leave for good; how many replicas it has left.
    pub(crate) async fn decommission(&self, store: StoreId) -> Result<Progress, ServerError> {
        let told = self.told(store)?;
        if told == StoreState::Decommissioned {
            return Ok(done(format!("store {store} is decommissioned: it can be stopped")));
        }
        if told != StoreState::Decommissioning {
            let left = |lead: &mut Lead| {
                let stays = |info: &&crate::StoreInfo| {
                    info.id != store && matches!(info.state, StoreState::Up | StoreState::Draining)
                };
                let wanted = lead.settings.policy().replication_factor.get();
                (lead.stores.values().filter(stays).count(), wanted)
            };
            let (left, wanted) = self.with_lead(left)?;
            if left < wanted {
                let why = format!(
                    "{left} other nodes cannot hold {wanted} replicas of each range: add a node first"
                );
                return Err(ServerError::Invalid(why));
            }
            self.set_state(store, StoreState::Decommissioning).await?;
        }
        let held = |lead: &mut Lead| {
            let entries = lead.directory.map().iter();
            entries.filter(|entry| entry.descriptor.replica_on(store).is_some()).count()
        };
        let held = self.with_lead(held)?;
        let group = if self.members().contains(&store) { " and a member of placement" } else { "" };
        Ok(under_way(format!("store {store} holds {held} replicas{group}")))
    }

    fn told(&self, store: StoreId) -> Result<StoreState, ServerError> {
        let known = self.with_lead(|lead| lead.stores.get(&store).map(|info| info.state))?;
        known.ok_or_else(|| ServerError::NotFound(format!("store {store}")))
    }

    /// The settings of the cluster, one of them changed first if `value` says so.
    pub(crate) async fn config(
        &self,
        key: &str,
        value: Option<&str>,
    ) -> Result<Vec<Setting>, ServerError> {
        if let Some(value) = value {
            let plan = |lead: &Lead| {
                let settings = lead.settings.with(key, value)?;
                Ok((vec![rows::settings(settings.stored())], settings))
            };
            let now = self.parts().runtime.now();
            self.change(plan, |lead, settings| {
                lead.settings = settings.clone();
                lead.schedule_at = now;
            })
            .await?;
            self.leader_changed();
        }
        self.with_lead(|lead| lead.settings.list(key))?
    }

    /// What was decided about a range lately, and what each scheduler thinks of it now.
    pub(crate) fn explain_range(&self, range: RangeId) -> Result<ExplainResponse, ServerError> {
        let (now, wall_ms) = (self.parts().runtime.now(), self.parts().runtime.wall_ms());
        let decisions = self.with_lead(|lead| {
            let (view, policy) = lead.decide_by(now);
            let past = lead.history.iter().filter(|(_, it)| it.subject == range);
            let mut decisions: Vec<_> = past.map(|(at_ms, it)| decision(*at_ms, it)).collect();
            decisions.extend(
                lead.in_flight(wall_ms, |operator| operator.ranges().any(|it| it == range)),
            );
            let thoughts = match (&lead.group, range) {
                (Some(group), RangeId::PLACEMENT) => {
                    vec![placement_members(&view, group, &policy)]
                }
                _ => explain_range(&view, &policy, range),
            };
            let known = !thoughts.is_empty();
            decisions.extend(thoughts.iter().map(|it| decision(wall_ms, it)));
            if range != RangeId::PLACEMENT {
                decisions.push(lead.about_size(range, wall_ms));
            }
            known.then_some(decisions)
        })?;
        let decisions = decisions.ok_or_else(|| ServerError::NotFound(format!("range {range}")))?;
        Ok(ExplainResponse { subject: format!("range {range}"), decisions })
    }

    /// What was decided lately that concerns a store, and what each scheduler thinks of it now.
    pub(crate) fn explain_store(&self, store: StoreId) -> Result<ExplainResponse, ServerError> {
        let (now, wall_ms) = (self.parts().runtime.now(), self.parts().runtime.wall_ms());
        let decisions = self.with_lead(|lead| {
            let (view, policy) = lead.decide_by(now);
            let concerns = |operator: &Operator| operator.stores().any(|it| it == store);
            let past = lead.history.iter();
            let past = past.filter(|(_, it)| it.operator.as_ref().is_some_and(concerns));
            let mut decisions: Vec<_> = past.map(|(at_ms, it)| decision(*at_ms, it)).collect();
            decisions.extend(lead.in_flight(wall_ms, concerns));
            let notes = explain_store(&view, &policy, store);
            let known = !notes.is_empty();
            decisions.extend(notes.into_iter().map(|note| DecisionInfo {
                time_ms: wall_ms,
                scheduler: note.scheduler.to_owned(),
                summary: note.summary,
                ..DecisionInfo::default()
            }));
            known.then_some(decisions)
        })?;
        let decisions = decisions.ok_or_else(|| ServerError::NotFound(format!("store {store}")))?;
        Ok(ExplainResponse { subject: format!("store {store}"), decisions })
    }
}

impl Lead {
    /// Why a range is not split, or that it will be.
    fn about_size(&self, range: RangeId, wall_ms: u64) -> DecisionInfo {
        let limit = self.settings.split_size_bytes();
        let size = self.sizes.get(&range).copied().unwrap_or_default();
        let summary = match self.kept_whole.get(&range) {
            _ if size <= limit => format!("not split: {size} bytes of {limit}"),
            None => format!("to be split by its leader: {size} bytes of {limit}"),
            Some(why) => format!("not split, although {size} bytes of {limit}: {why}"),
        };
        let scheduler = "split".to_owned();
        DecisionInfo { time_ms: wall_ms, scheduler, summary, ..DecisionInfo::default() }
    }

    fn move_replica(
        &mut self,
        ask: &MoveReplicaRequest,
        now: std::time::Duration,
        wall_ms: u64,
    ) -> Result<Progress, ServerError> {
        let (id, from, to) = (RangeId(ask.range), StoreId(ask.from_store), StoreId(ask.to_store));
        let missing = || ServerError::NotFound(format!("range {id}"));
        let entry = self.directory.map().get_by_id(id).ok_or_else(missing)?;
        let voter = entry.descriptor.replica_on(to).filter(|it| it.role == ReplicaRole::Voter);
        let leaves = entry.descriptor.replica_on(from).is_some();
        let operator = Operator::ChangeReplicas { range: id, add: Some(to), remove: Some(from) };
        if let Some(running) = self.running.iter().find(|it| it.operator.range() == id) {
            return match running.operator == operator {
                true => Ok(under_way(format!("range {id}: {}", running.last))),
                false if ask.watch => {
                    Ok(under_way(format!("range {id}: something else is done first")))
                }
                false => Err(ServerError::Busy { what: "the list of what is done to this range" }),
            };
        }
        if voter.is_some() && !leaves {
            return Ok(done(format!("range {id}: store {to} holds what store {from} held")));
        }
        if ask.watch {
            let past = self.history.iter().rev();
            let last = past.into_iter().find(|(_, it)| it.subject == id && it.operator.is_none());
            let why = last.map_or("its operator is gone", |(_, it)| &it.summary);
            return Err(ServerError::Invalid(format!("the replica did not move: {why}")));
        }
        if voter.is_some() || !leaves {
            let why = match leaves {
                true => format!("store {to} holds a replica of range {id} already"),
                false => format!("store {from} holds no replica of range {id}"),
            };
            return Err(ServerError::Invalid(why));
        }
        if self.state(to, now) != StoreState::Up {
            let why = format!("store {to} is {}", self.state(to, now).name());
            return Err(ServerError::Invalid(why));
        }
        let decision = Decision {
            subject: id,
            scheduler: ORDERED,
            operator: Some(operator),
            chosen: Some(to),
            candidates: Vec::new(),
            summary: format!(
                "range {id}: replica on store {from} to store {to}, as somebody asked"
            ),
        };
        self.begin(decision, now, wall_ms);
        self.schedule_at = now;
        Ok(under_way(format!("range {id}: begun")))
    }

    fn begin_merge(
        &mut self,
        range: RangeId,
        now: std::time::Duration,
        wall_ms: u64,
    ) -> Result<Progress, ServerError> {
        let missing = || ServerError::NotFound(format!("range {range}"));
        let map = self.directory.map();
        let left = map.get_by_id(range).ok_or_else(missing)?;
        let end = &left.descriptor.span.end;
        let right = map.get(end).filter(|it| !end.is_empty() && it.descriptor.span.start == *end);
        let Some(right) = right.map(|it| it.descriptor.id) else {
            return Err(ServerError::Invalid(format!("range {range} has no right neighbour")));
        };
        if *end == key::top_bound() {
            let why = format!("range {range} is the last one that holds keys of users");
            return Err(ServerError::Invalid(why));
        }
        let concerned = |it: &Operator| it.ranges().any(|it| it == range || it == right);
        if self.running.iter().any(|it| concerned(&it.operator)) {
            return Err(ServerError::Busy { what: "the list of what is done to these ranges" });
        }
        let decision = Decision {
            subject: right,
            scheduler: ORDERED,
            operator: Some(Operator::Merge { range: right, into: range }),
            chosen: None,
            candidates: Vec::new(),
            summary: format!("range {right}: range {range} absorbs it, as somebody asked"),
        };
        self.begin(decision, now, wall_ms);
        self.schedule_at = now;
        Ok(Progress { other_range: right.get(), ..under_way(format!("range {right}: begun")) })
    }

    fn watch_merge(&self, range: RangeId, right: RangeId) -> Result<Progress, ServerError> {
        let merging = Operator::Merge { range: right, into: range };
        if let Some(running) = self.running.iter().find(|it| it.operator == merging) {
            return Ok(under_way(format!("range {right}: {}", running.last)));
        }
        if self.directory.map().get_by_id(right).is_none() {
            return Ok(done(format!("range {range} has absorbed range {right}")));
        }
        let past = self.history.iter().rev();
        let last = past.into_iter().find(|(_, it)| it.subject == right && it.operator.is_none());
        let why = last.map_or("its operator is gone", |(_, it)| &it.summary);
        Err(ServerError::Invalid(format!("the ranges were not merged: {why}")))
    }

    /// Operators under way, as decisions.
    fn in_flight(&self, wall_ms: u64, concerns: impl Fn(&Operator) -> bool) -> Vec<DecisionInfo> {
        let running = self.running.iter().filter(|running| concerns(&running.operator));
        let info = |running: &super::lead::Running| DecisionInfo {
            time_ms: wall_ms,
            scheduler: running.scheduler.to_owned(),
            summary: format!("range {}: under way: {}", running.operator.range(), running.last),
            ..DecisionInfo::default()
        };
        running.map(info).collect()
    }
}

fn decision(time_ms: u64, decision: &Decision) -> DecisionInfo {
    let candidate = |candidate: &Candidate| CandidateInfo {
        store: candidate.store.get(),
        score: candidate.score,
        rejected_because: candidate.rejected_because.clone().unwrap_or_default(),
    };
    DecisionInfo {
        time_ms,
        scheduler: decision.scheduler.to_owned(),
        chosen_store: decision.chosen.map_or(0, StoreId::get),
        candidates: decision.candidates.iter().map(candidate).collect(),
        summary: decision.summary.clone(),
    }
}

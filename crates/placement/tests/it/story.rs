//! Stories: text files in `tests/scenarios`. Blocks are separated by blank lines; each is a comment, or
//! commands, a line `----` and what they print. `CRIBWORK_REWRITE=1` writes what they print now.
//!
//! ```text
//! store 1-4 [zone=Z] [state=S] [used=N capacity=N]     makes or changes stores
//! range 1-8 on=1,2,3 [leader=1] [size=10MiB]           makes ranges, which lie side by side by id
//! policy [factor=3] [repair_after=5m] [changes=8] [merge_below=8MiB] [merges=4]      changes the policy
//! size 1-8 10MiB        what ranges hold from now on
//! learner 3 on=4        a learner that no operator owns
//! joint 3               a change of members that is not finished
//! down 3, up 3          a store falls silent, or is heard again
//! wait 10s              time passes and nothing happens
//! decide                what the schedulers decide, with all candidates; nothing is done
//! round [N]             decide and carry out, a step of each operator a round
//! settle                rounds until nothing is left to do
//! show                  stores and ranges
//! explain range 3, explain store 3
//! scatter 1-8           scatters ranges, round by round
//! members on=1,2,3      what becomes of the placement group with these members
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use cribwork_placement::{
    Decision, ReplicationFactor, StoreState, StoreView, decommissioned_stores, explain_range,
    explain_store, placement_members, scatter, schedule,
};
use cribwork_types::{RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole, StoreId};

use crate::model::{Fate, Model, Round, range};
use crate::story_text::{Line, number};

/// Most rounds that a story may take to settle.
const ROUNDS_MAX: u32 = 300;

#[test]
fn stories() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let rewrite = std::env::var_os("CRIBWORK_REWRITE").is_some();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let told = tell(&text);
        if rewrite {
            std::fs::write(&path, &told).unwrap();
        } else {
            assert_eq!(text, told, "{} (CRIBWORK_REWRITE=1 rewrites it)", path.display());
        }
        count += 1;
    }
    assert!(count >= 8, "{count} stories found");
}

fn tell(text: &str) -> String {
    let mut model = Model::new(Vec::new(), Vec::new());
    let mut told = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let commands = block.split_once("----").map_or(block, |(commands, _)| commands).trim_end();
        let mut out = String::new();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            run(&mut model, &Line::parse(line), &mut out);
        }
        match out.is_empty() {
            true => told.push(commands.to_owned()),
            false => told.push(format!("{commands}\n----\n{}", out.trim_end())),
        }
    }
    told.join("\n\n") + "\n"
}

fn run(model: &mut Model, line: &Line, out: &mut String) {
    let known =
        ["zone", "state", "used", "capacity", "on", "leader", "size", "factor", "repair_after"];
    line.check(&[&known[..], &["changes", "merge_below", "merges"]].concat());
    match line.command() {
        "store" => line.ids().iter().for_each(|id| store(model, *id, line)),
        "range" => {
            for id in line.ids() {
                let on = line.list("on").expect("on=STORES");
                let mut range = range(id, &on, line.number("leader").unwrap_or(on[0]));
                range.size_bytes = line.number("size").unwrap_or_default();
                model.view.ranges.push(range);
            }
            model.tile();
        }
        "policy" => policy(model, line),
        "size" => {
            for id in line.ids() {
                model.range_mut(RangeId(id)).size_bytes = number(&line.words[2]);
            }
        }
        "learner" => learner(model, line),
        "joint" => {
            let range = model.range_mut(RangeId(line.ids()[0]));
            let last = Arc::make_mut(&mut range.descriptor).replicas.last_mut().unwrap();
            last.role = ReplicaRole::Incoming;
        }
        "down" => line.ids().iter().for_each(|id| model.kill(*id)),
        "up" => line.ids().iter().for_each(|id| model.revive(*id)),
        "wait" => {
            model.pass(number(&line.words[1]));
            model.elect();
        }
        "decide" => {
            let decisions = schedule(&model.view, &model.policy);
            decisions.iter().for_each(|decision| say(decision, out));
            nothing_if_empty(decisions.len(), out);
        }
        "round" => {
            for _ in 0..line.words.get(1).map_or(1, |count| number(count)) {
                let round = model.round(&mut || Fate::Done);
                say_round(&round, out);
                nothing_if_empty(round.steps.len() + round.decisions.len(), out);
            }
        }
        "settle" => settle(model, out),
        "show" => show(model, out),
        "explain" => explain(model, line, out),
        "scatter" => scatter_all(model, &line.ids(), out),
        "members" => {
            let on = line.list("on").expect("on=STORES");
            let group = range(0, &on, line.number("leader").unwrap_or(on[0]));
            say(&placement_members(&model.view, &group, &model.policy), out);
        }
        other => panic!("unknown command {other}"),
    }
}

fn nothing_if_empty(count: usize, out: &mut String) {
    if count == 0 {
        writeln!(out, "nothing").unwrap();
    }
}

fn store(model: &mut Model, id: u64, line: &Line) {
    if model.view.store(StoreId(id)).is_none() {
        model.view.stores.push(StoreView { id: StoreId(id), ..StoreView::default() });
    }
    let store = model.store_mut(id);
    if let Some(zone) = line.text("zone") {
        store.zone = zone.to_owned();
    }
    store.used_bytes = line.number("used").unwrap_or(store.used_bytes);
    store.capacity_bytes = line.number("capacity").unwrap_or(store.capacity_bytes);
    if let Some(name) = line.text("state") {
        use StoreState::{Decommissioned, Decommissioning, Down, Draining, Up};
        let all = [Up, Down, Draining, Decommissioning, Decommissioned];
        store.state = all.into_iter().find(|state| state.name() == name).expect("a state");
    }
}

fn policy(model: &mut Model, line: &Line) {
    if let Some(factor) = line.number("factor") {
        model.policy.replication_factor = ReplicationFactor::new(factor).unwrap();
    }
    let policy = &mut model.policy;
    policy.repair_after_ms = line.number("repair_after").unwrap_or(policy.repair_after_ms);
    if let Some(changes) = line.number("changes") {
        policy.replica_changes_max = changes as usize;
    }
    policy.merge_below_bytes = line.number("merge_below").unwrap_or(policy.merge_below_bytes);
    if let Some(merges) = line.number("merges") {
        policy.merges_max = merges as usize;
    }
}

fn learner(model: &mut Model, line: &Line) {
    let id = line.ids()[0];
    let store = StoreId(line.number("on").expect("on=STORE"));
    let replica = ReplicaId(1000 * id + store.get());
    let range = model.range_mut(RangeId(id));
    let role = ReplicaRole::Learner;
    let replicas = &mut Arc::make_mut(&mut range.descriptor).replicas;
    replicas.push(ReplicaDescriptor { id: replica, store, role });
}

fn say(decision: &Decision, out: &mut String) {
    writeln!(out, "{}: {}", decision.scheduler, decision.summary).unwrap();
    for candidate in &decision.candidates {
        let (store, score) = (candidate.store, candidate.score);
        let why = candidate.rejected_because.as_deref().unwrap_or("chosen");
        let score = match score {
            0..10_000 => score.to_string(),
            bytes => format!("{} MiB", bytes >> 20),
        };
        writeln!(out, "  store {store} ({score}): {why}").unwrap();
    }
}

fn say_round(round: &Round, out: &mut String) {
    for (range, step) in &round.steps {
        writeln!(out, "range {range}: {step}").unwrap();
    }
    for decision in &round.decisions {
        writeln!(out, "{}: {}", decision.scheduler, decision.summary).unwrap();
    }
}

fn settle(model: &mut Model, out: &mut String) {
    let (mut steps, mut decisions) = (0, 0);
    for rounds in 0..ROUNDS_MAX {
        let round = model.round(&mut || Fate::Done);
        steps += round.steps.len();
        decisions += round.decisions.len();
        let failed = round.steps.iter().filter(|(_, step)| step.starts_with("given up"));
        failed.for_each(|(range, step)| writeln!(out, "range {range}: {step}").unwrap());
        if round.decisions.is_empty() && round.steps.is_empty() && model.is_idle() {
            writeln!(out, "settled: {decisions} decisions, {steps} steps, {rounds} rounds")
                .unwrap();
            for store in decommissioned_stores(&model.view) {
                writeln!(out, "store {store} is free to go").unwrap();
            }
            return;
        }
    }
    panic!("does not settle:\n{out}");
}

fn show(model: &Model, out: &mut String) {
    for store in &model.view.stores {
        let held =
            model.view.ranges.iter().filter(|it| it.descriptor.replica_on(store.id).is_some());
        let held: Vec<_> = held.collect();
        let leads = |it: &&&cribwork_placement::RangeView| {
            it.leader.is_some_and(|leader| leader.store == store.id)
        };
        let led = held.iter().filter(leads).count();
        let bytes: u64 = held.iter().map(|it| it.size_bytes).sum();
        let (id, state, count) = (store.id, store.state.name(), held.len());
        writeln!(out, "store {id} {state}: {count} replicas, {} MiB, leads {led}", bytes >> 20)
            .unwrap();
    }
}

fn explain(model: &Model, line: &Line, out: &mut String) {
    let id = number(&line.words[2]);
    match line.words[1].as_str() {
        "range" => explain_range(&model.view, &model.policy, RangeId(id))
            .iter()
            .for_each(|decision| say(decision, out)),
        "store" => explain_store(&model.view, &model.policy, StoreId(id))
            .iter()
            .for_each(|note| writeln!(out, "{}: {}", note.scheduler, note.summary).unwrap()),
        what => panic!("explain {what}"),
    }
}

fn scatter_all(model: &mut Model, ids: &[u64], out: &mut String) {
    let set: BTreeSet<RangeId> = ids.iter().copied().map(RangeId).collect();
    for round in 1..ROUNDS_MAX {
        let decisions = scatter(&model.view, &model.policy, &set);
        if decisions.is_empty() && model.is_idle() {
            writeln!(out, "scattered in {round} rounds").unwrap();
            return;
        }
        decisions.iter().for_each(|it| writeln!(out, "{}: {}", it.scheduler, it.summary).unwrap());
        model.start(&decisions);
        model.steps(&mut || Fate::Done);
    }
    panic!("does not end:\n{out}");
}

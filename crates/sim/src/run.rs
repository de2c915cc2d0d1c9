//! One run, from the first step to the verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cribwork_checker::{Op, Outcome};
use cribwork_types::{quirk, seeded};

use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::plan::Plan;
use crate::recorder::Recorder;
use crate::report::{Found, Report};
use crate::traffic::{self, Phase, Shared};
use crate::watch::Watch;
use crate::{entropy, judge};

/// Simulated time within which an undisturbed cluster is made and filled.
const SETUP_MAX: Duration = Duration::from_secs(60);
/// Simulated time within which every worker gets on once everything is whole again.
const CALM_MAX: Duration = Duration::from_secs(60);
/// The same for reading everything.
const FINAL_MAX: Duration = Duration::from_secs(60);
/// The same for replicas to become equal and locks to vanish.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks whether the cluster has settled.
const SETTLE_PERIOD: Duration = Duration::from_millis(200);

/// Carries `plan` out. A process runs one plan at a time, and best one only: a panic in a node ends
/// the simulation, and is a violation.
///
/// # Errors
/// If there is no room for the disks.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    let begun = Instant::now();
    entropy::seed(plan.seed);
    seeded::put_in(plan.bug);
    let recorder = Recorder::default();
    let limit = SETUP_MAX + plan.duration + CALM_MAX + FINAL_MAX + SETTLE_MAX;
    let mut run = Run {
        shared: Shared::new(plan, recorder.clone()),
        watch: Watch::default(),
        faults: Faults::new(plan, &recorder, Duration::ZERO),
        cluster: Cluster::new(plan, limit * 2)?,
        recorder,
        ranges: 0,
        panicked: false,
    };
    traffic::start(&mut run.cluster.sim, plan, &run.shared);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run.phases(plan))) {
        run.panicked = true;
        run.watch.found("panic", text_of(&*panic));
    }
    seeded::put_in(None);
    Ok(run.report(plan, begun))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

struct Run<'s> {
    shared: Arc<Shared>,
    watch: Watch,
    faults: Faults,
    cluster: Cluster<'s>,
    recorder: Recorder,
    ranges: u64,
    panicked: bool,
}

impl Run<'_> {
    fn phases(&mut self, plan: &Plan) {
        let shared = self.shared.clone();
        if !self.until("set-up", SETUP_MAX, || shared.phase() >= Phase::Load) {
            return;
        }
        self.load(plan);
        shared.enter(Phase::Calm);
        let calm = || shared.struggling.load(std::sync::atomic::Ordering::Relaxed) == 0;
        if !self.until("liveness", CALM_MAX, calm) {
            return;
        }
        shared.enter(Phase::Final);
        if self.until("liveness", FINAL_MAX, || shared.phase() == Phase::Done) {
            self.settle();
        }
    }

    fn step(&mut self) -> bool {
        if let Err(error) = self.cluster.step() {
            self.watch.found("simulator", error.to_string());
            return false;
        }
        self.watch.step(&mut self.cluster, &self.recorder);
        let now = self.cluster.now();
        self.faults.bury(&mut self.cluster, now);
        true
    }

    /// Steps until `reached`; false if that takes too long.
    fn until(&mut self, what: &str, limit: Duration, reached: impl Fn() -> bool) -> bool {
        let deadline = self.cluster.now() + limit;
        while !reached() {
            if !self.step() {
                return false;
            }
            if self.cluster.now() > deadline {
                let why = self.shared.last_error.lock().clone();
                self.watch.found(what, format!("not within {limit:?}; last error: {why}"));
                return false;
            }
        }
        true
    }

    fn load(&mut self, plan: &Plan) {
        let end = self.cluster.now() + plan.duration;
        self.faults = Faults::new(plan, &self.recorder, self.cluster.now());
        quirk::put_to_work(&plan.quirks, plan.seed);
        while self.cluster.now() < end && self.step() {
            if let Some(order) = self.faults.step(&mut self.cluster) {
                self.shared.orders.lock().push(order);
            }
        }
        quirk::put_to_work(&[], 0);
        self.faults.mend_all(&mut self.cluster);
    }

    /// Waits until all replicas are equal and no lock is left, and looks at what they hold.
    fn settle(&mut self) {
        let deadline = self.cluster.now() + SETTLE_MAX;
        let mut next = Duration::ZERO;
        loop {
            if self.cluster.now() >= next {
                next = self.cluster.now() + SETTLE_PERIOD;
                match judge::unsettled(&self.cluster) {
                    Ok(None) => break,
                    Ok(Some(why)) if self.cluster.now() > deadline => {
                        self.watch.found("settle", format!("not within {SETTLE_MAX:?}: {why}"));
                        break;
                    }
                    Ok(Some(_)) => {}
                    Err(error) => return self.watch.found("settle", error.to_string()),
                }
            }
            if !self.step() {
                return;
            }
        }
        match judge::inspect(&self.cluster, &self.recorder) {
            Ok((ranges, found)) => {
                self.ranges = ranges;
                self.watch.found.extend(found);
            }
            Err(error) => self.watch.found("settle", error.to_string()),
        }
    }

    fn report(mut self, plan: &Plan, begun: Instant) -> Report {
        let dump = match judge::dump(&self.cluster) {
            Ok(dump) => Some(dump),
            Err(error) => {
                self.watch.found("dump", error.to_string());
                None
            }
        };
        let settled = self.shared.phase() == Phase::Done;
        let ops = self.recorder.len() as u64;
        let (history, mut trace, flaws) = self.recorder.take();
        for host in &self.cluster.hosts {
            trace.note(&host.disk.syncs().to_be_bytes());
        }
        let (checked, judged) = judge::judge(&history, dump.as_ref().filter(|_| settled));
        let mut violations = std::mem::take(&mut self.watch.found);
        violations.extend(judged);
        violations.extend(flaws.into_iter().map(|what| Found { checker: "recorder".into(), what }));
        let is_client = |op: &Op| !matches!(op, Op::Watermark { .. } | Op::Fingerprint { .. });
        let clients = history.operations().iter().filter(|operation| is_client(&operation.op));
        let unknown = clients.filter(|operation| operation.outcome == Outcome::Unknown).count();
        let simulated_s = self.cluster.now().as_secs_f64();
        let (elections, faults) = (self.watch.elections(), self.faults.counts.clone());
        let ranges = self.ranges;
        let mut coverage = BTreeMap::new();
        for (name, count) in self.cluster.hosts.iter().flat_map(|host| host.counters()) {
            *coverage.entry(name).or_default() += count;
        }
        // Nodes compare replicas, too, and have to come to the same judgement.
        if coverage.contains_key("cribwork_verify_differing") {
            let what = "a leader found replicas that differ".to_owned();
            violations.push(Found { checker: "verify".into(), what });
        }
        // A simulation that panicked must not be taken apart: that would panic again.
        if self.panicked {
            std::mem::forget(self.cluster);
        }
        Report {
            seed: plan.seed,
            bug: plan.bug.map(|bug| bug.name().to_owned()),
            trace_hash: format!("{:016x}", trace.hash()),
            simulated_s,
            wall_s: begun.elapsed().as_secs_f64(),
            ops,
            unknown: unknown as u64,
            faults,
            elections,
            ranges,
            coverage,
            checked,
            ok: violations.is_empty(),
            violations,
        }
    }
}

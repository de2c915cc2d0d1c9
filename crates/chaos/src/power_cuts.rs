//! Power cuts of all nodes, one after the other, each under load and each judged by itself.

use std::time::Duration;

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use serde_json::Value;

use crate::args::{Format, PowerCuts};
use crate::cluster::{Cluster, READY_LIMIT};
use crate::eio::Failing;
use crate::kind::Kind;
use crate::load::{Load, options};
use crate::nemesis::{cut, unix_ms};
use crate::report::Verdict;
use crate::run::{keep_logs, possible, shape};
use crate::stop::Stop;
use crate::stores::{Compared, compare};

/// Load around one cut.
const LOAD: Duration = Duration::from_secs(8);
const WORKERS: u32 = 16;
/// When the cut comes, counted from the beginning of the load, milliseconds.
const CUT_MS: (u64, u64) = (500, 3500);
/// How long the power stays off, milliseconds.
const OFF_MS: (u64, u64) = (0, 1000);
const JUDGE_LIMIT: Duration = Duration::from_secs(120);

/// One cut.
#[derive(Clone, Debug, Serialize)]
struct Cut {
    number: u32,
    /// From the restart until every range was led, milliseconds; null if that never happened.
    recovery_ms: Option<f64>,
    /// The exit status of the bank.
    exit: Option<i32>,
    /// What the bank says.
    bank: Option<Value>,
    /// Whether the stores were equal, as the cut had left them, before any node was started on them.
    stores: Compared,
    /// What should not have happened.
    problems: Vec<String>,
}

impl Cut {
    fn verdict(&self) -> Verdict {
        let bank = match self.exit {
            _ if !self.problems.is_empty() => Verdict::Violated,
            Some(0) => Verdict::Holds,
            Some(2) => Verdict::Violated,
            _ => Verdict::Unchecked,
        };
        bank.worse(self.stores.verdict())
    }
}

/// What is printed and written.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    ok: bool,
    verdict: Verdict,
    seed: u64,
    cuts: Vec<Cut>,
    /// Whether the stores are equal in the end, after all nodes were told to stop.
    stores: Option<Compared>,
}

/// Cuts the power as often as asked for, or until something is wrong.
pub(crate) fn run(asked: &PowerCuts, stop: &Stop) -> anyhow::Result<Verdict> {
    let (out, shape) = shape(&asked.common)?;
    let mut needed = vec![Kind::PowerCutAll];
    if asked.lying_disk {
        // It needs the same library.
        needed.push(Kind::FailingDisk);
    }
    let (can, kinds, skipped) = possible(&needed, &shape.directory);
    let why = skipped.first().map_or("", |skipped| &skipped.reason);
    ensure!(kinds == needed, "not possible on this machine: {why}");
    let seed = asked.common.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}, everything in {}", out.display());
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&shape, &can, stop)?;
    if asked.lying_disk {
        cluster.nodes.iter().filter_map(|node| node.failing.as_ref()).try_for_each(Failing::lie)?;
    }
    let mut cuts = Vec::new();
    let mut verdict = Verdict::Holds;
    for number in 1..=asked.count {
        let more = options(LOAD, WORKERS, seed.wrapping_add(u64::from(number)));
        let mut load = Load::start(&cluster, &shape.binary, &out, "bank", &more)?;
        load.wait_begun(stop)?;
        stop.sleep(Duration::from_millis(random.random_range(CUT_MS.0..=CUT_MS.1)))?;
        let cut = one(&mut cluster, number, random.random_range(OFF_MS.0..=OFF_MS.1), load)?;
        verdict = cut.verdict();
        eprintln!(
            "cut {number} of {}: {verdict:?}, whole again after {:.0} ms; {}",
            asked.count,
            cut.recovery_ms.unwrap_or(f64::NAN),
            cut.stores.told()
        );
        cuts.push(cut);
        if verdict != Verdict::Holds {
            break;
        }
        // What one bank printed must not be taken for what the next one prints.
        for ending in ["out", "err"] {
            let path = out.join(format!("bank.{ending}"));
            std::fs::rename(&path, out.join(format!("bank-{number}.{ending}")))?;
        }
    }
    let mut stores = None;
    if verdict == Verdict::Holds {
        let problems = cluster.terminate();
        ensure!(problems.is_empty(), "{}", problems.join("; "));
        let compared = compare(&cluster)?;
        verdict = verdict.worse(compared.verdict());
        stores = Some(compared);
    }
    keep_logs(&shape.directory, &out);
    drop(cluster);
    let summary = Summary { ok: verdict == Verdict::Holds, verdict, seed, cuts, stores };
    std::fs::write(out.join("report.json"), serde_json::to_vec(&summary)?)?;
    if summary.ok && !asked.common.keep_data {
        std::fs::remove_dir_all(&shape.directory)?;
    }
    print(&summary, asked.common.output)?;
    Ok(verdict)
}

fn one(cluster: &mut Cluster, number: u32, off_ms: u64, load: Load) -> anyhow::Result<Cut> {
    let all: Vec<_> = (0..cluster.nodes.len()).collect();
    cut(cluster, Duration::from_millis(off_ms), &all)?;
    let stores = compare(cluster)?;
    let restarted_ms = unix_ms();
    for node in &mut cluster.nodes {
        node.start()?;
    }
    let mut problems = Vec::new();
    let recovery_ms = match cluster.wait_ready(READY_LIMIT) {
        Ok(()) => Some((unix_ms() - restarted_ms).round()),
        Err(error) => {
            cluster.stop.check()?;
            problems.push(format!("{error:#}"));
            None
        }
    };
    let ended = load.finish(&cluster.stop, LOAD + JUDGE_LIMIT)?;
    if !ended.said.is_empty() {
        eprintln!("{}", ended.said);
    }
    problems.extend(cluster.panics());
    if !stores.said.is_empty() {
        eprintln!("{}", stores.said);
    }
    Ok(Cut { number, recovery_ms, exit: ended.code, bank: ended.report, stores, problems })
}

fn print(summary: &Summary, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string(summary)?);
        return Ok(());
    }
    println!(
        "verdict {:?}, seed {}, {} power cuts",
        summary.verdict,
        summary.seed,
        summary.cuts.len()
    );
    for cut in &summary.cuts {
        let field = |name: &str| cut.bank.as_ref().map_or(Value::Null, |bank| bank[name].clone());
        println!(
            "cut {}: committed {}, unknown {}, acknowledged_lost {}, ok {}",
            cut.number,
            field("committed"),
            field("unknown"),
            field("acknowledged_lost"),
            field("ok")
        );
        println!("cut {}: {}", cut.number, cut.stores.told());
        for problem in &cut.problems {
            println!("PROBLEM {problem}");
        }
    }
    if let Some(stores) = &summary.stores {
        println!("in the end: {}", stores.told());
        if !stores.said.is_empty() {
            println!("PROBLEM {}", stores.said);
        }
    }
    Ok(())
}

//! From arguments to an exit status, and the run itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use cribwork_checker::History;
use serde_json::{Value, json};

use crate::args::{Cli, Command, Common, Format, Run};
use crate::cluster::{Cluster, READY_LIMIT, Shape, default_binary};
use crate::gaps::Seen;
use crate::kind::{KINDS, Kind};
use crate::load::{Ended, Load, history_path, options};
use crate::nemesis::{Done, strike, unix_ms};
use crate::probe::Capabilities;
use crate::report::{Findings, Report, Skipped, Verdict};
use crate::schedule::Schedule;
use crate::stop::Stop;
use crate::stores::compare;
use crate::{html, power_cuts};

/// Load after the last fault, so that its recovery is seen.
const TAIL: Duration = Duration::from_secs(10);
/// What making, undoing and recovering from a fault is taken to need beside its time.
const ROOM: Duration = Duration::from_secs(5);
const DURATION_MIN: Duration = Duration::from_secs(30);
/// How long a workload may take to judge after its load.
const JUDGE_LIMIT: Duration = Duration::from_secs(240);

/// Runs the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Whoever closed the pipe does not want to hear of it.
            let _ = error.print();
            return if error.use_stderr() { 64.into() } else { ExitCode::SUCCESS };
        }
    };
    let ended = Stop::listen().and_then(|stop| match cli.command {
        None => run(&cli.run, &stop),
        Some(Command::List { output }) => list(output).map(|()| Verdict::Holds),
        Some(Command::PowerCuts(options)) => power_cuts::run(&options, &stop),
    });
    match ended {
        Ok(Verdict::Holds) => ExitCode::SUCCESS,
        Ok(Verdict::Violated) => 2.into(),
        Ok(Verdict::Unchecked) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the kinds and what the probes say.
fn list(output: Format) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let can = Capabilities::probe(&KINDS, &scratch.0);
    let rows = KINDS.map(|kind| (kind, can.of(kind)));
    match output {
        Format::Json => {
            let row = |(kind, can): (Kind, Result<(), String>)| json!({"kind": kind, "what": kind.what(), "skip": can.err()});
            println!("{}", Value::from(rows.map(row).to_vec()));
        }
        Format::Table => {
            for (kind, can) in rows {
                println!("{:18} {}", kind.name(), kind.what());
                if let Err(reason) = can {
                    println!("{:18} SKIP: {reason}", "");
                }
            }
        }
    }
    Ok(())
}

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("cribwork-chaos-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Probes what `kinds` need and says what cannot be done; gives what can.
pub(crate) fn possible(
    kinds: &[Kind],
    directory: &Path,
) -> (Capabilities, Vec<Kind>, Vec<Skipped>) {
    let can = Capabilities::probe(kinds, directory);
    let (mut left, mut skipped) = (Vec::new(), Vec::new());
    for kind in kinds {
        match can.of(*kind) {
            Ok(()) => left.push(*kind),
            Err(reason) => {
                eprintln!("SKIP {}: {reason}", kind.name());
                skipped.push(Skipped { kind: *kind, reason });
            }
        }
    }
    (can, left, skipped)
}

/// Makes the directory of a run, with `data` in it, and says what nodes are made of.
pub(crate) fn shape(common: &Common) -> anyhow::Result<(PathBuf, Shape)> {
    let binary = common.binary.clone().map_or_else(default_binary, Ok)?;
    let binary = binary.canonicalize().with_context(|| format!("{}", binary.display()))?;
    let name = format!("cribwork-chaos-{}", unix_ms() as u64 / 1000);
    let out = common.out.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    std::fs::create_dir(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    let directory = out.join("data");
    std::fs::create_dir(&directory)?;
    let nodes = common.nodes as usize;
    Ok((out, Shape { binary, directory, nodes, ranges: common.ranges }))
}

fn run(options: &Run, stop: &Stop) -> anyhow::Result<Verdict> {
    let duration = options.duration;
    ensure!(duration >= DURATION_MIN, "--duration must be at least {DURATION_MIN:?}");
    let (out, shape) = shape(&options.common)?;
    let kinds = if options.kinds.is_empty() { KINDS.to_vec() } else { options.kinds.clone() };
    let (can, kinds, skipped) = possible(&kinds, &shape.directory);
    ensure!(!kinds.is_empty(), "none of the kinds is possible on this machine");
    let seed = options.common.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}, {} kinds of faults, everything in {}", kinds.len(), out.display());
    let mut cluster = Cluster::start(&shape, &can, stop)?;
    eprintln!("{} nodes are ready: {}", shape.nodes, cluster.endpoints());

    let mut findings = Findings { seed, nodes: shape.nodes, skipped, kinds, ..Findings::default() };
    let mut loads = start_loads(&cluster, &shape, &out, options, seed)?;
    for load in &mut loads {
        load.wait_begun(stop)?;
    }
    findings.begun_unix_ms = unix_ms();
    findings.duration_s = duration.as_secs_f64();
    let whole = torment(&mut cluster, &mut findings, &mut loads, duration)?;
    if whole && let Err(error) = cluster.wait_ready(READY_LIMIT) {
        findings.problems.push(format!("after the last fault: {error:#}"));
    }
    eprintln!("faults are over; the workloads end and judge");
    let limit = duration + JUDGE_LIMIT;
    let ended: anyhow::Result<Vec<Ended>> =
        loads.into_iter().map(|load| load.finish(stop, limit)).collect();
    findings.loads = ended?;
    findings.problems.extend(cluster.terminate());
    stop.check()?;
    compare_stores(&cluster, &mut findings);
    findings.problems.extend(cluster.panics());
    keep_logs(&shape.directory, &out);
    drop(cluster);

    let report = conclude(findings, &out)?;
    if report.ok && !options.common.keep_data {
        std::fs::remove_dir_all(&shape.directory)?;
    }
    print(&report, &out, options.common.output);
    Ok(report.verdict)
}

/// Looks at the disks of the nodes, all of which have ended.
fn compare_stores(cluster: &Cluster, findings: &mut Findings) {
    match compare(cluster) {
        Ok(compared) => {
            eprintln!("{}", compared.told());
            findings.stores = Some(compared);
        }
        Err(error) => findings.problems.push(format!("the stores cannot be compared: {error:#}")),
    }
}

fn start_loads(
    cluster: &Cluster,
    shape: &Shape,
    out: &Path,
    run: &Run,
    seed: u64,
) -> anyhow::Result<[Load; 3]> {
    let common = options(run.duration, run.workers, seed);
    let history = |name| ["--history".to_owned(), history_path(out, name).display().to_string()];
    let start = |name, more: &[String]| {
        Load::start(cluster, &shape.binary, out, name, &[&common, more].concat())
    };
    Ok([
        start("bank", &[])?,
        start("register", &history("register"))?,
        start("append", &history("append"))?,
    ])
}

/// Does faults until the time is nearly up; false if the cluster did not recover from one.
fn torment(
    cluster: &mut Cluster,
    findings: &mut Findings,
    loads: &mut [Load],
    duration: Duration,
) -> anyhow::Result<bool> {
    let begun = std::time::Instant::now();
    for fault in Schedule::new(findings.seed, &findings.kinds) {
        if begun.elapsed() + fault.pause + fault.hold + ROOM + TAIL > duration {
            break;
        }
        cluster.stop.sleep(fault.pause)?;
        if !loads.iter_mut().all(Load::runs) {
            findings.problems.push("a workload ended before its time".to_owned());
            break;
        }
        let done = strike(cluster, &fault)?;
        tell(&done, findings.begun_unix_ms);
        let recovered = done.recovered;
        findings.done.push(done);
        if !recovered {
            return Ok(false);
        }
    }
    Ok(true)
}

fn tell(done: &Done, begun_unix_ms: f64) {
    eprintln!(
        "{:6.1} s  {} {}: {:.1} s, whole again after {:.1} s more",
        (done.begun_ms - begun_unix_ms) / 1e3,
        done.kind.name(),
        done.target,
        (done.undone_ms - done.begun_ms) / 1e3,
        (done.ready_ms - done.undone_ms) / 1e3
    );
    for note in &done.notes {
        eprintln!("          {note}");
    }
    for problem in &done.problems {
        eprintln!("          PROBLEM: {problem}");
    }
}

/// Moves what nodes said out of the directory of their data.
pub(crate) fn keep_logs(data: &Path, out: &Path) {
    let Ok(entries) = std::fs::read_dir(data) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "err") {
            // A log that cannot be moved stays where it is, with the data.
            let _ = std::fs::rename(&path, out.join(entry.file_name()));
        }
    }
}

/// Lays the faults over the history and writes the report.
fn conclude(mut findings: Findings, out: &Path) -> anyhow::Result<Report> {
    let seen = match seen(&findings, out) {
        Ok(seen) => seen,
        Err(error) => {
            findings.problems.push(format!("no history: {error:#}"));
            Seen::default()
        }
    };
    let report = Report::new(findings, &seen);
    std::fs::write(out.join("report.json"), serde_json::to_vec(&report)?)?;
    std::fs::write(out.join("report.html"), html::page(&report))?;
    Ok(report)
}

fn seen(findings: &Findings, out: &Path) -> anyhow::Result<Seen> {
    let register = findings.loads.iter().find(|load| load.name == "register");
    let report = register.and_then(|load| load.report.as_ref()).context("register says nothing")?;
    let zero = report["clock_zero_unix_ms"].as_f64().context("no clock_zero_unix_ms")?;
    let path = history_path(out, "register");
    let file = std::fs::File::open(&path).with_context(|| format!("{}", path.display()))?;
    let history = History::read(std::io::BufReader::new(file))?;
    Ok(Seen::new(&history, zero, findings.begun_unix_ms))
}

fn print(report: &Report, out: &Path, format: Format) {
    let page = out.join("report.html");
    match format {
        Format::Json => {
            let mut summary = report.summary();
            summary["report"] = json!(page);
            println!("{summary}");
        }
        Format::Table => {
            println!(
                "verdict {:?}, seed {}, {} faults",
                report.verdict,
                report.seed,
                report.faults.len()
            );
            for row in &report.kinds {
                println!(
                    "{:18} {:3} faults, longest gap {:6.0} ms, slowest operation {:6.0} ms, recovery {:6.0} ms",
                    row.kind.name(),
                    row.runs,
                    row.gap_ms_max,
                    row.slowest_ms_max,
                    row.recovery_ms_max
                );
            }
            for skipped in &report.skipped {
                println!("{:18} SKIP: {}", skipped.kind.name(), skipped.reason);
            }
            if let Some(stores) = &report.stores {
                println!("{}", stores.told());
            }
            let unequal = report.stores.iter().map(|stores| &stores.said);
            let unequal = unequal.filter(|said| !said.is_empty());
            for problem in report.problems.iter().chain(unequal) {
                println!("PROBLEM {problem}");
            }
            println!("report {}", page.display());
        }
    }
    for load in report.loads.iter().filter(|load| load.exit != Some(0)) {
        eprintln!("workload {}: {}", load.name, load.said);
    }
}

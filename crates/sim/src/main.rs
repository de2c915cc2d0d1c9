//! `cribwork-sim`: runs of the simulated cluster, by seed.

#![allow(clippy::disallowed_methods, reason = "one process waits for the others")]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use cribwork_sim::{FaultKind, Found, Mutant, Plan, Report, StoreKind, minimize, mutants, run};
use cribwork_types::seeded::Bug;

/// Exit code of a run that found a violation.
const VIOLATION: u8 = 2;

/// Runs a whole cluster in one process, with faults, from a seed, and judges what its clients saw.
///
/// The same seed and the same build give the same run. Exits with 2 if anything is wrong.
#[derive(Parser)]
#[command(name = "cribwork-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Run one seed, or many.
    Run(RunArgs),
    /// Look for fewer faults and a shorter run that still show a seed's violation.
    Minimize(OneArgs),
    /// Put each bug in and count the seeds that it takes to find it.
    Mutants(MutantsArgs),
    /// Many seeds, then every bug: what a machine does at night. Prints how far it is, and one line for
    /// each failure.
    Nightly(NightlyArgs),
    /// List the bugs that can be put in.
    Bugs,
}

#[derive(Args, Clone)]
struct Common {
    /// Simulated time of load with faults.
    #[arg(long, value_parser = duration, default_value = "60s")]
    duration: Duration,
    /// Put this bug in (see `bugs`).
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Leave these kinds of faults out.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    without: Vec<FaultKind>,
    /// What nodes store their data in.
    #[arg(long, value_enum, default_value = "memory")]
    store: StoreArg,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Human,
    /// One JSON value a line.
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreArg {
    /// In memory, exact about what a loss of power leaves.
    Memory,
    /// RocksDB; power is never lost, processes are.
    Rocks,
}

#[derive(Args)]
struct RunArgs {
    /// The seed.
    #[arg(long, conflicts_with = "seeds", required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Seeds from A up to, not including, B; each in a process of its own.
    #[arg(long, value_name = "A..B", value_parser = span)]
    seeds: Option<(u64, u64)>,
    /// Processes at once, with --seeds.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct OneArgs {
    /// The seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct MutantsArgs {
    /// Seeds after which a bug counts as not found.
    #[arg(long, default_value_t = 50)]
    max_seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only these bugs.
    #[arg(long, value_delimiter = ',', value_parser = bug)]
    bugs: Vec<Bug>,
    /// Bugs at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct NightlyArgs {
    /// Seeds from A up to, not including, B, without a bug.
    #[arg(long, value_name = "A..B", value_parser = span, default_value = "1..3001")]
    seeds: (u64, u64),
    /// Seeds after which a bug counts as not found.
    #[arg(long, default_value_t = 200)]
    max_seeds: u64,
    /// Processes at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Simulated time of load with faults.
    #[arg(long, value_parser = duration, default_value = "30s")]
    duration: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    cribwork_server::parse_duration(text).map_err(|error| error.to_string())
}

fn bug(text: &str) -> Result<Bug, String> {
    let found = Bug::ALL.iter().find(|bug| bug.name() == text);
    found.copied().ok_or_else(|| "no such bug: `cribwork-sim bugs` lists them".to_owned())
}

fn fault(text: &str) -> Result<FaultKind, String> {
    let named = |kind: &FaultKind| serde_json::to_value(kind).is_ok_and(|name| name == text);
    let names = || {
        let all = FaultKind::ALL.iter().filter_map(|kind| serde_json::to_value(kind).ok());
        all.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
    };
    let found = FaultKind::ALL.into_iter().find(named);
    found.ok_or_else(|| format!("no such kind of fault: {}", names()))
}

fn span(text: &str) -> Result<(u64, u64), String> {
    let parse = |part: &str| part.parse::<u64>().map_err(|error| format!("{part}: {error}"));
    let (from, to) = text.split_once("..").ok_or("two numbers with .. between them")?;
    match (parse(from)?, parse(to)?) {
        (from, to) if from < to => Ok((from, to)),
        _ => Err("the second number must be larger".to_owned()),
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        What::Run(args) => run_command(&args),
        What::Minimize(args) => minimize_command(&args),
        What::Mutants(args) => mutants_command(&args),
        What::Nightly(args) => nightly_command(&args),
        What::Bugs => bugs_command(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(VIOLATION),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(seed: u64, common: &Common) -> Plan {
    let plan = Plan::new(seed, common.duration).with_bug(common.bug);
    let plan = match common.store {
        StoreArg::Memory => plan,
        StoreArg::Rocks => plan.with_store(StoreKind::Rocks),
    };
    common.without.iter().fold(plan, |plan, kind| plan.without(*kind))
}

fn run_command(args: &RunArgs) -> anyhow::Result<bool> {
    match (args.seed, args.seeds) {
        (Some(seed), _) => run_one(seed, &args.common),
        (None, Some(seeds)) => run_many(seeds, args.jobs, &args.common),
        (None, None) => bail!("--seed or --seeds"),
    }
}

fn run_one(seed: u64, common: &Common) -> anyhow::Result<bool> {
    log_to_stderr();
    let report = run(&plan(seed, common))?;
    match common.output {
        Output::Json => println!("{}", serde_json::to_string(&report)?),
        Output::Human => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    if let Some(worst) = report.worst() {
        eprintln!("{}  # {worst}", replay(seed, common)?);
    }
    Ok(report.ok)
}

/// Everything that says what a run of `seed` is.
fn run_args(seed: u64, common: &Common) -> anyhow::Result<Vec<String>> {
    let millis = common.duration.as_millis();
    let duration = match millis % 1000 {
        0 => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    };
    let mut args = vec!["--seed".to_owned(), seed.to_string(), "--duration".to_owned(), duration];
    if let Some(bug) = common.bug {
        args.extend(["--bug".to_owned(), bug.name().to_owned()]);
    }
    for kind in &common.without {
        let name = serde_json::to_value(kind)?;
        args.extend(["--without".to_owned(), name.as_str().unwrap_or_default().to_owned()]);
    }
    if common.store == StoreArg::Rocks {
        args.extend(["--store".to_owned(), "rocks".to_owned()]);
    }
    Ok(args)
}

/// The command that shows the same again.
fn replay(seed: u64, common: &Common) -> anyhow::Result<String> {
    Ok(format!("replay: cribwork-sim run {}", run_args(seed, common)?.join(" ")))
}

/// What nodes log, if `RUST_LOG` asks for it.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    logs.without_time().init();
}

/// One run in a process of its own. One that ends without a report has met something worse than a
/// violation, and has found it all the same.
fn child(seed: u64, common: &Common) -> anyhow::Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--output", "json"]).args(run_args(seed, common)?);
    let output = command.output().context("cannot run a seed")?;
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let panic = errors.lines().skip_while(|line| !line.contains("panicked at"));
        let panic: Vec<&str> = panic.take(2).collect();
        let what = format!("{}: {}", output.status, panic.join(" "));
        let violations = vec![Found { checker: "process".to_owned(), what }];
        Report { seed, violations, ..Report::default() }
    }))
}

fn run_many(seeds: (u64, u64), jobs: usize, common: &Common) -> anyhow::Result<bool> {
    Ok(for_each_seed(seeds, jobs, common, |report| {
        let line = match common.output {
            Output::Json => serde_json::to_string(report)?,
            Output::Human => summary(report),
        };
        println!("{line}");
        if let Some(worst) = report.worst() {
            eprintln!("{}  # {worst}", replay(report.seed, common)?);
        }
        Ok(())
    }))
}

/// Runs seeds, each in a process of its own, and hands on what each found; whether none found anything.
fn for_each_seed(
    seeds: (u64, u64),
    jobs: usize,
    common: &Common,
    done: impl Fn(&Report) -> anyhow::Result<()> + Sync,
) -> bool {
    let next = AtomicU64::new(seeds.0);
    let clean = AtomicBool::new(true);
    in_parallel(jobs, || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.1 {
                return;
            }
            let done = child(seed, common).and_then(|report| {
                clean.fetch_and(report.ok, Ordering::Relaxed);
                done(&report)
            });
            if let Err(error) = done {
                clean.store(false, Ordering::Relaxed);
                eprintln!("seed {seed}: {error:#}");
            }
        }
    });
    clean.into_inner()
}

fn summary(report: &Report) -> String {
    let Report { seed, trace_hash, ops, unknown, elections, ranges, .. } = report;
    let verdict = if report.ok { "ok" } else { "VIOLATION" };
    let speed = report.simulated_s / report.wall_s.max(0.001);
    let mut line = format!(
        "seed {seed}: {verdict}, trace {trace_hash}, {ops} operations, {unknown} unknown, \
         {elections} elections, {ranges} ranges, {speed:.1}x"
    );
    for Found { checker, what } in &report.violations {
        line.push_str(&format!("\n  {checker}: {what}"));
    }
    line
}

fn in_parallel(jobs: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(&work);
        }
    });
}

fn minimize_command(args: &OneArgs) -> anyhow::Result<bool> {
    let all: BTreeSet<FaultKind> = FaultKind::ALL.into();
    let smallest = minimize(&plan(args.seed, &args.common), |plan| {
        let kept = plan.faults.iter().map(|(kind, _)| *kind).collect();
        let without = all.difference(&kept).copied().collect();
        let common = Common { without, duration: plan.duration, ..args.common.clone() };
        eprintln!("{} kinds of faults, {:?}", plan.faults.len(), plan.duration);
        child(plan.seed, &common)
    })?;
    match &smallest {
        None => println!("seed {} shows no violation", args.seed),
        Some(found) => match args.common.output {
            Output::Json => println!("{}", serde_json::to_string(found)?),
            Output::Human => println!("{}", serde_json::to_string_pretty(found)?),
        },
    }
    Ok(smallest.is_none())
}

fn mutants_command(args: &MutantsArgs) -> anyhow::Result<bool> {
    let bugs: &[Bug] = if args.bugs.is_empty() { Bug::ALL } else { &args.bugs };
    let all = score(bugs, args, |mutant| {
        let how = if mutant.caught { "caught" } else { "NOT caught" };
        eprintln!("{}: {how}, {} seeds, {}", mutant.bug, mutant.seeds, mutant.checker);
    })?;
    let caught = all.iter().filter(|mutant| mutant.caught).count();
    match args.common.output {
        Output::Json => println!("{}", serde_json::to_string(&all)?),
        Output::Human => {
            let mut out = std::io::stdout().lock();
            for Mutant { bug, caught, seeds, checker, .. } in &all {
                let seeds = if *caught { seeds.to_string() } else { format!("> {seeds}") };
                writeln!(out, "{bug:<28} {seeds:>6}  {checker}")?;
            }
            writeln!(out, "{caught} of {} caught", all.len())?;
        }
    }
    Ok(caught == all.len())
}

/// What became of each bug, in their order; `done` hears of each at once.
fn score(
    bugs: &[Bug],
    args: &MutantsArgs,
    done: impl Fn(&Mutant) + Sync,
) -> anyhow::Result<Vec<Mutant>> {
    let next = AtomicU64::new(0);
    let results: Mutex<Vec<(usize, anyhow::Result<Mutant>)>> = Mutex::default();
    in_parallel(args.jobs, || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(bug) = bugs.get(at).copied() else { return };
            let result = mutants(bug, args.first_seed, args.max_seeds, |seed, bug| {
                let common = Common { bug: Some(bug), ..args.common.clone() };
                child(seed, &common)
            });
            if let Ok(mutant) = &result {
                done(mutant);
            }
            results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((at, result));
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

fn nightly_command(args: &NightlyArgs) -> anyhow::Result<bool> {
    let common = Common {
        duration: args.duration,
        bug: None,
        without: Vec::new(),
        store: StoreArg::Memory,
        output: Output::Human,
    };
    let (total, ran) = (args.seeds.1 - args.seeds.0, AtomicU64::new(0));
    let clean = for_each_seed(args.seeds, args.jobs, &common, |report| {
        if let Some(worst) = report.worst() {
            println!("{}  # {worst}", replay(report.seed, &common)?);
        }
        let ran = ran.fetch_add(1, Ordering::Relaxed) + 1;
        if ran.is_multiple_of(100) || ran == total {
            println!("{ran} of {total} seeds");
        }
        Ok(())
    });
    let (first_seed, bugs) = (args.seeds.0, Vec::new());
    let NightlyArgs { max_seeds, jobs, .. } = *args;
    let mutants = MutantsArgs { max_seeds, first_seed, bugs, jobs, common };
    let scored = AtomicU64::new(0);
    let all = score(Bug::ALL, &mutants, |mutant| {
        let scored = scored.fetch_add(1, Ordering::Relaxed) + 1;
        if !mutant.caught {
            println!("not caught: {} within {} seeds", mutant.bug, mutant.seeds);
        }
        if scored.is_multiple_of(10) {
            println!("{scored} of {} bugs", Bug::ALL.len());
        }
    })?;
    let caught = all.iter().filter(|mutant| mutant.caught).count();
    println!("{} of {} bugs caught", caught, all.len());
    Ok(clean && caught == all.len())
}

fn bugs_command() -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    for bug in Bug::ALL {
        writeln!(out, "{:<28} {}", bug.name(), bug.what())?;
    }
    Ok(true)
}

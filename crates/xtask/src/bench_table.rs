//! The last benchmark run as one table: name, time for one iteration, throughput.
//!
//! criterion leaves two files below `target/criterion/<group>/…/new/`: `benchmark.json` (who it is and
//! what one iteration processes) and `estimates.json` (statistics in nanoseconds). The table shows the
//! median with its confidence interval: it is what one noisy neighbour moves least.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use cargo_metadata::MetadataCommand;
use serde_json::Value;

/// The table for the workspace at `root`, from cargo's target directory.
///
/// # Errors
/// When no benchmark has run yet, or its files cannot be read.
pub fn render_repository(root: &Path) -> anyhow::Result<String> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let directory = metadata.target_directory.join("criterion");
    let rows = read(directory.as_std_path())?;
    ensure!(!rows.is_empty(), "no benchmark results below {directory}: run `cargo bench` first");
    Ok(render(&rows))
}

/// One benchmark, as text ready to print.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    time: String,
    throughput: String,
}

/// All benchmarks below `directory`, by name.
fn read(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        let entries = fs::read_dir(&next)
            .with_context(|| format!("cannot list {}: run `cargo bench` first", next.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && path.ends_with("new") && path.join("estimates.json").exists() {
                rows.push(row(&parse(&path, "benchmark.json")?, &parse(&path, "estimates.json")?)?);
            } else if path.is_dir() {
                pending.push(path);
            }
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn parse(directory: &Path, name: &str) -> anyhow::Result<Value> {
    let path = directory.join(name);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn row(benchmark: &Value, estimates: &Value) -> anyhow::Result<Row> {
    let median = &estimates["median"];
    let ns = median["point_estimate"].as_f64().context("estimates.json has no median")?;
    let interval = &median["confidence_interval"];
    let bound = |name: &str| interval[name].as_f64().unwrap_or(ns);
    let half_width = (bound("upper_bound") - bound("lower_bound")) / 2.0;
    Ok(Row {
        name: benchmark["full_id"].as_str().context("benchmark.json has no full_id")?.to_owned(),
        time: format!("{} ±{:.1}%", duration(ns), 100.0 * half_width / ns),
        throughput: throughput(&benchmark["throughput"], ns),
    })
}

/// What `"throughput": {"Bytes": 4096}` and its like mean at `ns` for one iteration.
fn throughput(stated: &Value, ns: f64) -> String {
    let per_second = |count: &Value| count.as_f64().map(|count| count * 1e9 / ns);
    let elements = |rate: f64| format!("{} op/s", scaled(rate, ""));
    let bytes = |rate: f64| format!("{}B/s", scaled(rate, " "));
    let both = &stated["ElementsAndBytes"];
    let parts = [
        per_second(&stated["Elements"]).map(elements),
        per_second(&stated["Bytes"]).map(bytes),
        per_second(&stated["BytesDecimal"]).map(bytes),
        per_second(&stated["Bits"]).map(|rate| format!("{}bit/s", scaled(rate, " "))),
        per_second(&both["elements"]).map(elements),
        per_second(&both["bytes"]).map(bytes),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn duration(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{ns:.1} ns"),
        _ if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        _ if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.3} s", ns / 1e9),
    }
}

fn scaled(value: f64, gap: &str) -> String {
    match value {
        _ if value < 1e3 => format!("{value:.1}{gap}"),
        _ if value < 1e6 => format!("{:.1}{gap}k", value / 1e3),
        _ if value < 1e9 => format!("{:.2}{gap}M", value / 1e6),
        _ => format!("{:.2}{gap}G", value / 1e9),
    }
}

fn render(rows: &[Row]) -> String {
    let header = Row { name: "benchmark".into(), time: "time".into(), throughput: "rate".into() };
    let all = || std::iter::once(&header).chain(rows);
    let name_width = all().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let time_width = all().map(|row| row.time.chars().count()).max().unwrap_or(0);
    let mut table = String::new();
    for Row { name, time, throughput } in all() {
        writeln!(table, "{name:<name_width$}  {time:>time_width$}  {throughput}")
            .expect("writing to a String cannot fail");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        serde_json::from_str(text).expect("a valid sample")
    }

    fn estimates(ns: f64) -> String {
        let (low, high) = (ns * 0.99, ns * 1.01);
        format!(
            r#"{{"median": {{"point_estimate": {ns},
            "confidence_interval": {{"lower_bound": {low}, "upper_bound": {high}}}}}}}"#
        )
    }

    fn save(root: &Path, place: &str, benchmark: &str, estimates: &str) {
        let directory = root.join(place);
        fs::create_dir_all(&directory).expect("creatable");
        fs::write(directory.join("benchmark.json"), benchmark).expect("writable");
        fs::write(directory.join("estimates.json"), estimates).expect("writable");
    }

    #[test]
    fn reads_new_results_by_name_and_skips_older_ones() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        let scan = r#"{"full_id": "mvcc/scan/10", "throughput": {"Elements": 10}}"#;
        let get = r#"{"full_id": "mvcc/get", "throughput": null}"#;
        save(root, "mvcc/scan/10/new", scan, &estimates(2000.0));
        save(root, "mvcc/scan/10/base", scan, &estimates(9000.0));
        save(root, "mvcc/get/new", get, &estimates(250.0));
        assert_eq!(
            render(&read(root).expect("readable")),
            "benchmark               time  rate\n\
             mvcc/get      250.0 ns ±1.0%  -\n\
             mvcc/scan/10   2.00 us ±1.0%  5.00M op/s\n"
        );
    }

    #[test]
    fn every_kind_of_throughput_has_its_unit() {
        for (stated, expected) in [
            (r#"{"Bytes": 4096}"#, "4.10 GB/s"),
            (r#"{"BytesDecimal": 4096}"#, "4.10 GB/s"),
            (r#"{"Bits": 8}"#, "8.00 Mbit/s"),
            (r#"{"ElementsAndBytes": {"elements": 2, "bytes": 100}}"#, "2.00M op/s, 100.00 MB/s"),
            ("null", "-"),
        ] {
            assert_eq!(throughput(&json(stated), 1000.0), expected);
        }
    }

    #[test]
    fn missing_and_damaged_results_are_errors() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        assert!(read(&root.join("absent")).is_err());
        save(root, "a/new", r#"{"full_id": "a"}"#, r#"{"mean": {}}"#);
        assert!(read(root).expect_err("no median").to_string().contains("no median"));
    }
}

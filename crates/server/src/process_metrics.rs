//! What the process takes of the machine, read from `/proc` when somebody asks.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// `sysconf(_SC_CLK_TCK)`: 100 on every Linux that Rust supports; it is part of the kernel's ABI.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, memory and open files. Under other systems than Linux it reports nothing.
#[derive(Debug)]
pub(crate) struct ProcessMetrics;

/// One look at the process.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
}

/// Reads the fields of `/proc/self/stat`; the second, the program's name, may hold anything.
fn parse_stat(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Fields 14 and 15 of the manual, counted from 1; the third is the first after the name.
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((ticks(14)? + ticks(15)?) as f64 / TICKS_PER_SECOND)
}

/// The line `VmRSS:  123 kB` of `/proc/self/status`.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(kib * 1024)
}

/// The line `Max open files  1024  4096  files` of `/proc/self/limits`: the first number is the one in force.
fn parse_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many files and connections the process may have open; none if that is not known, or without limit.
pub(crate) fn open_files_max() -> Option<usize> {
    parse_open_files(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn usage() -> Option<Usage> {
    Some(Usage {
        cpu_seconds: parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)?,
        resident_bytes: parse_resident(&std::fs::read_to_string("/proc/self/status").ok()?)?,
    })
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(usage) = usage() {
            let cpu = ConstCounter::new(usage.cpu_seconds);
            let help = "User and system time of the process";
            let kind = cpu.metric_type();
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?)?;
            let resident = ConstGauge::new(usage.resident_bytes as i64);
            let help = "Memory of the process that is in RAM";
            let kind = resident.metric_type();
            let name = "process_resident_memory_bytes";
            resident.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            let open = ConstGauge::new(files.count() as i64);
            let kind = open.metric_type();
            let help = "Open file descriptors";
            open.encode(encoder.encode_descriptor("process_open_fds", help, None, kind)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 8 0 1 2 3";
        assert_eq!(parse_stat(stat), Some(2.0));
        assert_eq!(parse_stat("42 (x) S 1"), None);
        assert_eq!(parse_resident("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n"), Some(12 * 1024));
        let limits =
            "Max processes  7 8 processes\nMax open files            1024   4096   files\n";
        assert_eq!(parse_open_files(limits), Some(1024));
        assert_eq!(parse_open_files("Max open files  unlimited  unlimited  files"), None);
        assert!(open_files_max().is_none_or(|files| files > 0));
        assert!(usage().is_some_and(|usage| usage.resident_bytes > 0));
    }
}

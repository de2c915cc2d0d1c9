//! Arguments as a shell gives them.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse_args(line: &str) -> Result<Cli, ErrorKind> {
    let words = std::iter::once("cribwork").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| error.kind())
}

#[test]
fn the_declaration_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_not_built_is_refused() {
    for line in [
        "txn show 1",
        "workload ycsb",
        "workload bank --mode pessimistic",
        "workload bank --isolation serializable",
        "workload bank --receipts maybe",
    ] {
        assert!(parse_args(line).is_err(), "{line}");
    }
}

#[test]
fn wrong_values_are_refused() {
    for line in [
        "status --output yaml",
        "explain",
        "explain table 1",
        "move-replica 1 2",
        "merge",
        "drain",
        "decommission x",
        "config set repair_after",
        "status --timeout 5",
        "status --log-format xml",
        "split 0x0",
        "kv get",
        "kv scan a b --limit 0",
        "kv scan a b --limit 10241",
        "range abc",
        "init --ranges 65537",
        "demo --nodes 0",
        "workload kv --key-size 1.5B",
        "workload kv --read-percent 101",
    ] {
        assert!(parse_args(line).is_err(), "{line}");
    }
}

#[test]
fn global_flags_go_before_or_after_the_command() {
    for line in
        ["--endpoints a:1,b:2 --output json nodes", "nodes --output json --endpoints a:1,b:2"]
    {
        let cli = parse_args(line).unwrap();
        assert_eq!(cli.global.endpoints, ["a:1", "b:2"], "{line}");
        assert_eq!(cli.global.output, Format::Json, "{line}");
    }
    let cli = parse_args("init").unwrap();
    assert_eq!((cli.global.timeout(), cli.global.init_timeout()), (TIMEOUT, INIT_TIMEOUT));
    let cli = parse_args("init --timeout 2s").unwrap();
    assert_eq!(cli.global.init_timeout(), Duration::from_secs(2));
}

#[test]
fn defaults_of_the_workloads_are_those_of_the_library() {
    let Ok(Command::Workload(Workload::Bank(bank))) =
        parse_args("workload bank").map(|cli| cli.command)
    else {
        panic!("workload bank");
    };
    let (ours, theirs) = (BankOptions::from(bank), BankOptions::default());
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    let Ok(Command::Workload(Workload::Kv(kv))) = parse_args("workload kv").map(|cli| cli.command)
    else {
        panic!("workload kv");
    };
    assert_eq!(format!("{:?}", KvOptions::from(kv)), format!("{:?}", KvOptions::default()));
}

#[test]
fn workload_flags_arrive() {
    let line = "workload kv --api txn --read-percent 95 --key-size 32B --value-size 1KiB --keys 7 \
                --distribution zipfian --workers 3 --duration 1s --seed 9 --ranges 1";
    let Ok(Command::Workload(Workload::Kv(kv))) = parse_args(line).map(|cli| cli.command) else {
        panic!("{line}");
    };
    let options = KvOptions::from(kv);
    assert_eq!((options.api, options.distribution), (Api::Txn, Distribution::Zipfian));
    assert_eq!((options.key_bytes, options.value_bytes, options.keys), (32, 1024, 7));
    assert_eq!(
        (options.common.workers, options.common.seed, options.common.ranges),
        (3, Some(9), 1)
    );
}

//! What can be asked for. Help texts are written for somebody who has never seen a cluster; what is
//! not built is not here, so that clap refuses it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cribwork_workload::{
    Api, AppendOptions, BankOptions, CommonOptions, Distribution, KvOptions, RegisterOptions,
};

use crate::parse;

/// How long a command may take if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// `init` waits up to 30 s for all nodes before it writes anything.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait until data has moved.
const MOVE_TIMEOUT: Duration = Duration::from_secs(300);
const NODES_MAX: i64 = 16;

/// A transactional key-value store that splits itself into ranges and replicates each with Raft.
#[derive(Debug, Parser)]
#[command(name = "cribwork", version, subcommand_required = true)]
#[command(arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  cribwork demo                        a cluster in one process, proved by moving money
  cribwork start --data-dir d1 --join 127.0.0.1:20160,127.0.0.1:20161,127.0.0.1:20162
  cribwork init                        once, when all nodes of the list are started
  cribwork kv put greeting hello && cribwork kv get greeting
  cribwork ranges --output json
  cribwork store compare d1 d2 d3      whether stopped nodes hold the same

Exit status: 0 done, 1 failed, 2 an invariant is violated, 64 wrong usage.";

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// gRPC addresses of any nodes of the cluster
    #[arg(long, global = true, env = "CRIBWORK_ENDPOINTS", value_delimiter = ',')]
    #[arg(value_name = "HOST:PORT,...", default_value = "127.0.0.1:20160")]
    pub(crate) endpoints: Vec<String>,
    /// How long one request may take, retries included [default: 10s, for init 60s]
    #[arg(long, global = true, value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,
    /// How data is printed on stdout; json is one document on one line
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Least severe message on stderr: error, warn, info, debug, trace, or a filter such as
    /// info,cribwork_client=debug [default: warn, for start info]
    #[arg(long, global = true, env = "CRIBWORK_LOG_LEVEL", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Form of the messages on stderr [default: human]
    #[arg(long, global = true, env = "CRIBWORK_LOG_FORMAT", value_enum, value_name = "FORM")]
    pub(crate) log_format: Option<LogForm>,
}

impl Global {
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// For what takes as long as data takes to move.
    pub(crate) fn move_timeout(&self) -> Duration {
        self.timeout.unwrap_or(MOVE_TIMEOUT)
    }

    pub(crate) fn init_timeout(&self) -> Duration {
        self.timeout.unwrap_or(INIT_TIMEOUT)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster in this process and prove it by moving money
    Demo(Demo),
    /// Run one node in the foreground
    Start(Box<Start>),
    /// Make a cluster out of started nodes; once
    Init(Init),
    /// Show the cluster in numbers
    Status,
    /// List the nodes
    Nodes,
    /// List the ranges in key order
    Ranges,
    /// Show one range
    Range {
        /// Number of the range, as in `cribwork ranges`
        id: u64,
    },
    /// Make a key the bound of a range
    #[command(after_help = "Examples:\n  cribwork split user/5000\n  cribwork split 0x00ff")]
    Split {
        /// Text, or bytes as 0x and hexadecimal digits
        #[arg(value_parser = parse::key)]
        key: Bytes,
    },
    /// Make another store lead a range
    TransferLeader {
        /// Number of the range
        id: u64,
        /// Number of the store, as in `cribwork nodes`; it must hold a replica
        store: u64,
    },
    /// Move the replica of a range from one store to another
    #[command(after_help = MOVE_HELP)]
    MoveReplica {
        /// Number of the range
        id: u64,
        /// The store that holds a replica now
        from: u64,
        /// The store that shall hold it
        to: u64,
    },
    /// Merge a range with its right neighbour
    #[command(after_help = MERGE_HELP)]
    Merge {
        /// Number of the left range, which stays
        id: u64,
    },
    /// Move all leaderships away from a node, so that it can be stopped without anybody noticing
    #[command(after_help = DRAIN_HELP)]
    Drain {
        /// Number of the node's store, as in `cribwork nodes`
        node: u64,
        /// Put the node back in service
        #[arg(long)]
        undo: bool,
    },
    /// Move all replicas away from a node, so that it can be removed for good
    #[command(after_help = DECOMMISSION_HELP)]
    Decommission {
        /// Number of the node's store, as in `cribwork nodes`
        node: u64,
    },
    /// Say why placement does what it does, or does nothing
    #[command(subcommand, after_help = EXPLAIN_HELP)]
    Explain(Explain),
    /// Read and change settings of the whole cluster
    #[command(subcommand, after_help = CONFIG_HELP)]
    Config(ConfigCommand),
    /// Prove that the replicas of every range are equal, while the cluster runs
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// Only this range
        #[arg(long, value_name = "ID")]
        range: Option<u64>,
    },
    /// Read and write single keys without transactions
    #[command(subcommand, after_help = KV_HELP)]
    Kv(Data),
    /// Read and write keys, each command one transaction
    #[command(subcommand, after_help = TXN_HELP)]
    Txn(Data),
    /// Load a cluster and measure, or prove that it keeps its promises
    #[command(subcommand)]
    Workload(Workload),
    /// Look at the data directories of stopped nodes, without changing them
    #[command(subcommand, after_help = STORE_HELP)]
    Store(Store),
}

const MOVE_HELP: &str = "\
The new replica receives the data first and votes once it has caught up; then the old one goes. Returns
when that is done, within --timeout [default: 5m]. Replica balance may move another one in exchange.

Example:
  cribwork move-replica 7 1 4";

const MERGE_HELP: &str = "\
The replicas of the right one move to the stores of the left one first. Then it stops for a moment, until its
keys belong to the left one. Returns when that is done, within --timeout [default: 5m].

Example:
  cribwork merge 7";

const DRAIN_HELP: &str = "\
Returns when the node leads nothing any more, within --timeout [default: 5m]. Its replicas stay, and it
gets no leaders until `--undo`.

Examples:
  cribwork drain 2             then stop node 2, upgrade it, start it again
  cribwork drain 2 --undo";

const DECOMMISSION_HELP: &str = "\
Every replica is made anew on another node first, so there must be enough other nodes for the replication
factor. Returns when the node holds nothing, within --timeout [default: 5m]; if that is not enough it
goes on all the same, and running the command again waits again. `cribwork drain NODE --undo` stops it.";

const EXPLAIN_HELP: &str = "\
Shows what was decided lately, with the stores that were weighed and why each was rejected; then what each
scheduler thinks now: repair, drain, zones, balance of replicas, balance of leaders.

Examples:
  cribwork explain range 7
  cribwork explain store 3 --output json";

const VERIFY_HELP: &str = "\
Each range's leader adds an entry to its log; every replica sums up what it holds behind that very entry,
and the sums are compared, for each column family. Reads all data once on every node, beside other work.
The nodes do the same by themselves, slowly; see the metrics cribwork_verify_*.

Exit status: 0 all replicas of all ranges are equal, 2 some differ, 1 some could not be compared.";

const CONFIG_HELP: &str = "\
The settings are kept by the cluster and hold for all nodes at once.

Examples:
  cribwork config get
  cribwork config set repair_after 10m
  cribwork config set replication_factor 5";

/// What can be explained.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Explain {
    /// Why the replicas and the leader of a range are where they are
    Range {
        /// Number of the range, as in `cribwork ranges`
        id: u64,
    },
    /// Why a node holds and leads what it does
    Store {
        /// Number of the store, as in `cribwork nodes`
        id: u64,
    },
}

/// Commands of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings and what they mean
    Get {
        /// Only this one
        key: Option<String>,
    },
    /// Change a setting
    Set {
        /// Name of the setting, as in `cribwork config get`
        key: String,
        /// Its new value
        value: String,
    },
}

const KV_HELP: &str = "\
A KEY is text, or bytes as 0x and hexadecimal digits. Keys written here and by `cribwork txn` are two
separate worlds.

Examples:
  cribwork kv put user/1 Ada
  cribwork kv get user/1
  cribwork kv scan user/ user0 --limit 10 --output json";

const TXN_HELP: &str = "\
A KEY is text, or bytes as 0x and hexadecimal digits. Keys written here and by `cribwork kv` are two
separate worlds.

Examples:
  cribwork txn put user/1 Ada
  cribwork txn scan user/ user0";

const STORE_HELP: &str = "\
Works on directories, not on a cluster: no --endpoints. A directory that a node is running on is
refused; of others nothing is changed, not even a log's torn end. Every block read is checked.

Examples:
  cribwork store show /var/lib/cribwork
  cribwork store compare node1/data node2/data node3/data --output json";

/// Commands of `store`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Store {
    /// Read all of one store and list families, files and ranges; exit 1 if anything is damaged
    #[command(after_help = "\
The fingerprint of a range is the number of its keys and a CRC-32C over all keys and values: two
replicas that stand at the same index must have the same.")]
    Show {
        /// Data directory of a stopped node
        dir: PathBuf,
    },
    /// Prove that the replicas on some stores are equal, byte for byte, at equal applied index
    #[command(after_help = "\
Nodes that stopped at different moments have applied different prefixes of the same log. Who is
behind is brought up to the others first, in memory: by entries from the logs on these stores
that are certainly committed, because one of them has applied them. ON DISK is what each store
had applied by itself.

A range that cannot be brought up, or of which only one replica is in these directories, is not
compared; it is named, and the exit status is not 0.

Exit status: 0 every range is equal on all stores that should hold it, 2 one differs, 1 a store
cannot be opened or read, or not every range could be compared.")]
    Compare {
        /// Data directories of stopped nodes of one cluster; best of all of them
        #[arg(required = true, num_args = 2.., value_name = "DIR")]
        dirs: Vec<PathBuf>,
    },
}

/// Commands of `kv` and of `txn`.
#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Print the value of a key and a newline; exit 1 if there is none
    Get {
        /// The key
        #[arg(value_parser = parse::key)]
        key: Bytes,
    },
    /// Write a key; exit 0 only if the cluster has acknowledged it
    Put {
        /// The key
        #[arg(value_parser = parse::key)]
        key: Bytes,
        /// The value, as text
        value: String,
    },
    /// Remove a key, present or not
    Delete {
        /// The key
        #[arg(value_parser = parse::key)]
        key: Bytes,
    },
    /// List the keys from START up to and without END
    Scan {
        /// First key; "" begins at the first one
        #[arg(value_parser = parse::bound)]
        start: Bytes,
        /// Where to stop; "" goes on to the last one
        #[arg(value_parser = parse::bound)]
        end: Bytes,
        /// Most keys to list
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_240))]
        limit: u32,
    },
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Each node has a data directory (removed at the end), an engine, a runtime and metrics of its own; they
talk over gRPC on free ports of 127.0.0.1. Exit status 0 only if every check holds.

Examples:
  cribwork demo --nodes 5 --duration 30s
  cribwork demo --stay        then point `cribwork --endpoints ...` at it from another terminal")]
pub(crate) struct Demo {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=NODES_MAX))]
    pub(crate) nodes: u32,
    /// Ranges that the cluster begins with, and that the accounts are split into
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) ranges: u32,
    /// How long money moves
    #[arg(long, default_value = "10s", value_parser = parse::duration)]
    pub(crate) duration: Duration,
    /// Number of accounts
    #[arg(long, default_value_t = 1000)]
    pub(crate) accounts: u32,
    /// Transfers under way at the same time
    #[arg(long, default_value_t = 16)]
    pub(crate) workers: u32,
    /// Keep the cluster running afterwards, until Ctrl-C
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A setting is taken from its flag, else from its environment variable, else from the file, else it has
its default. A node that belongs to no cluster yet waits for `cribwork init` at one of its peers.

Examples:
  cribwork start --data-dir d1 --listen 127.0.0.1:20160 --http 127.0.0.1:20180 \\
                 --join 127.0.0.1:20160,127.0.0.1:20161,127.0.0.1:20162
  cribwork start --config /etc/cribwork.toml --listen 0.0.0.0:20160 --advertise db1.example:20160")]
pub(crate) struct Start {
    /// Directory of the store; made if there is none [default: cribwork-data]
    #[arg(long, env = "CRIBWORK_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where clients and nodes reach this one, gRPC [default: 127.0.0.1:20160]
    #[arg(long, env = "CRIBWORK_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Where health and metrics are [default: 127.0.0.1:20180]
    #[arg(long, env = "CRIBWORK_HTTP", value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,
    /// gRPC addresses of the cluster's nodes, this one included or not; for a new cluster all of
    /// them, in the order of their store numbers
    #[arg(long, env = "CRIBWORK_JOIN", value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub(crate) join: Option<Vec<String>>,
    /// The address that others use for --listen; needed if that is a wildcard [default: --listen]
    #[arg(long, env = "CRIBWORK_ADVERTISE", value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Failure domain: replicas of a range are spread over as many zones as there are
    #[arg(long, env = "CRIBWORK_ZONE")]
    pub(crate) zone: Option<String>,
    /// If the store is damaged, set it aside (in damaged/, nothing is deleted) and join as a new,
    /// empty one, which gets its data from the others
    #[arg(long, env = "CRIBWORK_REBUILD_DAMAGED")]
    pub(crate) rebuild_damaged: bool,
    /// File with settings, TOML
    #[arg(long, env = "CRIBWORK_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Threads that serve requests [default: 1]
    #[arg(long, env = "CRIBWORK_WORKERS")]
    pub(crate) workers: Option<usize>,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Asks the node at --endpoints, which takes every node of its --join list into the cluster. All of them
must be started, with empty data directories. An init that was interrupted can be repeated.")]
pub(crate) struct Init {
    /// Ranges to begin with, beside an empty one above all keys
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) ranges: u32,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Workload {
    /// Move money between accounts in transactions and check every cent
    #[command(after_help = "\
Every transfer writes a receipt in its own transaction. At the end each acknowledged transfer must have
its receipt, no failed one may have one, and all receipts together must make the balances.

Exit status 0 only if `ok`; 2, with the evidence, if a check fails.")]
    Bank(Bank),
    /// Read, write, delete and swap few keys and prove that each is linearizable
    #[command(after_help = "\
The raw API; all writes ask to wait for swaps. At the end every key is read once more, then a checker
looks for an order of all operations that fits their answers and real time, and another one for
acknowledged writes that are gone.

Exit status 0 only if `ok`; 2, with the evidence, if a check fails.

Examples:
  cribwork workload register --duration 30s
  cribwork workload register --keys 4 --workers 32 --history register.jsonl --output json")]
    Register(History),
    /// Append to few lists in transactions and prove that these are isolated from each other
    #[command(after_help = "\
Transactions of one to five steps: a list is read, or read and appended to. At the end every list is read
once more, then a checker looks for cycles of dependencies that snapshot isolation forbids, in real time,
and another one for acknowledged elements that are gone.

Exit status 0 only if `ok`; 2, with the evidence, if a check fails.

Examples:
  cribwork workload append --duration 30s
  cribwork workload append --keys 4 --workers 32 --history append.jsonl --output json")]
    Append(History),
    /// Read and write single keys as fast as possible
    #[command(after_help = "\
Examples:
  cribwork workload kv --workers 64 --duration 30s
  cribwork workload kv --read-percent 95 --distribution zipfian --keys 1000000")]
    Kv(Kv),
}

/// Options of all workloads.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Load {
    /// Operations under way at the same time
    #[arg(long, default_value_t = 16)]
    workers: u32,
    /// Load time, without set-up and check
    #[arg(long, default_value = "10s", value_parser = parse::duration)]
    duration: Duration,
    /// Makes the same choices again [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Ranges that the workload's own keys are split into; 1 splits nothing
    #[arg(long, default_value_t = 16)]
    ranges: u32,
}

impl From<Load> for CommonOptions {
    fn from(load: Load) -> Self {
        let Load { workers, duration, seed, ranges } = load;
        Self { workers, duration, seed, ranges }
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Bank {
    /// How transactions meet conflicts
    #[arg(long, value_enum, default_value_t = Mode::Optimistic)]
    mode: Mode,
    /// What transactions see of each other
    #[arg(long, value_enum, default_value_t = Isolation::Snapshot)]
    isolation: Isolation,
    /// Whether transfers write receipts; without them only the total is checked
    #[arg(long, value_enum, default_value_t = Switch::On)]
    receipts: Switch,
    /// Number of accounts
    #[arg(long, default_value_t = 1000)]
    accounts: u32,
    #[command(flatten)]
    load: Load,
}

impl From<Bank> for BankOptions {
    fn from(bank: Bank) -> Self {
        // One mode and one isolation exist so far; these patterns stop compiling when that changes.
        let (Mode::Optimistic, Isolation::Snapshot) = (bank.mode, bank.isolation);
        Self {
            common: bank.load.into(),
            accounts: bank.accounts,
            receipts: bank.receipts == Switch::On,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Conflicts show at commit; the loser runs again
    Optimistic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Isolation {
    /// A transaction reads what was committed before it began
    Snapshot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Options of workloads that write a history.
#[derive(Clone, Debug, Args)]
pub(crate) struct History {
    /// Number of keys; fewer make more contention
    #[arg(long, default_value_t = 32)]
    keys: u32,
    /// Where the history goes: JSON lines, one an operation
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    load: Load,
}

impl From<&History> for RegisterOptions {
    fn from(flags: &History) -> Self {
        Self { common: flags.load.into(), keys: flags.keys }
    }
}

impl From<&History> for AppendOptions {
    fn from(flags: &History) -> Self {
        Self { common: flags.load.into(), keys: flags.keys }
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Kv {
    /// Single keys without transactions, or one transaction an operation
    #[arg(long, value_enum, default_value_t = ApiName::Raw)]
    api: ApiName,
    /// Operations that read, of 100; over 0, all keys are written first
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    read_percent: u32,
    /// Size of a key, at least 16B
    #[arg(long, default_value = "16B", value_parser = parse::size)]
    key_size: u32,
    /// Size of a value
    #[arg(long, default_value = "128B", value_parser = parse::size)]
    value_size: u32,
    /// Number of keys
    #[arg(long, default_value_t = 100_000)]
    keys: u32,
    /// How keys are chosen
    #[arg(long, value_enum, default_value_t = DistributionName::Uniform)]
    distribution: DistributionName,
    #[command(flatten)]
    load: Load,
}

impl From<Kv> for KvOptions {
    fn from(kv: Kv) -> Self {
        Self {
            common: kv.load.into(),
            api: match kv.api {
                ApiName::Raw => Api::Raw,
                ApiName::Txn => Api::Txn,
            },
            read_percent: kv.read_percent,
            key_bytes: kv.key_size,
            value_bytes: kv.value_size,
            keys: kv.keys,
            distribution: match kv.distribution {
                DistributionName::Uniform => Distribution::Uniform,
                DistributionName::Zipfian => Distribution::Zipfian,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ApiName {
    Raw,
    Txn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DistributionName {
    Uniform,
    Zipfian,
}

#[cfg(test)]
mod tests;

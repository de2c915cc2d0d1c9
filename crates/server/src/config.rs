//! Settings of one node. The command line merges them: flags over environment over file.
//!
//! The file is TOML; a key that nobody knows is an error, because a misspelt setting that is silently
//! ignored is worse than a node that does not start. Durations are written `500ms`, sizes `64MiB`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cribwork_engine::EngineOptions;
use cribwork_multiraft::MultiRaftOptions;
use cribwork_types::StoreId;
use serde::Deserialize;

use crate::kv::KvLimits;
use crate::{ServerError, units};

/// Most addresses in a join list.
const JOIN_MAX: usize = 256;
/// Most threads that serve tasks.
const WORKERS_MAX: usize = 256;

/// All settings of a node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Directory of the store; made if there is none.
    pub data_dir: PathBuf,
    /// `host:port` of the gRPC port. Port 0 takes a free one.
    pub listen: String,
    /// `host:port` of the HTTP port. Port 0 takes a free one.
    pub http: String,
    /// `host:port` under which others reach the gRPC port; by default what `listen` became. Must be
    /// given if `listen` is a wildcard.
    pub advertise: Option<String>,
    /// gRPC addresses of any nodes of the cluster, this one included or not. For a new cluster: of
    /// all its first nodes, in the order of their store ids.
    pub join: Vec<String>,
    /// Failure domain, for placement; empty for none.
    pub zone: String,
    /// A store that is damaged is set aside, and the node joins its cluster as a new one, with nothing.
    /// Otherwise it does not start, or ends when it meets the damage.
    pub rebuild_damaged: bool,
    /// Threads that serve tasks. One is the cheapest on small machines.
    pub workers: usize,
    /// Sizes of the storage engine.
    pub engine: EngineConfig,
    /// Times of replication.
    pub raft: RaftConfig,
    /// How much work the node takes on at once.
    pub limits: LimitsConfig,
    /// What the node writes to stderr.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("cribwork-data"),
            listen: "127.0.0.1:20160".to_owned(),
            http: "127.0.0.1:20180".to_owned(),
            advertise: None,
            join: Vec::new(),
            zone: String::new(),
            rebuild_damaged: false,
            workers: 1,
            engine: EngineConfig::default(),
            raft: RaftConfig::default(),
            limits: LimitsConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Sizes of the storage engine, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EngineConfig {
    /// Cache of blocks read from disk.
    #[serde(deserialize_with = "units::size")]
    pub block_cache: u64,
    /// Memtable of the Raft log.
    #[serde(deserialize_with = "units::size")]
    pub raft_memtable: u64,
    /// Memtable of every other column family.
    #[serde(deserialize_with = "units::size")]
    pub data_memtable: u64,
    /// All memtables together.
    #[serde(deserialize_with = "units::size")]
    pub memtables_max: u64,
    /// The write-ahead log.
    #[serde(deserialize_with = "units::size")]
    pub wal_max: u64,
    /// Threads that flush and compact.
    pub background_jobs: u16,
    /// Table files kept open.
    pub open_files_max: u32,
}

impl From<EngineOptions> for EngineConfig {
    fn from(options: EngineOptions) -> Self {
        Self {
            block_cache: options.block_cache_bytes as u64,
            raft_memtable: options.raft_memtable_bytes as u64,
            data_memtable: options.data_memtable_bytes as u64,
            memtables_max: options.memtables_bytes_max as u64,
            wal_max: options.wal_bytes_max,
            background_jobs: options.background_jobs.clamp(1, i32::from(u16::MAX)) as u16,
            open_files_max: options.open_files_max.max(0) as u32,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineOptions::default().into()
    }
}

impl EngineConfig {
    /// As the engine wants them.
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            block_cache_bytes: self.block_cache as usize,
            raft_memtable_bytes: self.raft_memtable as usize,
            data_memtable_bytes: self.data_memtable as usize,
            memtables_bytes_max: self.memtables_max as usize,
            wal_bytes_max: self.wal_max,
            background_jobs: i32::from(self.background_jobs),
            open_files_max: i32::try_from(self.open_files_max).unwrap_or(i32::MAX),
        }
    }
}

/// Times of replication. The same on all nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RaftConfig {
    /// How long a follower refuses votes after its leader's last message, and a leader may serve
    /// without hearing from a majority.
    #[serde(deserialize_with = "units::duration")]
    pub lease: Duration,
    /// Period of the messages by which nodes see each other alive.
    #[serde(deserialize_with = "units::duration")]
    pub liveness_period: Duration,
    /// A node not heard from for this long is taken for dead.
    #[serde(deserialize_with = "units::duration")]
    pub liveness_timeout: Duration,
    /// How often the lease of a leader that only serves reads is renewed.
    #[serde(deserialize_with = "units::duration")]
    pub lease_renewal: Duration,
    /// How long a transfer of leadership may take.
    #[serde(deserialize_with = "units::duration")]
    pub transfer_timeout: Duration,
    /// Log entries of one range after which its log is cut.
    pub log_entries_max: u64,
    /// Entries that stay for slow followers when a log is cut.
    pub log_entries_kept: u64,
    /// Bytes of one range's log after which it is cut.
    #[serde(deserialize_with = "units::size")]
    pub log_bytes_max: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        let options = MultiRaftOptions::new(StoreId(0));
        Self {
            lease: options.lease,
            liveness_period: options.liveness_period,
            liveness_timeout: options.liveness_timeout,
            lease_renewal: options.lease_renewal,
            transfer_timeout: options.transfer_timeout,
            log_entries_max: options.log_entries_max,
            log_entries_kept: options.log_entries_kept,
            log_bytes_max: options.log_bytes_max,
        }
    }
}

impl RaftConfig {
    /// As the groups of `store` want them.
    pub fn options(&self, store: StoreId) -> MultiRaftOptions {
        MultiRaftOptions {
            lease: self.lease,
            liveness_period: self.liveness_period,
            liveness_timeout: self.liveness_timeout,
            lease_renewal: self.lease_renewal,
            transfer_timeout: self.transfer_timeout,
            log_entries_max: self.log_entries_max,
            log_entries_kept: self.log_entries_kept,
            log_bytes_max: self.log_bytes_max,
            ..MultiRaftOptions::new(store)
        }
    }

    fn check(&self) -> Result<(), ServerError> {
        let zero = [
            ("raft.lease", self.lease),
            ("raft.liveness-period", self.liveness_period),
            ("raft.lease-renewal", self.lease_renewal),
            ("raft.transfer-timeout", self.transfer_timeout),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| value.is_zero()) {
            return Err(ServerError::Config(format!("{name} must not be zero")));
        }
        if self.liveness_timeout < self.liveness_period * 2 {
            let why = "raft.liveness-timeout must be at least twice raft.liveness-period";
            return Err(ServerError::Config(why.to_owned()));
        }
        if self.lease_renewal * 2 > self.lease {
            let why = "raft.lease must be at least twice raft.lease-renewal";
            return Err(ServerError::Config(why.to_owned()));
        }
        Ok(())
    }
}

/// How much work the node takes on at once; over it requests are told to come back later.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// Commands of all clients that may be under way.
    pub commands_in_flight_max: usize,
    /// Commands of one batch stream that may be under way.
    pub stream_commands_max: usize,
    /// Commands that may wait for others on the same keys.
    pub latch_waiters_max: usize,
    /// What a refused client is told to wait.
    #[serde(deserialize_with = "units::duration")]
    pub busy_backoff: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = KvLimits::default();
        Self {
            commands_in_flight_max: limits.commands_in_flight_max,
            stream_commands_max: limits.stream_commands_max,
            latch_waiters_max: limits.latch_waiters_max,
            busy_backoff: Duration::from_millis(limits.busy_backoff_ms),
        }
    }
}

impl LimitsConfig {
    /// As the key-value service wants them.
    pub fn options(&self) -> KvLimits {
        KvLimits {
            commands_in_flight_max: self.commands_in_flight_max.max(1),
            stream_commands_max: self.stream_commands_max.max(1),
            latch_waiters_max: self.latch_waiters_max,
            busy_backoff_ms: self.busy_backoff.as_millis() as u64,
        }
    }
}

/// What the node writes to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogConfig {
    /// A level, or a filter such as `info,cribwork_multiraft=debug`.
    pub level: String,
    /// Lines for people or for machines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads settings from TOML text; what is not given has its default.
    ///
    /// # Errors
    /// [`ServerError::Config`] that names line and column.
    pub fn from_toml(text: &str) -> Result<Self, ServerError> {
        toml::from_str(text).map_err(|error| ServerError::Config(error.to_string()))
    }

    /// Reads settings from a file.
    ///
    /// # Errors
    /// [`ServerError::File`], or [`ServerError::Config`] that names file, line and column.
    pub fn from_file(path: &Path) -> Result<Self, ServerError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ServerError::File { path: path.to_owned(), why: error.to_string() })?;
        toml::from_str(&text)
            .map_err(|error| ServerError::Config(format!("{}: {error}", path.display())))
    }

    /// Checks what the types cannot: called by [`crate::Node::start`].
    ///
    /// # Errors
    /// [`ServerError::Config`] that names the setting.
    pub fn check(&self) -> Result<(), ServerError> {
        let fail = |why: String| Err(ServerError::Config(why));
        if self.data_dir.as_os_str().is_empty() {
            return fail("data-dir must be given".to_owned());
        }
        if !(1..=WORKERS_MAX).contains(&self.workers) {
            return fail(format!("workers must be between 1 and {WORKERS_MAX}"));
        }
        if self.rebuild_damaged && self.join.is_empty() {
            return fail("rebuild-damaged needs join: whom should a new store ask?".to_owned());
        }
        if self.join.len() > JOIN_MAX {
            return fail(format!("join names more than {JOIN_MAX} addresses"));
        }
        for address in self.join.iter().chain([&self.listen, &self.http]).chain(&self.advertise) {
            check_address(address)?;
        }
        if self.advertise.is_none() && is_wildcard(&self.listen) {
            let listen = &self.listen;
            return fail(format!("advertise must be given, because listen is {listen}"));
        }
        if self.advertise.as_deref().is_some_and(is_wildcard) {
            return fail("advertise must be an address that others can reach".to_owned());
        }
        self.raft.check()
    }
}

fn check_address(address: &str) -> Result<(), ServerError> {
    let port = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match port {
        Some((host, Ok(_))) if !host.is_empty() && !address.contains(char::is_whitespace) => Ok(()),
        _ => Err(ServerError::Config(format!("{address:?} is not HOST:PORT"))),
    }
}

/// True if the address stands for all addresses of the machine.
fn is_wildcard(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    matches!(host, "0.0.0.0" | "[::]" | "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Config::from_toml(text).and_then(|config| config.check()).unwrap_err().to_string()
    }

    #[test]
    fn reads_all_kinds_of_settings() {
        let config = Config::from_toml(
            r#"
            data-dir = "/var/lib/cribwork"
            listen = "0.0.0.0:1"
            advertise = "a.example:1"
            join = ["a.example:1", "b.example:1"]
            [engine]
            block-cache = "64MiB"
            wal-max = 1048576
            [raft]
            lease = "900ms"
            [log]
            format = "json"
            "#,
        )
        .unwrap();
        config.check().unwrap();
        assert_eq!(config.engine.block_cache, 64 << 20);
        assert_eq!(config.engine.wal_max, 1 << 20);
        assert_eq!(config.engine.options().data_memtable_bytes, 16 << 20, "the default");
        assert_eq!(config.raft.options(StoreId(3)).lease, Duration::from_millis(900));
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(Config::from_toml("").unwrap(), Config::default());
        Config::default().check().unwrap();
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        let misspelt = message("listen = \"a:1\"\nzoen = \"x\"");
        assert!(misspelt.contains("line 2") && misspelt.contains("zoen"), "{misspelt}");
        let unit = message("[raft]\n\nlease = \"700\"");
        assert!(unit.contains("line 3") && unit.contains("500ms"), "{unit}");
        let size = message("[engine]\nblock-cache = \"lots\"");
        assert!(size.contains("line 2") && size.contains("64MiB"), "{size}");
        assert!(message("workers = -1").contains("line 1"));
    }

    #[test]
    fn checks_what_types_cannot() {
        assert!(message("listen = \"0.0.0.0:20160\"").contains("advertise"));
        assert!(message("listen = \"20160\"").contains("HOST:PORT"));
        assert!(message("join = [\"a\"]").contains("HOST:PORT"));
        assert!(message("workers = 0").contains("workers"));
        assert!(message("rebuild-damaged = true").contains("join"));
        assert!(message("[raft]\nlease = \"10ms\"").contains("raft.lease"));
        assert!(message("[raft]\nliveness-timeout = \"1ms\"").contains("liveness"));
    }
}

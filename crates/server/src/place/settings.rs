//! Settings of the whole cluster, kept by placement. Only what has an effect is here.

use std::collections::BTreeMap;
use std::time::Duration;

use cribwork_multiraft::COLD_AFTER;
use cribwork_placement::{PlacementPolicy, REPAIR_AFTER_MS, ReplicationFactor};
use cribwork_proto::cribwork::admin::Setting;

use crate::autosplit::SPLIT_SIZE_BYTES;
use crate::{ServerError, parse_duration, parse_size};

const REPLICATION_FACTOR: &str = "replication_factor";
const REPAIR_AFTER: &str = "repair_after";
/// Shorter, and a pause of a healthy node would cost copies of all its data.
const REPAIR_AFTER_MIN: Duration = Duration::from_secs(5);

const SPLIT_SIZE: &str = "split_size";
/// Smaller, and ranges cost more than what they hold.
const SPLIT_SIZE_MIN: u64 = 1 << 20;
/// Larger, and a range could outgrow what a snapshot may carry before it is split.
const SPLIT_SIZE_MAX: u64 = 256 << 20;

const MERGE_BELOW: &str = "merge_below";
/// More, and what was merged could be split again by its size at once: half of it.
const MERGE_PART_MAX: u64 = 2;

const COLD_AFTER_NAME: &str = "cold_after";
/// Shorter, and a range that is used now and then would be woken each time.
const COLD_AFTER_MIN: Duration = Duration::from_secs(1);

/// Name, and what it means.
const ALL: [(&str, &str); 5] = [
    (REPLICATION_FACTOR, "Replicas of each range: 1, 3 or 5."),
    (
        REPAIR_AFTER,
        "How long a node may be silent before its replicas are made anew elsewhere; 5s or more.",
    ),
    (SPLIT_SIZE, "From which size on a range is split by itself; 1MiB to 256MiB."),
    (
        MERGE_BELOW,
        "Neighbours that together take less are merged by themselves; at most half of split_size, 0B for never.",
    ),
    (
        COLD_AFTER_NAME,
        "How long a replica is idle before it gives up its Raft instance until it is needed; 1s or more, 0s for never.",
    ),
];

/// What was set, by name; the rest has its default.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    set: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn new(set: BTreeMap<String, String>) -> Self {
        Self { set }
    }

    /// What is stored: names of a later build stay.
    pub(super) fn stored(&self) -> &BTreeMap<String, String> {
        &self.set
    }

    /// The same with one setting changed.
    pub(super) fn with(&self, key: &str, value: &str) -> Result<Self, ServerError> {
        let invalid = |why: String| Err(ServerError::Invalid(format!("{key}: {why}")));
        let checked = match key {
            REPLICATION_FACTOR => match value.parse().map(ReplicationFactor::new) {
                Ok(Ok(factor)) => factor.get().to_string(),
                _ => return invalid(format!("{value:?} is not 1, 3 or 5")),
            },
            REPAIR_AFTER => match parse_duration(value) {
                Ok(after) if after >= REPAIR_AFTER_MIN => value.trim().to_owned(),
                Ok(_) => return invalid(format!("{value} is shorter than 5s")),
                Err(why) => return invalid(why),
            },
            SPLIT_SIZE => match parse_size(value) {
                Ok(SPLIT_SIZE_MIN..=SPLIT_SIZE_MAX) => value.trim().to_owned(),
                Ok(_) => return invalid(format!("{value} is not from 1MiB to 256MiB")),
                Err(why) => return invalid(why),
            },
            MERGE_BELOW => match parse_size(value) {
                Ok(size) if size <= self.split_size_bytes() / MERGE_PART_MAX => {
                    value.trim().to_owned()
                }
                Ok(_) => return invalid(format!("{value} is more than half of split_size")),
                Err(why) => return invalid(why),
            },
            COLD_AFTER_NAME => match parse_duration(value) {
                Ok(after) if after.is_zero() || after >= COLD_AFTER_MIN => value.trim().to_owned(),
                Ok(_) => return invalid(format!("{value} is neither 0s nor 1s or more")),
                Err(why) => return invalid(why),
            },
            _ => return Err(unknown(key)),
        };
        let mut set = self.set.clone();
        set.insert(key.to_owned(), checked);
        Ok(Self { set })
    }

    /// All settings, or the one with this name.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Setting>, ServerError> {
        let wanted = ALL.iter().filter(|(name, _)| key.is_empty() || key == *name);
        let setting = |(name, meaning): &(&str, &str)| Setting {
            key: (*name).to_owned(),
            value: self.value(name),
            meaning: (*meaning).to_owned(),
        };
        let settings: Vec<Setting> = wanted.map(setting).collect();
        match settings.is_empty() {
            true => Err(unknown(key)),
            false => Ok(settings),
        }
    }

    fn value(&self, name: &str) -> String {
        let default = match name {
            REPLICATION_FACTOR => ReplicationFactor::default().get().to_string(),
            SPLIT_SIZE => format!("{}MiB", SPLIT_SIZE_BYTES >> 20),
            MERGE_BELOW => "0B".to_owned(),
            COLD_AFTER_NAME => format!("{}s", COLD_AFTER.as_secs()),
            _ => format!("{}s", REPAIR_AFTER_MS / 1000),
        };
        self.set.get(name).cloned().unwrap_or(default)
    }

    /// From which size on a range is split.
    pub(super) fn split_size_bytes(&self) -> u64 {
        parse_size(&self.value(SPLIT_SIZE)).unwrap_or(SPLIT_SIZE_BYTES)
    }

    /// Neighbours that together take less are merged; 0 for never. A later `split_size` may have made what is
    /// set too much.
    fn merge_below_bytes(&self) -> u64 {
        let set = parse_size(&self.value(MERGE_BELOW)).unwrap_or_default();
        set.min(self.split_size_bytes() / MERGE_PART_MAX)
    }

    /// How long a replica is idle before it goes cold; zero for never.
    pub(super) fn cold_after(&self) -> Duration {
        parse_duration(&self.value(COLD_AFTER_NAME)).unwrap_or(COLD_AFTER)
    }

    /// What the schedulers may do.
    pub(super) fn policy(&self) -> PlacementPolicy {
        // What is stored was checked; a value that this build cannot read counts as not set.
        let factor = self.value(REPLICATION_FACTOR).parse().ok();
        let factor = factor.and_then(|factor| ReplicationFactor::new(factor).ok());
        let after = parse_duration(&self.value(REPAIR_AFTER)).ok();
        let after = after.map(|after| after.as_millis() as u64);
        PlacementPolicy {
            replication_factor: factor.unwrap_or_default(),
            repair_after_ms: after.unwrap_or(REPAIR_AFTER_MS),
            merge_below_bytes: self.merge_below_bytes(),
            ..PlacementPolicy::default()
        }
    }
}

fn unknown(key: &str) -> ServerError {
    let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    ServerError::Invalid(format!("{key:?} is no setting: there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_take_effect() {
        let settings = Settings::default();
        assert_eq!(settings.policy(), PlacementPolicy::default());
        let values: Vec<_> = settings.list("").unwrap().into_iter().map(|it| it.value).collect();
        assert_eq!(values, ["3", "300s", "96MiB", "0B", "30s"]);
        let settings = settings.with(REPLICATION_FACTOR, "5").unwrap();
        let settings = settings.with(REPAIR_AFTER, "1m 30s").unwrap();
        let policy = Settings::new(settings.stored().clone()).policy();
        assert_eq!((policy.replication_factor.get(), policy.repair_after_ms), (5, 90_000));
        assert_eq!(settings.list(REPAIR_AFTER).unwrap()[0].value, "1m 30s");
        let settings = settings.with(SPLIT_SIZE, "16MiB").unwrap();
        assert_eq!(settings.split_size_bytes(), 16 << 20);
        assert_eq!(settings.cold_after(), Duration::from_secs(30));
        let settings = settings.with(MERGE_BELOW, "8MiB").unwrap();
        assert_eq!(settings.policy().merge_below_bytes, 8 << 20);
        let small = settings.with(SPLIT_SIZE, "2MiB").unwrap();
        assert_eq!(small.policy().merge_below_bytes, 1 << 20, "never more than half");
        let settings = settings.with(COLD_AFTER_NAME, "0s").unwrap();
        assert_eq!(settings.cold_after(), Duration::ZERO);
        for (key, value) in [
            (REPLICATION_FACTOR, "2"),
            (REPLICATION_FACTOR, ""),
            (REPAIR_AFTER, "1s"),
            (SPLIT_SIZE, "4KiB"),
            (MERGE_BELOW, "9MiB"),
            (COLD_AFTER_NAME, "10ms"),
            ("x", "1"),
        ] {
            assert!(settings.with(key, value).is_err(), "{key}={value}");
        }
        assert!(settings.list("x").unwrap_err().to_string().contains(REPAIR_AFTER));
    }

    #[test]
    fn what_a_later_build_stored_does_not_disturb() {
        let set = [("merge", "on"), (REPLICATION_FACTOR, "7")];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::new(BTreeMap::from(set));
        assert_eq!(settings.policy().replication_factor.get(), 3);
        assert!(settings.with(REPAIR_AFTER, "9s").unwrap().stored().contains_key("merge"));
    }
}

//! The comparison that keeps a command made under one epoch from taking effect under another.

use cribwork_types::{RangeDescriptor, RangeEpoch, RangeId};

/// Which parts of the epoch a command depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochNeed {
    /// Data commands: the bounds (`version`). They stay right when members come and go.
    Version,
    /// Admin commands: bounds and membership (`version` and `conf_ver`).
    Full,
}

/// The command was made for another shape of the range. It has certainly had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("range {range} has epoch {current}, the request was made for {request}")]
pub struct Stale {
    /// The range.
    pub range: RangeId,
    /// The epoch that holds here.
    pub current: RangeEpoch,
    /// The epoch of the request. May also be ahead: then this replica has yet to catch up.
    pub request: RangeEpoch,
}

/// Checks that what a command was made for is what the range is. Ahead is refused like behind: a
/// replica that has not applied the change yet must not run the command on the old bounds.
///
/// # Errors
/// [`Stale`] if a needed part differs.
pub fn check_epoch(
    descriptor: &RangeDescriptor,
    request: RangeEpoch,
    need: EpochNeed,
) -> Result<(), Stale> {
    let current = descriptor.epoch;
    let same = match need {
        EpochNeed::Version => current.version == request.version,
        EpochNeed::Full => current == request,
    };
    if same { Ok(()) } else { Err(Stale { range: descriptor.id, current, request }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_needs_bounds_and_admin_needs_everything() {
        let current = RangeEpoch { conf_ver: 3, version: 5 };
        let descriptor =
            RangeDescriptor { id: RangeId(1), epoch: current, ..RangeDescriptor::default() };
        let check = |conf_ver, version, need| {
            check_epoch(&descriptor, RangeEpoch { conf_ver, version }, need).is_ok()
        };
        assert!(check(3, 5, EpochNeed::Version) && check(3, 5, EpochNeed::Full));
        for conf_ver in [2, 4] {
            assert!(check(conf_ver, 5, EpochNeed::Version));
            assert!(!check(conf_ver, 5, EpochNeed::Full));
        }
        for version in [4, 6] {
            assert!(!check(3, version, EpochNeed::Version));
            assert!(!check(3, version, EpochNeed::Full));
        }
    }
}

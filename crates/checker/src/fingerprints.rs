//! Replicas of a range that applied the same entries hold the same bytes.

use std::collections::BTreeMap;

use crate::{History, Op, Options, Verdict};

/// Checks acknowledged fingerprints: those of one range at one applied index are equal, whatever the
/// store and the time. Items: fingerprints that another one of the same range and index, earlier in the
/// history, could be compared with.
pub fn fingerprints(history: &History, _options: &Options) -> Verdict {
    let mut verdict = Verdict::new("fingerprints");
    let mut seen: BTreeMap<(u64, u64), (usize, u64, u64)> = BTreeMap::new();
    for (index, operation) in history.iter().filter(|(_, operation)| operation.is_ok()) {
        let Op::Fingerprint { range, index: applied, store, hash } = operation.op else { continue };
        let Some(&(other, its_store, its_hash)) = seen.get(&(range, applied)) else {
            seen.insert((range, applied), (index, store, hash));
            continue;
        };
        verdict.checked += 1;
        if hash != its_hash {
            let what = format!(
                "diverged: range {range} at index {applied} is {its_hash:016x} on store {its_store} \
                 and {hash:016x} on store {store}"
            );
            verdict.violation(what, [other, index]);
        }
    }
    verdict
}

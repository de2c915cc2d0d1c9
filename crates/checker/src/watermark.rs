//! Numbers that must not fall.

use std::collections::BTreeMap;

use crate::realtime::{Sighting, for_each_preceded};
use crate::{History, Op, Options, Verdict};

/// Checks acknowledged sightings of numbers: those of one name and owner by one process never fall.
/// Items: acknowledged sightings.
pub fn watermark(history: &History, _options: &Options) -> Verdict {
    let mut verdict = Verdict::new("watermark");
    let mut series: BTreeMap<(u64, &str, &str), Vec<Sighting>> = BTreeMap::new();
    for (index, operation) in history.iter().filter(|(_, operation)| operation.is_ok()) {
        if let Op::Watermark { name, of, value } = &operation.op {
            let complete = operation.complete.unwrap_or(u64::MAX);
            let (low, high, invoke) = (*value, *value, operation.invoke);
            let sighting = Sighting { index, invoke, complete, low, high };
            series.entry((operation.process, name, of)).or_default().push(sighting);
            verdict.checked += 1;
        }
    }
    for ((process, name, of), sightings) in series {
        // A process does one thing after the other, so what begins when another ends comes later.
        for_each_preceded(&sightings, true, |earlier, later| {
            if later.low < earlier.high {
                let what = format!(
                    "fell: {name} of {of}, as process {process} saw it, from {} to {}",
                    earlier.high, later.low
                );
                verdict.violation(what, [earlier.index, later.index]);
            }
        });
    }
    verdict
}

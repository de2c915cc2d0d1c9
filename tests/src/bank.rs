//! What a bank's report has to say, whatever was done to the nodes meanwhile.

use serde_json::Value;

/// Every transfer that was acknowledged is there, none that failed, no money came or went, and no client saw an
/// error. Panics with the report otherwise.
pub fn assert_sound(report: &Value) {
    assert_eq!(report["ok"], true, "{report}");
    let violations = ["acknowledged_lost", "aborted_but_applied", "replay_mismatch", "errors"];
    assert_eq!(violations.map(|field| report[field].as_u64()), [Some(0); 4], "{report}");
    assert_eq!(report["total_expected"], report["total_observed"], "{report}");
}

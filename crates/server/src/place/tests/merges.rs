//! A merge outlives the leader of placement that began it. The ranges' stores are mute: nobody promises anything.

use cribwork_proto::cribwork::admin::MergeRequest;

use super::harness::{Life, eventually};
use crate::place::rows::MergeState;

/// Store 1 leads all ranges; the others are heard.
fn all_beat(life: &Life) {
    let led: Vec<_> = life.plan.ranges.iter().map(|range| (range.clone(), 1)).collect();
    life.beat(1, true, &led);
    life.beat(2, true, &[]);
    life.beat(3, true, &[]);
}

fn states(life: &Life) -> Vec<MergeState> {
    let states =
        |lead: &mut crate::place::lead::Lead| lead.merges.values().map(|row| row.state).collect();
    life.place.with_lead(states).unwrap_or_default()
}

#[test]
fn a_merge_that_was_begun_is_driven_by_the_next_leader() {
    let life = Life::first(2);
    all_beat(&life);
    let begun = life.place.merge(&MergeRequest { range: 1, watched: 0 }).unwrap();
    assert!(!begun.done && begun.other_range == 2, "{begun:?}");
    eventually("its row", || {
        all_beat(&life);
        states(&life) == [MergeState::Preparing]
    });
    // The row was applied, so that it is there whatever the power takes with it.
    let life = life.crash();
    eventually("the row again", || {
        all_beat(&life);
        !states(&life).is_empty()
    });
    // Nobody answers the next leader either, and it decides.
    eventually("the decision", || {
        all_beat(&life);
        states(&life) == [MergeState::Abandoned]
    });
    let life = life.crash();
    eventually("the decision once more", || states(&life) == [MergeState::Abandoned]);
}

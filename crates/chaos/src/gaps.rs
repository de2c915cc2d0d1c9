//! Lays faults over a history: how long nothing was acknowledged, how long an operation took, and how
//! many there were in each second. Pure.

use cribwork_checker::History;

/// When an operation began and was acknowledged, milliseconds since the load began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answered {
    pub(crate) invoke_ms: f64,
    pub(crate) complete_ms: f64,
}

/// What clients saw, by the time of its acknowledgement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Sorted by completion.
    answered: Vec<Answered>,
    /// All operations, acknowledged or not: begin and end.
    all: Vec<Answered>,
    /// Acknowledgements before this one are followed by nothing: the end of the load.
    end_ms: f64,
}

impl Seen {
    /// Takes the operations of the load (not the last reads) out of a history whose times count from
    /// `zero_unix_ms`; times count from `begun_unix_ms` afterwards.
    pub(crate) fn new(history: &History, zero_unix_ms: f64, begun_unix_ms: f64) -> Self {
        let at = |ns: u64| ns as f64 / 1e6 + zero_unix_ms - begun_unix_ms;
        let (mut answered, mut all) = (Vec::new(), Vec::new());
        for operation in history.operations().iter().filter(|operation| !operation.is_final) {
            let Some(complete) = operation.complete else { continue };
            let times = Answered { invoke_ms: at(operation.invoke), complete_ms: at(complete) };
            all.push(times);
            if operation.is_ok() {
                answered.push(times);
            }
        }
        answered.sort_by(|a, b| a.complete_ms.total_cmp(&b.complete_ms));
        let end_ms = all.iter().map(|times| times.complete_ms).fold(0.0, f64::max);
        Self { answered, all, end_ms }
    }

    /// The longest time without an acknowledged operation that overlaps the window, whole: it may have
    /// begun before it and ended after it.
    pub(crate) fn gap_ms(&self, (from_ms, to_ms): (f64, f64)) -> f64 {
        let completions = self.answered.iter().map(|times| times.complete_ms);
        let begins = std::iter::once(0.0).chain(completions.clone());
        let ends = completions.chain(std::iter::once(self.end_ms));
        let overlapping = begins.zip(ends).filter(|(begin, end)| *begin < to_ms && *end > from_ms);
        overlapping.map(|(begin, end)| end - begin).fold(0.0, f64::max)
    }

    /// The longest operation, whatever became of it, that overlaps the window.
    pub(crate) fn slowest_ms(&self, (from_ms, to_ms): (f64, f64)) -> f64 {
        let overlapping =
            self.all.iter().filter(|times| times.invoke_ms < to_ms && times.complete_ms > from_ms);
        overlapping.map(|times| times.complete_ms - times.invoke_ms).fold(0.0, f64::max)
    }

    /// Acknowledged operations in each second since the load began.
    pub(crate) fn per_second(&self) -> Vec<u64> {
        let mut counts = vec![0; (self.end_ms / 1e3).ceil().max(0.0) as usize];
        for times in &self.answered {
            if let Some(count) = counts.get_mut((times.complete_ms / 1e3).max(0.0) as usize) {
                *count += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use cribwork_checker::{Op, Operation, Outcome};

    use super::*;

    /// Operations by begin and end in milliseconds on the history's clock, which began at 1000.
    fn seen(times: &[(u64, u64, Outcome)]) -> Seen {
        let operations = times.iter().map(|(invoke, complete, outcome)| Operation {
            process: *invoke,
            invoke: invoke * 1_000_000,
            complete: Some(complete * 1_000_000),
            outcome: *outcome,
            is_final: false,
            op: Op::Delete { key: "k".into() },
        });
        let history = History::try_from(operations.collect::<Vec<_>>()).unwrap();
        Seen::new(&history, 1000.0, 1500.0)
    }

    #[test]
    fn a_gap_is_whole_even_if_only_its_edge_is_in_the_window() {
        // The load begins at 500 of the history's clock.
        let seen = seen(&[
            (500, 600, Outcome::Ok),
            (600, 900, Outcome::Ok),
            (900, 950, Outcome::Failed),
            (950, 2900, Outcome::Ok),
            (2900, 3000, Outcome::Ok),
        ]);
        assert_eq!(seen.gap_ms((0.0, 50.0)), 100.0);
        assert_eq!(seen.gap_ms((150.0, 300.0)), 300.0);
        assert_eq!(seen.gap_ms((350.0, 450.0)), 2000.0);
        assert_eq!(seen.gap_ms((1000.0, 1001.0)), 2000.0);
        assert_eq!(seen.gap_ms((9000.0, 9001.0)), 0.0);
        assert_eq!(seen.slowest_ms((420.0, 430.0)), 50.0);
        assert_eq!(seen.slowest_ms((0.0, 9000.0)), 1950.0);
        assert_eq!(seen.per_second(), [2, 0, 2]);
    }

    #[test]
    fn nothing_acknowledged_until_the_end_is_a_gap_to_the_end() {
        let seen = seen(&[(500, 600, Outcome::Ok), (600, 2500, Outcome::Unknown)]);
        assert_eq!(seen.gap_ms((1500.0, 1600.0)), 1900.0);
        assert_eq!(Seen::default().gap_ms((0.0, 1.0)), 0.0);
        assert!(Seen::default().per_second().is_empty());
    }
}

//! The largest of what was complete before something began.

/// Something with a number, seen between two instants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    /// In the history.
    pub(crate) index: usize,
    pub(crate) invoke: u64,
    pub(crate) complete: u64,
    /// Compared with earlier ones.
    pub(crate) low: u64,
    /// What later ones are compared with.
    pub(crate) high: u64,
}

/// Calls `judge` for every sighting that anything preceded, with the preceding one of the largest
/// `high`. With `touching` one that begins in the instant in which another ends counts as later.
pub(crate) fn for_each_preceded(
    sightings: &[Sighting],
    touching: bool,
    mut judge: impl FnMut(&Sighting, &Sighting),
) {
    let mut by_invoke: Vec<&Sighting> = sightings.iter().collect();
    by_invoke.sort_by_key(|sighting| (sighting.invoke, sighting.complete));
    let mut by_complete = by_invoke.clone();
    by_complete.sort_by_key(|sighting| sighting.complete);
    let mut ended = by_complete.into_iter().peekable();
    let mut largest: Option<&Sighting> = None;
    for sighting in by_invoke {
        let over = |earlier: &&&Sighting| {
            earlier.complete < sighting.invoke || touching && earlier.complete == sighting.invoke
        };
        // One that begins and ends in this very instant is no predecessor of itself.
        while let Some(earlier) =
            ended.next_if(|earlier| over(&earlier) && earlier.index != sighting.index)
        {
            if largest.is_none_or(|largest| earlier.high > largest.high) {
                largest = Some(earlier);
            }
        }
        if let Some(largest) = largest {
            judge(largest, sighting);
        }
    }
}

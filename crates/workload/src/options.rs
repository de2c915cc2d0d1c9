//! What all workloads can be told.

use std::time::Duration;

use crate::WorkloadError;

/// Most workers of one run; each is a task with one operation under way.
pub(crate) const WORKERS_MAX: u32 = 4096;
/// Most ranges that a workload splits its keys into.
pub(crate) const RANGES_MAX: u32 = 4096;
/// How long one operation is tried before it counts as an error.
pub(crate) const OPERATION_LIMIT: Duration = Duration::from_secs(10);

/// Options of every workload.
#[derive(Clone, Debug)]
pub struct CommonOptions {
    /// Closed-loop workers, each with one operation under way.
    pub workers: u32,
    /// Load time, without set-up and check.
    pub duration: Duration,
    /// Where all choices come from; a random one if absent. Timing still differs between runs.
    pub seed: Option<u64>,
    /// Ranges that the workload's own keys are split into; 1 splits nothing.
    pub ranges: u32,
}

impl Default for CommonOptions {
    /// 16 workers, 10 s, 16 ranges.
    fn default() -> Self {
        Self { workers: 16, duration: Duration::from_secs(10), seed: None, ranges: 16 }
    }
}

impl CommonOptions {
    /// # Errors
    /// [`WorkloadError::Invalid`] naming the option.
    pub(crate) fn check(&self) -> Result<(), WorkloadError> {
        within("workers", self.workers, 1, WORKERS_MAX)?;
        within("ranges", self.ranges, 1, RANGES_MAX)?;
        if self.duration.is_zero() {
            return Err(WorkloadError::invalid("duration", "must be longer than nothing"));
        }
        Ok(())
    }
}

/// # Errors
/// [`WorkloadError::Invalid`] unless `least <= value <= most`.
pub(crate) fn within(
    what: &'static str,
    value: u32,
    least: u32,
    most: u32,
) -> Result<(), WorkloadError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(WorkloadError::invalid(what, format!("{value}; there must be {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        assert!(CommonOptions::default().check().is_ok());
        for (workers, ranges, good) in
            [(1, 1, true), (0, 1, false), (1, 0, false), (WORKERS_MAX + 1, 1, false)]
        {
            let options = CommonOptions { workers, ranges, ..Default::default() };
            assert_eq!(options.check().is_ok(), good, "{workers} {ranges}");
        }
        let options = CommonOptions { duration: Duration::ZERO, ..Default::default() };
        assert!(options.check().is_err());
    }
}

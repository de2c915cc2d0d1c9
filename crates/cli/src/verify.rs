//! `verify`: the replicas of every range, compared at one entry of its log.

use std::time::Duration;

use cribwork_client::AdminClient;
use cribwork_proto::cribwork::admin;
use cribwork_types::RangeId;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, exit};
use crate::output::{print, table};
use crate::run::Context;

/// Ranges compared at once.
const AT_ONCE: usize = 4;
/// Times that a range is compared until all its replicas have taken part: one may be on its way to another
/// store, or come from a snapshot.
const ATTEMPTS: u32 = 5;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(500);

/// A range whose replicas are not equal.
#[derive(Debug, Serialize)]
struct Differing {
    range: u64,
    index: u64,
    stores: Vec<u64>,
}

/// A replica that could not be compared.
#[derive(Debug, Serialize)]
struct Missing {
    range: u64,
    /// 0 if it is the whole range.
    store: u64,
    why: String,
}

/// `verify`.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    ranges: u64,
    compared: u64,
    differing: Vec<Differing>,
    missing: Vec<Missing>,
    ok: bool,
}

impl Verdict {
    fn take(&mut self, range: RangeId, found: Result<admin::VerifyRangeResponse, String>) {
        self.ranges += 1;
        let missing = |store, why| Missing { range: range.get(), store, why };
        match found {
            Err(why) => self.missing.push(missing(0, why)),
            Ok(found) => {
                let silent = found.replicas.iter().filter(|it| !it.missing.is_empty());
                let silent: Vec<_> =
                    silent.map(|it| missing(it.store, it.missing.clone())).collect();
                self.compared += u64::from(silent.is_empty());
                self.missing.extend(silent);
                if !found.differing_stores.is_empty() {
                    let stores = found.differing_stores;
                    let differing = Differing { range: found.range, index: found.index, stores };
                    self.differing.push(differing);
                }
            }
        }
    }

    fn end(&self) -> Result<(), Failure> {
        if !self.differing.is_empty() {
            let message = format!("the replicas of {} ranges differ", self.differing.len());
            let hint = "stop the nodes and look closer: cribwork store compare DIR...";
            return Err(Failure {
                exit: exit::VIOLATED,
                ..Failure::new("CW-CLI-DIFFERENT", message, hint)
            });
        }
        match self.missing.len() {
            0 => Ok(()),
            count => {
                let message = format!("{count} replicas could not be compared");
                let hint = "see `missing` in what was printed; are all nodes up?";
                Err(Failure::new("CW-CLI-NOT-COMPARED", message, hint))
            }
        }
    }
}

pub(crate) async fn verify(context: &Context, only: Option<u64>) -> Result<(), Failure> {
    let admin = &context.admin().with_timeout(context.global.move_timeout());
    let all = admin.ranges().await?;
    let wanted = all.iter().map(|range| range.id).filter(|id| only.is_none_or(|only| only == *id));
    let wanted: Vec<RangeId> = wanted.map(RangeId).collect();
    if wanted.is_empty() {
        let message = format!("range {} does not exist", only.unwrap_or_default());
        let hint = "list what there is: cribwork ranges";
        return Err(Failure::new("CW-CLI-NOT-FOUND", message, hint));
    }
    let bar = ProgressBar::new(wanted.len() as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} ranges compared, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let compared = wanted.into_iter().map(|id| async move { (id, one(context, admin, id).await) });
    let mut compared = futures::stream::iter(compared).buffer_unordered(AT_ONCE);
    let mut verdict = Verdict::default();
    while let Some((id, found)) = compared.next().await {
        bar.inc(1);
        match found {
            // Gone since the list was made.
            Ok(None) => {}
            Ok(Some(found)) => verdict.take(id, Ok(found)),
            Err(why) => verdict.take(id, Err(why)),
        }
    }
    bar.finish_and_clear();
    verdict.ok = verdict.differing.is_empty() && verdict.missing.is_empty();
    verdict.differing.sort_by_key(|it| it.range);
    verdict.missing.sort_by_key(|it| (it.range, it.store));
    print(context.global.output, &verdict, |verdict| {
        let mut rows = table(["RANGES", "COMPARED", "DIFFERING", "NOT COMPARED"]);
        let counts = [verdict.differing.len(), verdict.missing.len()];
        rows.add_row([
            verdict.ranges.to_string(),
            verdict.compared.to_string(),
            counts[0].to_string(),
            counts[1].to_string(),
        ]);
        rows
    })?;
    for it in &verdict.differing {
        eprintln!("range {} differs on stores {:?} at index {}", it.range, it.stores, it.index);
    }
    for it in &verdict.missing {
        eprintln!("range {}, store {}: not compared: {}", it.range, it.store, it.why);
    }
    verdict.end()
}

/// Compares one range, again while replicas are missing; `None` if it has gone.
async fn one(
    context: &Context,
    admin: &AdminClient,
    id: RangeId,
) -> Result<Option<admin::VerifyRangeResponse>, String> {
    let mut attempt = 1;
    loop {
        let found = admin.verify_range(id).await;
        let complete = match &found {
            Ok(found) => {
                found.replicas.iter().all(|it| it.missing.is_empty())
                    || !found.differing_stores.is_empty()
            }
            Err(_) => match admin.range(id).await {
                Ok(None) => return Ok(None),
                _ => false,
            },
        };
        if complete || attempt == ATTEMPTS {
            return found.map(Some).map_err(|error| error.to_string());
        }
        attempt += 1;
        context.runtime.sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(differing: &[u64], silent: &[u64]) -> admin::VerifyRangeResponse {
        let replica = |store| admin::ReplicaSums {
            store,
            missing: if silent.contains(&store) { "down".to_owned() } else { String::new() },
            ..Default::default()
        };
        admin::VerifyRangeResponse {
            range: 7,
            index: 9,
            replicas: [1, 2, 3].map(replica).into(),
            differing_stores: differing.to_vec(),
        }
    }

    fn status(all: Vec<Result<admin::VerifyRangeResponse, String>>) -> (u8, Verdict) {
        let mut verdict = Verdict::default();
        all.into_iter().for_each(|found| verdict.take(RangeId(7), found));
        (verdict.end().map_or_else(|failure| failure.exit, |()| 0), verdict)
    }

    #[test]
    fn a_difference_is_a_violation_and_silence_a_failure() {
        let (exit, verdict) = status(vec![Ok(found(&[], &[])); 2]);
        assert_eq!((exit, verdict.ranges, verdict.compared), (0, 2, 2));
        let (exit, verdict) = status(vec![Ok(found(&[], &[2])), Err("no leader".to_owned())]);
        assert_eq!((exit, verdict.compared, verdict.missing.len()), (exit::FAILED, 0, 2));
        let (exit, verdict) = status(vec![Ok(found(&[3], &[2])), Ok(found(&[], &[]))]);
        assert_eq!((exit, verdict.compared), (exit::VIOLATED, 1));
        assert_eq!(verdict.differing[0].stores, [3]);
    }
}

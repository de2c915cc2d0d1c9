//! Commands that have data or leaderships move: begun once, then asked again until they are done.

use std::time::Duration;

use cribwork_client::ClientError;
use cribwork_proto::cribwork::admin::Progress;
use cribwork_types::{RangeId, StoreId};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::print_fields;
use crate::run::Context;

/// What to do when time is over, where the same order again goes on with what is under way.
const AGAIN: &str = "run the same command again to go on waiting, or ask `cribwork explain`";
/// The same for a merge: again, it would take the next neighbour.
const LOOK: &str =
    "look with `cribwork explain range` and the number of the right one, or `cribwork ranges`";

/// Pause between two looks at how far something is.
const PAUSE: Duration = Duration::from_millis(200);

/// `move-replica`.
#[derive(Debug, Serialize)]
struct Moved {
    range: u64,
    from: u64,
    to: u64,
}

/// `merge`.
#[derive(Debug, Serialize)]
struct Merged {
    range: u64,
    absorbed: u64,
}

/// `drain` and `decommission`.
#[derive(Debug, Serialize)]
struct Told {
    store: u64,
    state: &'static str,
}

pub(crate) async fn replica(
    context: &Context,
    range: u64,
    from: u64,
    to: u64,
) -> Result<(), Failure> {
    let admin = &context.admin();
    let ids = (RangeId(range), StoreId(from), StoreId(to));
    until_done(context, AGAIN, |watch| admin.move_replica(ids.0, ids.1, ids.2, watch)).await?;
    print_fields(context.global.output, &Moved { range, from, to })
}

pub(crate) async fn merge(context: &Context, range: u64) -> Result<(), Failure> {
    let admin = &context.admin();
    let begun = admin.merge(RangeId(range), None).await?;
    let absorbed = begun.other_range;
    until_done(context, LOOK, |_| admin.merge(RangeId(range), Some(RangeId(absorbed)))).await?;
    print_fields(context.global.output, &Merged { range, absorbed })
}

pub(crate) async fn drain(context: &Context, store: u64, undo: bool) -> Result<(), Failure> {
    let admin = &context.admin();
    until_done(context, AGAIN, |_| admin.drain(StoreId(store), undo)).await?;
    let state = if undo { "up" } else { "draining" };
    print_fields(context.global.output, &Told { store, state })
}

pub(crate) async fn decommission(context: &Context, store: u64) -> Result<(), Failure> {
    let admin = &context.admin();
    until_done(context, AGAIN, |_| admin.decommission(StoreId(store))).await?;
    print_fields(context.global.output, &Told { store, state: "decommissioned" })
}

/// Asks until it is done; `ask` is told whether it was asked before.
async fn until_done<F>(
    context: &Context,
    hint: &'static str,
    ask: impl Fn(bool) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<Progress, ClientError>>,
{
    let deadline = context.runtime.now() + context.global.move_timeout();
    let mut asked = false;
    loop {
        let progress = ask(asked).await?;
        if progress.done {
            return Ok(());
        }
        if context.runtime.now() + PAUSE > deadline {
            let message = format!("not done in time, but under way: {}", progress.text);
            return Err(Failure::new("CW-CLI-UNDER-WAY", message, hint));
        }
        tracing::info!("{}", progress.text);
        asked = true;
        context.runtime.sleep(PAUSE).await;
    }
}

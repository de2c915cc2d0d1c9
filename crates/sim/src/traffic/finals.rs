//! The reads of everything, after all is calm.

use cribwork_client::ClientError;
use cribwork_types::Timestamp;

use super::{Worker, append, bank, insist, raw, register};
use cribwork_checker::Step;

/// Reads every key that any worker may have written.
pub(super) async fn read_everything(mut worker: Worker) {
    for key in raw::KEYS.map(raw::key).chain(raw::PLAIN.map(raw::plain)) {
        while !raw::get(&mut worker, key.clone()).await {}
    }
    while !bank::read_all(&mut worker).await {}
    let shared = worker.shared.clone();
    insist(&shared, async || {
        let begun = worker.begin();
        let mut steps = Vec::new();
        let result = read_transactional(&worker, &mut steps).await;
        let start_ts = result.as_ref().copied().unwrap_or_default();
        worker.record(begun, &result, append::transaction(start_ts, None, steps));
        result
    })
    .await;
}

async fn read_transactional(
    worker: &Worker,
    steps: &mut Vec<Step>,
) -> Result<Timestamp, ClientError> {
    let transaction = worker.client.begin().await?;
    for number in append::KEYS {
        append::list(&transaction, &append::key(number), steps).await?;
    }
    for key in register::KEYS.map(register::key).chain(bank::keys()) {
        register::get(&transaction, &key, steps).await?;
    }
    transaction.commit().await
}

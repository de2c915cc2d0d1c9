//! The workers of append: they do one transaction after the other and write each attempt down.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_checker::{Op, Operation, Outcome as Recorded, Step, decode_list, encode_list};
use cribwork_client::{Client, ClientError, Transaction};
use cribwork_types::{Runtime, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Lists, transaction};
use crate::drive::{Outcome, Pauses, Worker};
use crate::gaps::Touched;
use crate::judgement::nanos;
use crate::keyspace::scramble;
use crate::options::OPERATION_LIMIT;
use crate::setup::passes;

/// Most steps of a transaction; at least one.
const STEPS_MAX: u32 = 5;
/// Elements of one worker are apart from those of others.
const WORKER_SHIFT: u32 = 40;

/// One step of a transaction to come: a list by its number, read or appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    list: u32,
    appends: bool,
}

/// A worker.
pub(super) struct Scribe {
    client: Client,
    runtime: Arc<dyn Runtime>,
    lists: Arc<Lists>,
    worker: u32,
    random: StdRng,
    /// Elements made so far.
    made: u64,
    record: Vec<Operation>,
}

/// How an attempt ended.
struct Attempt {
    start: Timestamp,
    done: Vec<Step>,
    /// The commit timestamp, if anything was written.
    ended: Result<Option<Timestamp>, ClientError>,
    /// Whether the cluster had been asked to commit.
    committing: bool,
}

impl Attempt {
    fn recorded(&self) -> Recorded {
        match &self.ended {
            Ok(_) => Recorded::Ok,
            Err(ClientError::Unknown { .. }) if self.committing => Recorded::Unknown,
            Err(_) => Recorded::Failed,
        }
    }
}

impl Scribe {
    pub(super) fn new(
        client: &Client,
        runtime: &Arc<dyn Runtime>,
        lists: &Arc<Lists>,
        worker: u32,
        seed: u64,
    ) -> Self {
        Self {
            client: client.clone(),
            runtime: runtime.clone(),
            lists: lists.clone(),
            worker,
            random: StdRng::seed_from_u64(scramble(seed) ^ u64::from(worker)),
            made: 0,
            record: Vec::new(),
        }
    }

    pub(super) fn into_record(self) -> Vec<Operation> {
        self.record
    }

    async fn attempt(&mut self, plan: &[Planned]) -> Attempt {
        let generation = self.lists.begin();
        let mut attempt = Attempt {
            start: Timestamp::ZERO,
            done: Vec::new(),
            ended: Ok(None),
            committing: false,
        };
        let transaction = match self.client.begin().await {
            Ok(transaction) => transaction,
            Err(error) => return Attempt { ended: Err(error), ..attempt },
        };
        attempt.start = transaction.start_ts();
        for Planned { list: number, appends } in plan {
            let key = self.lists.key(*number, generation);
            let element = appends.then(|| {
                self.made += 1;
                u64::from(self.worker) << WORKER_SHIFT | self.made
            });
            if let Err(error) = step(&transaction, key, element, &mut attempt.done).await {
                return Attempt { ended: Err(error), ..attempt };
            }
        }
        attempt.committing = true;
        let wrote = transaction.writes() > 0;
        attempt.ended = transaction.commit().await.map(|commit| wrote.then_some(commit));
        attempt
    }
}

async fn step(
    transaction: &Transaction,
    key: Bytes,
    element: Option<u64>,
    done: &mut Vec<Step>,
) -> Result<(), ClientError> {
    let mut elements = list(transaction, &key, done).await?;
    if let Some(element) = element {
        elements.push(element);
        transaction.put(key.clone(), encode_list(&elements))?;
        done.push(Step::Append { key: key.into(), element });
    }
    Ok(())
}

/// Reads one list and writes that down.
pub(super) async fn list(
    transaction: &Transaction,
    key: &Bytes,
    done: &mut Vec<Step>,
) -> Result<Vec<u64>, ClientError> {
    let value = transaction.get(key.clone()).await?.unwrap_or_default();
    let elements = decode_list(&value).ok_or_else(|| ClientError::Protocol {
        what: "list",
        why: format!("{} is none", value.escape_ascii()),
    })?;
    done.push(Step::List { key: key.clone().into(), elements: elements.clone() });
    Ok(elements)
}

impl Worker for Scribe {
    type Job = Vec<Planned>;

    fn next(&mut self) -> (Vec<Planned>, Touched) {
        let steps = self.random.random_range(1..=STEPS_MAX);
        let plan: Vec<_> = (0..steps)
            .map(|_| Planned {
                list: self.random.random_range(0..self.lists.keys),
                appends: self.random.random(),
            })
            .collect();
        // Of more than two ranges only the first and the last are measured.
        let slot = |planned: &Planned| self.lists.slot(planned.list);
        let touched = Touched::two(slot(&plan[0]), slot(&plan[plan.len() - 1]));
        (plan, touched)
    }

    async fn run(&mut self, plan: Vec<Planned>) -> Outcome {
        let deadline = self.runtime.now() + OPERATION_LIMIT;
        let mut pauses = Pauses::default();
        loop {
            let invoke = nanos(self.runtime.now());
            let attempt = self.attempt(&plan).await;
            let outcome = attempt.recorded();
            let commit = attempt.ended.as_ref().ok().copied().flatten();
            self.record.push(Operation {
                process: u64::from(self.worker),
                invoke,
                complete: Some(nanos(self.runtime.now())),
                outcome,
                is_final: false,
                op: Op::Txn(transaction(attempt.start, commit, attempt.done)),
            });
            let Err(error) = attempt.ended else { return Outcome::Done };
            if outcome == Recorded::Unknown {
                tracing::info!(%error, "the outcome of a transaction is unknown");
                return Outcome::Unknown;
            }
            if !passes(&error) || self.runtime.now() >= deadline {
                return Outcome::Failed(error.to_string());
            }
            pauses.wait(&*self.runtime).await;
        }
    }
}

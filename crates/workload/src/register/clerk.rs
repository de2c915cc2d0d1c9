//! The workers of register: they do one operation after the other and write each one down.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_checker::{Blob, Op, Operation, Outcome as Recorded};
use cribwork_client::{Client, ClientError};
use cribwork_types::Runtime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Registers;
use crate::drive::{Outcome, Worker};
use crate::gaps::Touched;
use crate::judgement::nanos;
use crate::keyspace::scramble;

/// Of 100 operations: reads, puts, deletions; the others are swaps.
const READS: u32 = 40;
const PUTS: u32 = 25;
const DELETES: u32 = 10;

/// What a worker does next, on a key by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Get(u32),
    Put(u32, Bytes),
    Delete(u32),
    /// The value to write; what is expected is what the worker saw last.
    Swap(u32, Bytes),
}

impl Job {
    fn number(&self) -> u32 {
        match self {
            Job::Get(number) | Job::Put(number, _) | Job::Delete(number) | Job::Swap(number, _) => {
                *number
            }
        }
    }
}

/// A worker.
pub(super) struct Clerk {
    client: Client,
    runtime: Arc<dyn Runtime>,
    registers: Registers,
    worker: u32,
    random: StdRng,
    /// Values made so far.
    made: u64,
    /// What each key held when this worker last learnt it. A swap expects that: often it is right, and
    /// when it is not, the answer must say so.
    seen: Vec<Option<Bytes>>,
    record: Vec<Operation>,
}

impl Clerk {
    pub(super) fn new(
        client: &Client,
        runtime: &Arc<dyn Runtime>,
        registers: Registers,
        worker: u32,
        seed: u64,
    ) -> Self {
        Self {
            client: client.clone(),
            runtime: runtime.clone(),
            registers,
            worker,
            random: StdRng::seed_from_u64(scramble(seed) ^ u64::from(worker)),
            made: 0,
            seen: vec![None; registers.keys as usize],
            record: Vec::new(),
        }
    }

    pub(super) fn into_record(self) -> Vec<Operation> {
        self.record
    }

    fn choose(&mut self) -> Job {
        let number = self.random.random_range(0..self.registers.keys);
        let choice = self.random.random_range(0..100);
        if choice < READS {
            return Job::Get(number);
        }
        if choice < READS + DELETES {
            return Job::Delete(number);
        }
        self.made += 1;
        let value = Bytes::from(format!("{}.{}", self.worker, self.made));
        match choice < READS + DELETES + PUTS {
            true => Job::Put(number, value),
            false => Job::Swap(number, value),
        }
    }

    /// Does it once; the client makes the attempts. Gives what is written down, and what the key holds
    /// now as far as this worker knows.
    async fn attempt(&self, job: &Job) -> (Op, Result<Option<Bytes>, ClientError>) {
        let bytes = self.registers.key(job.number());
        let raw = self.client.raw().atomic();
        let blob = |value: &Option<Bytes>| value.clone().map(Blob::from);
        let key = Blob::from(bytes.clone());
        match job {
            Job::Get(_) => {
                let read = raw.get(bytes).await;
                let value = read.as_ref().map(blob).unwrap_or_default();
                (Op::Get { key, value }, read)
            }
            Job::Put(_, value) => {
                let done = raw.put(bytes, value.clone()).await;
                (Op::Put { key, value: value.clone().into() }, done.map(|()| Some(value.clone())))
            }
            Job::Delete(_) => (Op::Delete { key }, raw.delete(bytes).await.map(|()| None)),
            Job::Swap(number, value) => {
                let expected = self.seen[*number as usize].clone();
                let done = raw.compare_and_swap(bytes, expected.clone(), value.clone()).await;
                let op = Op::Cas {
                    key,
                    expected: blob(&expected),
                    value: value.clone().into(),
                    swapped: done.as_ref().ok().map(|outcome| outcome.swapped),
                    previous: done.as_ref().ok().map(|outcome| blob(&outcome.previous)),
                };
                let holds = done.map(|outcome| match outcome.swapped {
                    true => Some(value.clone()),
                    false => outcome.previous,
                });
                (op, holds)
            }
        }
    }
}

impl Worker for Clerk {
    type Job = Job;

    fn next(&mut self) -> (Job, Touched) {
        let job = self.choose();
        let slot = self.registers.slot(job.number());
        (job, Touched::one(slot))
    }

    async fn run(&mut self, job: Job) -> Outcome {
        let invoke = nanos(self.runtime.now());
        let (op, answer) = self.attempt(&job).await;
        let outcome = recorded(&job, &answer);
        self.record.push(Operation {
            process: u64::from(self.worker),
            invoke,
            complete: Some(nanos(self.runtime.now())),
            outcome,
            is_final: false,
            op,
        });
        match answer {
            Ok(holds) => {
                self.seen[job.number() as usize] = holds;
                Outcome::Done
            }
            Err(error) if outcome == Recorded::Unknown => {
                tracing::info!(?job, %error, "the outcome of a write is unknown");
                Outcome::Unknown
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

fn recorded(job: &Job, answer: &Result<Option<Bytes>, ClientError>) -> Recorded {
    match (job, answer) {
        (_, Ok(_)) => Recorded::Ok,
        (Job::Get(_), Err(_)) => Recorded::Failed,
        (_, Err(ClientError::Unknown { .. })) => Recorded::Unknown,
        (_, Err(_)) => Recorded::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_without_an_answer_is_unknown() {
        let unknown = || ClientError::Unknown { what: "raw put", why: "reset".to_owned() };
        let refused = || ClientError::Connect { why: "down".to_owned() };
        let put = Job::Put(0, Bytes::from_static(b"0.1"));
        assert_eq!(recorded(&put, &Ok(None)), Recorded::Ok);
        assert_eq!(recorded(&put, &Err(unknown())), Recorded::Unknown);
        assert_eq!(recorded(&put, &Err(refused())), Recorded::Failed);
        assert_eq!(recorded(&Job::Get(0), &Err(unknown())), Recorded::Failed);
    }
}

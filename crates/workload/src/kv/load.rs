//! The workers of kv, and the writes before the load.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_client::{Client, ClientError, TransactOptions, Transaction};
use cribwork_types::Runtime;
use futures::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::zipfian::Zipfian;
use super::{Api, KvOptions, Table};
use crate::WorkloadError;
use crate::drive::{Outcome, Pauses, Worker};
use crate::gaps::Touched;
use crate::keyspace::scramble;
use crate::options::OPERATION_LIMIT;
use crate::setup::{passes, retry};

/// Keys in one request before the load.
const PRELOAD_KEYS: u32 = 256;
/// Bytes of keys and values in one request before the load.
const PRELOAD_BYTES: u32 = 1024 * 1024;
/// Requests under way before the load.
const PRELOAD_CONCURRENCY: usize = 8;

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Get(Bytes),
    Put(Bytes, Bytes),
}

/// Does operations by one API.
#[derive(Clone)]
struct Access {
    client: Client,
    api: Api,
}

impl Access {
    async fn run(&self, job: Job) -> Result<(), ClientError> {
        match (self.api, job) {
            (Api::Raw, Job::Get(key)) => self.client.raw().get(key).await.map(|_| ()),
            (Api::Raw, Job::Put(key, value)) => self.client.raw().put(key, value).await,
            (Api::Txn, Job::Get(key)) => {
                let transaction = self.client.begin().await?;
                transaction.get(key).await.map(|_| ())
            }
            (Api::Txn, Job::Put(key, value)) => {
                let transaction = self.client.begin().await?;
                transaction.put(key, value)?;
                transaction.commit().await.map(|_| ())
            }
        }
    }

    async fn put_all(&self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), ClientError> {
        match self.api {
            Api::Raw => self.client.raw().batch_put(pairs).await,
            Api::Txn => {
                let body = |transaction: Transaction| {
                    let pairs = pairs.clone();
                    async move {
                        for (key, value) in pairs {
                            transaction.put(key, value)?;
                        }
                        Ok(())
                    }
                };
                let done = self.client.transact(TransactOptions::default(), body).await;
                done.map(|_| ())
            }
        }
    }
}

/// A worker.
pub(super) struct Hand {
    access: Access,
    runtime: Arc<dyn Runtime>,
    table: Arc<Table>,
    read_percent: u32,
    value_bytes: usize,
    zipfian: Option<Arc<Zipfian>>,
    random: StdRng,
}

impl Hand {
    pub(super) fn new(
        client: &Client,
        runtime: &Arc<dyn Runtime>,
        table: &Arc<Table>,
        options: &KvOptions,
        zipfian: Option<Arc<Zipfian>>,
        (seed, worker): (u64, u32),
    ) -> Self {
        Self {
            access: Access { client: client.clone(), api: options.api },
            runtime: runtime.clone(),
            table: table.clone(),
            read_percent: options.read_percent,
            value_bytes: options.value_bytes as usize,
            zipfian,
            random: StdRng::seed_from_u64(scramble(seed) ^ u64::from(worker)),
        }
    }
}

impl Worker for Hand {
    type Job = Job;

    fn next(&mut self) -> (Job, Touched) {
        let number = match &self.zipfian {
            Some(zipfian) => zipfian.pick(self.random.random()),
            None => self.random.random_range(0..self.table.keys),
        };
        let key = self.table.key(number);
        let job = match self.random.random_range(0..100) < self.read_percent {
            true => Job::Get(key),
            false => Job::Put(key, value(&mut self.random, self.value_bytes)),
        };
        (job, Touched::one(self.table.slot(number)))
    }

    async fn run(&mut self, job: Job) -> Outcome {
        let deadline = self.runtime.now() + OPERATION_LIMIT;
        let mut pauses = Pauses::default();
        loop {
            let error = match self.access.run(job.clone()).await {
                Ok(()) => return Outcome::Done,
                Err(error) => error,
            };
            if !passes(&error) || self.runtime.now() >= deadline {
                return Outcome::Failed(error.to_string());
            }
            pauses.wait(&*self.runtime).await;
        }
    }
}

fn value(random: &mut StdRng, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    random.fill_bytes(&mut value);
    value.into()
}

/// Writes every key once.
pub(super) async fn preload(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    table: &Arc<Table>,
    options: &KvOptions,
    seed: u64,
) -> Result<(), WorkloadError> {
    let access = Access { client: client.clone(), api: options.api };
    let pair_bytes = options.key_bytes + options.value_bytes;
    let at_once = (PRELOAD_BYTES / pair_bytes).clamp(1, PRELOAD_KEYS);
    eprintln!("{}: writing {} keys", super::NAME, table.keys);
    stream::iter((0..table.keys).step_by(at_once as usize))
        .map(|first| {
            let mut random = StdRng::seed_from_u64(scramble(seed) ^ scramble(u64::from(first)));
            let last = first.saturating_add(at_once).min(table.keys);
            let pairs: Vec<_> = (first..last)
                .map(|number| (table.key(number), value(&mut random, options.value_bytes as usize)))
                .collect();
            let (access, deadline) = (&access, runtime.now() + 3 * OPERATION_LIMIT);
            retry(runtime, deadline, move || access.put_all(pairs.clone()))
        })
        .buffer_unordered(PRELOAD_CONCURRENCY)
        .try_collect::<()>()
        .await
        .map_err(|source| WorkloadError::Setup { stage: "write the keys", source })
}

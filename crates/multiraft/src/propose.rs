//! The proposal batcher: what queued while the last round of a range ran goes into one entry.
//!
//! A round costs the same for one command or a hundred, so commands per round decide throughput.
//! Batches form by nature, from what is waiting, never by waiting for more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cribwork_types::limits::ENTRY_BYTES_MAX;
use cribwork_types::quirk::{Quirk, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RuntimeExt, WriteBatch};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::command::{Body, Command, Evaluated, ProposalId, encode_payload};
use crate::error::RaftError;
use crate::fate::{Applied, Fate, FateSender};
use crate::options::{ENTRY_BYTES_TARGET, PROPOSAL_BYTES_QUEUED_MAX, PROPOSALS_QUEUED_MAX};
use crate::raft::WriteError;
use crate::read::WriteToken;
use crate::replica::{LiveInstance, Replica};

/// An election is under way until its winner serves, but no longer than this: one without a majority must
/// not keep others from beginning.
const ESTABLISHING_MAX: Duration = Duration::from_millis(500);

/// Most entries that [`Quirk::EmptyEntries`] appends at once.
const EMPTY_ENTRIES_MAX: u64 = 20;

struct Queued {
    term: u64,
    bytes: Bytes,
    caller: FateSender,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Queued>,
    bytes: usize,
    running: bool,
}

/// Commands of one range that wait for the next round.
#[derive(Default)]
pub(crate) struct Batcher {
    queue: Mutex<Queue>,
}

impl Batcher {
    /// True if no command waits, and no round runs.
    pub(crate) fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.commands.is_empty() && !queue.running
    }

    /// Commands for one entry: all of one term, up to a size.
    fn next_round(&self) -> Option<(u64, Vec<Queued>)> {
        let mut queue = self.queue.lock();
        let Some(term) = queue.commands.first().map(|command| command.term) else {
            queue.running = false;
            return None;
        };
        let mut bytes = 0;
        let count = queue
            .commands
            .iter()
            .take_while(|command| {
                bytes += command.bytes.len();
                command.term == term && bytes <= ENTRY_BYTES_TARGET
            })
            .count()
            .max(1);
        let round: Vec<Queued> = queue.commands.drain(..count).collect();
        queue.bytes -= round.iter().map(|command| command.bytes.len()).sum::<usize>();
        Some((term, round))
    }
}

impl Replica {
    /// Proposes an evaluated write and waits until it is applied here.
    ///
    /// # Errors
    /// Any [`RaftError`]; all but `Undetermined` mean that it has not been and will not be applied.
    pub async fn propose(
        self: &Arc<Self>,
        token: &WriteToken,
        batch: WriteBatch,
    ) -> Result<Applied, RaftError> {
        let command = Command { evaluated: token.evaluated(), body: Body::Write(batch) };
        match self.propose_command(command).await? {
            Fate::Applied(applied) => Ok(applied),
            fate => Err(self.failure(fate)),
        }
    }

    pub(crate) async fn propose_command(
        self: &Arc<Self>,
        command: Command,
    ) -> Result<Fate, RaftError> {
        let range = self.range_id();
        if let Body::Write(batch) = &command.body {
            // What no store takes must not be committed: applying it would stop every replica.
            cribwork_engine::check_keys(batch)
                .map_err(|error| RaftError::Refused { range, why: error.to_string() })?;
        }
        let bytes = command.encode();
        if bytes.len() > ENTRY_BYTES_MAX {
            let (size_bytes, max_bytes) = (bytes.len(), ENTRY_BYTES_MAX);
            return Err(RaftError::TooLarge { range, size_bytes, max_bytes });
        }
        let (caller, fate) = oneshot::channel();
        let start = {
            let mut queue = self.batcher.queue.lock();
            if queue.commands.len() >= PROPOSALS_QUEUED_MAX
                || queue.bytes + bytes.len() > PROPOSAL_BYTES_QUEUED_MAX
            {
                return Err(RaftError::Busy { range, what: "the proposal queue" });
            }
            queue.bytes += bytes.len();
            queue.commands.push(Queued { term: command.evaluated.term, bytes, caller });
            !std::mem::replace(&mut queue.running, true)
        };
        self.last_write_ms.store(self.now_ms().max(1), Ordering::Relaxed);
        if start {
            let replica = self.clone();
            self.shared().runtime.spawn(Box::pin(async move { replica.run_rounds().await }));
        }
        // The caller's end is dropped only with the replica, which may have proposed it by then.
        fate.await.map_err(|_| RaftError::Undetermined { range, why: "the node stopped" })
    }

    async fn run_rounds(self: &Arc<Self>) {
        while let Some((term, round)) = self.batcher.next_round() {
            let (commands, callers): (Vec<Bytes>, Vec<FateSender>) =
                round.into_iter().map(|queued| (queued.bytes, queued.caller)).unzip();
            self.shared().metrics.rounds.inc();
            self.shared().metrics.commands.inc_by(commands.len() as u64);
            self.run_round(term, &commands, callers).await;
        }
    }

    /// One entry, from proposal to fate. Returns once it is applied, refused, or its fate is left to
    /// the fate table.
    async fn run_round(self: &Arc<Self>, term: u64, commands: &[Bytes], callers: Vec<FateSender>) {
        let shared = self.shared();
        let id = ProposalId { nonce: shared.nonce, number: shared.next_number() };
        let payload = encode_payload(id, commands);
        self.fates.register(id.number, term, callers);
        let deadline = shared.runtime.now() + shared.options.fate_timeout;
        loop {
            let Ok(live) = self.instance().await else {
                return self.fates.decide_all(id.number, Fate::NotProposed);
            };
            if strikes(Quirk::EmptyEntries) {
                self.append_empty(&live, term);
            }
            let left = deadline.saturating_sub(shared.runtime.now());
            match shared.runtime.timeout(left, live.raft.write(term, payload.clone())).await {
                Ok(Ok(())) => return,
                Ok(Err(WriteError::NotLeader)) if has(Bug::StaleEvaluation) && !left.is_zero() => {
                    shared.runtime.sleep(Duration::from_millis(20)).await;
                }
                Ok(Err(WriteError::NotLeader)) => {
                    return self.fates.decide_all(id.number, Fate::NotProposed);
                }
                Ok(Err(WriteError::LeaseExpired)) => {
                    let left = deadline.saturating_sub(shared.runtime.now());
                    let limit = left.min(Duration::from_millis(500));
                    let confirmed = self.confirm(&live, limit).await;
                    if !matches!(confirmed, Ok(now) if now == term) && !self.still_leads(term, left)
                    {
                        return self.fates.decide_all(id.number, Fate::NotProposed);
                    }
                }
                Ok(Err(WriteError::Discarded)) => {
                    return self.decide_later(id.number, "the entry was discarded here");
                }
                Ok(Err(WriteError::Fatal(why))) => {
                    tracing::warn!(range = %self.range_id(), why, "a proposal met a dead instance");
                    return self.decide_later(id.number, "the replica restarted");
                }
                Err(_) => {
                    return self.fates.decide_all(id.number, Fate::Lost("no majority in time"));
                }
            }
        }
    }

    /// Appends entries without commands; nobody waits for them.
    fn append_empty(&self, live: &LiveInstance, term: u64) {
        let shared = self.shared();
        for _ in 0..=shared.runtime.random_u64() % EMPTY_ENTRIES_MAX {
            let id = ProposalId { nonce: shared.nonce, number: shared.next_number() };
            let write = live.raft.write(term, encode_payload(id, &[]));
            shared.runtime.spawn(Box::pin(async move { drop(write.await) }));
        }
    }

    pub(crate) fn still_leads(&self, term: u64, left: Duration) -> bool {
        let seen = *self.seen.lock();
        !left.is_zero() && seen.leader == Some(self.replica_id()) && seen.term == term
    }

    /// The entry may still be committed by another leader: this replica learns of it by applying
    /// it, or of its end by applying an entry of a later term. Bounded.
    fn decide_later(self: &Arc<Self>, number: u64, why: &'static str) {
        let (replica, shared) = (self.clone(), self.shared().clone());
        let limit = shared.options.fate_timeout;
        self.shared().runtime.spawn(Box::pin(async move {
            shared.runtime.sleep(limit).await;
            replica.fates.decide_all(number, Fate::Lost(why));
        }));
    }

    /// Proposes this leader's barrier, again until it is applied or leadership is gone, and serves
    /// from then on.
    pub(crate) async fn establish(self: &Arc<Self>, term: u64) {
        let shared = self.shared().clone();
        shared.elections.fetch_add(1, Ordering::Relaxed);
        let mut work = std::pin::pin!(self.establish_at_last(term));
        let soon = shared.runtime.timeout(ESTABLISHING_MAX, &mut work).await;
        shared.elections.fetch_sub(1, Ordering::Relaxed);
        if soon.is_err() {
            work.await;
        }
    }

    async fn establish_at_last(self: &Arc<Self>, term: u64) {
        if has(Bug::SkipBarrier) {
            return self.serve(term);
        }
        loop {
            let evaluated = Evaluated { term, epoch: self.descriptor().epoch };
            let command = Command { evaluated, body: Body::Barrier };
            // Whatever goes wrong, a leader that does not serve must go on trying.
            if let Ok(Fate::Applied(_)) = self.propose_command(command).await {
                return self.serve(term);
            }
            if !self.still_leads(term, Duration::MAX) || self.shared().is_stopping() {
                return;
            }
            self.shared().runtime.sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn failure(&self, fate: Fate) -> RaftError {
        let range = self.range_id();
        match fate {
            Fate::StaleEpoch(now) => {
                RaftError::EpochChanged { range, epoch: now.epoch, current: vec![*now] }
            }
            Fate::Refused(why) => RaftError::Refused { range, why: why.into() },
            Fate::Lost(_) if has(Bug::UnknownAsRefused) => self.not_leader(),
            Fate::Lost(why) => RaftError::Undetermined { range, why },
            Fate::StaleLeader | Fate::NotProposed | Fate::Superseded => self.not_leader(),
            Fate::Applied(_) | Fate::Split(_) => {
                RaftError::Refused { range, why: "the command had another effect".into() }
            }
        }
    }
}

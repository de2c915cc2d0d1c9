//! Who leads what, asked in bulk.
//!
//! A node that starts does not know who leads the ranges that it holds, and idle leaders send nothing.
//! Campaigning would find out, one range after the other, and wake every replica of all of them. So it asks
//! each peer that comes to life, in a few messages, for all ranges without a known leader.
//!
//! What a peer answers is a hint, not a vote: it spares a campaign. A leader that dies is noticed by the life
//! of its store. One that is deposed is succeeded by somebody who knows, but may be believed for as long as its
//! store lives, by whoever missed that. So a member that refuses its vote because of a leader asks that
//! one whether it still leads, and is told if it does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_transport::{Class, Message};
use cribwork_types::codec::Reader;
use cribwork_types::{CodecError, RangeId, ReplicaId, StoreId};

use crate::node::NodeShared;
use crate::raft::kind;
use crate::replica::{LeaderSeen, LiveInstance, Replica};

const VERSION: u8 = 1;

/// How long a follower that is behind hears nothing before it asks.
const BEHIND_PATIENCE: Duration = Duration::from_secs(1);

/// Ranges in one message.
const RANGES_MAX: usize = 4096;

/// A replica leads its range in this term, or, if no leader is named, it knows of this term and does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    range: RangeId,
    leader: Option<ReplicaId>,
    term: u64,
}

/// A replica does not know its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lost {
    range: RangeId,
    replica: ReplicaId,
    applied: u64,
}

/// A question: `version u8, lost: (range u64, replica u64, applied index u64)*`.
fn encode_question(lost: &[Lost]) -> Bytes {
    encode(lost.iter().map(|it| [it.range.get(), it.replica.get(), it.applied]))
}

fn decode_question(payload: Bytes) -> Result<Vec<Lost>, CodecError> {
    decode("question", payload, |[range, replica, applied]| Lost {
        range: RangeId(range),
        replica: ReplicaId(replica),
        applied,
    })
}

/// The answer: `version u8, claims: (range u64, leader u64 or 0 for not the sender, term u64)*`.
fn encode_claims(claims: &[Claim]) -> Bytes {
    let leader = |claim: &Claim| claim.leader.map_or(0, ReplicaId::get);
    encode(claims.iter().map(|it| [it.range.get(), leader(it), it.term]))
}

fn decode_claims(payload: Bytes) -> Result<Vec<Claim>, CodecError> {
    decode("claims", payload, |[range, leader, term]| Claim {
        range: RangeId(range),
        leader: (leader != 0).then_some(ReplicaId(leader)),
        term,
    })
}

fn encode(rows: impl ExactSizeIterator<Item = [u64; 3]>) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + 24 * rows.len());
    out.put_u8(VERSION);
    rows.flatten().for_each(|number| out.put_u64(number));
    out.freeze()
}

/// No more rows than a message may have; longer ones are malformed.
fn decode<T>(
    what: &'static str,
    payload: Bytes,
    row: impl Fn([u64; 3]) -> T,
) -> Result<Vec<T>, CodecError> {
    let mut rows = Vec::new();
    let mut reader = Reader::new(what, payload);
    reader.version(VERSION)?;
    while reader.remaining() > 0 && rows.len() < RANGES_MAX {
        rows.push(row([reader.u64()?, reader.u64()?, reader.u64()?]));
    }
    reader.finish()?;
    Ok(rows)
}

impl NodeShared {
    /// Asks `store` for the ranges that it may lead and that have no leader as far as is known here.
    pub(crate) fn ask_who_leads(&self, store: StoreId) {
        let lost: Vec<Lost> = self
            .replicas()
            .iter()
            .filter(|it| !it.has_live_leader() && it.descriptor().replica_on(store).is_some())
            .map(|it| it.lost())
            .collect();
        for lost in lost.chunks(RANGES_MAX) {
            self.send_leads(store, kind::WHO_LEADS, encode_question(lost));
        }
    }

    /// Answers what a peer asks for: where a replica leads, and where it does not, if that is asked.
    pub(crate) fn say_what_leads(&self, from: StoreId, question: Message, all: bool) {
        let Ok(lost) = decode_question(question.payload) else {
            self.metrics.malformed_messages.inc();
            return;
        };
        let (mut claims, mut behind) = (Vec::new(), Vec::new());
        for lost in lost {
            let Some(replica) = self.replica(lost.range) else { continue };
            let Some(claim) = replica.claim_to(from, lost) else { continue };
            let leads = claim.leader.is_some();
            if leads || all {
                claims.push(claim);
            }
            if leads && lost.applied < replica.applied_index() {
                behind.push(replica);
            }
        }
        if !behind.is_empty() {
            // One after the other: they may be all that this node has.
            self.runtime.spawn(Box::pin(async move {
                for replica in behind {
                    if let Ok(live) = replica.instance().await {
                        live.raft.heartbeat().await;
                    }
                }
            }));
        }
        if !claims.is_empty() {
            self.send_leads(from, kind::LEADS, encode_claims(&claims));
        }
    }

    /// A peer says what it leads.
    pub(crate) fn told_of_leaders(&self, from: StoreId, answer: Message) {
        let Ok(claims) = decode_claims(answer.payload) else {
            self.metrics.malformed_messages.inc();
            return;
        };
        for claim in claims {
            if let Some(replica) = self.replica(claim.range) {
                replica.told_of_leader(from, claim);
            }
        }
    }

    fn send_leads(&self, to: StoreId, kind: u8, payload: Bytes) {
        let (range, nobody) = (RangeId::PLACEMENT, ReplicaId(0));
        let message = Message { range, from: nobody, to: nobody, kind, call: 0, payload };
        self.send(to, Class::Control, message);
    }
}

impl Replica {
    fn lost(&self) -> Lost {
        let (range, replica) = (self.range_id(), self.replica_id());
        Lost { range, replica, applied: self.applied_index() }
    }

    /// Asks the store of this replica's leader whether it still leads.
    pub(crate) fn ask_leader(&self) {
        let Some(leader) = self.leader().leader.filter(|it| it.id != self.replica_id()) else {
            return;
        };
        let question = encode_question(&[self.lost()]);
        self.shared().send_leads(leader.store, kind::STILL_LEADS, question);
    }

    /// The last thing that a leader sends before it has nothing to do is how far its log is committed, and
    /// that may be lost. A follower that has more in its log than it has applied, and hears nothing,
    /// asks: a leader that is ahead of whoever asks repeats it.
    pub(crate) fn ask_if_behind(&self, live: &LiveInstance) {
        let (_, last) = live.log.bounds();
        let behind = last.is_some_and(|last| last.index > self.applied_index());
        if behind && !self.within(&self.last_message_ms, BEHIND_PATIENCE) {
            self.ask_leader();
        }
    }

    /// What to tell a member on `store` that does not know its leader. Whoever is no member any more
    /// hears that instead.
    fn claim_to(&self, store: StoreId, lost: Lost) -> Option<Claim> {
        if self.descriptor().replica(lost.replica).is_none() {
            self.answer_stranger(store, lost.replica);
            return None;
        }
        let seen = *self.seen.lock();
        let leader = seen.leader.filter(|it| *it == self.replica_id());
        Some(Claim { range: lost.range, leader, term: seen.term })
    }

    /// A store says that its replica leads. No promise goes with it.
    fn told_of_leader(self: &Arc<Self>, store: StoreId, claim: Claim) {
        let Some(life) = self.shared().liveness.incarnation(store) else { return };
        let Some(leader) = claim.leader else {
            return self.told_of_none(store, claim.term);
        };
        let is_member = self.descriptor().replica(leader).is_some_and(|it| it.store == store);
        if !is_member {
            return;
        }
        let led = self.has_live_leader();
        {
            let mut seen = self.seen.lock();
            // Two may claim it: one slept while it was deposed.
            let news = claim.term > seen.term || (claim.term == seen.term && !led);
            if !news || seen.leader == Some(self.replica_id()) {
                return;
            }
            *seen = LeaderSeen {
                leader: Some(leader),
                term: claim.term,
                heard: true,
                store: Some(store),
                incarnation: Some(life),
                heard_ms: seen.heard_ms,
            };
            self.serving_term.store(0, Ordering::SeqCst);
        }
        self.changed.notify_waiters();
        let leader = self.leader().leader;
        self.shared().observer.leader_changed(self.range_id(), leader, claim.term, false);
    }

    /// A store says that its replica does not lead in `term`, which is the newest that it knows of. Whoever
    /// was led by it in an earlier one is led by nobody that is known, and has promised nobody anything.
    fn told_of_none(&self, store: StoreId, term: u64) {
        let led_from = self.leader().leader.filter(|it| it.id != self.replica_id());
        {
            let mut seen = self.seen.lock();
            let deposed =
                led_from.is_some_and(|it| seen.leader == Some(it.id) && it.store == store);
            if !deposed || term <= seen.term {
                return;
            }
            seen.leader = None;
        }
        self.shared().leaders_changed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use cribwork_fuzz::{Shape, target};

    use super::*;

    #[test]
    fn leads_messages() {
        let lost = Lost { range: RangeId(1), replica: ReplicaId(9), applied: 5 };
        let claim = Claim { range: RangeId(7), leader: Some(ReplicaId(71)), term: 3 };
        let seeds = [encode_question(&[lost, lost]), encode_claims(&[claim, claim])];
        target("leads_messages").seeds(seeds).run(|bytes| {
            let question = decode_question(Bytes::copy_from_slice(bytes));
            let claims = decode_claims(Bytes::copy_from_slice(bytes));
            if let Ok(lost) = &question {
                assert_eq!(encode_question(lost), bytes);
            }
            if let Ok(claims) = &claims {
                assert_eq!(encode_claims(claims), bytes);
            }
            let lengths = (question.map(|it| it.len().min(3)), claims.map(|it| it.len().min(3)));
            Shape::of(&(lengths.0.ok(), lengths.1.ok()))
        });
    }

    #[test]
    fn questions_and_claims_survive_the_wire() {
        let lost = Lost { range: RangeId(u64::MAX), replica: ReplicaId(9), applied: 5 };
        assert_eq!(decode_question(encode_question(&[lost; 3])), Ok(vec![lost; 3]));
        let claim = Claim { range: RangeId(7), leader: Some(ReplicaId(71)), term: 3 };
        let none = Claim { leader: None, ..claim };
        assert_eq!(decode_claims(encode_claims(&[claim, none])), Ok(vec![claim, none]));
        for damaged in [&b""[..], &[2], &[VERSION, 1, 2]] {
            let damaged = Bytes::copy_from_slice(damaged);
            assert!(decode_question(damaged.clone()).is_err());
            assert!(decode_claims(damaged).is_err());
        }
    }
}

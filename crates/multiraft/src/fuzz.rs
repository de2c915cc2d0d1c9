//! Hostile bytes for what the log and the state of a replica hold, and for liveness messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_fuzz::{Shape, target};
use cribwork_types::{
    BoxFuture, Cf, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId,
    ReplicaRole, Runtime, StoreId, WriteBatch, key,
};

use crate::command::{
    Body, Command, Evaluated, ProposalId, SplitCommand, decode_payload, encode_payload,
};
use crate::effect::{Effect, RangeState};
use crate::fate::Fate;
use crate::liveness::Liveness;
use crate::position::{Position, VoteRecord};
use crate::records::{self, AppliedRecord, Members, MergeSide, Merging, Payload, ReplicaRecord};

/// Puts the checksum of a sealed record right.
pub(crate) fn seal(bytes: &mut [u8]) {
    if bytes.len() >= 5 {
        let sum = crc32c::crc32c(&bytes[5..]);
        bytes[1..5].copy_from_slice(&sum.to_be_bytes());
    }
}

fn commands() -> Vec<Command> {
    let evaluated = Evaluated { term: 4, epoch: RangeEpoch { conf_ver: 1, version: 2 } };
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raw, "key", "value");
    batch.delete(Cf::Lock, "key");
    batch.delete_range(Cf::Write, KeyRange::new("a", "b"));
    let split = SplitCommand {
        key: key::encode(b"m").into(),
        right: RangeId(9),
        replicas: vec![(StoreId(1), ReplicaId(10)), (StoreId(2), ReplicaId(11))],
        leader: StoreId(1),
    };
    let bodies = [Body::Write(batch), Body::Split(split), Body::Barrier];
    bodies.map(|body| Command { evaluated, body }).into()
}

pub(crate) fn payload() -> Bytes {
    let encoded: Vec<Bytes> = commands().iter().map(Command::encode).collect();
    encode_payload(ProposalId { nonce: 7, number: 8 }, &encoded)
}

pub(crate) fn members() -> Members {
    Members {
        voter_sets: vec![[ReplicaId(1), ReplicaId(2)].into(), [ReplicaId(3)].into()],
        stores: [1, 2, 3].map(|id| (ReplicaId(id), StoreId(id))).into(),
    }
}

pub(crate) fn descriptor() -> RangeDescriptor {
    use ReplicaRole::{Incoming, Learner, Outgoing, Voter};
    let replica = |(id, role)| ReplicaDescriptor { id: ReplicaId(id), store: StoreId(id), role };
    RangeDescriptor {
        id: RangeId(7),
        span: KeyRange::new(key::encode(b"a"), key::encode(b"m")),
        epoch: RangeEpoch::INITIAL,
        replicas: [(1, Voter), (2, Outgoing), (3, Incoming), (4, Learner)].map(replica).into(),
    }
}

pub(crate) fn applied() -> AppliedRecord {
    let at = |index| Some(Position { term: 5, index });
    AppliedRecord { position: at(9), members_at: at(0), members: members(), merging: None }
}

#[test]
fn commands_of_an_entry() {
    let whole = payload();
    let each = commands()
        .into_iter()
        .map(|command| encode_payload(ProposalId { nonce: 1, number: 2 }, &[command.encode()]));
    target("commands_of_an_entry").seed(&whole).seeds(each).run(|bytes| {
        let decoded = decode_payload(Bytes::copy_from_slice(bytes));
        if let Ok((id, commands)) = &decoded {
            let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
            assert_eq!(encode_payload(*id, &encoded), bytes, "a payload has one encoding");
        }
        Shape::decoded(&decoded, |(_, commands)| commands.len())
    });
}

#[test]
fn log_entries() {
    let payloads = [Payload::Blank, Payload::Commands(payload()), Payload::Members(members())];
    let seeds = payloads.map(|payload| records::encode_entry(3, &payload));
    target("log_entries").seeds(seeds).repair(seal).run(|bytes| {
        let decoded = records::decode_entry(Bytes::copy_from_slice(bytes));
        if let Ok((term, payload)) = &decoded {
            assert_eq!(records::encode_entry(*term, payload), bytes, "one encoding");
        }
        Shape::decoded(&decoded, |(_, payload)| match payload {
            Payload::Members(members) => 1 + members.voter_sets.len() + members.stores.len(),
            Payload::Commands(_) => 1 << 20,
            Payload::Blank => 0,
        })
    });
}

#[test]
fn replica_records() {
    let record = |initialised| {
        ReplicaRecord { id: ReplicaId(4), initialised, descriptor: descriptor() }.encode()
    };
    target("replica_records").seeds([record(true), record(false)]).repair(seal).run(|bytes| {
        let decoded = ReplicaRecord::decode(Bytes::copy_from_slice(bytes));
        if let Ok(record) = &decoded {
            assert_eq!(record.encode(), bytes, "a record has one encoding");
        }
        Shape::decoded(&decoded, |record| record.descriptor.replicas.len())
    });
}

#[test]
fn applied_records() {
    let merging = Merging { id: 7, with: RangeId(9), with_version: 3, side: MergeSide::Source };
    let merging = AppliedRecord { merging: Some(merging), ..applied() };
    let seeds = [AppliedRecord::default().encode(), applied().encode(), merging.encode()];
    target("applied_records").seeds(seeds).repair(seal).run(|bytes| {
        let decoded = AppliedRecord::decode(Bytes::copy_from_slice(bytes));
        if let Ok(record) = &decoded {
            assert_eq!(record.encode(), bytes, "a record has one encoding");
        }
        Shape::decoded(&decoded, |record| record.members.voter_sets.len())
    });
}

/// Entries one after the other, as a group commits them.
fn log() -> Vec<Bytes> {
    let evaluated = Evaluated { term: 3, epoch: RangeEpoch::INITIAL };
    let split = SplitCommand {
        key: key::encode(b"c").into(),
        right: RangeId(9),
        replicas: [1, 2, 3].map(|id| (StoreId(id), ReplicaId(id + 10))).into(),
        leader: StoreId(1),
    };
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raw, key::encode(b"b"), "value");
    let commands = |body| {
        let command = Command { evaluated, body }.encode();
        let payload = encode_payload(ProposalId { nonce: 1, number: 2 }, &[command]);
        records::encode_entry(3, &Payload::Commands(payload))
    };
    vec![
        records::encode_entry(3, &Payload::Blank),
        commands(Body::Write(batch)),
        commands(Body::Split(split)),
        records::encode_entry(3, &Payload::Members(members())),
        commands(Body::Barrier),
    ]
}

/// The same for a range that absorbs its neighbour, or is about to be absorbed, or neither.
fn merges() -> Vec<Bytes> {
    let (with, with_version) = (RangeId(9), 1);
    let mut right = range_state().descriptor.as_ref().clone();
    right.id = with;
    right.span = KeyRange::new(right.span.end.clone(), key::encode(b"z"));
    let abandon = Body::Abandon { merge: 8, planned: RangeEpoch { conf_ver: 1, version: 3 } };
    let bodies = [
        (RangeEpoch::INITIAL, Body::Pin { merge: 7, with, with_version }),
        (RangeEpoch::INITIAL, Body::Absorb { merge: 7, right }),
        (RangeEpoch { conf_ver: 1, version: 2 }, Body::Freeze { merge: 8, with, with_version }),
        (RangeEpoch::INITIAL, abandon),
    ];
    let entry = |(epoch, body)| {
        let command = Command { evaluated: Evaluated { term: 3, epoch }, body }.encode();
        let payload = encode_payload(ProposalId { nonce: 1, number: 2 }, &[command]);
        records::encode_entry(3, &Payload::Commands(payload))
    };
    bodies.into_iter().map(entry).collect()
}

/// A range of three voters that all entries of [`log`] fit.
fn range_state() -> RangeState {
    let mut descriptor = descriptor();
    descriptor.replicas.truncate(3);
    descriptor.replicas.iter_mut().for_each(|replica| replica.role = ReplicaRole::Voter);
    let members = Members::of(&descriptor);
    let applied = AppliedRecord { position: None, members_at: None, members, merging: None };
    RangeState { descriptor: Arc::new(descriptor), applied }
}

/// What one committed entry does to a range, in a word.
fn apply(state: &mut RangeState, position: Position, payload: Payload) -> String {
    let before = state.descriptor.clone();
    match payload {
        Payload::Blank => "blank".to_owned(),
        Payload::Members(members) => {
            state.members(position, members.clone());
            let now = &state.descriptor;
            assert_eq!(now.epoch.conf_ver, before.epoch.conf_ver + 1, "a later membership");
            assert_eq!(now.replicas.len(), members.stores.len(), "each member, and once");
            let votes = |id: &ReplicaId| now.replica(*id).is_some_and(|it| it.role.votes());
            assert!(members.voter_sets.iter().flatten().all(votes), "{now:?} of {members:?}");
            format!("members {} {}", now.is_joint(), now.replicas.len())
        }
        Payload::Commands(bytes) => match decode_payload(bytes) {
            Err(error) => error.to_string(),
            Ok((_, commands)) => {
                let done =
                    commands.into_iter().map(|command| match state.command(position, command) {
                        Ok(Effect::Nothing) => "nothing",
                        Ok(Effect::Fingerprint) => "fingerprint",
                        Ok(Effect::Changed) => "changed",
                        Ok(Effect::Absorbed(right)) => {
                            assert_eq!(right.span.start, before.span.end, "its neighbour");
                            "absorbed"
                        }
                        Ok(Effect::Write(_)) => "write",
                        Ok(Effect::Split(split)) => {
                            assert_eq!(split.left.span.end, split.right.span.start, "no gap");
                            assert_eq!(split.right.span.end, before.span.end, "nothing is lost");
                            assert!(split.left.epoch.version > before.epoch.version);
                            assert!(
                                split.seed(StoreId(1), true).is_some(),
                                "the proposer has a part"
                            );
                            "split"
                        }
                        Err(Fate::StaleEpoch(_)) => "stale epoch",
                        Err(Fate::StaleLeader) => "stale leader",
                        Err(Fate::Refused(why)) => why,
                        Err(other) => panic!("no command ends like this: {other:?}"),
                    });
                done.collect::<Vec<_>>().join(", ")
            }
        },
    }
}

/// Puts the checksum of each entry right: entries are joined by their lengths.
fn seal_each(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 2) {
        let length = usize::from(length[0]) << 8 | usize::from(length[1]);
        let Some(entry) = bytes.get_mut(at + 2..at + 2 + length) else { return };
        seal(entry);
        at += 2 + length;
    }
}

#[test]
fn committed_entries() {
    let joined = |entries: &[Bytes]| -> Vec<u8> {
        let length = |entry: &Bytes| (entry.len() as u16).to_be_bytes();
        entries.iter().flat_map(|entry| [&length(entry)[..], entry].concat()).collect()
    };
    let seeds: Vec<_> = log().iter().map(|entry| joined(std::slice::from_ref(entry))).collect();
    let whole = [joined(&log()), joined(&merges())];
    target("committed_entries")
        .seeds(whole)
        .seeds(seeds)
        .repair(seal_each)
        .memory_per_byte(256)
        .run(|bytes| {
            let (mut state, mut rest, mut done) = (range_state(), bytes, Vec::new());
            while let Some(([high, low], tail)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
                let (entry, tail) = tail.split_at(length);
                rest = tail;
                match records::decode_entry(Bytes::copy_from_slice(entry)) {
                    Ok((term, payload)) => {
                        let index = done.len() as u64 + 1;
                        let position = Position { term, index };
                        done.push(apply(&mut state, position, payload));
                        state.advance(position);
                    }
                    Err(error) => done.push(error.to_string()),
                }
            }
            done.truncate(6);
            Shape::of(&done)
        });
}

#[test]
fn votes_and_positions() {
    let vote = VoteRecord { term: 3, candidate: ReplicaId(4), committed: true };
    let position = Position { term: 3, index: 9 };
    let seeds = [records::encode_vote(vote), records::encode_position(position)];
    target("votes_and_positions").seeds(seeds).repair(seal).run(|bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        let vote = records::decode_vote(bytes.clone());
        if let Ok(vote) = vote {
            assert_eq!(records::encode_vote(vote), bytes, "a vote has one encoding");
        }
        let position = records::decode_position(bytes.clone());
        if let Ok(position) = position {
            assert_eq!(records::encode_position(position), bytes, "one encoding");
        }
        let words =
            |error: Option<_>| error.map(|error: cribwork_types::CodecError| error.to_string());
        Shape::of(&(words(vote.err()), words(position.err())))
    });
}

/// A clock that stands still.
struct Still;

impl Runtime for Still {
    fn now(&self) -> Duration {
        Duration::from_secs(9)
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn random_u64(&self) -> u64 {
        0
    }

    fn spawn(&self, _: BoxFuture<()>) {}

    fn spawn_worker(&self, _: &str, _: BoxFuture<()>) {}

    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn liveness_messages() {
    let liveness = Liveness::new(StoreId(1), 77, Duration::from_secs(1), Arc::new(Still));
    let seed = liveness.ping();
    target("liveness_messages").seed(seed).run(|bytes| {
        let heard = liveness.heard(StoreId(2), Bytes::copy_from_slice(bytes));
        assert!(heard.is_err() || liveness.is_live(StoreId(2)));
        Shape::decoded(&heard, |news| usize::from(*news))
    });
}

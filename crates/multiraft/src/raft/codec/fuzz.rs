//! Hostile bytes for the Raft messages of peers.

use cribwork_fuzz::{Shape, target};
use openraft::OptionalSend;
use openraft_rt_tokio::TokioRuntime;

use super::super::streams::{StreamId, stream_append};
use super::*;
use crate::fuzz;
use crate::records::Payload;

type Rt = TokioRuntime;

fn at(term: u64, index: u64) -> types::LogId {
    types::log_id(Position { term, index })
}

fn voted(committed: bool) -> types::Vote {
    types::vote(VoteRecord { term: 5, candidate: cribwork_types::ReplicaId(2), committed })
}

fn check<T: OptionalSend>(
    name: &'static str,
    seeds: Vec<Bytes>,
    repair: fn(&mut [u8]),
    decode: fn(Bytes) -> Result<T, CodecError>,
    encode: fn(&T) -> Bytes,
) {
    target(name).seeds(seeds).repair(repair).run(|bytes| {
        let decoded = decode(Bytes::copy_from_slice(bytes));
        if let Ok(message) = &decoded {
            assert_eq!(encode(message), bytes, "a message has one encoding");
        }
        Shape::decoded(&decoded, |_| 0)
    });
}

fn as_it_is(_: &mut [u8]) {}

/// Puts the checksums of the entries of an append right, as far as they can be found.
fn seal_entries(bytes: &mut [u8]) {
    let mut at = 18;
    for _ in 0..2 {
        at += if bytes.get(at) == Some(&1) { 17 } else { 1 };
    }
    at += 4;
    while let Some(length) = bytes.get(at + 8..at + 12) {
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let Some(entry) = bytes.get_mut(at + 12..at + 12 + length) else { return };
        fuzz::seal(entry);
        at += 12 + length;
    }
}

#[test]
fn raft_appends() {
    let payloads =
        [Payload::Blank, Payload::Commands(fuzz::payload()), Payload::Members(fuzz::members())];
    let entries = payloads.into_iter().zip(7..);
    let full = AppendEntriesRequest::<Types<Rt>> {
        vote: voted(true),
        prev_log_id: Some(at(4, 6)),
        entries: entries
            .map(|(payload, index)| types::entry(Position { term: 5, index }, payload))
            .collect(),
        leader_commit: Some(at(4, 5)),
    };
    let empty = AppendEntriesRequest::<Types<Rt>> {
        vote: voted(true),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let seeds = [full, empty].iter().map(encode_append).collect();
    check("raft_appends", seeds, seal_entries, decode_append::<Rt>, encode_append::<Rt>);
}

/// The append that a replica without a log refuses with `without_log`.
fn unfit_append() -> Bytes {
    encode_append(&AppendEntriesRequest::<Types<Rt>> {
        vote: voted(true),
        prev_log_id: Some(at(4, 6)),
        entries: Vec::new(),
        leader_commit: None,
    })
}

#[test]
fn raft_append_results() {
    let results: [StreamAppendResult<Types<Rt>>; 4] = [
        Ok(Some(at(4, 6))),
        Ok(None),
        Err(StreamAppendError::Conflict(at(4, 6))),
        Err(StreamAppendError::HigherVote(voted(false))),
    ];
    let seeds = results.iter().map(encode_append_result).chain(without_log(unfit_append()));
    let encode = |answer: &Appended<Rt>| {
        let mut bytes = encode_append_result(&answer.result).to_vec();
        if matches!(answer.result, Err(StreamAppendError::Conflict(_))) && !answer.promised {
            bytes[1] = 3;
        }
        bytes.into()
    };
    let decode = decode_append_result::<Rt>;
    check("raft_append_results", seeds.collect(), as_it_is, decode, encode);
}

#[test]
fn appends_without_a_log() {
    let seed = StreamId { life: 7, number: 8 }.prefix(&unfit_append());
    target("appends_without_a_log").seed(seed).run(|bytes| {
        let append = stream_append(&Bytes::copy_from_slice(bytes));
        assert_eq!(append.is_some(), bytes.len() >= 16, "a name, and the append behind it");
        let answer = append.and_then(without_log);
        if let Some(answer) = &answer {
            let read = decode_append_result::<Rt>(answer.clone()).expect("an answer of ours");
            assert!(!read.promised, "it promises the sender nothing");
            let conflict = matches!(read.result, Err(StreamAppendError::Conflict(_)));
            assert!(conflict, "nothing of it fits");
        }
        Shape::of(&(answer.is_some(), bytes.len().checked_ilog2()))
    });
}

#[test]
fn raft_vote_requests() {
    let mut request = VoteRequest::<Types<Rt>>::new(voted(false), Some(at(4, 6)));
    let plain = encode_vote_request(&request);
    request.leadership_transfer = true;
    let seeds = vec![plain, encode_vote_request(&request)];
    let (decode, encode) = (decode_vote_request::<Rt>, encode_vote_request::<Rt>);
    check("raft_vote_requests", seeds, as_it_is, decode, encode);
}

#[test]
fn raft_vote_responses() {
    let seeds = [true, false]
        .map(|granted| VoteResponse::<Types<Rt>>::new(voted(false), Some(at(4, 6)), granted))
        .iter()
        .map(encode_vote_response)
        .collect();
    let (decode, encode) = (decode_vote_response::<Rt>, encode_vote_response::<Rt>);
    check("raft_vote_responses", seeds, as_it_is, decode, encode);
}

#[test]
fn raft_transfers_and_votes() {
    let request = TransferLeaderRequest::<Types<Rt>>::new(voted(true), 3, Some(at(4, 6)));
    let seeds = [encode_transfer(&request), encode_vote(&voted(true)), encode_flag(true)];
    target("raft_transfers_and_votes").seeds(seeds).run(|bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        let transfer = decode_transfer::<Rt>(bytes.clone());
        if let Ok(request) = &transfer {
            assert_eq!(encode_transfer(request), bytes, "a transfer has one encoding");
        }
        let vote = decode_vote(bytes.clone());
        if let Ok(vote) = &vote {
            assert_eq!(encode_vote(vote), bytes, "a vote has one encoding");
        }
        let flag = decode_flag(bytes.clone());
        if let Ok(flag) = flag {
            assert_eq!(encode_flag(flag), bytes, "a flag has one encoding");
        }
        let words = |error: Option<CodecError>| error.map(|error| error.to_string());
        Shape::of(&(words(transfer.err()), words(vote.err()), words(flag.err())))
    });
}

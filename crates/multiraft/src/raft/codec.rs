//! Raft messages between replicas as bytes: the payload of a transport message. Peers of one cluster
//! run builds that agree on the version byte; anything else is dropped and Raft retries.

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::CodecError;
use cribwork_types::codec::{Reader, put_bytes};
use openraft::AsyncRuntime;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::types::{self, Types};
use crate::position::{Position, VoteRecord};
use crate::records;

#[cfg(test)]
mod fuzz;

const VERSION: u8 = 1;
/// An empty entry: index, length, version, checksum, term and kind.
const ENTRY_BYTES_MIN: usize = 26;

fn start(size: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(size + 1);
    out.put_u8(VERSION);
    out
}

fn open(what: &'static str, bytes: Bytes) -> Result<Reader, CodecError> {
    let mut reader = Reader::new(what, bytes);
    reader.version(VERSION)?;
    Ok(reader)
}

fn put_log_id(log_id: Option<&types::LogId>, out: &mut BytesMut) {
    Position::encode_option_into(log_id.map(types::position), out);
}

fn get_log_id(reader: &mut Reader) -> Result<Option<types::LogId>, CodecError> {
    Ok(Position::decode_option(reader)?.map(types::log_id))
}

fn put_vote(vote: &types::Vote, out: &mut BytesMut) {
    types::vote_record(vote).encode_into(out);
}

fn get_vote(reader: &mut Reader) -> Result<types::Vote, CodecError> {
    VoteRecord::decode(reader).map(types::vote)
}

/// `vote, prev, commit, count, (index, entry as on disk)*`.
pub(super) fn encode_append<A: AsyncRuntime>(request: &AppendEntriesRequest<Types<A>>) -> Bytes {
    let entries: Vec<(u64, Bytes)> = request
        .entries
        .iter()
        .map(|entry| {
            let term = entry.log_id.leader_id.term;
            (entry.log_id.index, records::encode_entry(term, &types::payload(&entry.payload)))
        })
        .collect();
    let size: usize = entries.iter().map(|(_, bytes)| bytes.len() + 12).sum();
    let mut out = start(64 + size);
    put_vote(&request.vote, &mut out);
    put_log_id(request.prev_log_id.as_ref(), &mut out);
    put_log_id(request.leader_commit.as_ref(), &mut out);
    out.put_u32(entries.len() as u32);
    for (index, bytes) in &entries {
        out.put_u64(*index);
        put_bytes(&mut out, bytes);
    }
    out.freeze()
}

pub(super) fn decode_append<A: AsyncRuntime>(
    bytes: Bytes,
) -> Result<AppendEntriesRequest<Types<A>>, CodecError> {
    let mut reader = open("append", bytes)?;
    let vote = get_vote(&mut reader)?;
    let prev_log_id = get_log_id(&mut reader)?;
    let leader_commit = get_log_id(&mut reader)?;
    let count = reader.count(ENTRY_BYTES_MIN)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let index = reader.u64()?;
        let (term, payload) = records::decode_entry(reader.bytes()?)?;
        entries.push(types::entry(Position { term, index }, payload));
    }
    reader.finish()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// What a replica without a log answers to an append, encoded: nothing of it fits. `None` if the append
/// begins where every log does, so that only a snapshot helps. It promises the sender nothing.
pub(crate) fn without_log(append: Bytes) -> Option<Bytes> {
    let mut reader = open("append", append).ok()?;
    get_vote(&mut reader).ok()?;
    let prev = get_log_id(&mut reader).ok()??;
    let mut out = start(20);
    out.put_u8(3);
    put_log_id(Some(&prev), &mut out);
    Some(out.freeze())
}

/// The answer to an append.
pub(super) struct Appended<A: AsyncRuntime> {
    pub(super) result: StreamAppendResult<Types<A>>,
    /// The member has taken the sender for its leader: it grants nobody else a vote for a lease.
    pub(super) promised: bool,
}

/// `0 ++ matched | 1 ++ conflict | 2 ++ higher vote | 3 ++ conflict, of a replica without a log`.
pub(super) fn encode_append_result<A: AsyncRuntime>(
    result: &StreamAppendResult<Types<A>>,
) -> Bytes {
    let mut out = start(20);
    match result {
        Ok(matched) => {
            out.put_u8(0);
            put_log_id(matched.as_ref(), &mut out);
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_u8(1);
            put_log_id(Some(at), &mut out);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(vote, &mut out);
        }
    }
    out.freeze()
}

pub(super) fn decode_append_result<A: AsyncRuntime>(
    bytes: Bytes,
) -> Result<Appended<A>, CodecError> {
    let mut reader = open("append result", bytes)?;
    let kind = reader.u8()?;
    let result = match kind {
        0 => Ok(get_log_id(&mut reader)?),
        1 | 3 => {
            let at =
                get_log_id(&mut reader)?.ok_or(reader.malformed("conflict without position"))?;
            Err(StreamAppendError::Conflict(at))
        }
        2 => Err(StreamAppendError::HigherVote(get_vote(&mut reader)?)),
        _ => return Err(reader.malformed("unknown result")),
    };
    reader.finish()?;
    // A conflict is an acceptance too: of the leader, if not of the entries.
    Ok(Appended { result, promised: matches!(kind, 0 | 1) })
}

pub(super) fn encode_vote_request<A: AsyncRuntime>(request: &VoteRequest<Types<A>>) -> Bytes {
    let mut out = start(40);
    put_vote(&request.vote, &mut out);
    put_log_id(request.last_log_id.as_ref(), &mut out);
    out.put_u8(request.leadership_transfer as u8);
    out.freeze()
}

pub(super) fn decode_vote_request<A: AsyncRuntime>(
    bytes: Bytes,
) -> Result<VoteRequest<Types<A>>, CodecError> {
    let mut reader = open("vote request", bytes)?;
    let mut request = VoteRequest::new(get_vote(&mut reader)?, get_log_id(&mut reader)?);
    request.leadership_transfer = reader.flag()?;
    reader.finish()?;
    Ok(request)
}

pub(super) fn encode_vote_response<A: AsyncRuntime>(response: &VoteResponse<Types<A>>) -> Bytes {
    let mut out = start(40);
    put_vote(&response.vote, &mut out);
    out.put_u8(response.vote_granted as u8);
    put_log_id(response.last_log_id.as_ref(), &mut out);
    out.freeze()
}

pub(super) fn decode_vote_response<A: AsyncRuntime>(
    bytes: Bytes,
) -> Result<VoteResponse<Types<A>>, CodecError> {
    let mut reader = open("vote response", bytes)?;
    let vote = get_vote(&mut reader)?;
    let granted = reader.flag()?;
    let last_log_id = get_log_id(&mut reader)?;
    reader.finish()?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

pub(super) fn encode_transfer<A: AsyncRuntime>(request: &TransferLeaderRequest<Types<A>>) -> Bytes {
    let mut out = start(48);
    put_vote(request.from_leader(), &mut out);
    out.put_u64(*request.to_node_id());
    put_log_id(request.last_log_id(), &mut out);
    out.freeze()
}

pub(super) fn decode_transfer<A: AsyncRuntime>(
    bytes: Bytes,
) -> Result<TransferLeaderRequest<Types<A>>, CodecError> {
    let mut reader = open("transfer request", bytes)?;
    let (vote, to) = (get_vote(&mut reader)?, reader.u64()?);
    let last_log_id = get_log_id(&mut reader)?;
    reader.finish()?;
    Ok(TransferLeaderRequest::new(vote, to, last_log_id))
}

/// One byte: the target accepted the transfer or not.
pub(super) fn encode_flag(flag: bool) -> Bytes {
    let mut out = start(1);
    out.put_u8(flag as u8);
    out.freeze()
}

pub(super) fn decode_flag(bytes: Bytes) -> Result<bool, CodecError> {
    let mut reader = open("flag", bytes)?;
    let flag = reader.flag()?;
    reader.finish()?;
    Ok(flag)
}

pub(super) fn encode_vote(vote: &types::Vote) -> Bytes {
    let mut out = start(17);
    put_vote(vote, &mut out);
    out.freeze()
}

pub(super) fn decode_vote(bytes: Bytes) -> Result<types::Vote, CodecError> {
    let mut reader = open("vote", bytes)?;
    let vote = get_vote(&mut reader)?;
    reader.finish()?;
    Ok(vote)
}

//! A range's data at one applied index, sent to a member that fell behind a purged log.
//!
//! Taking a snapshot reads metadata only: an engine snapshot holds the data still until it is sent.
//! It travels in chunks of puts, each with a checksum, on the transport's lowest class. The receiver
//! collects it within [`SNAPSHOT_BYTES_MAX`] and installs it as ONE batch, so an interrupted one
//! leaves nothing behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_engine::EngineSnapshot;
use cribwork_transport::{Class, Message};
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::quirk::{Quirk, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    Cf, CodecError, KeyRange, RangeDescriptor, RangeId, ReplicaId, RuntimeExt, StoreId, WriteBatch,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::RaftError;
use crate::fate::Fate;
use crate::keys;
use crate::merge;
use crate::node::NodeShared;
use crate::options::{SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, SNAPSHOTS_RECEIVED_MAX};
use crate::raft::kind;
use crate::records::{AppliedRecord, Merging, ReplicaRecord};
use crate::removal;
use crate::replica::Replica;
use crate::seed::put_record;

#[cfg(test)]
mod fuzz;

/// How long the receiver of a snapshot may take to install it and answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A snapshot that brought nothing for this long is given up by its receiver.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Pause while the transport's bulk queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// A snapshot in openraft's hands.
pub(crate) struct RangeSnapshot {
    pub(crate) descriptor: RangeDescriptor,
    /// The merge that the range takes part in.
    pub(crate) merging: Option<Merging>,
    pub(crate) data: SnapshotData,
}

pub(crate) enum SnapshotData {
    /// Here, still in the engine.
    Local(Arc<dyn EngineSnapshot>),
    /// Received: puts, in the order of their families.
    Received(WriteBatch),
}

impl Replica {
    /// The range as of now: applied state and descriptor are read through the same engine snapshot
    /// as the data.
    pub(crate) fn take_snapshot(
        &self,
    ) -> Result<Option<(AppliedRecord, RangeSnapshot)>, RaftError> {
        let snapshot = self.shared().engine.snapshot();
        let range = self.range_id();
        let applied = snapshot.get(Cf::State, &keys::applied(range))?;
        let record = snapshot.get(Cf::State, &keys::replica(range))?;
        let (Some(applied), Some(record)) = (applied, record) else {
            return Ok(None);
        };
        let (applied, record) = (AppliedRecord::decode(applied)?, ReplicaRecord::decode(record)?);
        if !record.initialised || applied.position.is_none() {
            return Ok(None);
        }
        let data = SnapshotData::Local(snapshot);
        let merging = applied.merging;
        Ok(Some((applied, RangeSnapshot { descriptor: record.descriptor, merging, data })))
    }
}

/// This message ends the snapshot.
const LAST: u8 = 1;
/// The body goes on in the next message.
const MORE: u8 = 2;
/// The head, which is answered by itself.
const OFFER: u8 = 4;

/// One message of a snapshot: `number u32, flags u8, crc u32, part of a body`. The first message is
/// the head, each other body a batch of puts; a body larger than a message travels in parts.
fn encode_chunk(number: u32, flags: u8, part: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(9 + part.len());
    out.put_u32(number);
    out.put_u8(flags);
    out.put_u32(crc32c::crc32c(part));
    out.put_slice(part);
    out.freeze()
}

fn decode_chunk(bytes: Bytes) -> Result<(u32, u8, Bytes), CodecError> {
    let mut reader = Reader::new("snapshot chunk", bytes);
    let (number, flags, sum) = (reader.u32()?, reader.u8()?, reader.u32()?);
    let body = reader.clone().rest();
    match crc32c::crc32c(&body) == sum {
        true => Ok((number, flags, body)),
        false => Err(reader.malformed("checksum does not match")),
    }
}

/// Sends `snapshot` to `target` and returns its answer.
pub(crate) async fn send(
    replica: &Arc<Replica>,
    target: ReplicaId,
    store: StoreId,
    header: Bytes,
    applied: &AppliedRecord,
    snapshot: RangeSnapshot,
) -> Result<Bytes, RaftError> {
    let shared = replica.shared();
    let range = replica.range_id();
    let _held = LogHeld::of(replica);
    let _permit = shared.snapshots_sent.acquire().await.map_err(|_| RaftError::Shutdown)?;
    let SnapshotData::Local(engine_snapshot) = snapshot.data else {
        return Err(RaftError::Refused { range, why: "a received snapshot is not sent on".into() });
    };
    let newest = has(Bug::SnapshotAhead).then(|| replica.applied_record());
    let applied = newest.as_ref().unwrap_or(applied);
    let (call, answer) = shared.calls.open_slow(store);
    let _open = OpenCall { shared, call };
    let mut head = BytesMut::new();
    head.put_u64(call);
    put_bytes(&mut head, &header);
    // Raft's own description of a snapshot knows nothing of merges.
    let applied = AppliedRecord { merging: snapshot.merging, ..applied.clone() };
    put_bytes(&mut head, &applied.encode());
    put_bytes(&mut head, &snapshot.descriptor.encode());
    // The offer goes first, alone: nothing is sent to a member that is gone or refuses.
    let (offer, accepted) = shared.calls.open(store, shared.runtime.now());
    let mut outbox = Outbox { replica, target, store, call: offer, number: 0, answer };
    outbox.send_part(OFFER, &head).await?;
    if !accepted.await.is_ok_and(|answer| !answer.is_empty()) {
        return Err(RaftError::Refused { range, why: "the snapshot was not accepted".into() });
    }
    outbox.call = call;
    outbox.send_data(engine_snapshot.as_ref(), &snapshot.descriptor).await?;
    outbox.send_part(LAST, &[]).await?;
    shared.metrics.snapshots_sent.inc();
    match shared.runtime.timeout(ANSWER_TIMEOUT, &mut outbox.answer).await {
        Ok(Ok(bytes)) => Ok(bytes),
        _ => Err(RaftError::Refused { range, why: "the snapshot was not answered".into() }),
    }
}

/// Keeps the log behind a snapshot from being cut while it is sent.
struct LogHeld<'a>(&'a Replica);

impl<'a> LogHeld<'a> {
    fn of(replica: &'a Replica) -> Self {
        replica.sending.fetch_add(1, Ordering::Relaxed);
        Self(replica)
    }
}

impl Drop for LogHeld<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Forgets a call whose caller is gone.
struct OpenCall<'a> {
    shared: &'a NodeShared,
    call: u64,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.shared.calls.drop_call(self.call);
    }
}

struct Outbox<'a> {
    replica: &'a Arc<Replica>,
    target: ReplicaId,
    store: StoreId,
    call: u64,
    number: u32,
    /// To the whole.
    answer: oneshot::Receiver<Bytes>,
}

impl Outbox<'_> {
    async fn send_data(
        &mut self,
        snapshot: &dyn EngineSnapshot,
        descriptor: &RangeDescriptor,
    ) -> Result<(), RaftError> {
        for (cf, span) in parts(descriptor) {
            if cf == Cf::Lock && has(Bug::SnapshotWithoutLocks) {
                continue;
            }
            let mut next = Some(span.start.clone());
            while let Some(from) = next {
                let (chunk, resume) = read_chunk(snapshot, &span, cf, &from)?;
                next = resume;
                if !chunk.is_empty() {
                    let mut body = BytesMut::new();
                    chunk.encode_into(&mut body);
                    self.send_body(&body).await?;
                }
            }
        }
        Ok(())
    }

    async fn send_body(&mut self, body: &[u8]) -> Result<(), RaftError> {
        let mut parts = body.chunks(SNAPSHOT_CHUNK_BYTES).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_some() { MORE } else { 0 };
            self.send_part(flags, part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, flags: u8, part: &[u8]) -> Result<(), RaftError> {
        let shared = self.replica.shared();
        let given_up = !matches!(self.answer.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if given_up || strikes(Quirk::StopSnapshot) {
            // Before the last part, an answer means that the receiver has given it up.
            let (range, why) = (self.replica.range_id(), "the receiver gave it up".to_owned());
            return Err(RaftError::Refused { range, why });
        }
        let payload = encode_chunk(self.number, flags, part);
        self.number += 1;
        if strikes(Quirk::LosePart) {
            return Ok(());
        }
        loop {
            let message = Message {
                range: self.replica.range_id(),
                from: self.replica.replica_id(),
                to: self.target,
                kind: kind::SNAPSHOT,
                call: self.call,
                payload: payload.clone(),
            };
            if shared.send(self.store, Class::Bulk, message) {
                return Ok(());
            }
            if !shared.liveness.is_live(self.store) || shared.is_stopping() {
                let (range, why) = (self.replica.range_id(), "the peer is gone".to_owned());
                return Err(RaftError::Refused { range, why });
            }
            shared.runtime.sleep(FULL_PAUSE).await;
        }
    }
}

/// What belongs to a range: its span in each data family, or the whole `meta` family for the
/// placement group.
pub(crate) fn parts(descriptor: &RangeDescriptor) -> Vec<(Cf, KeyRange)> {
    match descriptor.id {
        RangeId::PLACEMENT => vec![(Cf::Meta, KeyRange::all())],
        _ => Cf::DATA.iter().map(|cf| (*cf, descriptor.span.clone())).collect(),
    }
}

type Chunk = (WriteBatch, Option<Bytes>);

/// Puts of `cf` from key `from` on, and where to go on if they are not all.
fn read_chunk(
    snapshot: &dyn EngineSnapshot,
    span: &KeyRange,
    cf: Cf,
    from: &Bytes,
) -> Result<Chunk, RaftError> {
    let span = KeyRange { start: from.clone(), end: span.end.clone() };
    let mut cursor = snapshot.cursor(cf, &span);
    let (mut batch, mut bytes) = (WriteBatch::new(), 0);
    let mut found = cursor.seek_to_first()?;
    while found {
        if bytes >= SNAPSHOT_CHUNK_BYTES {
            return Ok((batch, Some(Bytes::copy_from_slice(cursor.key()))));
        }
        let key = Bytes::copy_from_slice(cursor.key());
        let value = Bytes::copy_from_slice(cursor.value());
        bytes += key.len() + value.len();
        batch.put(cf, key, value);
        found = cursor.next()?;
    }
    Ok((batch, None))
}

/// Everything that arrived of one snapshot.
struct Arriving {
    next: u32,
    head: Head,
    /// Parts of a body that is not complete yet.
    parts: BytesMut,
    batch: WriteBatch,
    bytes: usize,
    /// Runtime clock of the last part.
    touched: Duration,
}

struct Head {
    /// Under which the chunks come and the whole is answered.
    call: u64,
    header: Bytes,
    applied: AppliedRecord,
    descriptor: RangeDescriptor,
}

/// A whole snapshot, ready to be installed.
pub(crate) struct Complete {
    pub(crate) header: Bytes,
    pub(crate) applied: AppliedRecord,
    pub(crate) data: RangeSnapshot,
}

/// What a chunk made of its snapshot.
pub(crate) enum Taken {
    /// The offer is accepted: say so.
    Accepted,
    Part,
    Whole(Box<Complete>),
}

/// Snapshots on their way in, at most [`SNAPSHOTS_RECEIVED_MAX`].
#[derive(Default)]
pub(crate) struct Incoming {
    arriving: Mutex<HashMap<(StoreId, RangeId), Arriving>>,
}

impl Incoming {
    /// Takes one chunk; gives the snapshot with the last one.
    ///
    /// # Errors
    /// Why the whole snapshot is dropped: a chunk is missing or damaged, a bound is reached, or it
    /// overlaps another range of this store. Said once a snapshot.
    pub(crate) fn take(
        &self,
        from: StoreId,
        message: &Message,
        replica: &Arc<Replica>,
    ) -> Result<Taken, &'static str> {
        let key = (from, message.range);
        let now = replica.shared().runtime.now();
        let mut arriving = self.arriving.lock();
        // Whose sender was deposed or killed, or has given up: nothing more will come.
        arriving.retain(|_, state| now.saturating_sub(state.touched) < IDLE_MAX);
        let taken = Self::chunk(&mut arriving, key, message, replica);
        if taken.is_err() {
            arriving.remove(&key);
        }
        taken
    }

    /// Drops what `peer` has begun to send: it begins anew.
    pub(crate) fn drop_from(&self, peer: StoreId) {
        self.arriving.lock().retain(|(from, _), _| *from != peer);
    }

    fn chunk(
        arriving: &mut HashMap<(StoreId, RangeId), Arriving>,
        key: (StoreId, RangeId),
        message: &Message,
        replica: &Arc<Replica>,
    ) -> Result<Taken, &'static str> {
        let decoded = decode_chunk(message.payload.clone());
        let (number, flags, part) = decoded.map_err(|_| "a damaged chunk")?;
        if flags & OFFER != 0 {
            if arriving.len() >= SNAPSHOTS_RECEIVED_MAX && !arriving.contains_key(&key) {
                return Err("too many snapshots at once");
            }
            let head = head(part).map_err(|_| "a damaged head")?;
            replica.shared().check_overlap(&head.descriptor)?;
            arriving.insert(key, Arriving::new(head, replica.shared().runtime.now()));
            return Ok(Taken::Accepted);
        }
        let state = arriving.get_mut(&key).ok_or("a chunk without a head")?;
        let missing = state.next != number && !has(Bug::SnapshotWithAHole);
        if state.head.call != message.call || missing {
            return Err("a chunk is missing");
        }
        state.next = number + 1;
        state.touched = replica.shared().runtime.now();
        state.bytes += part.len();
        if state.bytes > SNAPSHOT_BYTES_MAX {
            return Err("larger than a node takes in");
        }
        state.parts.extend_from_slice(&part);
        if flags & LAST != 0 {
            let state = arriving.remove(&key).ok_or("a chunk without a head")?;
            return Ok(Taken::Whole(Box::new(state.complete())));
        }
        if flags & MORE == 0 {
            state.body()?;
        }
        Ok(Taken::Part)
    }
}

impl Arriving {
    fn new(head: Head, touched: Duration) -> Self {
        let (parts, batch) = (BytesMut::new(), WriteBatch::new());
        Self { next: 1, head, parts, batch, bytes: 0, touched }
    }

    /// A batch is complete.
    fn body(&mut self) -> Result<(), &'static str> {
        let body = std::mem::take(&mut self.parts).freeze();
        let mut reader = Reader::new("snapshot chunk", body);
        self.batch.append(WriteBatch::decode(&mut reader).map_err(|_| "a damaged batch")?);
        Ok(())
    }

    fn complete(self) -> Complete {
        let Head { header, applied, descriptor, .. } = self.head;
        let (merging, data) = (applied.merging, SnapshotData::Received(self.batch));
        Complete { header, applied, data: RangeSnapshot { descriptor, merging, data } }
    }
}

fn head(body: Bytes) -> Result<Head, CodecError> {
    let mut reader = Reader::new("snapshot head", body);
    let (call, header) = (reader.u64()?, reader.bytes()?);
    let applied = AppliedRecord::decode(reader.bytes()?)?;
    let descriptor = RangeDescriptor::decode(reader.bytes()?)?;
    reader.finish()?;
    Ok(Head { call, header, applied, descriptor })
}

/// Replaces what this store holds of the range, in one batch. Called by the apply task only.
pub(crate) fn install(
    shared: &Arc<NodeShared>,
    replica: &Arc<Replica>,
    applied: AppliedRecord,
    snapshot: RangeSnapshot,
) -> Result<(), RaftError> {
    let range = replica.range_id();
    let SnapshotData::Received(puts) = snapshot.data else {
        return Ok(());
    };
    let descriptor = snapshot.descriptor;
    let refuse = |why: &str| RaftError::Refused { range, why: why.to_owned() };
    if descriptor.epoch.is_behind(&replica.descriptor().epoch) {
        return Err(refuse("the snapshot is older than the replica"));
    }
    if descriptor.replica(replica.replica_id()).is_none() {
        return Err(refuse("the snapshot is from before this replica was a member"));
    }
    shared.check_overlap(&descriptor).map_err(refuse)?;
    if shared.replica(range).is_none_or(|current| !Arc::ptr_eq(&current, replica)) {
        return Err(refuse("the replica was replaced by the range's own beginning"));
    }
    let mut batch = WriteBatch::new();
    let old = replica.descriptor();
    let mut replaced = if replica.is_initialised() { parts(&old) } else { Vec::new() };
    let absorbed = shared.merged_into(&descriptor);
    // What was merged may have been split since, elsewhere than here.
    replaced.extend(absorbed.iter().flat_map(|source| parts(&source.descriptor())));
    for (cf, span) in replaced.into_iter().chain(parts(&descriptor)) {
        if !has(Bug::SnapshotOverOldData) {
            batch.delete_range(cf, span);
        }
    }
    batch.append(puts);
    let mut applied = AppliedRecord { merging: snapshot.merging, ..applied };
    for source in &absorbed {
        removal::bury(&mut batch, source.range_id(), source.replica_id());
    }
    if has(Bug::SnapshotKeepsMembers) && replica.is_initialised() {
        applied.members = replica.applied_record().members;
    }
    batch.put(Cf::State, keys::applied(range), applied.encode());
    let id = replica.replica_id();
    put_record(
        &mut batch,
        &ReplicaRecord { id, initialised: true, descriptor: descriptor.clone() },
    );
    shared.engine.write(&batch)?;
    shared.metrics.snapshots_installed.inc();
    if let Some(at) = applied.position {
        replica.fates.lose(at.term, "a snapshot replaced the log");
    }
    absorbed.iter().for_each(|source| merge::let_go(shared, source, range));
    if range != RangeId::PLACEMENT {
        shared.map.write().insert(Arc::new(descriptor.clone()));
    }
    replica.publish(applied, Some(descriptor));
    // Who has not applied all before the freeze knows nothing of what it has proposed.
    let lost = || Fate::Lost("a snapshot of the range that absorbed this one");
    absorbed.iter().for_each(|source| source.end_absorbed(lost()));
    shared.observer.range_changed(replica.descriptor());
    Ok(())
}

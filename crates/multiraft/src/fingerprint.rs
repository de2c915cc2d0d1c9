//! A checksum over what a replica holds, to be compared with that of another replica of the range at
//! the same applied index.
//!
//! Replicas apply the same commands in the same order, so at equal indexes they hold equal bytes.
//! etcd calls the comparison a corruption check.

use bytes::Bytes;
use cribwork_engine::EngineSnapshot;
use cribwork_types::{Cf, RangeDescriptor, RangeId, ReplicaId};

use crate::RaftError;
use crate::keys;
use crate::records::{AppliedRecord, ReplicaRecord};
use crate::snapshot::parts;

/// What one replica holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its range, as this replica knows it.
    pub descriptor: RangeDescriptor,
    /// The replica.
    pub replica: ReplicaId,
    /// Index of the last command that is in it; 0 if none is.
    pub applied_index: u64,
    /// CRC-32C over every key and value of the data families, and their number in the upper half.
    pub hash: u64,
}

impl Fingerprint {
    /// The range.
    pub fn range(&self) -> RangeId {
        self.descriptor.id
    }
}

/// Fingerprints of all replicas with data in one view of a store. Reads everything: take your time.
///
/// # Errors
/// [`RaftError::Engine`] if the store cannot be read or a record in it is damaged.
pub fn fingerprints(snapshot: &dyn EngineSnapshot) -> Result<Vec<Fingerprint>, RaftError> {
    let mut all = Vec::new();
    let mut cursor = snapshot.cursor(Cf::State, &keys::all_replicas());
    let mut found = cursor.seek_to_first()?;
    while found {
        let record = Bytes::copy_from_slice(cursor.value());
        let record = ReplicaRecord::decode(record)?;
        if record.initialised {
            all.push(fingerprint(snapshot, record)?);
        }
        found = cursor.next()?;
    }
    Ok(all)
}

fn fingerprint(
    snapshot: &dyn EngineSnapshot,
    record: ReplicaRecord,
) -> Result<Fingerprint, RaftError> {
    let applied = snapshot.get(Cf::State, &keys::applied(record.descriptor.id))?;
    let applied = applied.map(AppliedRecord::decode).transpose()?;
    let (mut sum, mut count) = (0, 0u32);
    for (cf, span) in parts(&record.descriptor) {
        let mut cursor = snapshot.cursor(cf, &span);
        let mut found = cursor.seek_to_first()?;
        while found {
            for part in [cursor.key(), cursor.value()] {
                sum = crc32c::crc32c_append(sum, &(part.len() as u64).to_be_bytes());
                sum = crc32c::crc32c_append(sum, part);
            }
            count = count.wrapping_add(1);
            found = cursor.next()?;
        }
    }
    Ok(Fingerprint {
        descriptor: record.descriptor,
        replica: record.id,
        applied_index: applied.and_then(|applied| applied.position).map_or(0, |at| at.index),
        hash: u64::from(count) << 32 | u64::from(sum),
    })
}

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
use crate::overlay::Overlay;
use crate::records::{AppliedRecord, ReplicaRecord};
use crate::snapshot::parts;

/// A running sum over rows, which come in order.
#[derive(Default)]
pub(crate) struct RowSum {
    sum: u32,
    count: u32,
}

impl RowSum {
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.sum = crc32c::crc32c_append(self.sum, &(part.len() as u64).to_be_bytes());
            self.sum = crc32c::crc32c_append(self.sum, part);
        }
        self.count = self.count.wrapping_add(1);
    }

    /// CRC-32C over every key and value, and their number in the upper half.
    pub(crate) fn value(&self) -> u64 {
        u64::from(self.count) << 32 | u64::from(self.sum)
    }
}

/// What one replica holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its range, as this replica knows it.
    pub descriptor: RangeDescriptor,
    /// The replica.
    pub replica: ReplicaId,
    /// Index of the last command that is in it; 0 if none is.
    pub applied_index: u64,
    /// Term of that command.
    pub applied_term: u64,
    /// CRC-32C over every key and value of the data families, and their number in the upper half.
    pub hash: u64,
}

impl Fingerprint {
    /// The range.
    pub fn range(&self) -> RangeId {
        self.descriptor.id
    }

    /// How many keys it has, modulo 2^32.
    pub fn rows(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// Fingerprints of all replicas with data in one view of a store. Reads everything: take your time.
///
/// # Errors
/// [`RaftError::Engine`] if the store cannot be read or a record in it is damaged.
pub fn fingerprints(snapshot: &dyn EngineSnapshot) -> Result<Vec<Fingerprint>, RaftError> {
    let view = Overlay::over(snapshot);
    let records = records(&view)?.into_iter();
    records.map(|record| fingerprint(&view, record)).collect()
}

/// Records of all replicas with data.
pub(crate) fn records(view: &Overlay<'_>) -> Result<Vec<ReplicaRecord>, RaftError> {
    let mut all = Vec::new();
    let mut rows = view.rows(Cf::State, &keys::all_replicas());
    while let Some((_, value)) = rows.next()? {
        let record = ReplicaRecord::decode(Bytes::copy_from_slice(value))?;
        if record.initialised {
            all.push(record);
        }
    }
    Ok(all)
}

/// How far a range is applied.
pub(crate) fn applied(view: &Overlay<'_>, range: RangeId) -> Result<AppliedRecord, RaftError> {
    let applied = view.get(Cf::State, &keys::applied(range))?;
    Ok(applied.map(AppliedRecord::decode).transpose()?.unwrap_or_default())
}

pub(crate) fn fingerprint(
    view: &Overlay<'_>,
    record: ReplicaRecord,
) -> Result<Fingerprint, RaftError> {
    let at = applied(view, record.descriptor.id)?.position.unwrap_or_default();
    let mut sum = RowSum::default();
    for (cf, span) in parts(&record.descriptor) {
        let mut rows = view.rows(cf, &span);
        while let Some((key, value)) = rows.next()? {
            sum.row(key, value);
        }
    }
    Ok(Fingerprint {
        descriptor: record.descriptor,
        replica: record.id,
        applied_index: at.index,
        applied_term: at.term,
        hash: sum.value(),
    })
}

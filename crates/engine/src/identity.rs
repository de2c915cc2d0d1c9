//! Which store of which cluster a data directory is.

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::codec::Reader;
use cribwork_types::{Cf, ClusterId, StoreId, WriteBatch};

use crate::{Engine, EngineError};

/// Where the identity lives in [`Cf::State`]. Keys of ranges begin with a big-endian range id, which
/// never reaches `0xFF` in its first byte, so this key sorts behind all of them.
pub const IDENTITY_KEY: &[u8] = b"\xFFidentity";

const WHAT: &str = "store identity";
const VERSION: u8 = 1;

/// Who a store is. Written once when the store joins its cluster; only the boot count changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its id there.
    pub store: StoreId,
    /// How often a process has been started on it. Peers tell a restarted store by it, and a wiped
    /// disk that poses as its former self.
    pub boot_count: u64,
}

impl StoreIdentity {
    /// The bytes on disk: `version u8, cluster u64, store u64, boot count u64, crc32c u32` of all
    /// that precedes it; big-endian.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(29);
        out.put_u8(VERSION);
        out.put_u64(self.cluster.get());
        out.put_u64(self.store.get());
        out.put_u64(self.boot_count);
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`EngineError::Corruption`] if the bytes are not an identity of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, EngineError> {
        let mut reader = Reader::new(WHAT, bytes.clone());
        let mut read = || {
            reader.version(VERSION)?;
            let identity = StoreIdentity {
                cluster: ClusterId(reader.u64()?),
                store: StoreId(reader.u64()?),
                boot_count: reader.u64()?,
            };
            let covered = bytes.len() - reader.remaining();
            if reader.u32()? != crc32c::crc32c(&bytes[..covered]) {
                return Err(reader.malformed("checksum mismatch"));
            }
            reader.clone().finish()?;
            Ok(identity)
        };
        read().map_err(|error| EngineError::from_codec(WHAT, &error))
    }

    /// Checks that this is store `store` of `cluster`.
    ///
    /// # Errors
    /// [`EngineError::WrongIdentity`] if not.
    pub fn verify(&self, cluster: ClusterId, store: StoreId) -> Result<(), EngineError> {
        if self.cluster == cluster && self.store == store {
            return Ok(());
        }
        Err(EngineError::WrongIdentity {
            cluster,
            store,
            found_cluster: self.cluster,
            found_store: self.store,
        })
    }
}

/// The identity of the store, or `None` if it has not joined a cluster yet.
///
/// # Errors
/// [`EngineError`] if it cannot be read.
pub fn identity(engine: &dyn Engine) -> Result<Option<StoreIdentity>, EngineError> {
    engine.get(Cf::State, IDENTITY_KEY)?.map(StoreIdentity::decode).transpose()
}

/// Makes `identity` the store's, durably.
///
/// # Errors
/// [`EngineError`] if it cannot be written.
pub fn save_identity(engine: &dyn Engine, identity: &StoreIdentity) -> Result<(), EngineError> {
    let mut batch = WriteBatch::new();
    batch.put(Cf::State, IDENTITY_KEY, identity.encode());
    engine.write(&batch)?;
    engine.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryEngine;

    const SAMPLE: StoreIdentity = StoreIdentity {
        cluster: ClusterId(0x0102_0304_0506_0708),
        store: StoreId(3),
        boot_count: 9,
    };

    /// Golden bytes: a change here breaks every store on disk, so it needs a new version byte.
    #[test]
    fn format_version_1_is_frozen() {
        let hex: String = SAMPLE.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0101020304050607080000000000000003000000000000000979655cad");
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = SAMPLE.encode();
        assert_eq!(StoreIdentity::decode(bytes.clone()).unwrap(), SAMPLE);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x40;
            assert!(StoreIdentity::decode(damaged.into()).is_err(), "byte {at}");
            assert!(StoreIdentity::decode(bytes.slice(..at)).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn survives_a_crash_and_names_a_mix_up() {
        let engine = MemoryEngine::new();
        assert_eq!(identity(&*engine).unwrap(), None);
        save_identity(&*engine, &SAMPLE).unwrap();
        let found = identity(&*engine.crash()).unwrap().unwrap();
        found.verify(SAMPLE.cluster, StoreId(3)).unwrap();
        let error = found.verify(SAMPLE.cluster, StoreId(4)).unwrap_err();
        assert!(matches!(error, EngineError::WrongIdentity { found_store: StoreId(3), .. }));
    }
}

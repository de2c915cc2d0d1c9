//! Who calls whom: the metadata with which a stream opens, and its check.

use cribwork_types::{ClusterId, StoreId};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::{PROTOCOL_VERSION, PeerIdentity};

/// What the caller says about itself and about whom it means to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) protocol: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) from: StoreId,
    pub(crate) to: StoreId,
    /// Random for each start of the caller.
    pub(crate) incarnation: u64,
    /// Rises with each stream of one incarnation: tells an old stream from a new one when a
    /// process that hung for a while finds several of them waiting.
    pub(crate) attempt: u64,
}

/// Why a stream is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the handshake lacks {0} or it is no number")]
    Malformed(&'static str),
    #[error("protocol version {theirs}, this node speaks {PROTOCOL_VERSION}")]
    Protocol { theirs: u64 },
    #[error("cluster {theirs}, this node belongs to cluster {ours}")]
    Cluster { theirs: ClusterId, ours: ClusterId },
    #[error("meant for store {meant}, this is store {ours}")]
    Store { meant: StoreId, ours: StoreId },
    #[error("the caller says that it is store {ours}, which is this one")]
    OwnStore { ours: StoreId },
    #[error("a newer stream from store {from} is open")]
    Stale { from: StoreId },
    #[error("too many streams")]
    TooMany,
    #[error("the node is stopping")]
    Stopping,
}

impl Refusal {
    /// The word in metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::Protocol { .. } => "protocol",
            Refusal::Cluster { .. } => "cluster",
            Refusal::Store { .. } => "store",
            Refusal::OwnStore { .. } => "own_store",
            Refusal::Stale { .. } => "stale",
            Refusal::TooMany => "too_many",
            Refusal::Stopping => "stopping",
        }
    }

    /// What the caller sees. `FAILED_PRECONDITION` means that somebody has to change something.
    pub(crate) fn status(self) -> Status {
        let text = self.to_string();
        match self {
            Refusal::Stale { .. } => Status::aborted(text),
            Refusal::TooMany => Status::resource_exhausted(text),
            Refusal::Stopping => Status::unavailable(text),
            _ => Status::failed_precondition(text),
        }
    }
}

const PROTOCOL: &str = "cribwork-protocol";
const CLUSTER: &str = "cribwork-cluster";
const FROM: &str = "cribwork-from";
const TO: &str = "cribwork-to";
const INCARNATION: &str = "cribwork-incarnation";
const ATTEMPT: &str = "cribwork-attempt";

impl Hello {
    pub(crate) fn write(&self, metadata: &mut MetadataMap) {
        let fields = [
            (PROTOCOL, self.protocol),
            (CLUSTER, self.cluster.get()),
            (FROM, self.from.get()),
            (TO, self.to.get()),
            (INCARNATION, self.incarnation),
            (ATTEMPT, self.attempt),
        ];
        for (key, value) in fields {
            metadata.insert(key, value.into());
        }
    }

    pub(crate) fn read(metadata: &MetadataMap) -> Result<Self, Refusal> {
        let number = |key: &'static str| {
            let text = metadata.get(key).and_then(|value| value.to_str().ok());
            text.and_then(|text| text.parse().ok()).ok_or(Refusal::Malformed(key))
        };
        Ok(Self {
            protocol: number(PROTOCOL)?,
            cluster: ClusterId(number(CLUSTER)?),
            from: StoreId(number(FROM)?),
            to: StoreId(number(TO)?),
            incarnation: number(INCARNATION)?,
            attempt: number(ATTEMPT)?,
        })
    }

    /// Checks that the caller means this store.
    pub(crate) fn check(&self, own: PeerIdentity) -> Result<(), Refusal> {
        if self.protocol != PROTOCOL_VERSION {
            return Err(Refusal::Protocol { theirs: self.protocol });
        }
        if self.cluster != own.cluster {
            return Err(Refusal::Cluster { theirs: self.cluster, ours: own.cluster });
        }
        if self.to != own.store {
            return Err(Refusal::Store { meant: self.to, ours: own.store });
        }
        if self.from == own.store {
            return Err(Refusal::OwnStore { ours: own.store });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        protocol: PROTOCOL_VERSION,
        cluster: ClusterId(u64::MAX),
        from: StoreId(1),
        to: StoreId(2),
        incarnation: 7,
        attempt: 3,
    };

    #[test]
    fn round_trips_and_misses_nothing() {
        let mut metadata = MetadataMap::new();
        HELLO.write(&mut metadata);
        assert_eq!(Hello::read(&metadata), Ok(HELLO));
        for key in [PROTOCOL, CLUSTER, FROM, TO, INCARNATION, ATTEMPT] {
            let mut lacking = metadata.clone();
            lacking.remove(key);
            assert_eq!(Hello::read(&lacking), Err(Refusal::Malformed(key)));
            lacking.insert(key, "-1".parse().unwrap());
            assert_eq!(Hello::read(&lacking), Err(Refusal::Malformed(key)));
        }
    }

    #[test]
    fn every_disagreement_is_refused() {
        let own = PeerIdentity { cluster: HELLO.cluster, store: HELLO.to };
        assert_eq!(HELLO.check(own), Ok(()));
        let reason = |hello: Hello| hello.check(own).unwrap_err().reason();
        assert_eq!(reason(Hello { protocol: 2, ..HELLO }), "protocol");
        assert_eq!(reason(Hello { cluster: ClusterId(1), ..HELLO }), "cluster");
        assert_eq!(reason(Hello { to: StoreId(3), ..HELLO }), "store");
        assert_eq!(reason(Hello { from: StoreId(2), ..HELLO }), "own_store");
    }
}

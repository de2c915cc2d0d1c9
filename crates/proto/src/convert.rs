//! Conversions between wire messages and the words of [`cribwork_types`]. From a type to a message
//! never fails; the other way is checked, because the message comes from somebody else.

use cribwork_types::{
    CodedError, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId,
    ReplicaRole, StoreId, Timestamp, key,
};

use crate::{metapb, pdpb};

/// A message that does not describe what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A message or a field that must be there is not.
    #[error("{message}: no {field}")]
    Missing {
        /// The message.
        message: &'static str,
        /// What it lacks.
        field: &'static str,
    },
    /// A field holds what nobody may send.
    #[error("{message}: {field} {why}")]
    Invalid {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl CodedError for ConvertError {
    fn code(&self) -> &'static str {
        match self {
            ConvertError::Missing { .. } => "CW-PROTO-MISSING",
            ConvertError::Invalid { .. } => "CW-PROTO-INVALID",
        }
    }

    fn is_retryable(&self) -> bool {
        false
    }

    fn hint(&self) -> &'static str {
        "the sender speaks another dialect of the protocol: compare the versions of both sides"
    }
}

impl From<RangeEpoch> for metapb::RegionEpoch {
    fn from(epoch: RangeEpoch) -> Self {
        Self { conf_ver: epoch.conf_ver, version: epoch.version }
    }
}

impl From<metapb::RegionEpoch> for RangeEpoch {
    fn from(epoch: metapb::RegionEpoch) -> Self {
        Self { conf_ver: epoch.conf_ver, version: epoch.version }
    }
}

impl From<ReplicaDescriptor> for metapb::Peer {
    fn from(replica: ReplicaDescriptor) -> Self {
        let role = match replica.role {
            ReplicaRole::Voter => metapb::PeerRole::Voter,
            ReplicaRole::Learner => metapb::PeerRole::Learner,
            ReplicaRole::Incoming => metapb::PeerRole::IncomingVoter,
            ReplicaRole::Outgoing => metapb::PeerRole::DemotingVoter,
        };
        Self {
            id: replica.id.get(),
            store_id: replica.store.get(),
            role: role.into(),
            is_witness: false,
        }
    }
}

impl TryFrom<metapb::Peer> for ReplicaDescriptor {
    type Error = ConvertError;

    fn try_from(peer: metapb::Peer) -> Result<Self, ConvertError> {
        let missing = |field| ConvertError::Missing { message: "metapb.Peer", field };
        if peer.id == 0 {
            return Err(missing("id"));
        }
        if peer.store_id == 0 {
            return Err(missing("store_id"));
        }
        let role = match metapb::PeerRole::try_from(peer.role) {
            Ok(metapb::PeerRole::Voter) => ReplicaRole::Voter,
            Ok(metapb::PeerRole::Learner) => ReplicaRole::Learner,
            Ok(metapb::PeerRole::IncomingVoter) => ReplicaRole::Incoming,
            Ok(metapb::PeerRole::DemotingVoter) => ReplicaRole::Outgoing,
            Err(_) => {
                return Err(ConvertError::Invalid {
                    message: "metapb.Peer",
                    field: "role",
                    why: "is no role of a member",
                });
            }
        };
        Ok(Self { id: ReplicaId(peer.id), store: StoreId(peer.store_id), role })
    }
}

impl From<&RangeDescriptor> for metapb::Region {
    fn from(range: &RangeDescriptor) -> Self {
        Self {
            id: range.id.get(),
            start_key: range.span.start.clone(),
            end_key: range.span.end.clone(),
            region_epoch: Some(range.epoch.into()),
            peers: range.replicas.iter().map(|replica| (*replica).into()).collect(),
        }
    }
}

impl TryFrom<metapb::Region> for RangeDescriptor {
    type Error = ConvertError;

    fn try_from(region: metapb::Region) -> Result<Self, ConvertError> {
        let message = "metapb.Region";
        let epoch =
            region.region_epoch.ok_or(ConvertError::Missing { message, field: "region_epoch" })?;
        if region.id == 0 {
            return Err(ConvertError::Missing { message, field: "id" });
        }
        for (field, bound) in [("start_key", &region.start_key), ("end_key", &region.end_key)] {
            if !key::is_bound(bound) {
                let why = "is not a memcomparable encoding";
                return Err(ConvertError::Invalid { message, field, why });
            }
        }
        let span = KeyRange { start: region.start_key, end: region.end_key };
        if span.is_empty() {
            let why = "is not above start_key";
            return Err(ConvertError::Invalid { message, field: "end_key", why });
        }
        let replicas =
            region.peers.into_iter().map(ReplicaDescriptor::try_from).collect::<Result<_, _>>()?;
        Ok(Self { id: RangeId(region.id), span, epoch: epoch.into(), replicas })
    }
}

impl From<Timestamp> for pdpb::Timestamp {
    fn from(ts: Timestamp) -> Self {
        Self { physical: ts.physical_ms() as i64, logical: ts.logical() as i64, suffix_bits: 0 }
    }
}

impl TryFrom<pdpb::Timestamp> for Timestamp {
    type Error = ConvertError;

    fn try_from(ts: pdpb::Timestamp) -> Result<Self, ConvertError> {
        const PHYSICAL_LIMIT: u64 = 1 << (u64::BITS - Timestamp::LOGICAL_BITS);
        let invalid = |field| {
            let why = "is out of range";
            ConvertError::Invalid { message: "pdpb.Timestamp", field, why }
        };
        let physical = u64::try_from(ts.physical).map_err(|_| invalid("physical"))?;
        let logical = u64::try_from(ts.logical).map_err(|_| invalid("logical"))?;
        if physical >= PHYSICAL_LIMIT {
            return Err(invalid("physical"));
        }
        if logical >= Timestamp::LOGICAL_LIMIT {
            return Err(invalid("logical"));
        }
        Ok(Timestamp::new(physical, logical))
    }
}

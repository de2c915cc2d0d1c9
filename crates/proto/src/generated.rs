//! Generated code, one module a proto package.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

/// Ranges, replicas and stores.
pub mod metapb {
    tonic::include_proto!("metapb");
}

/// Why a range did not serve a request.
pub mod errorpb {
    tonic::include_proto!("errorpb");
}

/// Wait-for edges inside key errors.
pub mod deadlock {
    tonic::include_proto!("deadlock");
}

/// Requests and answers of the key-value service.
pub mod kvrpcpb {
    tonic::include_proto!("kvrpcpb");
}

/// The key-value service.
pub mod tikvpb {
    tonic::include_proto!("tikvpb");
}

/// The placement service.
pub mod pdpb {
    tonic::include_proto!("pdpb");
}

/// Cribwork's own services.
pub mod cribwork {
    /// For people and scripts (`Admin`), and between nodes (`Node`).
    pub mod admin {
        tonic::include_proto!("cribwork.admin");
    }

    /// The message stream between stores.
    pub mod peer {
        tonic::include_proto!("cribwork.peer");
    }
}

/// Every proto file, encoded as a `FileDescriptorSet`: what gRPC reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

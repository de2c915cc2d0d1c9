//! What a client can be told.

use std::time::Duration;

/// Settings of a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// gRPC addresses of any nodes of the cluster, `host:port`.
    pub endpoints: Vec<String>,
    /// How long one call may take, repairs and retries included.
    pub timeout: Duration,
    /// How long one request to one store may stay without an answer before the store is taken for
    /// dead and another replica is asked.
    pub attempt_timeout: Duration,
    /// How long opening one connection may take.
    pub connect_timeout: Duration,
    /// How long a lock of a transaction outlives the last sign of its client.
    pub lock_ttl: Duration,
}

impl ClientOptions {
    /// The defaults: 10 s a call, 3 s an attempt, 1 s a connection, locks of 3 s.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            lock_ttl: Duration::from_secs(3),
        }
    }
}

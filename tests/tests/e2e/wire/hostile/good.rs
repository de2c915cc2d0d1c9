//! A client that behaves, beside those that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest};
use cribwork_proto::tikvpb::tikv_client::TikvClient;
use cribwork_tests::wait_until;
use tonic::transport::Endpoint;

/// How long one operation may take. Long beside what it takes alone, because all of this runs on the
/// cores of one machine, and short beside "later".
const OPERATION_LIMIT: Duration = Duration::from_secs(4);
/// After so many operations the client connects anew, as a new client would.
const OPERATIONS_PER_CONNECTION: u64 = 50;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    operations: AtomicU64,
    slowest_ms: AtomicU64,
}

/// Puts and gets until it is told to stop.
pub(super) struct GoodClient {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl GoodClient {
    pub(super) fn start(address: &str, context: Context) -> Self {
        let (shared, address) = (Arc::new(Shared::default()), format!("http://{address}"));
        let inside = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(&inside, address, context))
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits until it has done some more operations, so that whatever goes on beside it has met it.
    #[track_caller]
    pub(super) fn goes_on(&self, what: &str) {
        let enough = self.shared.operations.load(Ordering::Relaxed) + OPERATIONS_PER_CONNECTION;
        wait_until(what, Duration::from_secs(60), || {
            let done = self.shared.operations.load(Ordering::Relaxed);
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            // Whatever ended it is told by `finish`.
            if done >= enough || ended { Ok(()) } else { Err(format!("{done} of {enough}")) }
        });
    }

    /// Whether an operation has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it: how many operations, and the slowest.
    #[track_caller]
    pub(super) fn finish(mut self) -> (u64, Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().expect("it was started").join().expect("no panic");
        assert_eq!(outcome, Ok(()), "an operation of the good client");
        let slowest = self.shared.slowest_ms.load(Ordering::Relaxed);
        (self.shared.operations.load(Ordering::Relaxed), Duration::from_millis(slowest))
    }
}

async fn work(shared: &Shared, address: String, context: Context) -> Result<(), String> {
    let connect = || async {
        let endpoint = Endpoint::from_shared(address.clone()).unwrap();
        let channel = endpoint.connect_timeout(OPERATION_LIMIT).connect().await;
        channel.map(TikvClient::new).map_err(|error| format!("connect: {error:?}"))
    };
    let mut client = connect().await?;
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.operations.load(Ordering::Relaxed);
        let started = Instant::now();
        let operation = async {
            if number % OPERATIONS_PER_CONNECTION == OPERATIONS_PER_CONNECTION - 1 {
                client = connect().await?;
            }
            put_and_get(&mut client, &context, number).await
        };
        let outcome = tokio::time::timeout(OPERATION_LIMIT, operation).await;
        let took = started.elapsed();
        outcome.map_err(|_| format!("operation {number}: not within {OPERATION_LIMIT:?}"))??;
        shared.slowest_ms.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
        shared.operations.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn put_and_get(
    client: &mut TikvClient<tonic::transport::Channel>,
    context: &Context,
    number: u64,
) -> Result<(), String> {
    let key = Bytes::from(format!("good/{}", number % 100));
    let value = Bytes::from(format!("value {number}"));
    let context = Some(context.clone());
    let put = RawPutRequest {
        context: context.clone(),
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    };
    let answer = client.raw_put(put).await.map_err(|error| format!("put: {error:?}"))?.into_inner();
    if answer.region_error.is_some() || !answer.error.is_empty() {
        return Err(format!("put: {answer:?}"));
    }
    let get = RawGetRequest { context, key, ..Default::default() };
    let answer = client.raw_get(get).await.map_err(|error| format!("get: {error:?}"))?.into_inner();
    if answer.value == value { Ok(()) } else { Err(format!("get: {answer:?}")) }
}

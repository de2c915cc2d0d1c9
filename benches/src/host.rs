//! A thread that runs tasks all the time, as that of a node does.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use cribwork_server::{TokioRuntime, tokio_runtime};
use cribwork_types::Runtime;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Threads of a node's runtime by default.
const WORKERS: usize = 1;

/// One thread with the tokio runtime that a node has by default. It runs between measurements too, so
/// that no lease or connection dies of the benchmark's own pauses. Ends when dropped.
pub struct Host {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Host {
    fn default() -> Self {
        Self::start()
    }
}

impl Host {
    /// Starts the thread.
    pub fn start() -> Self {
        let tokio = tokio_runtime(WORKERS).unwrap();
        let handle = tokio.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            // Either way, sent or dropped, it is the end.
            let _ = tokio.block_on(stopped);
        });
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }

    /// Where to spawn tasks.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What components of a node are given.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime::new(self.handle.clone()))
    }

    /// Runs `future` on the thread and waits for it.
    pub fn run<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        self.handle.spawn(async move {
            if sender.send(future.await).is_err() {
                // The benchmark's thread is gone: so is the reason to go on.
                pending::<()>().await;
            }
        });
        receiver.recv().expect("the future panicked; its message is above")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ended by a panic whose message is above.
            let _ = thread.join();
        }
    }
}

//! A whole cluster in one process: each node with its own directory, thread, runtime and metrics, and
//! real gRPC between them; then bank.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cribwork_client::{Client, GrpcConnector};
use cribwork_server::{Config, Node, NodeOptions, RunningNode, TokioRuntime, tokio_runtime};
use cribwork_types::{Runtime, RuntimeExt};
use cribwork_workload::{BankOptions, CommonOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::args::{Demo, Global};
use crate::failure::Failure;
use crate::in_process::{InProcessConnector, LocalNode};
use crate::run::Context;
use crate::signals::Signals;
use crate::workload;

/// How long the nodes may take to start, and to elect leaders.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Runs the cluster and bank; ends it and removes its data, whatever happens.
pub(crate) fn demo(global: &Global, flags: &Demo) -> Result<(), Failure> {
    let directory = TempDir::with_prefix("cribwork-demo-")
        .map_err(|error| Failure::system("temporary directory", &error))?;
    let tokio = tokio_runtime(1).map_err(|error| Failure::system("runtime", &error))?;
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::new(tokio.handle().clone()));
    let mut cluster = Cluster::start(flags.nodes, directory.path())?;
    let outcome = tokio.block_on(async {
        let mut signals = Signals::take()?;
        tokio::select! {
            outcome = prove(global, flags, &runtime, &mut cluster) => {
                if flags.stay {
                    eprintln!("the cluster stays until Ctrl-C");
                    signals.next().await;
                }
                outcome
            }
            () = signals.next() => {
                Err(Failure::new("CW-CLI-INTERRUPTED", "interrupted", "nothing is proved"))
            }
        }
    });
    cluster.end();
    outcome
}

async fn prove(
    global: &Global,
    flags: &Demo,
    runtime: &Arc<dyn Runtime>,
    cluster: &mut Cluster,
) -> Result<(), Failure> {
    let endpoints = cluster.wait_started().await?;
    let global = Global { endpoints: endpoints.clone(), ..global.clone() };
    let context = Context { global, runtime: runtime.clone() };
    let admin = context.admin().with_timeout(context.global.init_timeout());
    admin.init(flags.ranges).await?;
    let locals = match runtime.timeout(START_LIMIT, cluster.wait_ready()).await {
        Ok(locals) => locals?,
        Err(_) => {
            let message = format!("not every range had a leader within {START_LIMIT:?}");
            return Err(Failure::new(
                "CW-CLI-DEMO-START",
                message,
                "see the log: --log-level info",
            ));
        }
    };
    let options = context.options();
    let grpc =
        GrpcConnector::new(runtime.clone(), options.connect_timeout, options.attempt_timeout);
    let nodes: HashMap<_, _> = endpoints.into_iter().zip(locals).collect();
    let connector = Arc::new(InProcessConnector::new(nodes, grpc));
    let client = Client::connect_with(options, connector, runtime.clone()).await?;
    let bank = BankOptions {
        common: CommonOptions {
            workers: flags.workers,
            duration: flags.duration,
            seed: None,
            ranges: flags.ranges,
        },
        accounts: flags.accounts,
        receipts: true,
    };
    workload::bank(&client, runtime, &bank, context.global.output).await
}

/// What a node's thread says when its ports are open.
struct Addresses {
    grpc: String,
    http: String,
}

/// One node's thread, as seen from outside.
struct NodeThread {
    started: Option<oneshot::Receiver<Result<Addresses, Failure>>>,
    ready: Option<oneshot::Receiver<LocalNode>>,
    /// Dropped to end the node.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

struct Cluster {
    nodes: Vec<NodeThread>,
    ending: Arc<AtomicBool>,
}

impl Cluster {
    fn start(count: u32, directory: &Path) -> Result<Self, Failure> {
        let ports = free_ports(2 * count as usize)
            .map_err(|error| Failure::system("free ports", &error))?;
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let (grpc, http) = addresses.split_at(count as usize);
        let ending = Arc::new(AtomicBool::new(false));
        let mut nodes = Vec::new();
        for (index, (listen, http)) in grpc.iter().zip(http).enumerate() {
            let config = Config {
                data_dir: directory.join(format!("node-{}", index + 1)),
                listen: listen.clone(),
                http: http.clone(),
                join: grpc.to_vec(),
                ..Config::default()
            };
            nodes.push(NodeThread::start(index + 1, config, ending.clone())?);
        }
        Ok(Self { nodes, ending })
    }

    /// The gRPC addresses of all nodes, in the order of the join list, when all listen.
    async fn wait_started(&mut self) -> Result<Vec<String>, Failure> {
        let mut endpoints = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let started = node.started.take().expect("waited for once");
            let Addresses { grpc, http } = started.await.map_err(|_| ended(index))??;
            eprintln!("node {}: gRPC {grpc}, HTTP http://{http}", index + 1);
            endpoints.push(grpc);
        }
        Ok(endpoints)
    }

    /// The nodes' insides, when every range has a leader.
    async fn wait_ready(&mut self) -> Result<Vec<LocalNode>, Failure> {
        let mut locals = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let ready = node.ready.take().expect("waited for once");
            locals.push(ready.await.map_err(|_| ended(index))?);
        }
        Ok(locals)
    }

    /// Ends all nodes at once. Leaderships are not handed over: there is nobody left to have them.
    fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        let threads: Vec<_> = self
            .nodes
            .into_iter()
            .map(|node| {
                drop(node.stop);
                node.thread
            })
            .collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a node's thread panicked");
            }
        }
    }
}

fn ended(index: usize) -> Failure {
    let message = format!("node {} has ended", index + 1);
    Failure::new("CW-CLI-DEMO-NODE", message, "look for a panic above and report it")
}

impl NodeThread {
    fn start(number: usize, config: Config, ending: Arc<AtomicBool>) -> Result<Self, Failure> {
        let (tell_started, started) = oneshot::channel();
        let (tell_ready, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        // Not a worker of some runtime: a node is a thread with a runtime of its own, timers,
        // network and all, like the main thread of a process.
        let thread = std::thread::Builder::new()
            .name(format!("node-{number}"))
            .spawn(move || {
                let tokio = match tokio_runtime(1) {
                    Ok(tokio) => tokio,
                    Err(error) => {
                        // Nobody listens only if the demo ends anyway.
                        let _ = tell_started.send(Err(Failure::system("runtime", &error)));
                        return;
                    }
                };
                tokio.block_on(run_node(config, ending, tell_started, tell_ready, stopped));
            })
            .map_err(|error| Failure::system("thread", &error))?;
        Ok(Self { started: Some(started), ready: Some(ready), stop, thread })
    }
}

async fn run_node(
    config: Config,
    ending: Arc<AtomicBool>,
    tell_started: oneshot::Sender<Result<Addresses, Failure>>,
    tell_ready: oneshot::Sender<LocalNode>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut options = NodeOptions::new(config);
    options.on_fatal = Some(Arc::new(move |error| {
        // At the end the directories go away under the last writes.
        if !ending.load(Ordering::Relaxed) {
            Failure::new("CW-CLI-DEMO-DISK", error.to_string(), "look at the disk").report();
            std::process::exit(1);
        }
    }));
    let runtime = options.runtime.clone();
    let node = match Node::start(options).await {
        Ok(node) => node,
        Err(error) => {
            // As above.
            let _ = tell_started.send(Err(error.into()));
            return;
        }
    };
    let addresses =
        Addresses { grpc: node.advertised().to_owned(), http: node.http_addr().to_string() };
    if tell_started.send(Ok(addresses)).is_err() {
        return;
    }
    tokio::select! {
        local = become_ready(&node, runtime) => {
            if let Some(local) = local {
                // As above.
                let _ = tell_ready.send(local);
            }
            // Ends with an error, because the sender is dropped.
            let _ = stopped.await;
        }
        _ = &mut stopped => {}
    }
}

async fn become_ready(node: &RunningNode, runtime: Arc<dyn Runtime>) -> Option<LocalNode> {
    node.wait_member().await;
    node.wait_ready().await;
    Some(LocalNode { kv: node.kv()?, place: node.place()?, runtime })
}

/// Ports of 127.0.0.1 that nobody uses right now. Held all at once, so that they differ.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let listeners = (0..count).map(bind).collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}

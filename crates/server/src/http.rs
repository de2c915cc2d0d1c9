//! The HTTP port: health, readiness, metrics.

use std::sync::{Arc, Weak};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::guests::GuestLimits;
use crate::incoming::Incoming;
use crate::node_state::NodeState;
use crate::process_metrics;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections of the port: more than monitoring and people open at a time.
const CONNECTIONS_MAX: usize = 256;
/// Part of the files that the process may open that connections may take.
const CONNECTIONS_OF_FILES: usize = 16;
/// Bytes that are read from a connection, which serves one request: what the largest sensible headers take.
/// A connection keeps the headers that it has read until they are whole.
const CONNECTION_BYTES_MAX: u64 = 16 * 1024;

/// How much the port takes on.
pub(crate) fn limits() -> GuestLimits {
    let files = process_metrics::open_files_max().unwrap_or(usize::MAX);
    let connections_max = CONNECTIONS_MAX.min(files / CONNECTIONS_OF_FILES).max(1);
    GuestLimits { connections_max, open_requests_max: usize::MAX }
}

/// Serves until `stop`.
pub(crate) async fn serve(incoming: Incoming, node: Weak<NodeState>, stop: CancellationToken) {
    let address = incoming.address();
    let router = Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .layer(map_response(last_answer))
        .with_state(node);
    let incoming = incoming.bytes_max(CONNECTION_BYTES_MAX);
    let served = axum::serve(incoming, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%address, %error, "the HTTP server ended");
    }
}

/// One request a connection: that bounds what a connection may send, and costs who polls a health page
/// nothing.
async fn last_answer(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn index(State(node): State<Weak<NodeState>>) -> Response {
    with_node(&node, |node| {
        let member = node.member();
        let identity = member.as_ref().ok().map(|member| (member.cluster(), member.store()));
        Json(json!({
            "service": "cribwork",
            "version": env!("CARGO_PKG_VERSION"),
            "address": node.address,
            // As text: JavaScript's numbers end at 53 bits.
            "cluster_id": identity.map(|(cluster, _)| cluster.to_string()),
            "store": identity.map(|(_, store)| store.get()),
            "endpoints": ["/health", "/ready", "/metrics"],
        }))
        .into_response()
    })
}

async fn health() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

async fn ready(State(node): State<Weak<NodeState>>) -> Response {
    with_node(&node, |node| match node.readiness() {
        Ok(()) => Json(json!({ "ready": true })).into_response(),
        Err(reason) => {
            let body = Json(json!({ "ready": false, "reason": reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    })
}

async fn metrics(State(node): State<Weak<NodeState>>) -> Response {
    with_node(&node, |node| {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &node.registry.lock()) {
            Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    })
}

fn with_node(node: &Weak<NodeState>, answer: impl FnOnce(&Arc<NodeState>) -> Response) -> Response {
    match node.upgrade() {
        Some(node) => answer(&node),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

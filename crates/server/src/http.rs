//! The HTTP port: health, readiness, metrics.

use std::sync::{Arc, Weak};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::incoming::Incoming;
use crate::node_state::NodeState;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `stop`.
pub(crate) async fn serve(incoming: Incoming, node: Weak<NodeState>, stop: CancellationToken) {
    let address = incoming.address();
    let router = Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(node);
    let served = axum::serve(incoming, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%address, %error, "the HTTP server ended");
    }
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

//! Can a cluster spare a store? Asked before one that is damaged is given up: it may hold the last copy of
//! something, or the one that makes a majority.

use std::time::Duration;

use cribwork_proto::cribwork::admin::admin_client::AdminClient;
use cribwork_proto::cribwork::admin::{NodeInfo, NodesRequest, StatusRequest, StatusResponse};
use cribwork_types::{Runtime, RuntimeExt};

use crate::config::Config;
use crate::{PeerClients, ServerError};

/// How long the others have until they can do without: longer than they take to call a node down.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for one of them to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits until the nodes of the join list say that every range is whole without the store of this node.
///
/// # Errors
/// [`ServerError::StillNeeded`] with what they said last.
pub(crate) async fn wait_for_others(
    config: &Config,
    peers: &PeerClients,
    runtime: &dyn Runtime,
) -> Result<(), ServerError> {
    let own = config.advertise.as_ref().unwrap_or(&config.listen);
    let deadline = runtime.now() + PATIENCE;
    loop {
        let mut why = "the join list names no other node".to_owned();
        for address in config.join.iter().filter(|address| *address != own) {
            let asked = runtime.timeout(ANSWER_LIMIT, ask(peers, address)).await;
            let answer = asked.unwrap_or(Err(ServerError::Timeout { what: "the answer" }));
            match answer.map(|(nodes, status)| needed(own, &nodes, &status)) {
                Ok(None) => return Ok(()),
                Ok(Some(needed)) => {
                    why = needed;
                    break;
                }
                Err(error) => {
                    peers.forget(address);
                    why = format!("{address}: {error}");
                }
            }
        }
        if runtime.now() >= deadline {
            return Err(ServerError::StillNeeded { why });
        }
        runtime.sleep(PAUSE).await;
    }
}

async fn ask(
    peers: &PeerClients,
    address: &str,
) -> Result<(Vec<NodeInfo>, StatusResponse), ServerError> {
    let mut client = AdminClient::new(peers.channel(address).await?);
    let nodes = client.nodes(NodesRequest {}).await?.into_inner().nodes;
    Ok((nodes, client.status(StatusRequest {}).await?.into_inner()))
}

/// Why the store under the address `own` cannot be spared, if so. Every other one has to be up: then each range
/// that has a leader has its majority among them.
fn needed(own: &str, nodes: &[NodeInfo], status: &StatusResponse) -> Option<String> {
    let ours = nodes.iter().filter(|node| node.address == own && node.state != "decommissioned");
    let ours: Vec<&str> = ours.map(|node| node.state.as_str()).collect();
    match ours[..] {
        [] | ["down"] => {}
        ["up" | "draining"] => return Some("this node was heard of a moment ago".to_owned()),
        _ => return Some("this node's earlier store is being made anew still".to_owned()),
    }
    let others_down = (status.nodes_down as usize).saturating_sub(ours.len());
    match (others_down, status.leaderless) {
        (0, 0) => None,
        (0, leaderless) => Some(format!("{leaderless} ranges have no leader without it")),
        (down, _) => {
            Some(format!("{down} other nodes are down, or leave and are not replaced yet"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(nodes: &[(&str, &str)], nodes_down: u32, leaderless: u64) -> Option<String> {
        let node = |(address, state): &(&str, &str)| NodeInfo {
            address: (*address).to_owned(),
            state: (*state).to_owned(),
            ..NodeInfo::default()
        };
        let nodes: Vec<NodeInfo> = nodes.iter().map(node).collect();
        needed("a:1", &nodes, &StatusResponse { nodes_down, leaderless, ..Default::default() })
    }

    #[test]
    fn a_store_is_spared_only_if_all_others_are_there() {
        let others = [("b:1", "up"), ("c:1", "up")];
        let with = |state| [&[("a:1", state)], &others[..]].concat();
        assert_eq!(said(&with("down"), 1, 0), None);
        assert_eq!(said(&others, 0, 0), None, "it has left before");
        assert_eq!(said(&with("decommissioned"), 0, 0), None);
        assert!(said(&with("up"), 0, 0).unwrap().contains("a moment ago"));
        assert!(said(&with("down"), 1, 3).unwrap().contains("3 ranges"));
        assert!(said(&with("down"), 2, 0).unwrap().contains("1 other nodes are down"));
        // It was set aside a while ago, and is not made anew yet.
        let again = [("a:1", "decommissioning"), ("a:1", "down"), ("b:1", "up")];
        assert!(said(&again, 2, 0).unwrap().contains("earlier store"));
        let begun = [("a:1", "decommissioning"), ("b:1", "up")];
        assert!(said(&begun, 1, 0).unwrap().contains("earlier store"));
    }
}

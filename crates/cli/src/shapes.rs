//! The JSON that scripts rely on. Adding a field is fine; renaming or removing one is not.

use bytes::Bytes;
use comfy_table::Table;
use cribwork_proto::cribwork::admin;
use cribwork_types::key;
use serde::Serialize;

use crate::output::table;
use crate::parse::hex;

/// `init`.
#[derive(Debug, Serialize)]
pub(crate) struct Created {
    cluster_id: u64,
    stores: u32,
    ranges: u32,
}

impl From<admin::InitResponse> for Created {
    fn from(made: admin::InitResponse) -> Self {
        Self { cluster_id: made.cluster_id, stores: made.stores, ranges: made.ranges }
    }
}

/// `status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    cluster_id: u64,
    nodes_up: u32,
    nodes_down: u32,
    ranges: u64,
    under_replicated: u64,
    leaderless: u64,
    operators: u64,
    tso_physical_ms: u64,
    placement_stores: Vec<u64>,
    placement_leader: u64,
}

impl From<admin::StatusResponse> for Status {
    fn from(status: admin::StatusResponse) -> Self {
        Self {
            cluster_id: status.cluster_id,
            nodes_up: status.nodes_up,
            nodes_down: status.nodes_down,
            ranges: status.ranges,
            under_replicated: status.under_replicated,
            leaderless: status.leaderless,
            operators: status.operators,
            tso_physical_ms: status.tso_physical_ms,
            placement_stores: status.placement_stores,
            placement_leader: status.placement_leader,
        }
    }
}

/// A row of `nodes`.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    store: u64,
    address: String,
    http: String,
    zone: String,
    state: String,
    leaders: u64,
    replicas: u64,
    used_bytes: u64,
    capacity_bytes: u64,
}

impl From<admin::NodeInfo> for Node {
    fn from(node: admin::NodeInfo) -> Self {
        Self {
            store: node.store,
            address: node.address,
            http: node.http,
            zone: node.zone,
            state: node.state,
            leaders: node.leaders,
            replicas: node.replicas,
            used_bytes: node.used_bytes,
            capacity_bytes: node.capacity_bytes,
        }
    }
}

#[derive(Debug, Serialize)]
struct Replica {
    id: u64,
    store: u64,
    role: String,
}

/// A row of `ranges`. Bounds are as stored (encoded), in hexadecimal; an empty end means "no bound".
#[derive(Debug, Serialize)]
pub(crate) struct Range {
    id: u64,
    start_hex: String,
    end_hex: String,
    conf_ver: u64,
    version: u64,
    /// 0 if there is none.
    leader_store: u64,
    replicas: Vec<Replica>,
    size_bytes: u64,
    state: String,
    /// The bounds for people.
    #[serde(skip)]
    plain: (String, String),
}

impl From<admin::RangeInfo> for Range {
    fn from(range: admin::RangeInfo) -> Self {
        let replica = |replica: admin::ReplicaInfo| Replica {
            id: replica.id,
            store: replica.store,
            role: replica.role,
        };
        Self {
            id: range.id,
            start_hex: hex(&range.start),
            end_hex: hex(&range.end),
            conf_ver: range.conf_ver,
            version: range.version,
            leader_store: range.leader_store,
            replicas: range.replicas.into_iter().map(replica).collect(),
            size_bytes: range.size_bytes,
            state: range.state,
            plain: (plain_bound(&range.start, "-inf"), plain_bound(&range.end, "+inf")),
        }
    }
}

fn plain_bound(bound: &[u8], empty: &str) -> String {
    if bound.is_empty() {
        return empty.to_owned();
    }
    match key::decode(bound) {
        Ok(plain) => plain.escape_ascii().to_string(),
        Err(_) => format!("0x{}", hex(bound)),
    }
}

/// `split`.
#[derive(Debug, Serialize)]
pub(crate) struct Split {
    left: Option<Range>,
    right: Option<Range>,
}

impl From<admin::SplitResponse> for Split {
    fn from(split: admin::SplitResponse) -> Self {
        Self { left: split.left.map(Range::from), right: split.right.map(Range::from) }
    }
}

impl Split {
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.left.iter().chain(&self.right)
    }
}

/// `transfer-leader`.
#[derive(Debug, Serialize)]
pub(crate) struct Transferred {
    pub(crate) range: u64,
    pub(crate) store: u64,
}

/// A row of `config`.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    key: String,
    value: String,
    meaning: String,
}

impl From<admin::Setting> for Setting {
    fn from(setting: admin::Setting) -> Self {
        Self { key: setting.key, value: setting.value, meaning: setting.meaning }
    }
}

pub(crate) fn settings_table(settings: &Vec<Setting>) -> Table {
    let mut rows = table(["KEY", "VALUE", "MEANING"]);
    for setting in settings {
        rows.add_row(vec![setting.key.clone(), setting.value.clone(), setting.meaning.clone()]);
    }
    rows
}

/// A key and its value; the texts are absent (null) if the bytes are not UTF-8.
#[derive(Debug, Serialize)]
pub(crate) struct Pair {
    key: Option<String>,
    value: Option<String>,
    key_hex: String,
    value_hex: String,
    #[serde(skip)]
    plain: (String, String),
}

impl Pair {
    pub(crate) fn new((key, value): (Bytes, Bytes)) -> Self {
        let text = |bytes: &Bytes| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let plain = |bytes: &Bytes| text(bytes).unwrap_or_else(|| bytes.escape_ascii().to_string());
        Self {
            plain: (plain(&key), plain(&value)),
            key_hex: hex(&key),
            value_hex: hex(&value),
            key: text(&key),
            value: text(&value),
        }
    }
}

/// What a write says, in JSON only.
#[derive(Debug, Serialize)]
pub(crate) struct Acknowledged {
    pub(crate) acknowledged: bool,
}

pub(crate) fn nodes_table(nodes: &Vec<Node>) -> Table {
    let mut rows =
        table(["STORE", "ADDRESS", "HTTP", "ZONE", "STATE", "LEADERS", "REPLICAS", "USED", "OF"]);
    for node in nodes {
        rows.add_row(vec![
            node.store.to_string(),
            node.address.clone(),
            node.http.clone(),
            node.zone.clone(),
            node.state.clone(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            size(node.used_bytes),
            size(node.capacity_bytes),
        ]);
    }
    rows
}

pub(crate) fn ranges_table<'a>(ranges: impl IntoIterator<Item = &'a Range>) -> Table {
    let mut rows = table(["RANGE", "START", "END", "EPOCH", "LEADER", "REPLICAS", "SIZE", "STATE"]);
    for range in ranges {
        let leader = match range.leader_store {
            0 => "-".to_owned(),
            store => store.to_string(),
        };
        let stores: Vec<_> =
            range.replicas.iter().map(|replica| replica.store.to_string()).collect();
        rows.add_row(vec![
            range.id.to_string(),
            range.plain.0.clone(),
            range.plain.1.clone(),
            format!("{}:{}", range.conf_ver, range.version),
            leader,
            stores.join(","),
            size(range.size_bytes),
            range.state.clone(),
        ]);
    }
    rows
}

pub(crate) fn pairs_table(pairs: &Vec<Pair>) -> Table {
    let mut rows = table(["KEY", "VALUE"]);
    for pair in pairs {
        rows.add_row(vec![pair.plain.0.clone(), pair.plain.1.clone()]);
    }
    rows
}

/// A size for people, in the largest unit that leaves a whole part.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1}{name}", bytes as f64 / unit as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    fn range() -> admin::RangeInfo {
        admin::RangeInfo {
            id: 7,
            start: key::encode(b"a").into(),
            end: Bytes::new(),
            conf_ver: 1,
            version: 2,
            leader_store: 3,
            replicas: vec![admin::ReplicaInfo { id: 9, store: 3, role: "voter".to_owned() }],
            size_bytes: 4096,
            state: "ok".to_owned(),
        }
    }

    #[test]
    fn status_has_the_documented_shape() {
        let status = admin::StatusResponse {
            cluster_id: 5,
            nodes_up: 3,
            placement_stores: vec![1, 2],
            ..Default::default()
        };
        assert_eq!(
            json(&Status::from(status)),
            r#"{"cluster_id":5,"nodes_up":3,"nodes_down":0,"ranges":0,"under_replicated":0,"leaderless":0,"operators":0,"tso_physical_ms":0,"placement_stores":[1,2],"placement_leader":0}"#
        );
    }

    #[test]
    fn nodes_have_the_documented_shape() {
        let node = admin::NodeInfo { store: 1, state: "up".to_owned(), ..Default::default() };
        assert_eq!(
            json(&Node::from(node)),
            r#"{"store":1,"address":"","http":"","zone":"","state":"up","leaders":0,"replicas":0,"used_bytes":0,"capacity_bytes":0}"#
        );
    }

    #[test]
    fn ranges_have_the_documented_shape() {
        assert_eq!(
            json(&Range::from(range())),
            r#"{"id":7,"start_hex":"6100000000000000f8","end_hex":"","conf_ver":1,"version":2,"leader_store":3,"replicas":[{"id":9,"store":3,"role":"voter"}],"size_bytes":4096,"state":"ok"}"#
        );
        let row = ranges_table(&[Range::from(range())]).trim_fmt();
        let cells: Vec<_> = row.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["7", "a", "+inf", "1:2", "3", "3", "4.0KiB", "ok"]);
    }

    #[test]
    fn pairs_are_text_and_bytes() {
        let pair = Pair::new((Bytes::from_static(b"k"), Bytes::from_static(b"\xFF")));
        assert_eq!(json(&pair), r#"{"key":"k","value":null,"key_hex":"6b","value_hex":"ff"}"#);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!([size(0), size(1023), size(1536)], ["0B", "1023B", "1.5KiB"]);
    }
}

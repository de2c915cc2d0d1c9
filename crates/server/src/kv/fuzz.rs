//! Hostile requests: every command of the batch stream, with fields changed at random, served by a node
//! over real Raft groups.

use std::cell::RefCell;
use std::time::Duration;

use cribwork_fuzz::{Shape, target};
use cribwork_proto::kvrpcpb::*;
use cribwork_proto::tikvpb::batch_commands_request::{Request, request::Cmd};
use prost::Message;
use tokio::time::timeout;

use crate::kv::batch::Starter;
use crate::kv::testing::{LOW, Node};

/// How long one command may take: a command that waits for ever is a finding as well.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Commands after which a node is replaced, so that what they wrote does not pile up.
const COMMANDS_PER_NODE: usize = 2_000;

macro_rules! with_context {
    ($cmd:expr, $context:expr, $($kind:ident)*) => {
        match $cmd {
            $(Cmd::$kind(request) => request.context = $context,)*
            _ => {}
        }
    };
}

/// Lets a command pass the first checks, which random bytes never do.
fn aim(cmd: &mut Cmd, node: &Node) {
    with_context!(cmd, node.context(LOW),
        Get BatchGet Scan Prewrite Commit Cleanup BatchRollback CheckTxnStatus TxnHeartBeat ScanLock
        ResolveLock DeleteRange RawGet RawBatchGet RawScan RawBatchScan RawPut RawBatchPut RawDelete
        RawBatchDelete RawDeleteRange);
}

fn seeds() -> Vec<Vec<u8>> {
    let bytes = |text: &'static str| bytes::Bytes::from_static(text.as_bytes());
    let (a, b) = (bytes("a"), bytes("b"));
    let put = Mutation { key: a.clone(), value: bytes("v"), ..Default::default() };
    let pair = KvPair { key: a.clone(), value: bytes("v"), ..Default::default() };
    let range = KeyRange { start_key: a.clone(), end_key: b.clone() };
    let keys = vec![a.clone(), b.clone()];
    let (key, start_key, end_key) = (a.clone(), a.clone(), b.clone());
    let (version, limit) = (20 << 18, 10);
    let start_version = 10 << 18;
    macro_rules! cmds {
        ($($kind:ident($request:ident { $($fields:tt)* });)*) => {
            vec![$(Cmd::$kind($request { $($fields)*, ..Default::default() })),*]
        };
    }
    let (start, end, many) = (start_key.clone(), end_key.clone(), keys.clone());
    let cmds = cmds! {
        Get(GetRequest { key: key.clone(), version });
        BatchGet(BatchGetRequest { keys: many.clone(), version });
        Scan(ScanRequest { start_key: start.clone(), end_key: end.clone(), limit, version });
        Prewrite(PrewriteRequest {
            mutations: vec![put], primary_lock: key.clone(), start_version, lock_ttl: 3000
        });
        Commit(CommitRequest { start_version, commit_version: 15 << 18, keys: vec![key.clone()] });
        Cleanup(CleanupRequest { key: key.clone(), start_version });
        BatchRollback(BatchRollbackRequest { start_version, keys: many.clone() });
        CheckTxnStatus(CheckTxnStatusRequest {
            primary_key: key.clone(), lock_ts: start_version, current_ts: version,
            caller_start_ts: version, rollback_if_not_exist: true
        });
        TxnHeartBeat(TxnHeartBeatRequest {
            primary_lock: key.clone(), start_version, advise_lock_ttl: 9000
        });
        ScanLock(ScanLockRequest { max_version: version, start_key: start.clone(), limit });
        ResolveLock(ResolveLockRequest {
            start_version, commit_version: 15 << 18, keys: many.clone()
        });
        RawGet(RawGetRequest { key: key.clone() });
        RawBatchGet(RawBatchGetRequest { keys: many.clone() });
        RawScan(RawScanRequest { start_key: start.clone(), end_key: end.clone(), limit });
        RawBatchScan(RawBatchScanRequest { ranges: vec![range; 2], each_limit: 10, reverse: true });
        RawPut(RawPutRequest { key: key.clone(), value: b.clone(), ttl: 9 });
        RawBatchPut(RawBatchPutRequest { pairs: vec![pair], ttls: vec![1] });
        RawDelete(RawDeleteRequest { key: key.clone() });
        RawBatchDelete(RawBatchDeleteRequest { keys: many.clone() });
        RawDeleteRange(RawDeleteRangeRequest { start_key: start.clone(), end_key: end.clone() });
        DeleteRange(DeleteRangeRequest { start_key: start.clone(), end_key: end.clone() });
    };
    cmds.into_iter().map(|cmd| Request { cmd: Some(cmd) }.encode_to_vec()).collect()
}

/// Runs one command to its answer: the kind of answer, and how it was wrong if it was.
async fn answer(node: &Node, cmd: Cmd) -> String {
    let core = node.service.core.clone();
    let mut answered = None;
    let run = Starter::detached(&core, &cmd).start(cmd, |now| answered = Some(now));
    if let Some(run) = run {
        answered = Some(timeout(ANSWER_LIMIT, run).await.expect("an answer in time"));
    }
    let reply = format!("{:?}", answered.expect("an answer, now or later").reply);
    // Words only: numbers and keys would make every answer a new shape.
    let words = reply.chars().filter(|letter| letter.is_ascii_alphabetic() || *letter == ' ');
    words.take(300).collect()
}

#[test]
fn served_requests() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node: RefCell<Option<(Node, usize)>> = RefCell::default();
    target("served_requests").seeds(seeds()).memory_unbounded().run(|bytes| {
        let request = Request::decode(bytes::Bytes::copy_from_slice(bytes));
        let Ok(Request { cmd: Some(mut cmd) }) = request else { return Shape::of(&0) };
        let mut node = node.borrow_mut();
        if node.as_ref().is_none_or(|(_, served)| *served >= COMMANDS_PER_NODE) {
            *node = Some((tokio.block_on(Node::single()), 0));
        }
        let (node, served) = node.as_mut().expect("just made");
        *served += 1;
        // Sometimes as it came: the context is input, too.
        if bytes.len() % 8 != 0 {
            aim(&mut cmd, node);
        }
        Shape::of(&tokio.block_on(answer(node, cmd)))
    });
}

//! Features of TiKV that are not built: each is refused by its name, never half done.

use cribwork_proto::kvrpcpb::prewrite_request::PessimisticAction;
use cribwork_proto::kvrpcpb::*;
use tonic::{Code, Status};

use super::Wire;

#[test]
fn unsupported_features_name_themselves() {
    let mut wire = Wire::start(1, 1);
    let context = wire.context(b"a");
    let mut tikv = wire.tikv(1);
    let prewrite = |change: &dyn Fn(&mut PrewriteRequest)| {
        let mut request = PrewriteRequest {
            context: Some(context.clone()),
            mutations: vec![Mutation { key: "a".into(), value: "x".into(), ..Default::default() }],
            primary_lock: "a".into(),
            start_version: 10,
            lock_ttl: 3000,
            ..Default::default()
        };
        change(&mut request);
        request
    };
    let refusals: [(PrewriteRequest, &str); 6] = [
        (prewrite(&|it| it.try_one_pc = true), "try_one_pc"),
        (prewrite(&|it| it.use_async_commit = true), "use_async_commit"),
        (prewrite(&|it| it.for_update_ts = 11), "for_update_ts"),
        (
            prewrite(&|it| it.set_one_action(PessimisticAction::DoPessimisticCheck)),
            "pessimistic_actions",
        ),
        (prewrite(&|it| it.mutations[0].op = Op::PessimisticLock as i32), "PessimisticLock"),
        (prewrite(&|it| it.mutations[0].op = 99), "op 99"),
    ];
    for (request, name) in refusals {
        let answer = wire.ask(tikv.kv_prewrite(request)).unwrap().into_inner();
        let abort = &answer.errors[0].abort;
        assert!(abort.contains(name) && abort.contains("not supported"), "{name}: {answer:?}");
    }
    let get = |context: Context, need_commit_ts: bool| GetRequest {
        context: Some(context),
        key: "a".into(),
        version: 20,
        need_commit_ts,
    };
    let v2 = Context { api_version: ApiVersion::V2 as i32, ..context.clone() };
    let rc = Context { isolation_level: IsolationLevel::Rc as i32, ..context.clone() };
    for (request, name) in [
        (get(v2, false), "api_version"),
        (get(rc, false), "isolation level"),
        (get(context.clone(), true), "need_commit_ts"),
    ] {
        let answer = wire.ask(tikv.kv_get(request)).unwrap().into_inner();
        let abort = &answer.error.as_ref().expect("a refusal").abort;
        assert!(abort.contains(name) && abort.contains("not supported"), "{name}: {answer:?}");
    }
    let read = wire.ask(tikv.kv_get(get(context.clone(), false))).unwrap().into_inner();
    assert!(read.not_found && read.error.is_none(), "no refused prewrite left a lock: {read:?}");
    check_raw(&wire, &context);
    check_calls(&wire);
    wire.lives();
}

trait OneAction {
    fn set_one_action(&mut self, action: PessimisticAction);
}

impl OneAction for PrewriteRequest {
    fn set_one_action(&mut self, action: PessimisticAction) {
        self.pessimistic_actions = vec![action as i32];
    }
}

fn check_raw(wire: &Wire, context: &Context) {
    let mut tikv = wire.tikv(1);
    let put = RawPutRequest {
        context: Some(context.clone()),
        key: "a".into(),
        cf: "mine".into(),
        ..Default::default()
    };
    let answer = wire.ask(tikv.raw_put(put)).unwrap().into_inner();
    assert!(answer.error.contains("unknown cf \"mine\""), "{answer:?}");
    let request = RawCoprocessorRequest { context: Some(context.clone()), ..Default::default() };
    let answer = wire.ask(tikv.raw_coprocessor(request)).unwrap().into_inner();
    assert!(answer.error.contains("RawCoprocessor is not supported"), "{answer:?}");
}

fn check_calls(wire: &Wire) {
    let mut tikv = wire.tikv(1);
    let check = |refused: Option<Status>, name: &str| {
        let refused = refused.expect("a refusal");
        assert_eq!(refused.code(), Code::Unimplemented, "{name}: {refused}");
        assert!(refused.message().contains(name), "{refused}");
    };
    let refused = wire.ask(tikv.kv_pessimistic_lock(PessimisticLockRequest::default())).err();
    check(refused, "KvPessimisticLock");
    let refused = wire.ask(tikv.kv_pessimistic_rollback(PessimisticRollbackRequest::default()));
    check(refused.err(), "KVPessimisticRollback");
    let refused = wire.ask(tikv.kv_check_secondary_locks(CheckSecondaryLocksRequest::default()));
    check(refused.err(), "KvCheckSecondaryLocks");
    check(wire.ask(tikv.kv_gc(GcRequest::default())).err(), "KvGC");
}

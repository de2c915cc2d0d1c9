//! Runs `testdata/*.txt`: commands, `----`, what they answered, a blank line. With `UPDATE_EXPECT=1` the
//! answers are rewritten. Every command is evaluated and applied a second time and must change nothing
//! (but for a resolve with a limit).

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use cribwork_mvcc::memory_view::MemoryView;
use cribwork_mvcc::{
    AssertionLevel, CheckTxnStatusParams, KeySpan, Lock, LockKind, MvccError, PrewriteOutcome,
    PrewriteParams, ReadOptions, Reader, ResolveParams, ScanOptions, TxnStatus, check_txn_status,
    cleanup, commit, destroy_range, heartbeat, prewrite, resolve_locks, rollback, scan_locks,
};
use cribwork_types::{Cf, CodedError, Timestamp, WriteBatch, key};

use crate::script_text::{Args, show_info, show_items, show_store, show_ts, show_value};

type Answer = Result<(WriteBatch, String), MvccError>;

#[test]
fn scripts() {
    let own = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let directory = Path::new(&own).join("testdata");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let actual = run_file(&text);
        if update {
            std::fs::write(&path, &actual).unwrap();
        } else {
            assert_eq!(text, actual, "{} (UPDATE_EXPECT=1 rewrites it)", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no scripts found");
}

fn run_file(text: &str) -> String {
    let mut view = MemoryView::new();
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let (commands, has_answer) = match block.split_once("\n----") {
            Some((commands, _)) => (commands, true),
            None => (block, block.lines().any(|line| !line.starts_with('#'))),
        };
        if !has_answer {
            blocks.push(block.to_owned());
            continue;
        }
        let lines = commands.lines().filter(|line| !line.starts_with('#'));
        let answers: Vec<String> = lines.map(|line| run_line(&mut view, line)).collect();
        blocks.push(format!("{commands}\n----\n{}", answers.join("\n")));
    }
    blocks.join("\n\n") + "\n"
}

fn run_line(view: &mut MemoryView, line: &str) -> String {
    let args = Args::parse(line);
    match evaluate(view, &args) {
        Ok((batch, answer)) => {
            view.apply(&batch);
            let once = view.clone();
            // A limited call goes on where it stopped instead of repeating itself.
            if let Ok((again, _)) = evaluate(view, &args)
                && args.text("max").is_none()
            {
                view.apply(&again);
            }
            assert!(*view == once, "not idempotent: {line}");
            answer
        }
        Err(MvccError::Key(error)) => format!("{}: {error}", error.code()),
        Err(error) => panic!("{line}: {error}"),
    }
}

fn evaluate(view: &MemoryView, args: &Args) -> Answer {
    let start_ts = args.ts("start");
    let written = |batch: WriteBatch, answer: &str| {
        let nothing = if batch.is_empty() { " (nothing to write)" } else { "" };
        Ok((batch, format!("{answer}{nothing}")))
    };
    match &args.command[..] {
        "prewrite" => run_prewrite(view, args),
        "commit" => {
            let outcome = commit(view, &args.keys(), start_ts, args.ts("commit"))?;
            written(outcome.batch, &format!("committed at {}", show_ts(outcome.commit_ts)))
        }
        "rollback" => written(rollback(view, &args.keys(), start_ts)?, "rolled back"),
        "cleanup" => {
            let outcome = cleanup(view, &args.keys()[0], start_ts, args.ts("now"))?;
            match outcome.committed {
                Some(ts) => written(outcome.batch, &format!("committed at {}", show_ts(ts))),
                None => written(outcome.batch, "rolled back"),
            }
        }
        "status" => run_status(view, args),
        "heartbeat" => {
            let advise_ttl_ms = args.number("ttl", 0);
            let outcome = heartbeat(view, &args.keys()[0], start_ts, advise_ttl_ms)?;
            written(outcome.batch, &format!("ttl {}", outcome.ttl_ms))
        }
        "resolve" => run_resolve(view, args),
        "plant" => Ok(plant(args)),
        "destroy" => written(destroy_range(&KeySpan::of(&args.range())), "destroyed"),
        "dump" => Ok((WriteBatch::new(), show_store(view))),
        _ => Ok((WriteBatch::new(), run_read(view, args)?)),
    }
}

fn run_prewrite(view: &MemoryView, args: &Args) -> Answer {
    let params = PrewriteParams {
        mutations: args.mutations.clone(),
        primary: args.bytes("primary"),
        start_ts: args.ts("start"),
        lock_ttl_ms: args.number("ttl", 0),
        txn_size: args.number("size", 0),
        min_commit_ts: args.ts("min_commit"),
        assertion_level: match args.text("level") {
            Some("strict") => AssertionLevel::Strict,
            Some("fast") => AssertionLevel::Fast,
            _ => AssertionLevel::Off,
        },
        skip_constraint_check: args.has("skip_check"),
    };
    Ok(match prewrite(view, &params)? {
        PrewriteOutcome::Done { batch, min_commit_ts, committed } => {
            let mut answer = "locked".to_owned();
            if min_commit_ts != Timestamp::ZERO {
                answer += &format!(" min_commit={}", show_ts(min_commit_ts));
            }
            if let Some(ts) = committed {
                answer += &format!(" committed={}", show_ts(ts));
            }
            answer += if batch.is_empty() { " (nothing to write)" } else { "" };
            (batch, answer)
        }
        PrewriteOutcome::Refused(errors) => {
            let line = |error: &cribwork_mvcc::KeyError| format!("{}: {error}", error.code());
            (WriteBatch::new(), errors.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    })
}

fn run_status(view: &MemoryView, args: &Args) -> Answer {
    let params = CheckTxnStatusParams {
        primary: args.keys()[0].clone(),
        lock_ts: args.ts("start"),
        caller_start_ts: args.ts("caller"),
        current_ts: args.ts("now"),
        rollback_if_not_exist: args.has("rollback_if_not_exist"),
        force_sync_commit: args.has("force_sync_commit"),
        resolving_pessimistic_lock: args.has("resolving_pessimistic_lock"),
        verify_is_primary: !args.has("any_key"),
    };
    let outcome = check_txn_status(view, &params)?;
    let status = match outcome.status {
        TxnStatus::Committed { commit_ts } => format!("committed at {}", show_ts(commit_ts)),
        TxnStatus::RolledBack => "rolled back".to_owned(),
        TxnStatus::Alive(info) => format!("alive: {}", show_info(&info)),
    };
    Ok((outcome.batch, format!("{status}, {:?}", outcome.action)))
}

fn run_resolve(view: &MemoryView, args: &Args) -> Answer {
    let commit_ts = args.ts("commit");
    let fate = (commit_ts != Timestamp::ZERO).then_some(commit_ts);
    let keys: Option<Vec<Bytes>> =
        args.text("keys").map(|list| list.split(',').map(|key| key.to_owned().into()).collect());
    let params = ResolveParams {
        span: &KeySpan::of(&args.range()),
        txns: &args.ts_list("txns").into_iter().map(|ts| (ts, fate)).collect::<BTreeMap<_, _>>(),
        keys: keys.as_deref(),
        locks_max: args.number("max", 256) as usize,
        resume: args.text("resume").map(|key| Bytes::from(key::encode(key.as_bytes()))),
    };
    let outcome = resolve_locks(view, &params)?;
    let mut answer = format!("resolved {}", outcome.resolved);
    if let Some(next) = outcome.resume {
        answer += &format!(", more from {}", key::decode(&next)?.escape_ascii());
    }
    Ok((outcome.batch, answer))
}

/// A lock of a kind that no command here writes yet.
fn plant(args: &Args) -> (WriteBatch, String) {
    let lock = Lock {
        kind: if args.has("pessimistic") { LockKind::Pessimistic } else { LockKind::Put },
        primary: args.bytes("primary"),
        start_ts: args.ts("start"),
        ttl_ms: args.number("ttl", 0),
        short_value: (!args.has("pessimistic")).then(|| args.bytes("value")),
        txn_size: 0,
        for_update_ts: args.ts("start"),
        min_commit_ts: args.ts("min_commit"),
        use_async_commit: args.has("async"),
        secondaries: Vec::new(),
    };
    let mut batch = WriteBatch::new();
    batch.put(Cf::Lock, key::encode(&args.keys()[0]), lock.encode());
    (batch, "planted".into())
}

fn run_read(view: &MemoryView, args: &Args) -> Result<String, MvccError> {
    let reader = Reader::new(view);
    let (ts, limit) = (args.ts("ts"), args.number("limit", 100) as usize);
    let options = ReadOptions {
        resolved_locks: args.ts_list("resolved"),
        committed_locks: args.ts_list("committed"),
    };
    Ok(match &args.command[..] {
        "get" => match reader.get(&args.keys()[0], ts, &options)? {
            Some(value) => show_value(&value),
            None => "none".into(),
        },
        "batch_get" => show_items(&reader.batch_get(&args.keys(), ts, &options)?),
        "scan" => {
            let (key_only, reverse) = (args.has("key_only"), args.has("reverse"));
            let scan = ScanOptions { ts, limit, key_only, reverse };
            show_items(&reader.scan(&KeySpan::of(&args.range()), &scan, &options)?)
        }
        "locks" => {
            let locks = scan_locks(view, &KeySpan::of(&args.range()), args.ts("max"), limit)?;
            let lines: Vec<String> = locks.iter().map(show_info).collect();
            if lines.is_empty() { "none".into() } else { lines.join("\n") }
        }
        other => panic!("unknown command {other}"),
    })
}

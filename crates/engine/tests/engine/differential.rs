//! Random operations on both engines at once: whatever one answers, the other must.

use std::sync::Arc;

use crate::support::{RocksDir, rows};
use bytes::Bytes;
use cribwork_engine::{Cursor, Engine, EngineSnapshot, MemoryEngine};
use cribwork_types::{Cf, KeyRange, Mutation, WriteBatch};
use proptest::collection::vec;
use proptest::prelude::*;

/// Two families, so that mixing them up shows; each case uses few keys, so that they meet.
const FAMILIES: [Cf; 2] = [Cf::Raw, Cf::Lock];
const SNAPSHOTS_MAX: usize = 4;

#[derive(Clone, Debug)]
enum Move {
    First,
    Last,
    Seek(Bytes),
    SeekForPrev(Bytes),
    Next,
    Prev,
}

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<Mutation>),
    TakeSnapshot,
    DropSnapshot(prop::sample::Index),
    Get(Cf, Bytes, prop::sample::Index),
    Walk(Cf, KeyRange, Vec<Move>, prop::sample::Index),
    Flush,
}

fn cf() -> impl Strategy<Value = Cf> {
    prop::sample::select(&FAMILIES[..])
}

/// Short keys over three bytes, the empty one included: 0xFF and 0x00 are where bounds go wrong.
fn key() -> impl Strategy<Value = Bytes> {
    vec(prop::sample::select(&[0x00, b'm', 0xFF][..]), 0..4).prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), key()).prop_map(|(start, end)| KeyRange { start, end })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        6 => (cf(), key(), any::<u8>())
            .prop_map(|(cf, key, value)| Mutation::Put { cf, key, value: vec![value].into() }),
        2 => (cf(), key()).prop_map(|(cf, key)| Mutation::Delete { cf, key }),
        1 => (cf(), range()).prop_map(|(cf, range)| Mutation::DeleteRange { cf, range }),
    ]
}

fn step() -> impl Strategy<Value = Move> {
    prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => key().prop_map(Move::Seek),
        2 => key().prop_map(Move::SeekForPrev),
        4 => Just(Move::Next),
        4 => Just(Move::Prev),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => vec(mutation(), 1..8).prop_map(Op::Write),
        3 => Just(Op::TakeSnapshot),
        2 => any::<prop::sample::Index>().prop_map(Op::DropSnapshot),
        3 => (cf(), key(), any::<prop::sample::Index>()).prop_map(|(c, k, i)| Op::Get(c, k, i)),
        6 => (cf(), range(), vec(step(), 1..16), any::<prop::sample::Index>())
            .prop_map(|(cf, range, moves, at)| Op::Walk(cf, range, moves, at)),
        1 => Just(Op::Flush),
    ]
}

fn take(cursor: &mut dyn Cursor, step: &Move) -> Option<(Bytes, Bytes)> {
    let landed = match step {
        Move::First => cursor.seek_to_first(),
        Move::Last => cursor.seek_to_last(),
        Move::Seek(key) => cursor.seek(key),
        Move::SeekForPrev(key) => cursor.seek_for_prev(key),
        Move::Next => cursor.next(),
        Move::Prev => cursor.prev(),
    };
    let copy = Bytes::copy_from_slice;
    landed.unwrap().then(|| (copy(cursor.key()), copy(cursor.value())))
}

/// The same view of both engines.
type Pair = (Arc<dyn EngineSnapshot>, Arc<dyn EngineSnapshot>);

fn pair(rocks: &dyn Engine, memory: &dyn Engine) -> Pair {
    (rocks.snapshot(), memory.snapshot())
}

fn compare(op: &Op, rocks: &dyn Engine, memory: &dyn Engine, snapshots: &mut Vec<Pair>) {
    // Index 0 is always the newest state.
    let view = |at: &prop::sample::Index, snapshots: &Vec<Pair>| match at.index(snapshots.len() + 1)
    {
        0 => pair(rocks, memory),
        at => snapshots[at - 1].clone(),
    };
    match op {
        Op::Write(mutations) => {
            let batch = WriteBatch { mutations: mutations.clone() };
            rocks.write(&batch).unwrap();
            memory.write(&batch).unwrap();
        }
        Op::TakeSnapshot if snapshots.len() < SNAPSHOTS_MAX => snapshots.push(pair(rocks, memory)),
        Op::TakeSnapshot => {}
        Op::DropSnapshot(at) if !snapshots.is_empty() => {
            snapshots.swap_remove(at.index(snapshots.len()));
        }
        Op::DropSnapshot(_) => {}
        Op::Get(cf, key, at) => {
            let (left, right) = view(at, snapshots);
            assert_eq!(left.get(*cf, key).unwrap(), right.get(*cf, key).unwrap());
            assert_eq!(rocks.get(*cf, key).unwrap(), memory.get(*cf, key).unwrap());
        }
        Op::Walk(cf, range, moves, at) => {
            let (left, right) = view(at, snapshots);
            let (mut left, mut right) = (left.cursor(*cf, range), right.cursor(*cf, range));
            for (number, step) in moves.iter().enumerate() {
                assert_eq!(take(&mut *left, step), take(&mut *right, step), "{number}: {step:?}");
            }
        }
        Op::Flush => {
            rocks.flush().unwrap();
            memory.flush().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_answer_alike(ops in vec(op(), 1..60)) {
        let dir = RocksDir::new();
        let memory = MemoryEngine::new();
        {
            let rocks = dir.open();
            let mut snapshots = Vec::new();
            for op in &ops {
                compare(op, &*rocks, &*memory, &mut snapshots);
            }
        }
        // A process that dies keeps what the kernel has: everything written.
        let reopened = dir.open();
        for cf in FAMILIES {
            prop_assert_eq!(rows(&*reopened, cf), rows(&*memory, cf));
        }
    }
}

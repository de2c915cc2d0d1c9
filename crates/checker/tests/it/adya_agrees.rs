//! A second opinion on list-append histories: the crate `adya`, another native take on Elle.
//!
//! Random histories, most of them with a mistake put in, get the same answer from both. Where the two
//! differ on purpose:
//!
//! * An element that nobody appended is a violation here; adya ignores it. No mistake of this test puts
//!   one in.
//! * Reads of a transaction of unknown outcome count here only if it is known to have committed. So
//!   adya is shown none of the others, and failed transactions without their reads.
//! * A history without any dependency is "unknown" to adya; here it passes, with the number of
//!   transactions it was judged by.
//! * A lost update needs the transactions of adya to be acknowledged; here they must have committed. The
//!   graph shows it to both once anybody reads.

use adya::{Opts, Valid, Workload};
use cribwork_checker::{History, Isolation, Op, Operation, Options, Outcome, Step, append};
use std::collections::BTreeSet;

use crate::rng::Rng;
use crate::store::{Load, simulate};

/// The history in Jepsen's format.
fn translate(history: &History) -> String {
    let seen: BTreeSet<(String, u64)> = lists(history, Outcome::Ok)
        .flat_map(|(key, elements)| elements.iter().map(move |&element| (key.clone(), element)))
        .collect();
    let mut events = Vec::new();
    for (index, operation, txn) in history.transactions() {
        let committed = txn.steps.iter().any(|step| match step {
            Step::Append { key, element } => seen.contains(&(key.to_string(), *element)),
            _ => false,
        });
        let shows = match operation.outcome {
            Outcome::Ok => true,
            Outcome::Unknown => committed,
            Outcome::Failed => false,
        };
        let kind = match operation.outcome {
            Outcome::Ok => "ok",
            Outcome::Failed => "fail",
            Outcome::Unknown => "info",
        };
        let line = |kind, shows| {
            let steps: Vec<String> = txn.steps.iter().map(|step| micro(step, shows)).collect();
            format!(r#"{{"type":"{kind}","process":{index},"value":[{}]}}"#, steps.join(","))
        };
        events.push((operation.invoke, 0, line("invoke", false)));
        events.push((operation.complete.unwrap(), 1, line(kind, shows)));
    }
    events.sort();
    events.into_iter().map(|(_, _, line)| line + "\n").collect()
}

fn lists(history: &History, outcome: Outcome) -> impl Iterator<Item = (String, &[u64])> {
    let of = history.transactions().filter(move |(_, operation, _)| operation.outcome == outcome);
    of.flat_map(|(_, _, txn)| &txn.steps).filter_map(|step| match step {
        Step::List { key, elements } => Some((key.to_string(), &elements[..])),
        _ => None,
    })
}

fn micro(step: &Step, shows: bool) -> String {
    match step {
        Step::Append { key, element } => format!(r#"["append","{key}",{element}]"#),
        Step::List { key, elements } if shows => format!(r#"["r","{key}",{elements:?}]"#),
        Step::List { key, .. } => format!(r#"["r","{key}",null]"#),
        _ => unreachable!("lists only"),
    }
}

fn adya_says(history: &History, isolation: Isolation, strict: bool) -> (bool, Vec<String>) {
    let model = match (isolation, strict) {
        (Isolation::Snapshot, false) => "snapshot-isolation",
        (Isolation::Snapshot, true) => "strong-snapshot-isolation",
        (Isolation::Serializable, false) => "serializable",
        (Isolation::Serializable, true) => "strict-serializable",
    };
    let parsed = adya::History::from_json(&translate(history)).unwrap();
    let options = Opts { models: vec![model.to_owned()], ..Opts::default() };
    let report = adya::check(&parsed, Workload::ListAppend, &options);
    if report.valid == Valid::Unknown {
        assert_eq!(report.anomaly_types, ["empty-transaction-graph"]);
    }
    (report.valid != Valid::False, report.anomaly_types)
}

/// Puts one mistake in.
fn damage(history: &History, rng: &mut Rng) -> History {
    let mut operations = history.operations().to_vec();
    let of_lists = |operation: &Operation| match &operation.op {
        Op::Txn(txn) => txn.steps.iter().any(|step| matches!(step, Step::List { .. })),
        _ => false,
    };
    let readers: Vec<usize> = (0..operations.len())
        .filter(|&at| operations[at].is_ok() && of_lists(&operations[at]))
        .collect();
    let Some(at) = rng.pick(&readers) else { return history.clone() };
    let longest: Vec<(String, Vec<u64>)> =
        lists(history, Outcome::Ok).map(|(key, elements)| (key, elements.to_vec())).collect();
    match rng.below(8) {
        0 => operations[at].outcome = Outcome::Failed,
        1 => {
            let at = rng.below(operations.len());
            operations[at].outcome = Outcome::Ok;
        }
        2 => {
            let length = operations[at].complete.unwrap() - operations[at].invoke;
            let invoke = rng.below(operations.len() * 6) as u64;
            // Halves of a tick exist only here, so that no two events are at one instant.
            operations.iter_mut().for_each(|operation| {
                operation.invoke *= 2;
                operation.complete = operation.complete.map(|complete| complete * 2);
            });
            operations[at].invoke = invoke * 2 + 1;
            operations[at].complete = Some((invoke + length) * 2 + 1);
        }
        _ => {
            let Op::Txn(txn) = &mut operations[at].op else { unreachable!() };
            let reads: Vec<usize> = (0..txn.steps.len())
                .filter(|&step| matches!(txn.steps[step], Step::List { .. }))
                .collect();
            let step = rng.pick(&reads).unwrap();
            let Step::List { key, elements } = &mut txn.steps[step] else { unreachable!() };
            let others: Vec<Vec<u64>> = longest
                .iter()
                .filter(|(other, _)| *other == key.to_string())
                .map(|(_, elements)| elements.clone())
                .collect();
            damage_list(elements, &others, rng);
        }
    }
    operations.try_into().unwrap()
}

fn damage_list(elements: &mut Vec<u64>, others: &[Vec<u64>], rng: &mut Rng) {
    match rng.below(5) {
        0 => {
            elements.pop();
        }
        1 if elements.len() > 1 => {
            let at = rng.below(elements.len() - 1);
            elements.swap(at, at + 1);
        }
        2 if !elements.is_empty() => {
            let at = rng.below(elements.len());
            elements.insert(at, elements[at]);
        }
        3 if !elements.is_empty() => {
            let at = rng.below(elements.len());
            elements.remove(at);
        }
        _ => *elements = rng.pick(others).unwrap(),
    }
}

#[test]
fn both_say_the_same() {
    let mut counts = [0; 2];
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let isolation = if rng.percent(50) { Isolation::Snapshot } else { Isolation::Serializable };
        let load = Load {
            transactions: 3 + rng.below(20),
            keys: 1 + rng.below(3),
            clients: 1 + rng.below(5),
            isolation: if rng.percent(70) { isolation } else { Isolation::Snapshot },
            unknown_percent: 10,
            registers: false,
        };
        let (mut history, _) = simulate(seed, load);
        for _ in 0..rng.below(3) {
            history = damage(&history, &mut rng);
        }
        let history = promise(&history, isolation);
        for strict in [false, true] {
            let ours = append(&history, &Options { strict, ..Options::default() });
            let (theirs, types) = adya_says(&history, isolation, strict);
            let text = || translate(&history);
            assert_eq!(ours.ok(), theirs, "{seed} {strict}: {ours:#?} {types:?}\n{}", text());
            counts[usize::from(ours.ok())] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > 250), "{counts:?}");
}

fn promise(history: &History, promised: Isolation) -> History {
    let mut operations = history.operations().to_vec();
    for operation in &mut operations {
        if let Op::Txn(txn) = &mut operation.op {
            txn.isolation = promised;
        }
    }
    operations.try_into().unwrap()
}

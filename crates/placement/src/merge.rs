//! Merging small neighbours: a range that was emptied, or was split for a load that is gone, costs more
//! than what it holds. The left one of a pair absorbs the right one.
//!
//! Every replica of both has to take part, so a pair is merged only while all its stores are in service.
//! Pairs that lie on the same stores come first: for the others, replicas have to move before.
//!
//! **It settles.** A pair is merged only if both together stay below a bound that is far from the size
//! at which ranges are split, and only if neither has changed for a while, so what was split is not put
//! together again, nor the other way round. Each merge leaves one range less. The moves before it are
//! part of its operator; other schedulers leave both ranges alone until it ends, and loads are counted
//! as if it were done.

use cribwork_types::{RangeDescriptor, ReplicaRole, key};

use crate::replicas::{Books, mib, seconds};
use crate::{ClusterView, Decision, Operator, PlacementPolicy, RangeView, repair, zones};

/// The name under which merging signs its decisions.
pub const MERGE: &str = "merge";

/// Two ranges, of which the right one begins where the left one ends.
#[derive(Clone, Copy)]
struct Pair<'a> {
    left: &'a RangeView,
    right: &'a RangeView,
}

impl<'a> Pair<'a> {
    fn new(left: &'a RangeView, right: &'a RangeView) -> Option<Self> {
        are_neighbours(&left.descriptor, &right.descriptor).then_some(Self { left, right })
    }

    fn ranges(self) -> [&'a RangeView; 2] {
        [self.left, self.right]
    }

    fn size_bytes(self) -> u64 {
        self.left.size_bytes.saturating_add(self.right.size_bytes)
    }

    fn is_small(self, policy: &PlacementPolicy) -> bool {
        self.size_bytes() < policy.merge_below_bytes
    }

    /// Replicas of the right one that have to move, because of where the left one lies.
    fn moves(self) -> usize {
        let (left, right) = (&self.left.descriptor, &self.right.descriptor);
        let votes = |range: &RangeDescriptor, store| {
            range.replica_on(store).is_some_and(|replica| replica.role.votes())
        };
        let missing = left.voters().filter(|voter| !votes(right, voter.store)).count();
        let extra = right.voters().filter(|voter| !votes(left, voter.store)).count();
        missing.max(extra)
    }

    fn operator(self) -> Operator {
        let [into, range] = self.ranges().map(|range| range.descriptor.id);
        Operator::Merge { range, into }
    }
}

/// True if `right` begins where `left` ends.
pub(crate) fn are_neighbours(left: &RangeDescriptor, right: &RangeDescriptor) -> bool {
    // An empty end is the end of all keys, an empty start their beginning.
    !left.span.end.is_empty() && left.span.end == right.span.start
}

/// True for the empty range above all user keys. It holds the place of keys that nobody can write, and
/// is never merged.
pub(crate) fn is_top(range: &RangeDescriptor) -> bool {
    range.span.start == key::top_bound()
}

/// Plans merges of small neighbours, as many as there is room for.
pub(crate) fn schedule(view: &ClusterView, policy: &PlacementPolicy) -> Vec<Decision> {
    let room = room(view, policy);
    if policy.merge_below_bytes == 0 || room == 0 {
        return Vec::new();
    }
    // Most pairs of a large cluster are too large, often all: this costs a sort and no more.
    let mut pairs = pairs(view);
    pairs.retain(|pair| pair.is_small(policy));
    if pairs.is_empty() {
        return Vec::new();
    }
    let mut books = Books::new(view, policy);
    pairs.retain(|pair| refusal(&books, *pair).is_none());
    pairs.sort_by_key(|pair| (pair.moves() > 0, pair.size_bytes(), pair.left.descriptor.id));
    let mut decisions = Vec::new();
    for pair in pairs {
        if decisions.len() == room {
            break;
        }
        // It may be part of a pair that came before.
        if pair.ranges().iter().any(|range| books.is_busy(range.descriptor.id)) {
            continue;
        }
        books.note(&pair.operator(), Some(pair.right));
        decisions.push(decision(policy, pair, pair.right));
    }
    decisions
}

/// How many more merges may begin.
fn room(view: &ClusterView, policy: &PlacementPolicy) -> usize {
    let operators = view.operators.iter();
    let merges = operators.filter(|operator| matches!(operator, Operator::Merge { .. })).count();
    policy.merges_max.saturating_sub(merges)
}

/// All neighbours, in key order.
fn pairs(view: &ClusterView) -> Vec<Pair<'_>> {
    let mut ranges: Vec<&RangeView> = view.ranges.iter().collect();
    ranges.sort_unstable_by(|a, b| a.descriptor.span.start.cmp(&b.descriptor.span.start));
    let pairs = ranges.iter().zip(ranges.iter().skip(1));
    pairs.filter_map(|(left, right)| Pair::new(left, right)).collect()
}

/// Merges `pair`, in words about `subject`, which is one of it.
fn decision(policy: &PlacementPolicy, pair: Pair<'_>, subject: &RangeView) -> Decision {
    let [left, right] = pair.ranges().map(|range| range.descriptor.id);
    let id = subject.descriptor.id;
    let what = match id == right {
        true => format!("goes into range {left}"),
        false => format!("absorbs range {right}"),
    };
    let way = match pair.moves() {
        0 => "they lie on the same stores".to_owned(),
        moves => format!("replicas of range {right} to be moved first: {moves}"),
    };
    let [of_left, of_right] = pair.ranges().map(|range| mib(range.size_bytes));
    let below = mib(policy.merge_below_bytes);
    Decision {
        subject: id,
        scheduler: MERGE,
        operator: Some(pair.operator()),
        chosen: None,
        candidates: Vec::new(),
        summary: format!(
            "range {id}: {what}: {of_left} and {of_right} are together less than {below}; {way}"
        ),
    }
}

/// Why a pair is not merged now, if so.
fn refusal(books: &Books<'_>, pair: Pair<'_>) -> Option<String> {
    let policy = books.policy;
    if is_top(&pair.right.descriptor) {
        return Some("the empty range above all user keys stays".to_owned());
    }
    if !pair.is_small(policy) {
        let (size, below) = (mib(pair.size_bytes()), mib(policy.merge_below_bytes));
        return Some(format!(
            "together they hold {size}, and only what is below {below} is merged"
        ));
    }
    for range in pair.ranges() {
        if let Some(why) = obstacle(books, range) {
            return Some(format!("range {}: {why}", range.descriptor.id));
        }
    }
    let [left, right] = pair.ranges().map(|range| range.descriptor.id);
    // One of the right one may be what an earlier attempt has left; this one takes it up, or drops it.
    let members = &pair.left.descriptor.replicas;
    if let Some(learner) = members.iter().find(|it| it.role == ReplicaRole::Learner) {
        return Some(format!("range {left}: its replica on store {} has no vote", learner.store));
    }
    // Nothing that is done for the sake of order makes the zones of a range worse.
    let [crowding, before] = pair.ranges().map(|range| zones::crowding(books, range));
    (crowding > before)
        .then(|| format!("range {left} has more replicas in a zone than range {right}"))
}

/// What keeps a range from being merged, whatever with.
fn obstacle(books: &Books<'_>, range: &RangeView) -> Option<String> {
    if let Some(why) = books.blocked(range) {
        return Some(why);
    }
    if !repair::is_healthy(books, range) {
        return Some("it needs repair first".to_owned());
    }
    let (age, least) = (range.unchanged_ms, books.policy.merge_unchanged_ms);
    if age < least {
        let (age, least) = (seconds(age), seconds(least));
        return Some(format!("it changed {age} ago, and is left alone for {least}"));
    }
    for member in &range.descriptor.replicas {
        let store = member.store;
        if !books.view.store(store).is_some_and(|it| it.may_lead(books.policy)) {
            return Some(format!("store {store}, which holds a replica, is not in service"));
        }
    }
    None
}

/// What merging does about a range, or why nothing: with its left neighbour and with its right one.
pub(crate) fn look(books: &Books<'_>, range: &RangeView) -> Decision {
    let id = range.descriptor.id;
    let nothing = |why: &str| Decision::nothing(id, MERGE, Vec::new(), why);
    if books.policy.merge_below_bytes == 0 {
        return nothing("merging is off");
    }
    let others = || books.view.ranges.iter();
    let left = others().find_map(|left| Pair::new(left, range));
    let right = others().find_map(|right| Pair::new(range, right));
    let pairs: Vec<Pair<'_>> = [left, right].into_iter().flatten().collect();
    if pairs.is_empty() {
        return nothing("it has no neighbour");
    }
    let calm = repair::schedule(&mut books.clone()).is_empty();
    let planned = if calm { schedule(books.view, books.policy) } else { Vec::new() };
    let is_planned = |pair: &&Pair<'_>| {
        let operator = Some(pair.operator());
        planned.iter().any(|decision| decision.operator == operator)
    };
    if let Some(pair) = pairs.iter().find(is_planned) {
        return decision(books.policy, *pair, range);
    }
    let first = match (calm, room(books.view, books.policy)) {
        (false, _) => "repairs come first",
        (true, 0) => "as many merges as allowed are in flight",
        (true, _) => "other merges come first",
    };
    let reasons = pairs.iter().map(|pair| {
        let [left, right] = pair.ranges().map(|range| range.descriptor.id);
        let other = if left == id { right } else { left };
        let why = refusal(books, *pair).unwrap_or_else(|| first.to_owned());
        format!("not with range {other}: {why}")
    });
    nothing(&reasons.collect::<Vec<_>>().join("; "))
}

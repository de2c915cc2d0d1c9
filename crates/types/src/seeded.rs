//! Bugs put in on purpose, so that the simulator can show that it would find them.
//!
//! A place that could go wrong asks [`has`]. Without the feature `seeded-bugs`, which only the simulator
//! turns on, the answer is a constant `false` and the compiler drops the branch. This is mutation testing
//! (DeMillo, Lipton, Sayward: Hints on Test Data Selection, 1978) with mutants chosen by hand: one for
//! each rule whose breach should not go unnoticed.

/// Declares the bugs: variant, name on the command line, what it does.
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $variant:ident = $name:literal,)+) => {
        /// A bug that can be put in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[doc = $what])+ $variant,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$variant,)+];

            /// Its name on the command line and in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$variant => $name,)+
                }
            }

            /// What it does, in words.
            pub fn what(self) -> &'static str {
                match self {
                    $(Bug::$variant => concat!($($what),+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    /// The log writer calls back before it has synced, which it does before it writes again.
    AckBeforeFsync = "ack-before-fsync",
    /// A leader reads without a look at how old its lease is.
    StaleLeaseRead = "stale-lease-read",
    /// A leader's lease counts from when an acknowledgement came, not from when it was asked for.
    LeaseFromReceipt = "lease-from-receipt",
    /// A leader that hands over goes on reading under its lease.
    TransferKeepsLease = "transfer-keeps-lease",
    /// A leader trusts its lease longer than its followers keep their promise.
    LeaseTooLong = "lease-too-long",
    /// A read looks at the lease first and takes its snapshot later.
    LeaseBeforeSnapshot = "lease-before-snapshot",
    /// A leader reads by its lease while a split that it has proposed is open.
    FenceForgotten = "fence-forgotten",
    /// A refusal or an answer that needs no write is given without a proof of leadership.
    RefusalUnproven = "refusal-unproven",
    /// A read that needs a round trip to a majority is served without it.
    SkipReadIndex = "skip-read-index",
    /// A new leader serves before it has applied what earlier leaders committed.
    SkipBarrier = "skip-barrier",
    /// A follower votes for another candidate although it has promised its leader not to.
    PromiseBroken = "promise-broken",
    /// A restarted node forgets that its earlier life may have promised something.
    PromiseForgotten = "promise-forgotten",
    /// A vote is granted and acknowledged, but not written.
    LostVote = "lost-vote",
    /// A vote is granted and acknowledged when it is written, not when it is synced.
    VoteUnsynced = "vote-unsynced",
    /// A sync that failed is taken for one that did not, and the node goes on.
    FailedSyncIgnored = "failed-sync-ignored",
    /// A block that cannot be read is taken for one that holds nothing.
    DamageAsAbsence = "damage-as-absence",
    /// A leader whose process was restarted goes on in its old term.
    SameTermRestore = "same-term-restore",
    /// A transfer of leadership that fails leaves a leader that refuses everything.
    TransferStuck = "transfer-stuck",
    /// A leader whose transfer failed goes on in its old term as if it had not tried.
    TransferResumed = "transfer-resumed",
    /// A candidate asks for votes, and raises its term, without asking first whether it would get them.
    NoPreVote = "no-pre-vote",
    /// A candidate that was not elected does not try again.
    CampaignOnce = "campaign-once",
    /// A peer that was restarted counts as the leader that it was before.
    OldLifeLeads = "old-life-leads",
    /// An instance that is closed is not stopped, and what it does is still accepted.
    GenerationsOverlap = "generations-overlap",
    /// A command that was evaluated under an earlier term is kept, and applied under a later one.
    StaleEvaluation = "stale-evaluation",
    /// A command that was evaluated under an earlier epoch is applied all the same.
    SkipEpochCheck = "skip-epoch-check",
    /// A request with an old epoch, or for keys outside of the range, is served.
    SkipRequestCheck = "skip-request-check",
    /// A proposal whose fate is unknown is answered as one that was certainly not applied.
    UnknownAsRefused = "unknown-as-refused",
    /// Latches are let go although the fate of the write under them is not known.
    LatchesLetGo = "latches-let-go",
    /// A snapshot of a range leaves its locks out.
    SnapshotWithoutLocks = "snapshot-without-locks",
    /// A snapshot is installed over what was there, which is not removed first.
    SnapshotOverOldData = "snapshot-over-old-data",
    /// A snapshot says that it reaches as far as its replica has applied when it is sent.
    SnapshotAhead = "snapshot-ahead",
    /// A change of members is applied, but the range's record on disk stays as it was.
    MembersNotWritten = "members-not-written",
    /// A change of members leaves the epoch as it was.
    ConfVerUnchanged = "conf-ver-unchanged",
    /// Whoever acknowledges a leader counts for its lease, whether it votes or not.
    LeaseOfLearners = "lease-of-learners",
    /// Nobody finishes a joint membership whose leader died.
    JointLeft = "joint-left",
    /// A range is split between two memberships.
    SplitWhileJoint = "split-while-joint",
    /// A member that was removed stays.
    RemovedStays = "removed-stays",
    /// A member takes any description of its range without it for the news that it was removed.
    GoneByAny = "gone-by-any",
    /// A removed replica's data stays on its store.
    RemovalLeavesData = "removal-leaves-data",
    /// A removed replica's log and vote stay on its store.
    RemovalLeavesLog = "removal-leaves-log",
    /// A snapshot brings the data of its leader, but the members stay as they were.
    SnapshotKeepsMembers = "snapshot-keeps-members",
    /// A snapshot is installed although a part of it was lost on the way.
    SnapshotWithAHole = "snapshot-with-a-hole",
    /// A snapshot is acknowledged before it is synced.
    SnapshotUnsynced = "snapshot-unsynced",
    /// A snapshot is installed over a range that still holds a part of its keys.
    OverlapIgnored = "overlap-ignored",
    /// Once its log is cut, a leader has no snapshot for whoever needs what is gone.
    SnapshotMissing = "snapshot-missing",
    /// The entries of one round are applied in the reverse order.
    ApplyOutOfOrder = "apply-out-of-order",
    /// Now and then a replica leaves a command out when it applies.
    SkipApply = "skip-apply",
    /// How far a replica has applied is written by itself, before the data.
    AppliedApart = "applied-apart",
    /// The record of a range that was split stays on disk as it was.
    SplitNotWritten = "split-not-written",
    /// The end of a log that another leader overruled is not removed from the store.
    TruncationForgotten = "truncation-forgotten",
    /// A log is cut further than it was told to.
    PurgeTooFar = "purge-too-far",
    /// A read of a log leaves out what is no longer in memory.
    LogReadWithAHole = "log-read-with-a-hole",
    /// The window of timestamps moves on in memory only.
    WindowNotPersisted = "window-not-persisted",
    /// A new placement leader begins at its clock, not at the end of the window.
    WindowIgnored = "window-ignored",
    /// Timestamps are handed out without a look at whether this node still leads placement.
    TsoUnproven = "tso-unproven",
    /// Writers of one key do not wait for each other.
    NoLatches = "no-latches",
    /// A prewrite does not look for commits after its start.
    SkipConflictCheck = "skip-conflict-check",
    /// A prewrite does not look for locks of others.
    SkipLockCheck = "skip-lock-check",
    /// A read does not look for locks.
    ReadThroughLocks = "read-through-locks",
    /// A reader is told that it has pushed a commit above itself, but the lock does not say so.
    PushNotWritten = "push-not-written",
    /// A commit does not look at how far readers have pushed it.
    MinCommitIgnored = "min-commit-ignored",
    /// A commit that finds no lock says that it has succeeded.
    CommitWithoutLock = "commit-without-lock",
    /// A rollback leaves no record, so that a late prewrite succeeds.
    RollbackWithoutRecord = "rollback-without-record",
    /// A transaction is rolled back by whoever meets its lock, alive or not, committed or not.
    RollBackCommitted = "roll-back-committed",
    /// The client sends a write again whose outcome it does not know.
    RepeatUnknown = "repeat-unknown",
    /// The client does not wait for the primary, which decides, before it commits the other keys.
    CommitSecondariesFirst = "commit-secondaries-first",
    /// A replica takes its fingerprint behind more than the entry that asked for it.
    FingerprintLate = "fingerprint-late",
    /// A store makes a replica again under an id that it was rid of.
    BuriedReturns = "buried-returns",
    /// A store of a build that knows nothing of merges leaves their entries out, and goes on.
    UnknownSkipped = "unknown-skipped",
    /// A range that has grown is split where nothing is to the left.
    SplitCutsNothing = "split-cuts-nothing",
    /// A range that is about to be absorbed is read and written as ever.
    FrozenServes = "frozen-serves",
    /// A store says that its replica is frozen for a merge without a look at whether it is.
    MergeUnready = "merge-unready",
    /// A range that was promised to a merge is split, and changes its members.
    SplitWhilePinned = "split-while-pinned",
    /// A range that was absorbed stays where it was.
    SourceStays = "source-stays",
    /// A leader goes cold with work under way, and resumes in its term.
    ColdMidWork = "cold-mid-work",
    /// A cold replica sleeps on when its leader dies.
    ColdSleepsOn = "cold-sleeps-on",
}

#[cfg(feature = "seeded-bugs")]
static ACTIVE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// Puts `bug` into this process, or takes the one out that is in.
#[cfg(feature = "seeded-bugs")]
pub fn put_in(bug: Option<Bug>) {
    let number = bug.map_or(u8::MAX, |bug| bug as u8);
    ACTIVE.store(number, std::sync::atomic::Ordering::Relaxed);
}

/// Whether `bug` is in.
#[cfg(feature = "seeded-bugs")]
pub fn has(bug: Bug) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether `bug` is in: never in this build.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub const fn has(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_speak() {
        let mut names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Bug::ALL.len());
        assert!(Bug::ALL.iter().all(|bug| bug.what().ends_with('.')));
    }

    #[test]
    fn none_is_in_by_itself() {
        assert!(!Bug::ALL.iter().any(|bug| has(*bug)));
    }
}

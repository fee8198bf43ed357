//! Ways to break this program on purpose, to see that a test notices.
//!
//! A simulator that finds nothing has shown little until it is seen to find
//! what is there. Each [`Mutant`] breaks one rule, at the one place where that
//! rule lives:
//!
//! ```text
//!  if now < until || mutants::on(Mutant::…) { … }
//!     the rule       unless broken on purpose
//! ```
//!
//! They exist only with the cargo feature `mutants`, which nothing switches on
//! by default. Without it [`on`] is `false` for the compiler too, and nothing of
//! all this is in the program. With it, one mutant or none is chosen for the
//! whole process: by `choose`, or, before anything asks, by the environment
//! variable `RAFTCACHE_MUTANT`, so that any test and `cached` itself can be run
//! with one.
//!
//! Pitfall: some rules are held twice. A mutant that a second check would refuse
//! at once switches that one off too, where this is what a careless author would
//! have done; else what is seen is the second check at work, which is as good.

use std::str::FromStr;

/// Declares the mutants, each named as it is written here.
macro_rules! mutants {
    ($($(#[doc = $rule:literal])+ $mutant:ident,)+) => {
        /// One rule, broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $rule])+ $mutant,)+
        }

        /// Every mutant.
        pub const ALL: &[Mutant] = &[$(Mutant::$mutant),+];

        impl Mutant {
            /// What it is called, in `RAFTCACHE_MUTANT` too.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => stringify!($mutant),)+
                }
            }

            /// What it breaks.
            pub fn rule(self) -> &'static str {
                match self {
                    $(Self::$mutant => concat!($($rule),+).trim_ascii(),)+
                }
            }
        }
    };
}

mutants! {
    // Consensus: what may be said before the disk has it.
    /// A follower acknowledges entries that are not on its disk yet.
    AckBeforeDurable,
    /// A leader counts its own log for the commit before its own disk has it.
    LeaderCountsUnsynced,
    /// A voter tells its vote before its disk has it.
    VoteBeforeDurable,
    /// A candidate asks for votes before its own term and vote are on its disk.
    CampaignBeforeDurable,
    /// A write that completes late vouches for entries that were replaced meanwhile.
    LateCompletionVouches,
    /// A follower acknowledges an installed snapshot before the journal says so.
    SnapshotAckBeforeBase,
    /// A node whose disk was rolled back still counts with what it once acknowledged.
    RolledBackDiskCounts,

    // Consensus: elections.
    /// A voter that starts again elects at once, though it may have promised not to.
    NoPromiseAtStart,
    /// A voter elects another one though it has promised its leader not to.
    VoteAgainstPromise,
    /// A pre-vote is granted though a leader is heard.
    PreVoteAgainstPromise,
    /// A voter elects who has less in its log.
    VoteForShorterLog,
    /// A voter compares the lengths of logs and not the terms of their last entries.
    VoteByLengthAlone,
    /// A voter votes for everybody who asks, in one and the same term.
    VoteForEverybody,
    /// A candidate counts its own vote twice, in place of another voter's.
    OwnVoteTwice,
    /// Half of an even number of voters passes for a majority.
    HalfIsMajority,
    /// A leader of an earlier term is obeyed.
    OldLeaderObeyed,

    // Consensus: the log.
    /// An entry of an earlier term is committed by counting (Figure 8 of the paper).
    CommitOldTermByCounting,
    /// A follower keeps its own entry where the leader's differs.
    KeepConflictingTail,
    /// An append that brings nothing new cuts off what follows it.
    TruncateOnStaleAppend,
    /// An append that begins below the follower's snapshot is taken for a conflict.
    PrevBelowSnapshotConflicts,
    /// A heartbeat commits what the follower holds, whether it agrees with the leader's or not.
    HeartbeatCommitUnbounded,
    /// An append commits what the follower holds behind it, whether that agrees or not.
    AppendCommitUnbounded,
    /// An append that was lost is never sent again.
    LostAppendNotResent,
    /// A snapshot that covers less than what is committed takes the place of the log.
    OlderSnapshotInstalled,

    // Consensus: members.
    /// A learner counts in the leader's quorum.
    LearnerCounted,
    /// Members are changed before an entry of the leader's own term is committed.
    ChangeBeforeOwnCommit,
    /// Members are changed while another change is under way.
    TwoChangesAtOnce,
    /// A configuration is in force when it is applied, not when it is appended.
    MembershipAtApply,
    /// A member that is being removed counts in place of one that stays.
    RemovedCounted,
    /// A handover that comes to nothing is never given up.
    TransferForEver,

    // Reads.
    /// The lease counts from when the answer came, not from when the question was sent.
    LeaseFromAnswer,
    /// The lease is longer than the promise it rests on.
    LeaseOutlivesPromise,
    /// A leader keeps its lease after it has asked another node to stand.
    LeaseAfterTimeoutNow,
    /// A leader serves reads though nobody has answered it for long.
    LeaseFromNobody,
    /// Requests are judged by the time of the turn before, as if the clock were read before they came.
    StaleClock,
    /// A read is served at once, though what it has to see is not applied yet.
    ReadBeforeApply,
    /// A read is released by a round of heartbeats that was sent before it came.
    ReadRoundReused,
    /// A new leader serves reads before anything of its term is committed.
    ReadsBeforeFirstCommit,
    /// A node serves linearizable reads from what it has, and asks nobody.
    ReadsAskNobody,

    // Snapshots.
    /// A snapshot holds keys without their deadlines.
    SnapshotWithoutTtls,
    /// A snapshot holds no members.
    SnapshotWithoutMembership,
    /// A snapshot holds the members of a later index than its own.
    SnapshotWithLaterMembership,
    /// A snapshot holds no sessions.
    SnapshotWithoutSessions,
    /// A snapshot does not hold log time.
    SnapshotWithoutLogTime,
    /// Sessions that are in a snapshot are not taken from it.
    SessionsNotRestored,
    /// A write does not show the walk of a snapshot what it replaces.
    VisitAfterWrite,
    /// The log is cut, and older snapshots go, before the journal names the newer one.
    LogCutBeforeSnapshot,
    /// A snapshot's file gets its name before its bytes are synced.
    SnapshotNotSynced,
    /// A snapshot's name is relied on before the directory is synced.
    SnapshotNameNotSynced,

    // The journal.
    /// A batch that holds entries repeats the term and vote of the one before it.
    TermAfterEntries,
    /// Nothing is synced.
    SyncSkipped,
    /// A sync that failed counts as done.
    SyncErrorIgnored,
    /// A new segment is used before the directory that names it is synced.
    SegmentNameNotSynced,
    /// The mark vouches for a batch before that is synced.
    MarkBeforeSync,
    /// The header of a new segment forgets the vote.
    VoteLostWithSegment,
    /// Records of a batch without its seal count.
    TornTailAccepted,
    /// A record's checksum is not looked at.
    CrcUnchecked,
    /// A record may follow any other one.
    ChainUnchecked,
    /// Damage in the middle of the log is taken for its end.
    DamageIsTheEnd,
    /// Zeros where the mark vouches for records are taken for the end of the log.
    ZerosAreTheEnd,
    /// An empty disk under an old identity begins anew, and votes.
    EmptyDiskVotes,

    // The state machine, its clock, and whether all agree.
    /// A write that is sent again in its session takes effect again.
    RetryAppliedTwice,
    /// A write in a session that is not known is executed.
    ExpiredSessionExecuted,
    /// A key is there past its deadline, until it is removed.
    ExpiredKeyServed,
    /// Keys expire by the clock of each node, not by that of the log.
    ExpiryByLocalClock,
    /// A new leader stamps entries by its own clock, also if that is behind the log's.
    LogTimeGoesBack,
    /// The hashes of the states are not compared.
    StateHashIgnored,

    // Requests and their outcomes.
    /// A write is answered when it is proposed.
    ReplyBeforeApply,
    /// A write is answered when any entry is applied at its index, another leader's too.
    OutcomeByIndexAlone,
    /// A write of unknown outcome is said not to have been applied.
    UnknownCalledRefused,
    /// A request whose time is over is never answered.
    LateNeverAnswered,
    /// A request goes to the leader twice, and is executed as often.
    ForwardedTwice,
    /// A forwarded request is forwarded again by who does not lead.
    ForwardedOn,
    /// A forwarded request is executed in a later term than the one it was meant for.
    ForwardTermIgnored,
    /// A forwarded write of unknown outcome is sent again to the next leader.
    ForwardRetriesUnknown,
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = ALL.iter().copied().find(|mutant| mutant.name() == name);
        found.ok_or_else(|| format!("there is no mutant {name:?}"))
    }
}

/// Whether this rule is broken on purpose.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, on};

/// Whether one of these rules is broken on purpose.
#[inline(always)]
pub fn any<const N: usize>(mutants: [Mutant; N]) -> bool {
    mutants.into_iter().any(on)
}

/// The value of the turn before, for a mutant that goes by that one. Without
/// the feature it is nothing.
#[derive(Debug, Default)]
pub struct Before<T> {
    #[cfg(feature = "mutants")]
    value: Option<T>,
    #[cfg(not(feature = "mutants"))]
    value: std::marker::PhantomData<T>,
}

impl<T: Copy> Before<T> {
    /// The value, or the one of the call before if the rule is broken.
    #[cfg(feature = "mutants")]
    pub fn unless(&mut self, mutant: Mutant, value: T) -> T {
        let before = self.value.replace(value);
        before.filter(|_| on(mutant)).unwrap_or(value)
    }

    /// The value.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub fn unless(&mut self, _: Mutant, value: T) -> T {
        let _ = self.value;
        value
    }
}

#[cfg(feature = "mutants")]
mod chosen {
    //! Which one it is. One for the process, because the rules are all over it.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Mutant;

    const NOT_ASKED: usize = 0;
    const NONE: usize = 1;
    const FIRST: usize = 2;

    static CHOSEN: AtomicUsize = AtomicUsize::new(NOT_ASKED);

    /// Whether this rule is broken on purpose.
    #[inline(always)]
    pub fn on(mutant: Mutant) -> bool {
        match CHOSEN.load(Ordering::Relaxed) {
            NOT_ASKED => from_environment() == Some(mutant),
            chosen => chosen == FIRST + mutant as usize,
        }
    }

    /// Breaks one rule from now on, or none.
    pub fn choose(mutant: Option<Mutant>) {
        let chosen = mutant.map_or(NONE, |mutant| FIRST + mutant as usize);
        CHOSEN.store(chosen, Ordering::Relaxed);
    }

    #[cold]
    fn from_environment() -> Option<Mutant> {
        let name = std::env::var("RAFTCACHE_MUTANT").ok().filter(|name| !name.is_empty());
        let mutant = name.map(|name| name.parse().unwrap_or_else(|error| panic!("{error}")));
        choose(mutant);
        mutant
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutant_is_found_by_its_name_and_says_what_it_breaks() {
        let names: BTreeSet<&str> = ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), ALL.len());
        for &mutant in ALL {
            assert_eq!(mutant.name().parse(), Ok(mutant));
            assert!(mutant.rule().ends_with('.'), "{}", mutant.rule());
        }
        assert!("Perfect".parse::<Mutant>().is_err());
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_every_rule_holds_and_nothing_is_kept() {
        assert!(!ALL.iter().any(|&mutant| on(mutant)));
        let mut before = Before::default();
        assert_eq!([1, 2].map(|value| before.unless(Mutant::StaleClock, value)), [1, 2]);
        assert_eq!(size_of::<Before<u64>>(), 0);
    }
}

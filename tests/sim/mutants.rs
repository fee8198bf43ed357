//! The alarm rings: rules are broken on purpose, one at a time, and within a stated
//! number of seeds some check has to notice. Without a mutant the same seeds pass.

use std::collections::BTreeSet;
use std::process::Command;

use raftcache::mutants::{ALL, Mutant, choose};

use super::{run, setting, threads};

/// Who is noticed here: the first seed that did when this was written, where the
/// search begins, and how many are tried before it counts as a survivor. Where
/// much has changed since, the search takes longer, no more.
const NOTICED: &[(Mutant, u64, u64)] = &[
    (Mutant::AckBeforeDurable, 3, 200),
    (Mutant::LeaderCountsUnsynced, 23, 400),
    (Mutant::VoteBeforeDurable, 2, 200),
    (Mutant::CampaignBeforeDurable, 1, 200),
    (Mutant::LateCompletionVouches, 19, 400),
    (Mutant::NoPromiseAtStart, 314, 1500),
    (Mutant::VoteAgainstPromise, 314, 1500),
    (Mutant::VoteForShorterLog, 2, 200),
    (Mutant::VoteForEverybody, 2, 200),
    (Mutant::OwnVoteTwice, 1, 200),
    (Mutant::HalfIsMajority, 1, 200),
    (Mutant::CommitOldTermByCounting, 121, 800),
    (Mutant::KeepConflictingTail, 1, 200),
    (Mutant::TruncateOnStaleAppend, 1, 200),
    (Mutant::PrevBelowSnapshotConflicts, 1, 200),
    (Mutant::HeartbeatCommitUnbounded, 1, 200),
    (Mutant::LostAppendNotResent, 4, 200),
    (Mutant::LearnerCounted, 31, 800),
    (Mutant::ChangeBeforeOwnCommit, 353, 1500),
    (Mutant::MembershipAtApply, 1, 200),
    (Mutant::RemovedCounted, 9, 200),
    (Mutant::TransferForEver, 8, 200),
    (Mutant::LeaseFromAnswer, 2, 200),
    (Mutant::LeaseOutlivesPromise, 41, 800),
    (Mutant::LeaseAfterTimeoutNow, 11, 400),
    (Mutant::LeaseFromNobody, 2, 200),
    (Mutant::StaleClock, 33, 800),
    (Mutant::ReadBeforeApply, 2, 200),
    (Mutant::ReadRoundReused, 105, 800),
    (Mutant::ReadsBeforeFirstCommit, 7, 200),
    (Mutant::ReadsAskNobody, 1, 200),
    (Mutant::SnapshotWithoutTtls, 1, 200),
    (Mutant::SnapshotWithoutMembership, 1, 200),
    (Mutant::SnapshotWithLaterMembership, 2, 200),
    (Mutant::SnapshotWithoutSessions, 1, 200),
    (Mutant::SnapshotWithoutLogTime, 1, 200),
    (Mutant::SessionsNotRestored, 1, 200),
    (Mutant::VisitAfterWrite, 15, 400),
    (Mutant::LogCutBeforeSnapshot, 12, 400),
    (Mutant::SnapshotNotSynced, 2, 200),
    (Mutant::SnapshotNameNotSynced, 15, 400),
    (Mutant::OlderSnapshotInstalled, 246, 1500),
    (Mutant::TermAfterEntries, 2, 200),
    (Mutant::SyncSkipped, 2, 200),
    (Mutant::SyncErrorIgnored, 17, 400),
    (Mutant::SegmentNameNotSynced, 2, 200),
    (Mutant::MarkBeforeSync, 3, 200),
    (Mutant::TornTailAccepted, 84, 800),
    (Mutant::CrcUnchecked, 1, 200),
    (Mutant::ChainUnchecked, 112, 800),
    (Mutant::DamageIsTheEnd, 1, 200),
    (Mutant::ZerosAreTheEnd, 1, 200),
    (Mutant::EmptyDiskVotes, 10, 200),
    (Mutant::RetryAppliedTwice, 1, 200),
    (Mutant::ExpiredSessionExecuted, 140, 800),
    (Mutant::ExpiryByLocalClock, 1, 200),
    (Mutant::LogTimeGoesBack, 32, 800),
    (Mutant::ReplyBeforeApply, 1, 200),
    (Mutant::StateHashIgnored, 1, 200),
    (Mutant::OutcomeByIndexAlone, 2, 200),
    (Mutant::UnknownCalledRefused, 17, 400),
    (Mutant::LateNeverAnswered, 1, 200),
    (Mutant::ForwardedTwice, 1, 200),
    (Mutant::ForwardRetriesUnknown, 1, 200),
];

/// Who is not, or not reliably, and which tests fail instead: the target and a part
/// of their names.
const NOTICED_ELSEWHERE: &[(Mutant, &str, &str)] = &[
    (Mutant::SnapshotAckBeforeBase, "raft", "stories"),
    (Mutant::RolledBackDiskCounts, "raft", "stories"),
    (Mutant::PreVoteAgainstPromise, "raft", "stories"),
    (Mutant::VoteByLengthAlone, "raft", "random"),
    (Mutant::OldLeaderObeyed, "raft", "forged"),
    (Mutant::AppendCommitUnbounded, "raft", "forged"),
    (Mutant::TwoChangesAtOnce, "raft", "stories"),
    (Mutant::VoteLostWithSegment, "wal_damage", ""),
    (Mutant::ExpiredKeyServed, "lib", "fsm::tests::time"),
    (Mutant::ForwardedOn, "replicas", "failures"),
    (Mutant::ForwardTermIgnored, "replicas", "failures"),
];

/// Whether these tests fail with this rule broken, or with none.
fn fails_elsewhere(mutant: Option<Mutant>, target: &str, names: &str) -> bool {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["test", "--locked", "--profile", "sim", "--features", "mutants"]);
    match target {
        "lib" => cargo.arg("--lib"),
        test => cargo.args(["--test", test]),
    };
    cargo.arg(names).env("RAFTCACHE_MUTANT", mutant.map_or("", Mutant::name));
    let output = cargo.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let is_run = stdout.contains("test result: ") && !stdout.contains(" 0 passed; 0 failed");
    assert!(is_run, "{}", String::from_utf8_lossy(&output.stderr));
    !output.status.success()
}

/// The first of these seeds that fails, with this rule broken or none.
fn first_failed(mutant: Option<Mutant>, seeds: &[u64]) -> Option<u64> {
    choose(mutant);
    let failed = |seed| run(seed, false).failed.then_some(seed);
    let noticed = seeds.chunks(threads()).find_map(|seeds| {
        std::thread::scope(|scope| {
            let runs: Vec<_> =
                seeds.iter().map(|&seed| scope.spawn(move || failed(seed))).collect();
            runs.into_iter().filter_map(|run| run.join().ok().flatten()).min()
        })
    });
    choose(None);
    noticed
}

#[test]
fn every_mutant_has_its_alarm() {
    let here = NOTICED.iter().map(|&(mutant, ..)| mutant);
    let elsewhere = NOTICED_ELSEWHERE.iter().map(|&(mutant, ..)| mutant);
    let listed: Vec<Mutant> = here.chain(elsewhere).collect();
    assert_eq!(listed.len(), ALL.len());
    assert!(ALL.iter().all(|mutant| listed.contains(mutant)));
    assert!(NOTICED.len() >= 40, "{}", NOTICED.len());
}

fn only() -> Option<Mutant> {
    std::env::var("MUTANT").ok().map(|name| name.parse().unwrap())
}

/// `MUTANT=Name SEEDS=500` tries one from the first seed on, also of those noticed
/// elsewhere.
#[test]
fn every_mutant_is_noticed() {
    let all: Vec<_> = match only() {
        Some(mutant) => vec![(mutant, 1, setting("SEEDS").unwrap_or(400))],
        None => NOTICED.to_vec(),
    };
    // Each failure would tell its story.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut survivors, mut noticed_at) = (Vec::new(), BTreeSet::new());
    for (mutant, first, count) in all {
        let seeds: Vec<_> = (first..first + count).collect();
        match first_failed(Some(mutant), &seeds) {
            Some(seed) => {
                println!("{seed:>5} {:<28} {}", mutant.name(), mutant.rule());
                noticed_at.insert(seed);
            }
            None => {
                println!(" none {:<28} {}", mutant.name(), mutant.rule());
                survivors.push(mutant.name());
            }
        }
    }
    assert!(survivors.is_empty(), "not noticed: {survivors:?}");
    let noticed_at: Vec<_> = noticed_at.into_iter().collect();
    let failed = first_failed(None, &noticed_at);
    let _ = std::panic::take_hook();
    assert_eq!(failed, None, "fails without a mutant, too");
}

#[test]
fn every_mutant_noticed_elsewhere_is() {
    let is_meant = |it: &&(Mutant, _, _)| only().is_none_or(|mutant| mutant == it.0);
    let all: Vec<_> = NOTICED_ELSEWHERE.iter().copied().filter(|it| is_meant(&it)).collect();
    let places: BTreeSet<_> = all.iter().map(|&(_, target, names)| (target, names)).collect();
    for (target, names) in places {
        assert!(!fails_elsewhere(None, target, names), "{target} {names}: fails without a mutant");
    }
    let is_noticed = |&(mutant, target, names): &(Mutant, &str, &str)| {
        println!("{target:>10} {:<28} {}", mutant.name(), mutant.rule());
        fails_elsewhere(Some(mutant), target, names)
    };
    let survivors: Vec<_> = all.into_iter().filter(|it| !is_noticed(it)).collect();
    assert!(survivors.is_empty(), "not noticed: {survivors:?}");
}

//! The alarm rings: rules are broken on purpose, one at a time, and within a stated
//! number of seeds some check has to notice. Without a mutant the same seeds pass.

use std::collections::BTreeSet;
use std::process::Command;

use raftcache::mutants::{ALL, Mutant, choose};

use super::{run, setting, threads};

/// Who is noticed here: the first seed that did when this was written, and how
/// many are tried before it counts as a survivor.
const NOTICED: &[(Mutant, u64, u64)] = &[
    (Mutant::AckBeforeDurable, 3, 40),
    (Mutant::LeaderCountsUnsynced, 216, 600),
    (Mutant::VoteBeforeDurable, 1, 40),
    (Mutant::CampaignBeforeDurable, 1, 40),
    (Mutant::LateCompletionVouches, 11, 150),
    (Mutant::NoPromiseAtStart, 176, 600),
    (Mutant::VoteAgainstPromise, 55, 300),
    (Mutant::VoteForShorterLog, 1, 40),
    (Mutant::VoteForEverybody, 1, 40),
    (Mutant::OwnVoteTwice, 11, 150),
    (Mutant::HalfIsMajority, 6, 40),
    (Mutant::KeepConflictingTail, 1, 40),
    (Mutant::TruncateOnStaleAppend, 1, 40),
    (Mutant::PrevBelowSnapshotConflicts, 8, 40),
    (Mutant::HeartbeatCommitUnbounded, 1, 40),
    (Mutant::LostAppendNotResent, 1, 40),
    (Mutant::LearnerCounted, 10, 150),
    (Mutant::ChangeBeforeOwnCommit, 58, 300),
    (Mutant::MembershipAtApply, 1, 40),
    (Mutant::RemovedCounted, 19, 150),
    (Mutant::TransferForEver, 25, 150),
    (Mutant::LeaseFromAnswer, 8, 40),
    (Mutant::LeaseOutlivesPromise, 55, 300),
    (Mutant::LeaseAfterTimeoutNow, 19, 150),
    (Mutant::LeaseFromNobody, 8, 40),
    (Mutant::StaleClock, 2, 40),
    (Mutant::ReadBeforeApply, 1, 40),
    (Mutant::ReadRoundReused, 5, 40),
    (Mutant::ReadsBeforeFirstCommit, 1, 40),
    (Mutant::ReadsAskNobody, 1, 40),
    (Mutant::SnapshotWithoutTtls, 2, 40),
    (Mutant::SnapshotWithoutMembership, 2, 40),
    (Mutant::SnapshotWithLaterMembership, 11, 150),
    (Mutant::SnapshotWithoutSessions, 2, 40),
    (Mutant::SnapshotWithoutLogTime, 2, 40),
    (Mutant::SessionsNotRestored, 2, 40),
    (Mutant::VisitAfterWrite, 2, 40),
    (Mutant::LogCutBeforeSnapshot, 2, 40),
    (Mutant::SnapshotNotSynced, 2, 40),
    (Mutant::SnapshotNameNotSynced, 22, 150),
    (Mutant::TermAfterEntries, 2, 40),
    (Mutant::SyncSkipped, 1, 40),
    (Mutant::SyncErrorIgnored, 18, 150),
    (Mutant::SegmentNameNotSynced, 1, 40),
    (Mutant::MarkBeforeSync, 2, 40),
    (Mutant::TornTailAccepted, 25, 150),
    (Mutant::CrcUnchecked, 16, 150),
    (Mutant::ChainUnchecked, 26, 150),
    (Mutant::DamageIsTheEnd, 1, 40),
    (Mutant::ZerosAreTheEnd, 17, 150),
    (Mutant::EmptyDiskVotes, 25, 150),
    (Mutant::RetryAppliedTwice, 1, 40),
    (Mutant::ExpiredSessionExecuted, 27, 150),
    (Mutant::ExpiryByLocalClock, 1, 40),
    (Mutant::LogTimeGoesBack, 32, 300),
    (Mutant::ReplyBeforeApply, 1, 40),
    (Mutant::OutcomeByIndexAlone, 1, 40),
    (Mutant::UnknownCalledRefused, 2, 40),
    (Mutant::LateNeverAnswered, 1, 40),
    (Mutant::ForwardedTwice, 1, 40),
    (Mutant::ForwardRetriesUnknown, 1, 40),
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
    (Mutant::CommitOldTermByCounting, "raft", "stories"),
    (Mutant::OlderSnapshotInstalled, "raft", "forged"),
    (Mutant::TwoChangesAtOnce, "raft", "stories"),
    (Mutant::VoteLostWithSegment, "wal_damage", ""),
    (Mutant::ExpiredKeyServed, "lib", "fsm::tests::time"),
    (Mutant::StateHashIgnored, "lib", "replica::agreement"),
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

/// The first seed that notices.
fn noticed_at(mutant: Mutant, seeds: u64) -> Option<u64> {
    choose(Some(mutant));
    let threads = threads() as u64;
    let noticed = (1..=seeds).step_by(threads as usize).find_map(|first| {
        let failed = |seed| run(seed, false).failed.then_some(seed);
        std::thread::scope(|scope| {
            let runs: Vec<_> =
                (first..first + threads).map(|seed| scope.spawn(move || failed(seed))).collect();
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

/// `MUTANT=Name SEEDS=500` tries one, also of those noticed elsewhere.
#[test]
fn every_mutant_is_noticed() {
    let all: Vec<_> = match only() {
        Some(mutant) => vec![(mutant, setting("SEEDS").unwrap_or(400))],
        None => NOTICED.iter().map(|&(mutant, _, seeds)| (mutant, seeds)).collect(),
    };
    // Each failure would tell its story.
    std::panic::set_hook(Box::new(|_| {}));
    let mut survivors = Vec::new();
    for (mutant, seeds) in all {
        match noticed_at(mutant, seeds) {
            Some(seed) => println!("{seed:>5} {:<28} {}", mutant.name(), mutant.rule()),
            None => {
                println!(" none {:<28} {}", mutant.name(), mutant.rule());
                survivors.push(mutant.name());
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(survivors.is_empty(), "not noticed: {survivors:?}");
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

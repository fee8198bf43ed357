//! The alarm rings: rules are broken on purpose, one at a time, and within a stated
//! number of seeds some check has to notice. Without a mutant the same seeds pass.

use std::collections::BTreeSet;
use std::process::Command;

use raftcache::mutants::{ALL, Mutant, choose};

use super::{run, setting, threads};

/// Who is noticed here: the first seed that did when this was written, and how
/// many are tried before it counts as a survivor.
const NOTICED: &[(Mutant, u64, u64)] = &[
    (Mutant::AckBeforeDurable, 3, 200),
    (Mutant::LeaderCountsUnsynced, 50, 800),
    (Mutant::VoteBeforeDurable, 1, 200),
    (Mutant::CampaignBeforeDurable, 1, 200),
    (Mutant::LateCompletionVouches, 8, 200),
    (Mutant::NoPromiseAtStart, 176, 800),
    (Mutant::VoteAgainstPromise, 55, 800),
    (Mutant::VoteForShorterLog, 1, 200),
    (Mutant::VoteForEverybody, 1, 200),
    (Mutant::OwnVoteTwice, 11, 400),
    (Mutant::HalfIsMajority, 6, 200),
    (Mutant::KeepConflictingTail, 1, 200),
    (Mutant::TruncateOnStaleAppend, 1, 200),
    (Mutant::PrevBelowSnapshotConflicts, 8, 200),
    (Mutant::HeartbeatCommitUnbounded, 1, 200),
    (Mutant::LostAppendNotResent, 1, 200),
    (Mutant::LearnerCounted, 10, 200),
    (Mutant::ChangeBeforeOwnCommit, 58, 800),
    (Mutant::MembershipAtApply, 1, 200),
    (Mutant::RemovedCounted, 29, 400),
    (Mutant::TransferForEver, 25, 400),
    (Mutant::LeaseFromAnswer, 52, 800),
    (Mutant::LeaseOutlivesPromise, 55, 800),
    (Mutant::LeaseAfterTimeoutNow, 11, 400),
    (Mutant::LeaseFromNobody, 8, 200),
    (Mutant::StaleClock, 2, 200),
    (Mutant::ReadBeforeApply, 1, 200),
    (Mutant::ReadRoundReused, 5, 200),
    (Mutant::ReadsBeforeFirstCommit, 1, 200),
    (Mutant::ReadsAskNobody, 1, 200),
    (Mutant::SnapshotWithoutTtls, 2, 200),
    (Mutant::SnapshotWithoutMembership, 2, 200),
    (Mutant::SnapshotWithLaterMembership, 11, 400),
    (Mutant::SnapshotWithoutSessions, 2, 200),
    (Mutant::SnapshotWithoutLogTime, 2, 200),
    (Mutant::SessionsNotRestored, 2, 200),
    (Mutant::VisitAfterWrite, 2, 200),
    (Mutant::LogCutBeforeSnapshot, 2, 200),
    (Mutant::SnapshotNotSynced, 2, 200),
    (Mutant::SnapshotNameNotSynced, 22, 400),
    (Mutant::TermAfterEntries, 2, 200),
    (Mutant::SyncSkipped, 1, 200),
    (Mutant::SyncErrorIgnored, 18, 400),
    (Mutant::SegmentNameNotSynced, 1, 200),
    (Mutant::MarkBeforeSync, 2, 200),
    (Mutant::TornTailAccepted, 25, 400),
    (Mutant::CrcUnchecked, 16, 400),
    (Mutant::ChainUnchecked, 26, 400),
    (Mutant::DamageIsTheEnd, 1, 200),
    (Mutant::ZerosAreTheEnd, 17, 400),
    (Mutant::EmptyDiskVotes, 25, 400),
    (Mutant::RetryAppliedTwice, 1, 200),
    (Mutant::ExpiredSessionExecuted, 27, 400),
    (Mutant::ExpiryByLocalClock, 1, 200),
    (Mutant::LogTimeGoesBack, 32, 800),
    (Mutant::ReplyBeforeApply, 2, 200),
    (Mutant::OutcomeByIndexAlone, 1, 200),
    (Mutant::UnknownCalledRefused, 2, 200),
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

//! The alarm rings: rules are broken on purpose, one at a time, and within a stated
//! number of seeds some check has to notice. Without a mutant the same seeds pass.

use std::collections::BTreeSet;
use std::process::Command;

use raftcache::mutants::{ALL, Mutant, choose};

use super::{run, setting, threads};

/// Who is noticed here: the first seed that did when this was written, and how
/// many are tried before it counts as a survivor.
const NOTICED: &[(Mutant, u64, u64)] = &[
    (Mutant::AckBeforeDurable, 2, 40),
    (Mutant::LeaderCountsUnsynced, 48, 240),
    (Mutant::VoteBeforeDurable, 47, 240),
    (Mutant::CampaignBeforeDurable, 1, 40),
    (Mutant::LateCompletionVouches, 57, 240),
    (Mutant::NoPromiseAtStart, 23, 100),
    (Mutant::VoteAgainstPromise, 41, 240),
    (Mutant::VoteForShorterLog, 2, 40),
    (Mutant::VoteForEverybody, 3, 40),
    (Mutant::OwnVoteTwice, 21, 100),
    (Mutant::HalfIsMajority, 4, 40),
    (Mutant::KeepConflictingTail, 1, 40),
    (Mutant::TruncateOnStaleAppend, 8, 40),
    (Mutant::PrevBelowSnapshotConflicts, 8, 40),
    (Mutant::HeartbeatCommitUnbounded, 1, 40),
    (Mutant::LostAppendNotResent, 3, 40),
    (Mutant::MembershipAtApply, 1, 40),
    (Mutant::RemovedCounted, 33, 240),
    (Mutant::TransferForEver, 32, 240),
    (Mutant::LeaseOutlivesPromise, 23, 100),
    (Mutant::LeaseFromNobody, 23, 100),
    (Mutant::ReadBeforeApply, 2, 40),
    (Mutant::ReadsBeforeFirstCommit, 7, 40),
    (Mutant::ReadsAskNobody, 1, 40),
    (Mutant::SnapshotWithoutTtls, 2, 40),
    (Mutant::SnapshotWithoutMembership, 2, 40),
    (Mutant::SnapshotWithLaterMembership, 5, 40),
    (Mutant::SnapshotWithoutSessions, 2, 40),
    (Mutant::SnapshotWithoutLogTime, 2, 40),
    (Mutant::SessionsNotRestored, 2, 40),
    (Mutant::LogCutBeforeSnapshot, 2, 40),
    (Mutant::SnapshotNotSynced, 2, 40),
    (Mutant::SnapshotNameNotSynced, 10, 40),
    (Mutant::TermAfterEntries, 1, 40),
    (Mutant::SyncSkipped, 1, 40),
    (Mutant::SyncErrorIgnored, 9, 40),
    (Mutant::SegmentNameNotSynced, 1, 40),
    (Mutant::MarkBeforeSync, 8, 40),
    (Mutant::RetryAppliedTwice, 1, 40),
    (Mutant::ExpiredSessionExecuted, 21, 100),
    (Mutant::ExpiryByLocalClock, 1, 40),
    (Mutant::ReplyBeforeApply, 2, 40),
    (Mutant::OutcomeByIndexAlone, 1, 40),
    (Mutant::UnknownCalledRefused, 40, 240),
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
    (Mutant::OlderSnapshotInstalled, "raft", "forged"),
    (Mutant::ChangeBeforeOwnCommit, "raft", "stories"),
    (Mutant::TwoChangesAtOnce, "raft", "stories"),
    (Mutant::VoteLostWithSegment, "wal_damage", ""),
    (Mutant::ChainUnchecked, "lib", "wal::record"),
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

/// `MUTANT=Name SEEDS=500` tries one, also of those noticed elsewhere.
#[test]
fn every_mutant_is_noticed() {
    let only = std::env::var("MUTANT").ok().map(|name| name.parse::<Mutant>().unwrap());
    let all: Vec<_> = match only {
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
    let places: BTreeSet<_> =
        NOTICED_ELSEWHERE.iter().map(|&(_, target, of)| (target, of)).collect();
    for (target, names) in places {
        assert!(!fails_elsewhere(None, target, names), "{target} {names}: fails without a mutant");
    }
    let is_noticed = |&&(mutant, target, names): &&(Mutant, &str, &str)| {
        let is_noticed = fails_elsewhere(Some(mutant), target, names);
        println!("{target:>10} {:<28} {}", mutant.name(), mutant.rule());
        !is_noticed
    };
    let survivors: Vec<_> = NOTICED_ELSEWHERE.iter().filter(is_noticed).collect();
    assert!(survivors.is_empty(), "not noticed: {survivors:?}");
}

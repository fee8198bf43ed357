//! The alarm rings: every rule that can be broken on purpose is broken, one at a
//! time, and within a stated number of seeds some check has to notice. Without a
//! mutant the same seeds pass.

use raftcache::mutants::{ALL, Mutant, choose};

use super::{run, setting};

/// No mutant survives more seeds.
const SEEDS: u64 = 400;

/// The first seed that notices.
fn caught_at(mutant: Mutant, seeds: u64) -> Option<u64> {
    choose(Some(mutant));
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let caught = (1..=seeds).step_by(threads as usize).find_map(|first| {
        let failed = |seed| run(seed, false).failed.then_some(seed);
        std::thread::scope(|scope| {
            let runs: Vec<_> =
                (first..first + threads).map(|seed| scope.spawn(move || failed(seed))).collect();
            runs.into_iter().filter_map(|run| run.join().ok().flatten()).min()
        })
    });
    choose(None);
    caught
}

#[test]
fn every_mutant_is_caught() {
    let seeds = setting("SEEDS").unwrap_or(SEEDS);
    let only = std::env::var("MUTANT").ok();
    let wanted = |mutant: &&Mutant| only.as_ref().is_none_or(|name| name == mutant.name());
    // Each failure would tell its story.
    std::panic::set_hook(Box::new(|_| {}));
    let mut survivors = Vec::new();
    for &mutant in ALL.iter().filter(wanted) {
        match caught_at(mutant, seeds) {
            Some(seed) => println!("{seed:>5} {:<28} {}", mutant.name(), mutant.rule()),
            None => {
                println!(" none {:<28} {}", mutant.name(), mutant.rule());
                survivors.push(mutant.name());
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(survivors.is_empty(), "not noticed in {seeds} seeds: {survivors:?}");
}

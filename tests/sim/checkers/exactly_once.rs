//! Every increment that was acknowledged counts, and none counts twice.

use std::collections::BTreeSet;

/// A counter that began at 0 and was only ever incremented by 1: what was told of
/// the acknowledged increments, how many others may have happened once, and
/// what it shows now that all is quiet. An increment that a session repeats
/// is one increment.
pub fn check(results: &[i64], unknown: usize, last: i64) -> Result<(), String> {
    let distinct: BTreeSet<i64> = results.iter().copied().collect();
    if distinct.len() < results.len() {
        return Err(format!("one result for two increments: {results:?}"));
    }
    if let Some(result) = results.iter().find(|&&result| result < 1 || last < result) {
        return Err(format!("{result} was told, but it counted from 1 to {last}"));
    }
    // Distinct results up to the last: none of the acknowledged is missing.
    let most = results.len() + unknown;
    match usize::try_from(last).is_ok_and(|last| last <= most) {
        true => Ok(()),
        false => {
            Err(format!("{last} after {} increments and {unknown} unknown ones", results.len()))
        }
    }
}

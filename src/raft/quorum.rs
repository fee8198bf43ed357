//! What a majority agrees on: pure functions over what each voter said.

use crate::mutants::{self, Mutant};

/// The largest value that a majority has reached: the commit index over what
/// is durable where, the confirmed round over what was echoed, the start of a
/// lease over when each voter was last known to be ours.
///
/// With nobody to ask, nothing is agreed on: `None`.
///
/// ```text
/// voters      5  4  4  2  1        1  9        7
/// agreed            ^                 1        7
/// ```
pub fn agreed<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    let enough = match mutants::on(Mutant::HalfIsMajority) {
        false => values.len() / 2,
        true => values.len().saturating_sub(1) / 2,
    };
    values.get(enough).copied()
}

/// How an election stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteOutcome {
    /// A majority said yes.
    Won,
    /// A majority can no longer say yes.
    Lost,
    /// Neither yet.
    Open,
}

/// Counts one answer per voter: yes, no, or none yet.
pub fn votes(answers: impl Iterator<Item = Option<bool>>) -> VoteOutcome {
    let (mut voters, mut yes, mut no) = (0, 0, 0);
    for answer in answers {
        voters += 1;
        match answer {
            Some(true) => yes += 1,
            Some(false) => no += 1,
            None => {}
        }
    }
    let majority = match mutants::on(Mutant::HalfIsMajority) {
        false => voters / 2 + 1,
        true => voters - voters / 2,
    };
    if yes >= majority {
        VoteOutcome::Won
    } else if no > voters - majority {
        VoteOutcome::Lost
    } else {
        VoteOutcome::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_has_reached_what_is_agreed() {
        let of = |values: &[u64]| agreed(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some(7));
        assert_eq!(of(&[9, 1]), Some(1), "two voters: both");
        assert_eq!(of(&[3, 9, 1]), Some(3));
        assert_eq!(of(&[4, 4, 2, 9]), Some(4), "four voters: three");
        assert_eq!(of(&[5, 4, 4, 2, 1]), Some(4));
    }

    #[test]
    fn agreed_is_what_counting_says() {
        // The obvious definition, over every small combination.
        for n in 1..=5_u32 {
            for code in 0..4_u64.pow(n) {
                let values: Vec<u64> = (0..n).map(|i| code / 4_u64.pow(i) % 4).collect();
                let reached = |v: u64| values.iter().filter(|&&x| x >= v).count() * 2 > n as usize;
                let counted = (0..4).rev().find(|&v| reached(v));
                assert_eq!(agreed(values.iter().copied()), counted, "{values:?}");
            }
        }
    }

    #[test]
    fn an_election_is_open_until_it_cannot_change() {
        let of = |answers: &[Option<bool>]| votes(answers.iter().copied());
        assert_eq!(of(&[Some(true)]), VoteOutcome::Won);
        assert_eq!(of(&[Some(true), None, None]), VoteOutcome::Open);
        assert_eq!(of(&[Some(true), Some(true), None]), VoteOutcome::Won);
        assert_eq!(of(&[Some(true), Some(false), Some(false)]), VoteOutcome::Lost);
        assert_eq!(of(&[Some(true), Some(false)]), VoteOutcome::Lost, "two voters: both");
        assert_eq!(of(&[]), VoteOutcome::Lost, "nobody elects nobody");
    }
}

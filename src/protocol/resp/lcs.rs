//! The longest common subsequence of two values, by the usual table.
//!
//! The table takes 4 bytes for each pair of bytes of the two, so two values of 16
//! MiB each would take a petabyte: what is larger than a limit is refused.

use super::write::Out;

/// The largest product of both lengths: a table of 1 MiB, a millisecond.
const LARGEST_TABLE: usize = 256 << 10;

/// What is asked of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lcs {
    /// Only how long it is.
    pub(super) length_only: bool,
    /// Where it stands in both,
    pub(super) positions: bool,
    /// and how long each piece is,
    pub(super) with_lengths: bool,
    /// of those that are at least this long.
    pub(super) least: i64,
}

/// Where a piece of it stands: first and last byte in the one and the other.
type Match = ((usize, usize), (usize, usize));

impl Lcs {
    /// Writes what is asked.
    pub(super) fn write(&self, a: &[u8], b: &[u8], out: &mut Out<'_>) {
        let table = Table::of(a, b);
        let Some(table) = table else {
            return out.error("ERR the product of both lengths exceeds the limit of 262144");
        };
        let number = |number: usize| i64::try_from(number).expect("lengths are in memory");
        if self.length_only {
            return out.integer(number(table.length()));
        }
        let (common, matches) = table.walk(a, b);
        if !self.positions {
            return out.bulk(&common);
        }
        let wanted = |(range, _): &&Match| number(range.1 - range.0 + 1) >= self.least;
        let matches: Vec<&Match> = matches.iter().filter(wanted).collect();
        out.map(2);
        out.bulk(b"matches");
        out.array(matches.len());
        for (in_a, in_b) in matches {
            out.array(if self.with_lengths { 3 } else { 2 });
            for (from, to) in [in_a, in_b] {
                out.array(2);
                out.integer(number(*from));
                out.integer(number(*to));
            }
            if self.with_lengths {
                out.integer(number(in_a.1 - in_a.0 + 1));
            }
        }
        out.bulk(b"len");
        out.integer(number(table.length()));
    }
}

/// `cells[i][j]` is the length for the first `i` bytes of one and `j` of the other.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn of(a: &[u8], b: &[u8]) -> Option<Self> {
        if a.is_empty() || b.is_empty() {
            return Some(Self { cells: vec![0; 1], width: 1 });
        }
        let size = (a.len() + 1).checked_mul(b.len() + 1).filter(|&size| size <= LARGEST_TABLE)?;
        let mut table = Self { cells: vec![0; size], width: b.len() + 1 };
        for (i, x) in (1..).zip(a) {
            for (j, y) in (1..).zip(b) {
                table.cells[i * table.width + j] = if x == y {
                    table.at(i - 1, j - 1) + 1
                } else {
                    table.at(i - 1, j).max(table.at(i, j - 1))
                };
            }
        }
        Some(table)
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    fn length(&self) -> usize {
        self.cells.last().map_or(0, |&length| length as usize)
    }

    /// The subsequence, and its pieces from the last to the first, as Redis finds
    /// them.
    fn walk(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (a.len(), b.len());
        let (mut common, mut matches) = (Vec::with_capacity(self.length()), Vec::<Match>::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                common.push(a[i]);
                match matches.last_mut() {
                    Some((in_a, in_b)) if in_a.0 == i + 1 && in_b.0 == j + 1 => {
                        (in_a.0, in_b.0) = (i, j);
                    }
                    _ => matches.push(((i, i), (j, j))),
                }
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        common.reverse();
        (common, matches)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn said(lcs: &Lcs, a: &str, b: &str) -> String {
        let mut bytes = BytesMut::new();
        lcs.write(a.as_bytes(), b.as_bytes(), &mut Out { bytes: &mut bytes, resp3: false });
        String::from_utf8(bytes.to_vec()).unwrap().replace("\r\n", " ")
    }

    /// The example of Redis' own documentation.
    #[test]
    fn the_longest_common_subsequence_is_that_of_redis() {
        let said = |lcs| said(&lcs, "ohmytext", "mynewtext");
        assert_eq!(said(Lcs::default()), "$6 mytext ");
        assert_eq!(said(Lcs { length_only: true, ..Lcs::default() }), ":6 ");
        let positions = Lcs { positions: true, ..Lcs::default() };
        assert_eq!(
            said(positions.clone()),
            "*4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6 "
        );
        assert_eq!(
            said(Lcs { least: 4, with_lengths: true, ..positions }),
            "*4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6 "
        );
    }

    #[test]
    fn what_would_take_too_much_is_refused() {
        let long = "x".repeat(1 << 20);
        assert!(said(&Lcs::default(), &long, &long).starts_with("-ERR"));
        assert_eq!(said(&Lcs::default(), "", ""), "$0  ");
    }
}

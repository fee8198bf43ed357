//! Patterns of names, as Redis' KEYS and SCAN understand them.
//!
//! `*` is any bytes, `?` any one, `[a-c]`, `[^abc]` one of a set or one that is
//! not, and `\` makes the next byte mean itself. A set that does not end, ends
//! with the pattern.
//!
//! Pitfall: a matcher that tries again behind every star takes exponential time
//! for a pattern like `*a*a*a*b`. Here only the last star is tried again, which
//! finds the same, in the product of both lengths at most.

/// Whether all of `name` matches `pattern`.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and where its name began to be left over.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if p == pattern.len() && n == name.len() {
            return true;
        }
        let step = name.get(n).and_then(|&byte| match_one(&pattern[p..], byte));
        match (step, retry) {
            (Some(length), _) => {
                p += length;
                n += 1;
            }
            (None, Some((behind, from))) if from < name.len() => {
                retry = Some((behind, from + 1));
                (p, n) = (behind, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// How much of the pattern this byte matches.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    let (length, matched) = match pattern {
        [] => return None,
        [b'?', ..] => (1, true),
        [b'[', rest @ ..] => {
            let (length, matched) = match_set(rest, byte);
            (1 + length, matched)
        }
        [b'\\', literal, ..] => (2, *literal == byte),
        [literal, ..] => (1, *literal == byte),
    };
    matched.then_some(length)
}

/// How long a set is, and whether the byte is in it.
fn match_set(set: &[u8], byte: u8) -> (usize, bool) {
    let inverted = set.first() == Some(&b'^');
    let (mut at, mut found) = (usize::from(inverted), false);
    loop {
        match &set[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                found |= *literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (from.min(to), from.max(to));
                found |= (*from..=*to).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (at, found != inverted)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    /// Each as redis-server 7.0 answers, asked with KEYS over one key.
    #[test]
    fn patterns_match_as_they_do_in_redis() {
        let matching: &[(&str, &str)] = &[
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("h?llo", "hello"),
            ("h*llo", "hllo"),
            ("h*llo", "heeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("\\*", "*"),
            ("a\\", "a\\"),
            ("[a", "a"),
            ("[\\]]", "]"),
            ("**a**", "bab"),
            ("*a*b", "aXbab"),
            ("[a-]", "]"),
            ("[a\\", "\\"),
            ("[^", "x"),
        ];
        let different: &[(&str, &str)] = &[
            ("", "a"),
            ("?", ""),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("h[ae]llo", "hillo"),
            ("\\*", "a"),
            ("*b", "ba"),
            ("*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            ("[", "["),
            ("[a-]", "-"),
            ("[]a]", "]a]"),
            ("[a-\\]]", "]"),
        ];
        for (pattern, name) in matching {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in different {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    /// As it is said, and as slow as it may be: every star tries everything.
    fn matches_slowly(pattern: &[u8], name: &[u8]) -> bool {
        let then = |rest: &[u8], fits: bool| fits && matches_slowly(rest, &name[1..]);
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|n| matches_slowly(rest, &name[n..])),
            (_, []) => false,
            ([b'?', rest @ ..], _) => then(rest, true),
            ([b'\\', byte, rest @ ..], _) => then(rest, *byte == name[0]),
            ([b'[', b'^', set @ ..], _) => {
                let (found, rest) = find_slowly(set, name[0]);
                then(rest, !found)
            }
            ([b'[', set @ ..], _) => {
                let (found, rest) = find_slowly(set, name[0]);
                then(rest, found)
            }
            ([byte, rest @ ..], _) => then(rest, *byte == name[0]),
        }
    }

    fn find_slowly(set: &[u8], byte: u8) -> (bool, &[u8]) {
        let (found, rest) = match set {
            [] => return (false, set),
            [b'\\', literal, rest @ ..] => (*literal == byte, rest),
            [b']', rest @ ..] => return (false, rest),
            [a, b'-', z, rest @ ..] => ((*a.min(z)..=*a.max(z)).contains(&byte), rest),
            [literal, rest @ ..] => (*literal == byte, rest),
        };
        let (more, rest) = find_slowly(rest, byte);
        (found || more, rest)
    }

    #[test]
    fn random_patterns_match_as_if_every_star_were_tried() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut draw = |from: &[u8], most: usize| -> Vec<u8> {
            let length = rng.random_range(0..=most);
            (0..length).map(|_| from[rng.random_range(0..from.len())]).collect()
        };
        let mut matched = 0;
        for _ in 0..200_000 {
            let (pattern, name) = (draw(b"ab**?[]^-\\", 8), draw(b"aab]-\\", 6));
            let expected = matches_slowly(&pattern, &name);
            assert_eq!(matches(&pattern, &name), expected, "{pattern:?} {name:?}");
            matched += u32::from(expected);
        }
        assert!(matched > 1000, "{matched}");
    }
}

//! Decimal numbers with 17 places, exactly.
//!
//! INCRBYFLOAT adds numbers that people write in decimal. A binary float would
//! answer 0.30000000000000004 to 0.1 and 0.2, and is not the same on every
//! machine if it is a long one. Here both are fractions of 10^17, which Redis
//! prints at most as well, and their sum is exact. What has more places is
//! rounded to the nearest, halves to the even one.
//!
//! The range is that of an i128 of such fractions, cut to ±10^20: Redis goes to
//! 10^4932, at a precision of 19 digits.

/// Places behind the point.
const PLACES: i32 = 17;

/// One.
const ONE: i128 = 100_000_000_000_000_000;

/// No number is larger.
const LIMIT: i128 = 100_000_000_000_000_000_000 * ONE;

/// No longer text is a number: 16 MiB of zeros would take a tenth of a second
/// to read, on every node, for every command. Redis reads no longer ones either.
const TEXT_BYTES: usize = 5 * 1024;

/// A number within ±10^20, in fractions of 10^17.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal(i128);

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Reads `-12.5`, `.5`, `3.`, `1.5e3`; no spaces, no words, no exponent beyond
    /// ±10,000, nothing beyond 5 KiB.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let end = rest.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (digits, exponent) = match end {
            Some(end) => (&rest[..end], parse_exponent(&rest[end + 1..])?),
            None => (rest, 0),
        };
        let value = scale(digits, exponent)?;
        Some(Self(if negative { -value } else { value })).filter(|it| it.0.abs() <= LIMIT)
    }

    /// The sum, if it is within the range.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self(self.0 + other.0)).filter(|sum| sum.0.abs() <= LIMIT)
    }
}

/// A number with as few places as say it.
impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, fraction) = (self.0.abs() / ONE, self.0.abs() % ONE);
        let sign = if self.0 < 0 { "-" } else { "" };
        let places = format!("{fraction:017}");
        match places.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            places => write!(f, "{sign}{whole}.{places}"),
        }
    }
}

fn parse_exponent(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|exponent: &i32| exponent.abs() <= 10_000)
}

/// Digits with at most one point, times 10 to the exponent, in our fractions.
fn scale(digits: &[u8], exponent: i32) -> Option<i128> {
    let point = digits.iter().position(|&byte| byte == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let all = || digits[..point].iter().chain(fraction);
    if all().next().is_none() || !all().all(u8::is_ascii_digit) {
        return None;
    }
    // The place of each digit, counted in our fractions.
    let first = i32::try_from(point).ok()? - 1 + exponent + PLACES;
    let (mut value, mut tail) = (0i128, Tail::default());
    for (i, byte) in (0..).zip(all()) {
        let digit = byte - b'0';
        let place = first - i;
        if place >= 0 {
            let weight = 10i128.checked_pow(place.cast_unsigned());
            match (digit, weight) {
                (0, _) => {}
                (_, None) => return None,
                (_, Some(weight)) => {
                    let part = weight.checked_mul(i128::from(digit))?;
                    value = value.checked_add(part)?;
                }
            }
            if value > LIMIT {
                return None;
            }
        } else {
            tail.push(place == -1, digit);
        }
    }
    Some(value + i128::from(tail.rounds_up(value % 2 != 0)))
}

/// The digits that are too many.
#[derive(Default)]
struct Tail {
    first: u8,
    more: bool,
}

impl Tail {
    fn push(&mut self, is_first: bool, digit: u8) {
        if is_first {
            self.first = digit;
        } else {
            self.more |= digit != 0;
        }
    }

    fn rounds_up(&self, is_odd: bool) -> bool {
        self.first > 5 || (self.first == 5 && (self.more || is_odd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let (a, b) = (Decimal::parse(a.as_bytes())?, Decimal::parse(b.as_bytes())?);
        Some(a.checked_add(b)?.to_string())
    }

    #[test]
    fn sums_are_what_a_person_expects() {
        let table = [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("3", "-5.5", "-2.5"),
            ("-0.5", "0.5", "0"),
            (".5", "3.", "3.5"),
            ("+1", "0", "1"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-18", "0", "0"),
            ("15e-18", "0", "0.00000000000000002"),
            ("25e-18", "0", "0.00000000000000002"),
            ("25.1e-18", "0", "0.00000000000000003"),
            ("0.000000000000000009999", "0", "0.00000000000000001"),
            ("1e20", "0", "100000000000000000000"),
            ("000000000000000000000000000000000000000000000000001", "0", "1"),
        ];
        for (a, b, expected) in table {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_in_range_is_none() {
        let texts = [
            "",
            ".",
            "-",
            "+-1",
            "1e",
            "e1",
            "1.2.3",
            " 1",
            "1 ",
            "nan",
            "inf",
            "0x1",
            "1e21",
            "1e99999999999",
            "-1e21",
            "2e21",
            "34e20",
            "9999999999999999999999",
            "100000000000000000000.1",
            "1e5.5",
            "\u{661}",
        ];
        for text in texts {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Decimal::parse(&[b'0'; TEXT_BYTES]), Some(Decimal::ZERO));
        assert_eq!(Decimal::parse(&[b'0'; TEXT_BYTES + 1]), None);
        assert_eq!(sum("1e20", "1"), None);
        assert_eq!(sum("-1e20", "-0.1"), None);
    }

    #[test]
    fn what_is_printed_reads_the_same() {
        for value in [0, 1, -1, ONE, -ONE, LIMIT, -LIMIT, LIMIT - 1, 123_456_789, ONE / 3] {
            let decimal = Decimal(value);
            assert_eq!(Decimal::parse(decimal.to_string().as_bytes()), Some(decimal));
        }
    }
}

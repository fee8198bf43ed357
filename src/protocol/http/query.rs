//! What stands in a request's target: segments, and parameters behind a `?`.
//!
//! A parameter that is not known, or said twice, is refused: one that is not
//! understood would be one that is not obeyed.

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::response::Response;

/// What it stands for, of any bytes.
pub fn decoded(text: &str) -> Result<Bytes, Response> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err(Response::error(400, "a % without two hex digits"));
    }
    Ok(percent_decode_str(text).collect())
}

/// The same, of text.
pub fn decoded_text(text: &str) -> Result<String, Response> {
    String::from_utf8(decoded(text)?.into())
        .map_err(|_| Response::error(400, "what has to be text is not UTF-8"))
}

/// The parameters that nobody has asked about yet.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a query.
    pub fn of(query: &str) -> Result<Self, Response> {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded_text(name)?, decoded_text(value)?))
        };
        let parts = query.split('&').filter(|part| !part.is_empty());
        Ok(Self(parts.map(pair).collect::<Result<_, _>>()?))
    }

    /// What is said for this name.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(place).1)
    }

    /// Whether this is said, and not denied.
    pub fn take_flag(&mut self, name: &str) -> Result<bool, Response> {
        match self.take(name).as_deref() {
            None => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Response::error(400, &format!("{name} takes no value"))),
        }
    }

    /// A version.
    pub fn take_version(&mut self) -> Result<Option<u64>, Response> {
        let wrong = |_| Response::error(400, "version is not a number");
        self.take("version").map(|version| version.parse().map_err(wrong)).transpose()
    }

    /// A time to live in milliseconds.
    pub fn take_ttl_ms(&mut self) -> Result<Option<u64>, Response> {
        let wrong = || Response::error(400, "ttl is not like 500ms, 10s, 2m or 1h");
        self.take("ttl").map(|ttl| ttl_ms(&ttl).ok_or_else(wrong)).transpose()
    }

    /// That was all.
    pub fn none_left(self) -> Result<(), Response> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let why = format!("the parameter {name:?} is unknown here, or said twice");
                Err(Response::error(400, &why))
            }
        }
    }
}

fn ttl_ms(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit_ms = match &text[number.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let ms = number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit_ms)?;
    Some(ms).filter(|&ms| ms > 0)
}

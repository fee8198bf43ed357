//! The head of a request: method, target, headers, and what they say about the
//! body and the connection.
//!
//! Where a proxy in front of us and we ourselves could disagree about where a
//! request ends, one request could be smuggled in another. So what is ambiguous
//! is refused, and ends the connection.

use httparse::{EMPTY_HEADER, Header, Status};

use super::response::{Manner, Persistence, Response};
use super::{HEAD_BYTES, HEADERS, REQUEST_LINE_BYTES};

/// Looks for the end of the head, behind its empty line, beyond what is known
/// to hold none.
pub fn end_of_head(input: &[u8], searched: &mut usize) -> Result<Option<usize>, Response> {
    let window = &input[..input.len().min(HEAD_BYTES)];
    let line = &window[..window.len().min(REQUEST_LINE_BYTES)];
    if line.len() == REQUEST_LINE_BYTES && !line.contains(&b'\n') {
        return Err(Response::error(414, "the request line is too long"));
    }
    let is_end = |&at: &usize| {
        window[at] == b'\n' && matches!(&window[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..])
    };
    let Some(at) = (*searched..window.len()).find(is_end) else {
        // An end may have begun with the last two bytes.
        *searched = window.len().saturating_sub(2);
        let is_full = window.len() == HEAD_BYTES;
        return if is_full { Err(too_large()) } else { Ok(None) };
    };
    *searched = 0;
    Ok(Some(if window[at + 1] == b'\n' { at + 2 } else { at + 3 }))
}

fn too_large() -> Response {
    Response::error(431, "the head of the request is too large")
}

/// How the body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By a length, 0 if nothing is said.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A head that was read and not judged yet.
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query, or a whole address.
    pub target: &'a str,
    /// The version behind `HTTP/1.`.
    minor: u8,
    headers: &'a [Header<'a>],
}

impl Head<'_> {
    /// Reads a whole head, and has it judged.
    pub fn read<T>(
        bytes: &[u8],
        judge: impl FnOnce(Head) -> Result<T, Response>,
    ) -> Result<T, Response> {
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(senseless("the head of the request ends early")),
            Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
            Err(httparse::Error::Version) => {
                return Err(Response::error(505, "HTTP/1.0 and HTTP/1.1 are spoken here"));
            }
            Err(error) => return Err(senseless(&error.to_string())),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(senseless("the request line is incomplete"));
        };
        judge(Head { method, target, minor, headers: request.headers })
    }

    /// What headers of this name say, in their order.
    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let called = move |header: &&Header| header.name.eq_ignore_ascii_case(name);
        self.headers.iter().filter(called).map(|header| header.value.trim_ascii())
    }

    /// The elements of a list that may be spread over several headers.
    fn elements(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
    }

    /// What the only header of this name says.
    pub fn value(&self, name: &str) -> Result<Option<&str>, Response> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => match std::str::from_utf8(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(senseless(&format!("{name} is not UTF-8"))),
            },
            _ => Err(senseless(&format!("there are several {name}"))),
        }
    }

    /// Whether it says to whom it is addressed, as it has to since HTTP/1.1.
    pub fn check_host(&self) -> Result<(), Response> {
        match self.value("Host")? {
            None if self.minor > 0 => Err(senseless("Host is missing")),
            _ => Ok(()),
        }
    }

    /// Refuses what a page of somebody else makes a browser send: nothing asks the
    /// user, and the response, which the page may not read, is not what it is after.
    /// Who is no browser sends neither of these headers.
    pub fn check_origin(&self) -> Result<(), Response> {
        let is_read = matches!(self.method, "GET" | "HEAD" | "OPTIONS");
        let is_foreign = |site: &[u8]| !matches!(site, b"same-origin" | b"none");
        let is_from_page =
            self.values("Origin").next().is_some() || self.values("Sec-Fetch-Site").any(is_foreign);
        if is_read || !is_from_page {
            return Ok(());
        }
        Err(Response::error(403, "a page in a browser may not change anything here"))
    }

    /// How the body is framed; refuses what might be read in two ways.
    pub fn framing(&self) -> Result<Framing, Response> {
        let is_coded = self.values("Transfer-Encoding").next().is_some();
        let has_length = self.values("Content-Length").next().is_some();
        match (is_coded, has_length) {
            (true, true) => Err(senseless("both Transfer-Encoding and Content-Length")),
            (true, false) => self.coding(),
            (false, true) => self.length(),
            (false, false) => Ok(Framing::Length(0)),
        }
    }

    fn coding(&self) -> Result<Framing, Response> {
        let mut codings = self.elements("Transfer-Encoding").map(<[u8]>::to_ascii_lowercase);
        if self.minor == 0 {
            return Err(senseless("Transfer-Encoding in HTTP/1.0"));
        }
        match (codings.next().as_deref(), codings.next()) {
            (Some(b"chunked"), None) => Ok(Framing::Chunked),
            (Some(b"" | b"chunked"), _) => Err(senseless("Transfer-Encoding makes no sense")),
            _ => Err(Response::error(501, "of transfer codings only chunked is known")),
        }
    }

    /// The length, which may be said again but not differently.
    fn length(&self) -> Result<Framing, Response> {
        let mut lengths = self.elements("Content-Length");
        let first = lengths.next().unwrap_or_default();
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if !is_number || lengths.any(|length| length != first) {
            return Err(senseless("Content-Length makes no sense"));
        }
        let digits = std::str::from_utf8(first).unwrap_or_default();
        // More than a number holds is more than anything may have.
        Ok(Framing::Length(digits.parse().unwrap_or(u64::MAX)))
    }

    /// Whether the client waits to be told to send the body.
    pub fn expects_continue(&self) -> Result<bool, Response> {
        let mut expected = self.elements("Expect");
        match expected.next() {
            Some(expected) if expected.eq_ignore_ascii_case(b"100-continue") => Ok(self.minor > 0),
            Some(_) => Err(Response::error(417, "only 100-continue can be expected")),
            None => Ok(false),
        }
    }

    /// How the response has to be written.
    pub fn manner(&self) -> Manner {
        let says =
            |word: &[u8]| self.elements("Connection").any(|said| said.eq_ignore_ascii_case(word));
        let persistence = match self.minor {
            _ if says(b"close") => Persistence::Closes,
            0 if says(b"keep-alive") => Persistence::KeptAlive,
            0 => Persistence::Closes,
            _ => Persistence::Stays,
        };
        Manner { head_only: self.method == "HEAD", persistence }
    }
}

/// What cannot be understood.
fn senseless(why: &str) -> Response {
    Response::error(400, why)
}

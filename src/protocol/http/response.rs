//! What a client is sent: a status, a few headers, a body.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What becomes of the connection behind a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It stays, as is usual since HTTP/1.1.
    Stays,
    /// It stays because a client of HTTP/1.0 has asked for that.
    KeptAlive,
    /// It ends.
    Closes,
}

/// How a request wants its response to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Without the body: to HEAD.
    pub head_only: bool,
    /// Said in a header.
    pub persistence: Persistence,
}

impl Manner {
    /// After what could not be understood.
    pub const LAST: Self = Self { head_only: false, persistence: Persistence::Closes };
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    content_type: &'static str,
    /// One more header.
    header: Option<(&'static str, String)>,
    body: Bytes,
}

impl Response {
    fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, header: None, body: body.into() }
    }

    /// Text for people.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new(200, TEXT, body)
    }

    /// Text for a monitoring system; for a browser or an older one just text.
    pub fn metrics(body: String, is_open: bool) -> Self {
        Self::new(200, if is_open { OPEN_METRICS } else { TEXT }, body)
    }

    /// A value as it is.
    pub fn bytes(body: Bytes) -> Self {
        Self::new(200, BYTES, body)
    }

    /// A JSON document.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, JSON, body.to_string())
    }

    /// Done, and nothing to be said about it.
    pub fn no_content() -> Self {
        Self::new(204, TEXT, Bytes::new())
    }

    /// It failed. Who might have more luck in a second is told so.
    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "message": message, "status": status }))
    }

    /// A body over the limit.
    pub fn too_large(limit: usize) -> Self {
        Self::error(413, &format!("the body is over the limit of {limit} bytes"))
    }

    /// With a header.
    pub fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    /// With the version of a key.
    pub fn with_version(self, version: u64) -> Self {
        self.with("ETag", format!("\"{version}\""))
    }

    /// Appends its bytes.
    pub fn put(&self, manner: Manner, output: &mut BytesMut) {
        let status = self.status;
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        // There is no body whose length could be told.
        if status != 204 {
            let length = self.body.len();
            head += &format!("Content-Type: {}\r\nContent-Length: {length}\r\n", self.content_type);
        }
        if let Some((name, value)) = &self.header {
            head += &format!("{name}: {value}\r\n");
        }
        head += match manner.persistence {
            Persistence::Stays => "\r\n",
            Persistence::KeptAlive => "Connection: keep-alive\r\n\r\n",
            Persistence::Closes => "Connection: close\r\n\r\n",
        };
        output.put_slice(head.as_bytes());
        if !manner.head_only {
            output.put_slice(&self.body);
        }
    }

    /// Its bytes.
    pub fn written(&self, manner: Manner) -> Bytes {
        let mut output = BytesMut::new();
        self.put(manner, &mut output);
        output.freeze()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

//! HTTP/1.1 and HTTP/1.0, for what speaks nothing else, and for a browser.
//!
//! A connection carries requests one after the other, as many as the client
//! likes before the first response; responses come in the order of the requests.
//! Keys are those of database 0.
//!
//! # Values as they are
//!
//! | request | response |
//! |---|---|
//! | `PUT /v1/keys/{k}`, the value as its body | 204 with the new version in `ETag` |
//! | … `?ttl=10s` (`500ms`, `2m`, `1h`) | the same; the key goes away after that |
//! | … `?nx`, or `If-None-Match: *` | 412 if the key is there |
//! | … `?xx`, or `If-Match: *` | 412 if the key is not there |
//! | … `?version=7`, or `If-Match: "7"` | 409 if the key has another version; 0 means absent |
//! | `GET /v1/keys/{k}` | 200, the value, its version in `ETag`; or 404 |
//! | `DELETE /v1/keys/{k}` | 204, or 404 if there was none |
//! | … `?version=7`, or `If-Match: "7"` | 409 if the key has another version |
//!
//! # Paths of the ancestors
//!
//! | request | response |
//! |---|---|
//! | `POST /key` with `{"k":"v", …}` | 200 `OK`: all are stored together |
//! | `GET /key/{k}` | 200 `{"k":"v"}`; or 404 `{"k":""}` |
//! | `DELETE /key/{k}` | 200, whether there was one or not |
//! | `POST /join` with `{"addr":…}` or `{"addr":…,"id":…}` | 200; the id is the address if not said |
//! | `POST /leave` with `{"addr":…}` or `{"id":…}` | 200 |
//! | `POST /api/v1/key/{k}/{v}` or `/api/v1/key/{k}/value/{v}` | 200 |
//! | `GET /api/v1/key/{k}` | 200, the value and `\n`; or 404 |
//! | `DELETE /api/v1/key/{k}` | 200, whether there was one or not |
//! | `POST /api/v1/node` with `{"addr":…,"node_id":…}` | 200 |
//! | `DELETE /api/v1/node/{id}` | 200 |
//!
//! Addresses are those for peers; one without a host means the host that the
//! request comes from. Joining again is no error. Bodies are JSON whatever their
//! Content-Type says.
//!
//! # The node
//!
//! | request | response |
//! |---|---|
//! | `GET /status` | 200, JSON: see below |
//! | `GET /health` | 200 `OK`: the process is well |
//! | `GET /metrics` | 200, for Prometheus: counters, latencies, and how the node is |
//! | `GET /ready` | 200 `OK` if this node can serve linearizable reads, else 503 |
//! | `GET /` | 200, these routes for people |
//!
//! `/status` has `me`, `leader` (or null) and `followers`, each with `id`,
//! `address`, `client_address` and `voter`; `role`, `health` (`ok` or `warning`),
//! `warnings`, `term`, `last_index`, `durable_index`, `commit_index`,
//! `applied_index`, `log_bytes`, `keys`, `memory_bytes`, `memory_limit_bytes`,
//! `log_time_ms`, `clock_offset_ms`; and in hex `cluster`, `node`, `state_hash`.
//!
//! # In general
//!
//! `{k}`, `{v}` and `{id}` are one segment of the path, percent-decoded: any bytes,
//! `a%2Fb` is `a/b`. `?consistency=stale` on a GET of a key asks only this node.
//! HEAD is GET without a body. What a page in a browser sends to change something, which
//! an `Origin` shows, is 403. A write without `ttl` clears an earlier deadline. A parameter that a route does not know, or that is said twice, and a
//! condition where none is known, is 400. Every response but 204 has
//! Content-Type and Content-Length; failures are `{"message":…,"status":…}`:
//!
//! | status | meaning | took effect |
//! |---|---|---|
//! | 400 | the request makes no sense | no |
//! | 404, 405 | no such path or key; no such method, see `Allow` | no |
//! | 406 | key or value is not UTF-8, or too large, for JSON: use `/v1/keys/` | |
//! | 409 | another version; or refused by a rule of the cluster | no |
//! | 412 | `nx` or `xx` does not hold | no |
//! | 413, 414, 431 | body, request line, or head is too large | no |
//! | 417, 501, 505 | Expect, Transfer-Encoding or version is unknown | no |
//! | 503 with `Retry-After` | no leader in time, or busy | no |
//! | 503 | this node cannot vouch for its state and does not serve | no |
//! | 504 | outcome unknown | perhaps |
//! | 507 | out of memory, or the disk is full or too slow | no |
//!
//! # Framing
//!
//! A body comes with Content-Length or in chunks; `Expect: 100-continue` is
//! answered in its place in the order. A connection stays open, with HTTP/1.0 if
//! it is asked to by `Connection: keep-alive`, until `Connection: close`.
//!
//! What another party could read in another way ends the connection with 400:
//! both Content-Length and Transfer-Encoding, lengths that differ, white space in
//! front of a colon, a header line that goes on in the next, a missing or second
//! Host, chunks that make no sense. So do 413, 414, 417, 431, 501 and 505, and
//! any refusal of a head whose body is over 16 KiB or waits for `100 Continue`. A
//! request that is cut off is never executed.
//!
//! The limits: a request line 8 KiB, a head 16 KiB, 64 headers; a value 16 MiB, a
//! body of `POST /key` 32 MiB and 10,000 keys, another body 16 KiB; a name or
//! address 1 KiB. A body that is over its limit is not read.

mod body;
mod head;
mod json;
mod query;
mod reply;
mod response;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::surroundings::Surroundings;
use super::{Codec, Incoming, Limits, ProtocolError, REQUEST_LINE_BYTES};
use crate::request::{Reply, Request};
use body::Body;
use head::{Framing, Head, end_of_head};
use reply::Shape;
use response::{Manner, Persistence, Response};
use routes::Route;

/// How long the head of a request may be.
const HEAD_BYTES: usize = 16 << 10;

/// How many headers it may have.
const HEADERS: usize = 64;

/// How long a body may be that is a few words, or nothing that anybody reads.
const SMALL_BODY_BYTES: usize = 16 << 10;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const INDEX: &str = "\
raftcache, a replicated in-memory cache

PUT    /v1/keys/{k}   store the body; ?ttl=10s ?nx ?xx ?version=7
GET    /v1/keys/{k}   the value; ?consistency=stale
DELETE /v1/keys/{k}   remove it

POST   /key           store {\"k\":\"v\", ...} together
GET    /key/{k}       {\"k\":\"v\"}
DELETE /key/{k}       remove it
POST   /join          take in the node {\"addr\":\"host:port\",\"id\":\"name\"}
POST   /leave         remove the node {\"id\":\"name\"}

POST   /api/v1/key/{k}/{v}
GET    /api/v1/key/{k}
DELETE /api/v1/key/{k}
POST   /api/v1/node   take in the node {\"addr\":\"host:port\",\"node_id\":\"name\"}
DELETE /api/v1/node/{id}

GET    /status        the node and its cluster
GET    /metrics       the same and more for Prometheus
GET    /health        whether the process is well
GET    /ready         whether it serves
";

/// A request whose head is understood, and whose body is not whole yet. Both are
/// still in the input.
#[derive(Debug)]
struct Unfinished {
    /// What it is about, or its answer already.
    route: Result<Route, Response>,
    manner: Manner,
    body: Body,
    /// The client waits to be told to send the body.
    waits: bool,
}

/// The server's side of an HTTP connection.
pub struct HttpCodec {
    limits: Limits,
    surroundings: Box<dyn Surroundings>,
    /// How the replies that are to come are to be written.
    awaited: VecDeque<(Shape, Manner)>,
    /// How much of the input is known to hold no end of a head.
    searched: usize,
    unfinished: Option<Unfinished>,
    /// What was taken last is the last.
    ended: bool,
}

impl HttpCodec {
    /// A codec that accepts what is within `limits`.
    pub fn new(limits: Limits, surroundings: Box<dyn Surroundings>) -> Self {
        let (awaited, searched, unfinished, ended) = Default::default();
        Self { limits, surroundings, awaited, searched, unfinished, ended }
    }

    /// Understands the head at the front of `input`, if it is whole.
    fn begin(&mut self, input: &mut BytesMut) -> Result<Option<Unfinished>, Response> {
        skip_empty_lines(input);
        let Some(end) = end_of_head(input, &mut self.searched)? else { return Ok(None) };
        Head::read(&input[..end], |head| Unfinished::of(&head, end, &self.limits)).map(Some)
    }

    fn finish(&mut self, unfinished: Unfinished, body: Bytes) -> Incoming {
        let Unfinished { route, manner, .. } = unfinished;
        match route.and_then(|route| route.request(body, &self.limits)) {
            Ok((request, shape)) => {
                self.ended = manner.persistence == Persistence::Closes;
                self.awaited.push_back((shape, manner));
                Incoming::Ask(request)
            }
            Err(response) => self.answer(&response, manner),
        }
    }

    fn answer(&mut self, response: &Response, manner: Manner) -> Incoming {
        self.ended = manner.persistence == Persistence::Closes;
        Incoming::Written(response.written(manner))
    }
}

impl Codec for HttpCodec {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        let mut unfinished = match self.unfinished.take() {
            Some(unfinished) => unfinished,
            None => match self.begin(input) {
                Ok(Some(unfinished)) => unfinished,
                Ok(None) => return Ok(None),
                Err(response) => return Ok(Some(self.answer(&response, Manner::LAST))),
            },
        };
        if std::mem::take(&mut unfinished.waits) {
            self.unfinished = Some(unfinished);
            return Ok(Some(Incoming::Written(Bytes::from_static(CONTINUE))));
        }
        match unfinished.body.take(input) {
            Ok(Some(body)) => Ok(Some(self.finish(unfinished, body))),
            Ok(None) => {
                self.unfinished = Some(unfinished);
                Ok(None)
            }
            Err(response) => {
                let (response, manner) = unfinished.given_up(response);
                Ok(Some(self.answer(&response, manner)))
            }
        }
    }

    fn encode(&mut self, reply: &Reply, output: &mut BytesMut) -> Option<Request> {
        let (shape, manner) =
            self.awaited.pop_front().expect("no more replies come than were asked for");
        shape.response(reply, &self.limits, &*self.surroundings).put(manner, output);
        None
    }

    fn ends(&self) -> bool {
        self.ended
    }
}

impl Unfinished {
    /// What a head of so many bytes begins.
    fn of(head: &Head, bytes: usize, limits: &Limits) -> Result<Self, Response> {
        head.check_host()?;
        head.check_origin()?;
        let framing = head.framing()?;
        let expects = head.expects_continue()?;
        let route = Route::of(head, limits);
        let limit = route.as_ref().map_or(SMALL_BODY_BYTES, |route| route.body_limit(limits));
        let (length, body) = match framing {
            Framing::Chunked => (0, Body::chunked(bytes, limit)),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                (length, Body::of_length(bytes, length))
            }
        };
        let waits = expects && framing != Framing::Length(0);
        let unfinished = Self { route, manner: head.manner(), body, waits };
        // A client that is refused while it waits may send its body or not: where
        // its next request begins would be a guess.
        if length > limit || (waits && unfinished.route.is_err()) {
            let (response, manner) = unfinished.given_up(Response::too_large(limit));
            let body = Body::of_length(bytes, 0);
            return Ok(Self { route: Err(response), manner, body, waits: false });
        }
        Ok(unfinished)
    }

    /// Its answer if its body cannot be read: its own, or else this.
    fn given_up(self, response: Response) -> (Response, Manner) {
        let response = self.route.err().unwrap_or(response);
        (response, Manner { persistence: Persistence::Closes, ..self.manner })
    }
}

/// Between requests an empty line is nothing.
fn skip_empty_lines(input: &mut BytesMut) {
    while let Some(length) = match &input[..] {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    } {
        input.advance(length);
    }
}

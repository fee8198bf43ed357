//! Replies as responses.

use bytes::{BufMut, Bytes, BytesMut};

use super::json;
use super::response::Response;
use crate::protocol::Limits;
use crate::protocol::surroundings::Surroundings;
use crate::request::{Answer, ErrorKind, Item, Reply};

/// How a reply is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// 200, whatever the answer says.
    Done,
    /// 200 `OK` if all is stored.
    AllStored,
    /// 204, else 409 if a version was compared, and 412.
    Stored {
        /// Whether the condition was a version.
        compares: bool,
    },
    /// 204, 404 if there was nothing, 409 if a guard did not hold.
    Deleted,
    /// The value as JSON under this key.
    Json(String),
    /// The value as a line.
    Line,
    /// The value as it is.
    Raw,
    /// `/status`.
    Status,
    /// `/metrics`.
    Metrics {
        /// The client knows the type by its name.
        is_open: bool,
    },
    /// `/health`.
    Health,
    /// `/ready`.
    Ready,
}

impl Shape {
    /// What the client is told.
    pub fn response(
        &self,
        reply: &Reply,
        limits: &Limits,
        surroundings: &dyn Surroundings,
    ) -> Response {
        match (self, reply) {
            (Self::Ready, Reply::Error(_, why)) => Response::unavailable(why),
            (_, Reply::Error(kind, why)) => failure(*kind, why),
            (_, Reply::GuardFailed) => Response::error(409, "the version is another"),
            (Self::Status, Reply::Status(status)) => Response::json(200, &json::status(status)),
            (Self::Metrics { is_open }, Reply::Status(status)) => {
                Response::metrics(surroundings.metrics(status), *is_open)
            }
            (Self::Health, Reply::Pong) => Response::text("OK"),
            (Self::Done, Reply::Done) => Response::text(""),
            (Self::AllStored, Reply::Answers(answers)) if answers.iter().all(is_stored) => {
                Response::text("OK")
            }
            (_, Reply::Answers(answers)) => match &answers[..] {
                [answer] => self.answered(answer, limits),
                _ => lost(),
            },
            _ => lost(),
        }
    }

    fn answered(&self, answer: &Answer, limits: &Limits) -> Response {
        match (self, answer) {
            (_, Answer::Failed(failure)) => Response::error(400, &failure.to_string()),
            (Self::Done, Answer::Stored { .. } | Answer::Integer(_)) => Response::text(""),
            (Self::Ready, Answer::Integer(_)) => Response::text("OK"),
            (Self::Stored { .. }, Answer::Stored { version }) => {
                Response::no_content().with_version(*version)
            }
            (Self::Stored { compares: true }, Answer::NotStored { version }) => {
                let why = format!("the version is {version}");
                Response::error(409, &why)
            }
            (Self::Stored { .. }, Answer::NotStored { .. }) => {
                Response::error(412, "the condition does not hold")
            }
            (Self::Deleted, Answer::Integer(1)) => Response::no_content(),
            (Self::Deleted, Answer::Integer(_)) => missing(),
            (_, Answer::Item(None)) => self.absent(),
            (_, Answer::Item(Some(item))) => self.found(item, limits),
            _ => lost(),
        }
    }

    fn absent(&self) -> Response {
        match self {
            Self::Json(key) => Response::json(404, &json::pair(key, "")),
            Self::Line | Self::Raw => missing(),
            _ => lost(),
        }
    }

    fn found(&self, item: &Item, limits: &Limits) -> Response {
        let response = match self {
            Self::Raw => Response::bytes(item.value.clone()),
            Self::Line => Response::text(line(&item.value)),
            Self::Json(key) => match std::str::from_utf8(&item.value) {
                Err(_) => return Response::not_json("the value"),
                Ok(value) if json::text_bytes(value) > limits.reply_bytes => {
                    return Response::not_json("so large a value");
                }
                Ok(value) => Response::json(200, &json::pair(key, value)),
            },
            _ => return lost(),
        };
        response.with_version(item.version)
    }
}

impl Response {
    /// What a document cannot hold.
    pub fn not_json(what: &str) -> Self {
        let why = format!("{what} cannot be said in JSON; /v1/keys/ has it as it is");
        Self::error(406, &why)
    }

    fn unavailable(why: &str) -> Self {
        Self::error(503, why).with("Retry-After", "1")
    }
}

fn is_stored(answer: &Answer) -> bool {
    matches!(answer, Answer::Stored { .. })
}

fn line(value: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(value.len() + 1);
    line.put_slice(value);
    line.put_u8(b'\n');
    line.freeze()
}

fn missing() -> Response {
    Response::error(404, "there is no such key")
}

/// Would be a mistake of the node; the client must not wait for ever.
fn lost() -> Response {
    Response::error(504, "the node lost the answer")
}

fn failure(kind: ErrorKind, why: &str) -> Response {
    match kind {
        ErrorKind::NoLeader | ErrorKind::Busy => Response::unavailable(why),
        ErrorKind::NotServing => Response::error(503, why),
        ErrorKind::Unknown => Response::error(504, why),
        ErrorKind::OutOfMemory | ErrorKind::DiskFull => Response::error(507, why),
        ErrorKind::Invalid => Response::error(400, why),
        ErrorKind::Refused | ErrorKind::SessionExpired => Response::error(409, why),
    }
}

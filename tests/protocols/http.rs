//! HTTP: the paths below `/v1/keys`, the node's own, and `POST /key` for several.
//! Heads are read by `httparse`.

use raftcache::request::{Answer, Command, Condition, Expiry, Item, Key};

use crate::speaks::{Speaks, take};
use crate::words::{Ask, Said};

pub struct Http;

fn request(line: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The path of a key.
fn path(key: &Key) -> Option<String> {
    let segment = percent_encoding::percent_encode(&key.name, percent_encoding::NON_ALPHANUMERIC);
    (key.db == 0).then(|| format!("/v1/keys/{segment}"))
}

fn put(key: &Key, value: &[u8], expiry: Expiry, condition: &Condition) -> Option<Vec<u8>> {
    let ttl = match expiry {
        Expiry::Never => String::new(),
        Expiry::AfterMs(ms) => format!("ttl={ms}ms"),
        _ => return None,
    };
    let only = match condition {
        Condition::Always => String::new(),
        Condition::IfAbsent => "nx".to_owned(),
        Condition::IfPresent => "xx".to_owned(),
        Condition::IfVersion(version) => format!("version={version}"),
        _ => return None,
    };
    Some(request(&format!("PUT {}?{ttl}&{only}", path(key)?), value))
}

fn post(sets: &[Command]) -> Option<Vec<u8>> {
    let pair = |of: &Command| match of {
        Command::Set {
            key: Key { db: 0, name },
            value,
            expiry: Expiry::Never,
            condition: Condition::Always,
        } => {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
            Some((text(name)?, text(value)?.into()))
        }
        _ => None,
    };
    let pairs: serde_json::Map<_, _> = sets.iter().map(pair).collect::<Option<_>>()?;
    Some(request("POST /key", serde_json::Value::Object(pairs).to_string().as_bytes()))
}

fn line(method: &str, key: &Key, query: &str) -> Option<Vec<u8>> {
    Some(request(&format!("{method} {}{query}", path(key)?), b""))
}

/// A status and a body.
fn response(input: &mut &[u8], to_head: bool) -> Option<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(input).expect("HTTP") else { return None };
    let is_length = |header: &&httparse::Header| header.name == "Content-Length";
    let declared = head.headers.iter().find(is_length).map_or(0, |header| {
        let text = std::str::from_utf8(header.value).expect("digits");
        text.parse().expect("a number")
    });
    let status = head.code.expect("a status");
    take(input, length)?;
    let body = take(input, if to_head { 0 } else { declared })?;
    Some((status, body.to_vec()))
}

fn answer(of: &Command, status: u16, body: Vec<u8>) -> Answer {
    match (of, status) {
        (Command::Get(_), 200) => Answer::Item(Some(Item { value: body.into(), version: 0 })),
        (Command::Get(_), 404) => Answer::Item(None),
        (Command::Exists(_) | Command::Delete(_), 404) => Answer::Integer(0),
        (Command::Exists(_), 200) | (Command::Delete(_), 204) => Answer::Integer(1),
        (Command::Set { .. }, 204) => Answer::Stored { version: 0 },
        (Command::Set { condition: Condition::IfVersion(_), .. }, 409)
        | (Command::Set { .. }, 412) => Answer::NotStored { version: 0 },
        _ => panic!("{status} to {of:?}: {}", body.escape_ascii()),
    }
}

fn leader(status: &[u8]) -> Said {
    let status: serde_json::Value = serde_json::from_slice(status).expect("JSON");
    Said::Leader(status["leader"]["client_address"].as_str().expect("an address").to_owned())
}

impl Speaks for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn request(&self, ask: &Ask) -> Option<Vec<u8>> {
        let commands = match ask {
            Ask::Ping => return Some(request("GET /health", b"")),
            Ask::Leader => return Some(request("GET /status", b"")),
            Ask::Stale(Command::Get(key)) => return line("GET", key, "?consistency=stale"),
            Ask::Stale(_) => return None,
            Ask::Run(commands) => &commands[..],
        };
        match commands {
            [Command::Get(key)] => line("GET", key, ""),
            [Command::Exists(key)] => line("HEAD", key, ""),
            [Command::Delete(key)] => line("DELETE", key, ""),
            [Command::Set { key, value, expiry, condition }] => put(key, value, *expiry, condition),
            [_] => None,
            commands => post(commands),
        }
    }

    fn has_room(&self, request: &[u8]) -> bool {
        request.iter().position(|&byte| byte == b'\n') < Some(8 << 10)
    }

    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)> {
        let mut rest = input;
        let to_head = matches!(ask, Ask::Run(batch) if matches!(batch[..], [Command::Exists(_)]));
        let (status, body) = response(&mut rest, to_head)?;
        let said = match ask {
            Ask::Ping => {
                assert_eq!((status, &body[..]), (200, &b"OK"[..]));
                Said::Pong
            }
            Ask::Leader => leader(&body),
            Ask::Stale(of) => Said::Answers(vec![answer(of, status, body)]),
            Ask::Run(batch) => Said::Answers(match &batch[..] {
                [of] => vec![answer(of, status, body)],
                batch => {
                    assert_eq!((status, &body[..]), (200, &b"OK"[..]));
                    batch.iter().map(|_| Answer::Stored { version: 0 }).collect()
                }
            }),
        };
        Some((said, input.len() - rest.len()))
    }

    fn unspoken(&self) -> &'static str {
        "absent: ttl\n\
         longest-key: set, get\n\
         database: clear, set, get, count, clear again, count again\n\
         if-value: does not, holds\n\
         unless-value: absent, does not, holds\n\
         add: to nothing, negative\n\
         add to text: add\n\
         add to the most: add, least\n\
         ttl: left, none left\n\
         ttl-keep: keep, left\n\
         expire: none, later, left, at once\n\
         persist: persist, again, left\n\
         moment: expire, set late\n\
         too-far: expire\n\
         several: get\n\
         together: batch\n\
         parts: append, write over, copy, rename, expire only\n"
    }

    fn to_a_long_key(&self) -> &'static str {
        "HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    }

    fn to_a_long_value(&self) -> &'static str {
        "HTTP/1.1 413 Content Too Large\r\n\
         Content-Type: application/json\r\n\
         Content-Length: 71\r\n\
         Connection: close\r\n\r\n\
         {\"message\":\"the body is over the limit of 16777216 bytes\",\"status\":413}"
    }
}

//! RESP, the protocol of Redis: what an unmodified client of Redis speaks.
//!
//! ```text
//! command | *<count> CRLF, count times: $<length> CRLF bytes … CRLF     or words LF
//! reply   | +text | -error | :number | $<length> CRLF bytes … | *<count> replies …
//!         | version 3 adds: _ no value, %<pairs> map, ~<count> set, =<length> text
//! ```
//!
//! A connection that began with `*` is RESP for good, or one with HELLO as an inline
//! command (`HELLO 3`); it also takes other inline commands and empty lines. It starts
//! with version 2 of the protocol, HELLO 3 changes that.
//! Commands, options and the texts of errors are those of Redis 7.2, so far as we
//! have them: the `table` is what there is.
//!
//! # What is different
//!
//! | | |
//! |---|---|
//! | types | there are strings only; commands of other types are unknown |
//! | MULTI | one entry of the log: all of it or nothing, on every node |
//! | WATCH | a version of the key, compared where EXEC is applied. A key that is set and removed again, and was absent, has not changed |
//! | RENAME, COPY | keep the deadline, as in Redis |
//! | INCRBYFLOAT | exact in decimal, within ±10^20 |
//! | KEYS, RANDOMKEY | go step by step: what comes or goes meanwhile may be met or not |
//! | SCAN | a key that stays is met exactly once |
//! | EVAL, EVALSHA | there is no Lua: the `scripts` of locks and limiters are known |
//! | LCS | of values whose lengths multiply to at most 256 Ki |
//! | MULTI | not within it: HELLO, CLIENT REPLY, WAIT, DEBUG SLEEP, OBJECT FREQ and IDLETIME; at most 32 LCS and commands about the node |
//! | WAIT | counts the disks that have what was written; an acknowledged write is on a majority's anyway |
//! | CLIENT PAUSE | of this node's clients; what is not about keys is answered all the same, of ALL too, and keys end at their deadlines |
//! | WAIT, CLIENT PAUSE, DEBUG SLEEP | a client that closes its side of the connection meanwhile is given up after 5 s |
//! | SLOWLOG, LATENCY | go by the time from a request's arrival to its reply |
//! | DEBUG SLEEP | the connection sleeps, not the node |
//! | APPEND, SETRANGE, RENAME, COPY | one transaction alters or copies at most 64 MiB of values |
//! | READONLY, READWRITE | switch to stale reads and back |
//! | LEADER | where clients reach the leader |
//! | TIME | the cluster's own clock, which deadlines go by |
//! | values | at most 16 MiB, keys 64 KiB, a command 32 MiB, a batch or transaction 10,000 commands |
//!
//! A request that failed as a whole is answered with an error whose first word says
//! what became of it:
//!
//! | word | meaning | took effect |
//! |---|---|---|
//! | `CLUSTERDOWN` | no leader in time, or a node that cannot vouch for its state | no |
//! | `UNKNOWN` | may or may not have been applied | perhaps |
//! | `OOM` | out of memory | no |
//! | `MISCONF` | disk full or too slow | no |
//! | `BUSY` | queues are full | no |
//! | `ERR` | makes no sense, or breaks a limit | no |
//!
//! # The files
//!
//! | file | what it is |
//! |---|---|
//! | `parse`, `write` | bytes to words; replies to bytes |
//! | `table` | every command: name, arity, keys, who does it |
//! | `call` | one command on its way, and what is to be done about it |
//! | `strings`, `keys`, `session`, `clients`, `server`, `info`, `config`, `slow` | the commands |
//! | `scripts` | EVAL and its like |
//! | `transaction` | MULTI and EXEC |
//! | `recent` | what was asked and is not answered, for SLOWLOG |
//! | `form`, `lcs` | answers of the state machine as replies |

mod call;
mod clients;
mod config;
mod form;
mod info;
mod keys;
mod lcs;
mod parse;
mod recent;
mod scripts;
mod server;
mod session;
mod slow;
mod strings;
mod table;
#[cfg(test)]
mod tests;
mod transaction;
mod write;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::surroundings::Surroundings;
use super::{Codec, Incoming, Limits, ProtocolError};
use crate::request::{Answer, Consistency, Guard, Reply, Request};
use call::{Call, Later, Plan, Refused};
use form::Form;
use parse::{Parser, Words};
use recent::{Length, Recent};
use session::Session;
use table::Spec;
use write::Out;

/// The version of Redis whose behaviour this is.
pub const REDIS_VERSION: &str = "7.2.4";

/// What is told in place of a reply over the limit: what had an effect has had it.
const TOO_LARGE: &str = "UNKNOWN done, but the reply is too large to send";

/// How a reply that is to come has to be written.
#[derive(Debug)]
struct Awaited {
    name: &'static str,
    what: What,
    resp3: bool,
    is_heard: bool,
    /// What it takes to remember what was said.
    recent: Length,
}

#[derive(Debug)]
enum What {
    Form(Form),
    Later(Later),
}

/// The server's side of a RESP connection.
pub struct RespCodec {
    limits: Limits,
    parser: Parser,
    session: Session,
    awaited: VecDeque<Awaited>,
    /// What those are.
    recent: Recent,
    /// What was taken last has to be answered before more is taken.
    waits: bool,
}

impl RespCodec {
    /// A codec that accepts what is within `limits`, for the connection with this
    /// number. What it chooses at random depends on `seed`.
    pub fn new(limits: Limits, id: u64, seed: u64, surroundings: Box<dyn Surroundings>) -> Self {
        let session = Session::new(id, seed, surroundings);
        session.describe();
        Self {
            limits,
            parser: Parser::default(),
            session,
            awaited: VecDeque::new(),
            recent: Recent::default(),
            waits: false,
        }
    }

    /// What is to be done about one command.
    fn take(&mut self, words: Words) -> Incoming {
        let planned = match table::spec_of(&words) {
            Ok(spec) => self.plan(spec, &words),
            Err(refused) => {
                self.session.surroundings.note_command("");
                Err(self.refuse_in_transaction(&words, refused))
            }
        };
        let is_heard = self.session.is_heard();
        let resp3 = self.session.resp3;
        let (name, plan) = match planned {
            Ok(planned) => planned,
            Err(Refused(text)) => ("", Plan::Written(written(resp3, |out| out.error(&text)))),
        };
        let (request, what) = match plan {
            Plan::Written(bytes) if is_heard => return Incoming::Written(bytes),
            Plan::Written(_) => return Incoming::Unheard,
            Plan::Late(after, bytes) => {
                return Incoming::Late(after, if is_heard { bytes } else { Bytes::new() });
            }
            Plan::Run(commands, form) => {
                (table::read(commands, self.session.chosen.consistency), What::Form(form))
            }
            Plan::Ask(request, later) => {
                self.waits = match &later {
                    Later::Exec(exec) => exec.chosen.is_some() || exec.asks_the_node(),
                    Later::Time | Later::Role | Later::Leader => false,
                    _ => true,
                };
                (request, What::Later(later))
            }
        };
        let recent = self.recent.push(&words);
        self.awaited.push_back(Awaited { name, what, resp3, is_heard, recent });
        Incoming::Ask(request)
    }

    fn plan(
        &mut self,
        spec: &'static Spec,
        words: &Words,
    ) -> Result<(&'static str, Plan), Refused> {
        self.session.surroundings.note_command(spec.name);
        let is_queued = self.session.is_in_transaction() && !spec.is_at_once();
        if is_queued && !spec.may_be_queued() {
            self.fail_transaction();
            return Err("ERR Command not allowed inside a transaction".into());
        }
        if is_queued && spec.is_about_the_node() {
            return self.queue_for_exec(spec, words);
        }
        let (session, limits) = (&mut self.session, &self.limits);
        let mut call = Call { words, session, limits, name: spec.name };
        let planned = spec.run(&mut call);
        if spec.is_about_the_connection() {
            self.session.describe();
        }
        if is_queued { self.queue(spec, planned) } else { Ok((spec.name, planned?)) }
    }

    /// Writes a reply, or says what has to be asked first.
    fn write_later(
        &mut self,
        later: Later,
        answers: &[Answer],
        out: &mut Out<'_>,
    ) -> Option<(Request, Later)> {
        let consistency = Consistency::Stale;
        match (later, answers) {
            (
                Later::Keys { mut found, bytes, pattern, db },
                [answer @ Answer::Names { cursor, names }],
            ) => {
                found.extend_from_slice(names);
                let bytes = bytes + answer.size_bytes();
                if bytes > self.limits.reply_bytes {
                    out.error("ERR too many keys for one reply, use SCAN");
                    return None;
                }
                if *cursor == 0 {
                    form::write_names(&found, out);
                    return None;
                }
                let step = keys::keys_step(db, *cursor, pattern.clone(), consistency);
                return Some((step, Later::Keys { found, bytes, pattern, db }));
            }
            (Later::AnyKey { random, db, wrapped }, [Answer::Names { cursor, names }]) => {
                let next = match cursor {
                    0 if wrapped => None,
                    0 => Some((0, true)),
                    cursor => Some((*cursor, wrapped)),
                };
                match next.filter(|_| names.is_empty()) {
                    Some((cursor, wrapped)) => {
                        let step = keys::random_step(db, cursor, consistency);
                        return Some((step, Later::AnyKey { random, db, wrapped }));
                    }
                    None => Form::AnyKey(random).write("randomkey", &mut answers.iter(), out),
                }
            }
            (Later::Info(info), answers) => info.write(answers, out),
            (Later::Wait(wait), [Answer::Integer(others), Answer::Integer(own)]) => {
                return wait.write(*others, *own, out);
            }
            (Later::Usage { .. }, [Answer::Item(None)]) => out.null(),
            (Later::Usage { key, frequency }, [Answer::Integer(_)]) => {
                return Some((Request::Usage(key.clone()), Later::Usage { key, frequency }));
            }
            (Later::Usage { frequency, .. }, [Answer::Integer(idle_s), Answer::Integer(often)]) => {
                // What was there before is not known.
                let uptime_s = self.session.surroundings.facts().uptime_s.cast_signed();
                out.integer(if frequency { *often } else { (*idle_s).min(uptime_s) });
            }
            (Later::Watch(keys), answers) => {
                for (key, answer) in keys.into_iter().zip(answers) {
                    let version = match answer {
                        Answer::Item(Some(item)) => item.version,
                        _ => 0,
                    };
                    self.session.watched.push(Guard { key, version });
                }
                out.ok();
            }
            (Later::Exec(exec), answers) => {
                if exec.asks_the_node() {
                    return Some((Request::Status, Later::Exec(exec.with_answers(answers))));
                }
                self.write_exec(exec, answers, None, out);
            }
            _ => out.error("UNKNOWN the node lost the answer"),
        }
        None
    }

    fn write(
        &mut self,
        awaited: Awaited,
        reply: &Reply,
        out: &mut Out<'_>,
    ) -> Option<(Request, Awaited)> {
        let Awaited { name, what, resp3, is_heard, recent } = awaited;
        if reply.size_bytes() > self.limits.reply_bytes {
            out.error(TOO_LARGE);
            return None;
        }
        match (what, reply) {
            (What::Later(Later::Watch(keys)), Reply::Error(..)) => {
                // Who has not looked at this still counts on the watch.
                let guard = |key| Guard { key, version: u64::MAX };
                self.session.watched.extend(keys.into_iter().map(guard));
                form::write_unexpected(reply, out);
            }
            // A node that does not serve says what it knows of itself.
            (What::Later(Later::Info(info)), Reply::Error(..)) if info.has_status() => {
                info.write(&[], out);
            }
            (What::Form(form), Reply::Answers(answers)) => {
                form.write(name, &mut answers.iter(), out);
            }
            (What::Later(later), Reply::Answers(answers)) => {
                let (request, later) = self.write_later(later, answers, out)?;
                let what = What::Later(later);
                return Some((request, Awaited { name, what, resp3, is_heard, recent }));
            }
            (What::Later(Later::Exec(..)), Reply::GuardFailed) => out.null_array(),
            (What::Later(Later::Info(info)), Reply::Status(status)) => {
                let request = table::read(info::counts(), Consistency::Stale);
                let what = What::Later(Later::Info(info.with_status(status)));
                return Some((request, Awaited { name, what, resp3, is_heard, recent }));
            }
            (What::Later(Later::Exec(mut exec)), Reply::Status(status)) => {
                let answers = exec.take_answers();
                self.write_exec(exec, &answers, Some(status), out);
            }
            (What::Later(later), Reply::Status(status)) => {
                server::write_about_node(&later, status, out);
            }
            (_, reply) => form::write_unexpected(reply, out),
        }
        None
    }
}

fn written(resp3: bool, write: impl FnOnce(&mut Out<'_>)) -> Bytes {
    let mut bytes = BytesMut::new();
    write(&mut Out { bytes: &mut bytes, resp3 });
    bytes.freeze()
}

impl Codec for RespCodec {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        Ok(match self.parser.next(input, &self.limits)? {
            None => None,
            Some(words) if words.count() == 0 => Some(Incoming::Unheard),
            Some(words) => Some(self.take(words)),
        })
    }

    fn encode(&mut self, reply: &Reply, output: &mut BytesMut) -> Option<Request> {
        let awaited = self.awaited.pop_front().expect("no more replies come than were asked for");
        let Awaited { is_heard, resp3, recent, .. } = awaited;
        let start = output.len();
        let more = self.write(awaited, reply, &mut Out { bytes: output, resp3 });
        if let Some((request, awaited)) = more {
            self.awaited.push_front(awaited);
            return Some(request);
        }
        self.recent.pop(recent);
        // It is the last one that is waited for.
        self.waits &= !self.awaited.is_empty();
        if output.len() - start > self.limits.reply_bytes {
            output.truncate(start);
            Out { bytes: output, resp3 }.error(TOO_LARGE);
        }
        if !is_heard {
            output.truncate(start);
        }
        None
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn first_words(&self) -> Option<Vec<Bytes>> {
        self.awaited.front().map(|awaited| self.recent.first(awaited.recent))
    }

    fn held_bytes(&self) -> usize {
        let queued = self.session.transaction.as_ref().map_or(0, |transaction| transaction.bytes);
        let watched = self.session.watched.iter();
        let watched: usize = watched.map(|guard| size_of_val(guard) + guard.key.name.len()).sum();
        let gathered = match self.awaited.back().map(|awaited| &awaited.what) {
            Some(What::Later(Later::Keys { bytes, .. })) => *bytes,
            _ => 0,
        };
        queued + watched + gathered + self.recent.size_bytes()
    }

    fn ends(&self) -> bool {
        self.session.is_over
    }

    fn farewell(&mut self, error: &ProtocolError, output: &mut BytesMut) {
        Out { bytes: output, resp3: false }.error(&format!("ERR Protocol error: {error}"));
    }
}

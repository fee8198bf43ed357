//! What the answers to a script's commands make of its reply.

use std::sync::Arc;

use super::Text;
use crate::protocol::resp::form::{failure_text, integer, item, time, write_item};
use crate::protocol::resp::write::Out;
use crate::request::Answer;

/// What a reply is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Each command is a `When`: the first whose tests held decides, else the last
    /// word is this.
    First(Vec<Part>, Say),
    /// So many are `When`s: how many of them held.
    Count(usize),
    /// A number that was added to, and the deadline that it may have been given.
    Window(Call, Part),
    /// A `Chain`: the hits in a window, and the time left, which its last part tells.
    Hits {
        /// Which part counts.
        counted: usize,
        /// Which call each part stands for.
        calls: Vec<Call>,
    },
    /// A value and its time left.
    ValueAndTime,
}

/// What is said if the tests held, and which call of the script may have failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) say: Say,
    pub(super) call: Call,
}

/// A command that a script calls: its name, and how many are called above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call(pub(super) &'static str, pub(super) usize);

/// What a script says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Say {
    /// `+OK`.
    Ok,
    /// Nothing.
    Null,
    /// This number.
    Number(i64),
    /// The number that its command was answered with.
    Inner,
    /// 1 for a SET that took effect, else 0.
    Stored,
    /// Time left in milliseconds, 0 if there is no end to it.
    Milliseconds,
    /// Time left in seconds, as TTL has it.
    Seconds,
    /// An error that the script makes.
    Error(&'static str),
    /// A command was refused.
    Refused(String),
}

/// Writes the reply of one script.
pub(super) struct Writer<'a, 'b> {
    pub(super) text: &'a Arc<Text>,
    pub(super) out: &'a mut Out<'b>,
}

impl Writer<'_, '_> {
    pub(super) fn write(&mut self, reply: &Reply, answers: &[&Answer]) {
        match reply {
            Reply::First(parts, or) => self.first(parts, or, answers),
            Reply::Count(_) => {
                let held = answers.iter().filter(|answer| inner(answer).is_some()).count();
                self.out.integer(i64::try_from(held).expect("answers are in memory"));
            }
            Reply::Window(call, part) => self.window(*call, part, answers),
            Reply::Hits { counted, calls } => {
                let parts = inner(answers[0]).unwrap_or_default();
                if !self.failed(calls.iter().copied().zip(parts)) {
                    self.out.array(2);
                    self.number(parts.get(*counted).map_or(0, integer));
                    self.number(parts.last().map_or(0, |answer| time(answer, 1)));
                }
            }
            Reply::ValueAndTime => {
                self.out.array(2);
                write_item(item(answers[0]), self.out);
                self.number(time(answers[1], 1));
            }
        }
    }

    fn first(&mut self, parts: &[Part], or: &Say, answers: &[&Answer]) {
        let held =
            parts.iter().zip(answers).find_map(|(part, answer)| Some((part, inner(answer)?)));
        match held {
            Some((part, inner)) => {
                if !self.failed(inner.iter().map(|answer| (part.call, answer))) {
                    self.say(&part.say, part.call, inner.first());
                }
            }
            None => self.say(or, Call("", 0), None),
        }
    }

    fn window(&mut self, call: Call, part: &Part, answers: &[&Answer]) {
        let expired = inner(answers[1]).unwrap_or_default();
        let is_begun = inner(answers[1]).is_some();
        let calls = expired.iter().map(|answer| (part.call, answer));
        if self.failed([(call, answers[0])].into_iter().chain(calls)) {
            return;
        }
        match &part.say {
            Say::Refused(text) if is_begun => self.refuse(text, part.call),
            _ => self.number(integer(answers[0])),
        }
    }

    fn say(&mut self, say: &Say, call: Call, answer: Option<&Answer>) {
        let answer = answer.unwrap_or(&Answer::Done);
        match say {
            Say::Ok => self.out.ok(),
            Say::Null => self.out.null(),
            Say::Number(number) => self.out.integer(*number),
            Say::Inner => self.number(integer(answer)),
            Say::Stored => {
                let is_stored = matches!(answer, Answer::Stored { .. });
                self.out.integer(i64::from(is_stored));
            }
            Say::Milliseconds => self.number(time(answer, 1).max(0)),
            Say::Seconds => self.number(time(answer, 1000)),
            Say::Error(text) => self.out.error(text),
            Say::Refused(text) => self.refuse(text, call),
        }
    }

    /// A number that has gone through Lua, whose numbers are binary fractions of 64
    /// bits: beyond 2^53 the nearest of those, and what is over the end is its
    /// opposite.
    fn number(&mut self, number: i64) {
        let rounded = i128::from(number) as f64 as i128;
        self.out.integer(i64::try_from(rounded).unwrap_or(i64::MIN));
    }

    /// Whether one of these calls has failed; if so, that is the reply.
    fn failed<'a>(&mut self, calls: impl IntoIterator<Item = (Call, &'a Answer)>) -> bool {
        for (call, answer) in calls {
            if let Answer::Failed(failure) = answer {
                self.refuse(&failure_text(call.0, *failure), call);
                return true;
            }
        }
        false
    }

    /// Why a call failed, and where, as Redis says it.
    fn refuse(&mut self, text: &str, Call(_, i): Call) {
        let (digest, line) = (&self.text.digest, self.text.calls.get(i).unwrap_or(&1));
        self.out.error(&format!("{text} script: {digest}, on @user_script:{line}."));
    }
}

/// What a `When` has come to, if its tests held.
fn inner(answer: &Answer) -> Option<&[Answer]> {
    match answer {
        Answer::Nested(Some(answers)) => Some(answers),
        _ => None,
    }
}

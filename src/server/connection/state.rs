//! The requests of one connection and their replies, in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::holding::Held;
use crate::protocol::{Codec, ProtocolError};
use crate::request::{Reply, Request};
use crate::server::config::ClientLimits;

/// How large the first value that a client reads is taken to be.
const FIRST_VALUE_BYTES: usize = 256 << 10;

/// How large a value is taken to be at least.
const LEAST_VALUE_BYTES: usize = 4 << 10;

/// What a connection has read and not taken in, asked and not been answered,
/// answered and not written.
#[derive(Default)]
pub struct State {
    /// Once it is known what is spoken.
    pub codec: Option<Box<dyn Codec>>,
    /// A place for each request that is not answered to the client yet.
    pub slots: VecDeque<Slot>,
    /// The number of the request in the first slot.
    pub first: u64,
    /// Read and not taken in.
    pub input: BytesMut,
    /// Encoded and not written.
    pub output: BytesMut,
    /// What has to be asked before a reply can be written.
    pub more: Option<Request>,
    /// The last that was taken in, and its number, if that cannot go on yet.
    pub held: Option<(u64, Held)>,
    /// Bytes of values in the slots.
    pub held_bytes: usize,
    /// What the replies that are still to come are taken to hold.
    pub expected_bytes: usize,
    /// How large the next value is taken to be: as the largest of late.
    pub value_bytes: usize,
    /// What the client is told once everything before it is answered.
    pub farewell: Option<ProtocolError>,
    /// No more is read; it ends when everything is answered and written.
    pub closing: bool,
    /// And then at once: there is nobody left who would send more, or no time.
    abrupt: bool,
    /// It ends now.
    pub broken: bool,
}

/// What a request is answered with.
pub enum Answer {
    /// To be encoded.
    Reply(Reply),
    /// Encoded already.
    Written(Bytes),
}

/// The place of a request's reply among the others.
pub struct Slot {
    /// Once it is there.
    pub answer: Option<Answer>,
    /// How many values the reply may hold.
    pub values: usize,
    /// What the reply holds, or is expected to.
    pub bytes: usize,
    /// When it arrived, if somebody else has to answer it.
    pub asked: Option<Instant>,
}

impl State {
    /// Nothing was taken in yet.
    pub fn new() -> Self {
        Self { value_bytes: FIRST_VALUE_BYTES, ..Self::default() }
    }

    /// No more is read, and when everything is written nothing is waited for.
    pub fn end_abruptly(&mut self) {
        (self.closing, self.abrupt) = (true, true);
    }

    /// Whether nothing is waited for once everything is written.
    pub fn is_abrupt(&self) -> bool {
        self.abrupt || self.broken
    }

    /// Everything is written: holds nothing any more.
    pub fn release(&mut self) {
        *self = Self { closing: true, ..Self::new() };
    }

    /// Fills the output with what is answered, up to where reading pauses, and tells
    /// of each how long that took; what it was, too, if `is_slow` says so.
    pub fn encode_answered(
        &mut self,
        limits: &ClientLimits,
        now: Instant,
        is_slow: impl Fn(Duration) -> bool,
        answered: impl Fn(Duration, Option<Vec<Bytes>>),
    ) {
        let Some(codec) = &mut self.codec else { return };
        while self.output.len() < limits.output_pause_bytes
            && self.more.is_none()
            && let Some(slot) = self.slots.pop_front_if(|slot| slot.answer.is_some())
        {
            self.first += 1;
            self.held_bytes -= slot.bytes;
            match slot.answer.expect("it is answered") {
                Answer::Reply(reply) => {
                    let took = slot.asked.map(|asked| now.saturating_duration_since(asked));
                    let slow = took.filter(|&took| is_slow(took));
                    let words = slow.map(|_| codec.first_words().unwrap_or_default());
                    self.more = codec.encode(&reply, &mut self.output);
                    if let (None, Some(took)) = (&self.more, took) {
                        answered(took, words);
                    }
                }
                Answer::Written(bytes) => self.output.extend_from_slice(&bytes),
            }
            // What was run when this was told may have been a last word.
            self.closing |= codec.ends();
        }
        if self.slots.is_empty()
            && self.more.is_none()
            && let Some(error) = self.farewell.take()
        {
            codec.farewell(&error, &mut self.output);
        }
    }

    /// A place for a reply, with the number of its request.
    pub fn add_slot(&mut self, asked: Option<Instant>, values: usize, bytes: usize) -> u64 {
        self.slots.push_back(Slot { answer: None, values, bytes, asked });
        self.last()
    }

    /// The number of the request that was taken in last: the only one that may block.
    pub fn last(&self) -> u64 {
        self.first + self.slots.len() as u64 - 1
    }

    /// Whether one more request may be taken in.
    pub fn has_room(&self, limits: &ClientLimits) -> bool {
        self.slots.len() < limits.pipeline_requests
            && self.held.is_none()
            && self.untaken_bytes() + self.expected_bytes < limits.output_pause_bytes
            && !self.waits()
    }

    /// Whether nothing is read until something comes to its end.
    pub fn is_stalled(&self) -> bool {
        self.held.is_some() || self.waits()
    }

    fn waits(&self) -> bool {
        !self.slots.is_empty() && self.codec.as_ref().is_some_and(|codec| codec.waits())
    }

    /// What there is of replies that the client has not taken.
    pub fn untaken_bytes(&self) -> usize {
        self.output.len() + self.held_bytes
    }

    /// A request is answered, by what holds so many bytes.
    pub fn answer(&mut self, number: u64, answer: Answer, bytes: usize) {
        let place = usize::try_from(number - self.first).expect("slots are in memory");
        let slot = &mut self.slots[place];
        self.expected_bytes -= std::mem::replace(&mut slot.bytes, bytes);
        self.held_bytes += bytes;
        slot.answer = Some(answer);
        if let Some(each) = bytes.checked_div(slot.values) {
            let faded = self.value_bytes - self.value_bytes / 16;
            self.value_bytes = each.max(faded).max(LEAST_VALUE_BYTES);
        }
    }

    /// Whether there is something to write, encoded or not.
    pub fn has_unwritten(&self) -> bool {
        let last_word = self.farewell.is_some() && self.slots.is_empty();
        let is_answered = self.slots.front().is_some_and(|slot| slot.answer.is_some());
        !self.output.is_empty() || is_answered || last_word
    }
}

//! What a protocol has to be able to do to take part. A fifth is one more
//! implementation, and a line in [`all`].
//!
//! These are clients: written from the description of the wire or on a library of
//! somebody else, never on the codec that they test.

use crate::binary::{Binary, Classic};
use crate::http::Http;
use crate::resp::{Resp2, Resp3};
use crate::text::Text;
use crate::words::{Ask, Said};

/// One protocol as a client speaks it.
pub trait Speaks: Sync {
    /// Names it in messages.
    fn name(&self) -> &'static str;

    /// What a connection begins with.
    fn opening(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes the reply to that; `None` while it is incomplete. Else its length.
    fn opened(&self, _input: &[u8]) -> Option<usize> {
        Some(0)
    }

    /// A request in bytes; `None` if the protocol has no words for it.
    fn request(&self, ask: &Ask) -> Option<Vec<u8>>;

    /// Whether it leaves room for so large a request.
    fn has_room(&self, _request: &[u8]) -> bool {
        true
    }

    /// Takes the first reply; `None` while it is incomplete. Else what it says, and
    /// how long it is.
    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)>;

    /// What a client can make of a reply: it, or the one that looks the same;
    /// `None` if it cannot even see where it ends.
    fn told(&self, _ask: &Ask, said: &Said) -> Option<Said> {
        Some(said.clone())
    }

    /// The exchanges that it cannot have, a story a line.
    fn unspoken(&self) -> &'static str;

    /// Those of which it tells less than there is to tell.
    fn vague(&self) -> &'static str {
        ""
    }

    /// All that is said to a GET of a key that is a byte too long, and to a GET of
    /// no key behind it.
    fn to_a_long_key(&self) -> &'static str;

    /// All that is said to a SET of a value that is a byte too long, and to a GET of
    /// no key behind it.
    fn to_a_long_value(&self) -> &'static str;
}

/// Every protocol, in every version.
pub fn all() -> [&'static dyn Speaks; 6] {
    [&Binary, &Classic, &Resp2, &Resp3, &Http, &Text]
}

/// The next `count` bytes of some that may not all be there.
pub fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    input.split_off(..count)
}

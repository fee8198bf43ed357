//! What a request costs, before and after it is executed.

use crate::request::{Command, Request};

/// How many keys a request touches, about.
pub fn commands_of(request: &Request) -> usize {
    match request {
        Request::Run { batch, .. } => batch.work(),
        _ => 0,
    }
}

/// How many values the reply to a request may hold.
pub fn values_of(request: &Request) -> usize {
    match request {
        Request::Run { batch, .. } => {
            let is_get = |command: &&Command| matches!(command, Command::Get(_));
            batch.commands.iter().flat_map(Command::steps).filter(is_get).count()
        }
        _ => 0,
    }
}

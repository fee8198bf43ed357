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
            let values = |command: &Command| match command {
                Command::When { then, .. } => then.iter().filter(is_get).count(),
                command => usize::from(is_get(&command)),
            };
            batch.commands.iter().map(values).sum()
        }
        _ => 0,
    }
}

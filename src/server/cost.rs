//! What a request costs, before and after it is executed.

use crate::request::{Answer, Command, Reply, Request};

/// How many keys a request touches, about.
pub fn commands_of(request: &Request) -> usize {
    match request {
        Request::Run { batch, .. } => batch.guards.len() + batch.commands.len(),
        _ => 0,
    }
}

/// How many values the reply to a request may hold.
pub fn values_of(request: &Request) -> usize {
    match request {
        Request::Run { batch, .. } => {
            batch.commands.iter().filter(|command| matches!(command, Command::Get(_))).count()
        }
        _ => 0,
    }
}

/// What a reply keeps from being freed.
pub fn held_bytes(reply: &Reply) -> usize {
    // Status and members are a few kilobytes.
    const OTHERS: usize = 4 << 10;
    let size = |answer: &Answer| match answer {
        Answer::Item(Some(item)) => size_of::<Answer>() + item.value.len(),
        _ => size_of::<Answer>(),
    };
    match reply {
        Reply::Answers(answers) => answers.iter().map(size).sum(),
        Reply::Pong | Reply::Done | Reply::GuardFailed | Reply::SessionOpened { .. } => 0,
        Reply::Error(_, reason) => reason.len(),
        Reply::Members(_) | Reply::Status(_) => OTHERS,
    }
}

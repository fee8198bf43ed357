//! The requests as typed calls.

use bytes::Bytes;

use super::{Client, Error};
use crate::request::{
    Answer, Batch, Command, Condition, Consistency, ErrorKind, Expiry, Item, Key, MemberInfo,
    Reply, Request, Status, Ttl,
};

/// What became of a conditional `Set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutcome {
    /// It took effect; the version the key has now.
    Stored {
        /// The version.
        version: u64,
    },
    /// The condition did not hold.
    NotStored {
        /// The version the key has; 0 if it is absent.
        version: u64,
    },
}

/// A reply that does not belong to its request: the node speaks otherwise.
pub(super) fn unexpected<T: std::fmt::Debug>(what: &T) -> Error {
    Error::Refused(ErrorKind::Invalid, format!("unexpected reply: {what:?}"))
}

impl Client {
    /// Executes commands together. `None` if a guard did not hold.
    pub async fn run_batch(
        &mut self,
        batch: Batch,
        consistency: Consistency,
    ) -> Result<Option<Vec<Answer>>, Error> {
        match self.call(Request::Run { batch, consistency, session: None }).await? {
            Reply::Answers(answers) => Ok(Some(answers)),
            Reply::GuardFailed => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    async fn one(&mut self, command: Command, consistency: Consistency) -> Result<Answer, Error> {
        let answers = self.run_batch(Batch::of(command), consistency).await?.unwrap_or_default();
        match <[Answer; 1]>::try_from(answers) {
            Ok([Answer::Failed(failure)]) => Err(failure.into()),
            Ok([answer]) => Ok(answer),
            Err(answers) => Err(unexpected(&answers)),
        }
    }

    async fn integer(&mut self, command: Command) -> Result<i64, Error> {
        match self.one(command, Consistency::Linearizable).await? {
            Answer::Integer(number) => Ok(number),
            other => Err(unexpected(&other)),
        }
    }

    async fn flag(&mut self, command: Command) -> Result<bool, Error> {
        Ok(self.integer(command).await? != 0)
    }

    async fn done(&mut self, request: Request) -> Result<(), Error> {
        match self.call(request).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether a node answers.
    pub async fn ping(&mut self) -> Result<(), Error> {
        match self.call(Request::Ping).await? {
            Reply::Pong => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Value and version of a key, `None` if it is absent.
    pub async fn get(&mut self, key: Key) -> Result<Option<Item>, Error> {
        self.get_with(key, Consistency::Linearizable).await
    }

    /// As [`Client::get`], as fresh as asked for.
    pub async fn get_with(
        &mut self,
        key: Key,
        consistency: Consistency,
    ) -> Result<Option<Item>, Error> {
        match self.one(Command::Get(key), consistency).await? {
            Answer::Item(item) => Ok(item),
            other => Err(unexpected(&other)),
        }
    }

    /// The values of several keys at one moment.
    pub async fn get_many(
        &mut self,
        keys: Vec<Key>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Item>>, Error> {
        let commands = keys.into_iter().map(Command::Get).collect();
        let batch = Batch { guards: Vec::new(), commands };
        let answers = self.run_batch(batch, consistency).await?.unwrap_or_default();
        let item = |answer| match answer {
            Answer::Item(item) => Ok(item),
            other => Err(unexpected(&other)),
        };
        answers.into_iter().map(item).collect()
    }

    /// Stores a value for good; its version.
    pub async fn set(&mut self, key: Key, value: Bytes) -> Result<u64, Error> {
        match self.set_with(key, value, Expiry::Never, Condition::Always).await? {
            SetOutcome::Stored { version } => Ok(version),
            other => Err(unexpected(&other)),
        }
    }

    /// Stores a value for so long, on this condition.
    pub async fn set_with(
        &mut self,
        key: Key,
        value: Bytes,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<SetOutcome, Error> {
        let set = Command::Set { key, value, expiry, condition };
        match self.one(set, Consistency::Linearizable).await? {
            Answer::Stored { version } => Ok(SetOutcome::Stored { version }),
            Answer::NotStored { version } => Ok(SetOutcome::NotStored { version }),
            other => Err(unexpected(&other)),
        }
    }

    /// Stores several values at one moment, for good.
    pub async fn set_many(&mut self, pairs: Vec<(Key, Bytes)>) -> Result<(), Error> {
        let set = |(key, value)| Command::Set {
            key,
            value,
            expiry: Expiry::Never,
            condition: Condition::Always,
        };
        let commands = pairs.into_iter().map(set).collect();
        let batch = Batch { guards: Vec::new(), commands };
        self.run_batch(batch, Consistency::Linearizable).await.map(|_| ())
    }

    /// Removes a key; whether it was there.
    pub async fn delete(&mut self, key: Key) -> Result<bool, Error> {
        self.flag(Command::Delete(key)).await
    }

    /// Whether a key is there.
    pub async fn exists(&mut self, key: Key) -> Result<bool, Error> {
        self.flag(Command::Exists(key)).await
    }

    /// Time left to a key.
    pub async fn ttl(&mut self, key: Key) -> Result<Ttl, Error> {
        match self.one(Command::Ttl(key), Consistency::Linearizable).await? {
            Answer::Ttl(ttl) => Ok(ttl),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a key a deadline; whether it was there.
    pub async fn expire(&mut self, key: Key, expiry: Expiry) -> Result<bool, Error> {
        self.flag(Command::Expire { key, expiry }).await
    }

    /// Takes a key's deadline away; whether it had one.
    pub async fn persist(&mut self, key: Key) -> Result<bool, Error> {
        self.expire(key, Expiry::Never).await
    }

    /// Adds to a number; the new one.
    pub async fn increment(&mut self, key: Key, by: i64) -> Result<i64, Error> {
        self.integer(Command::Increment { key, by }).await
    }

    /// How many keys a database holds.
    pub async fn count(&mut self, db: u8) -> Result<i64, Error> {
        self.integer(Command::Count { db }).await
    }

    /// Removes every key of one database, or of all.
    pub async fn clear(&mut self, db: Option<u8>) -> Result<(), Error> {
        match self.one(Command::Clear { db }, Consistency::Linearizable).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds a node to the cluster.
    pub async fn join(&mut self, name: String, peer_address: String) -> Result<(), Error> {
        self.done(Request::Join { name, peer_address }).await
    }

    /// Removes a member for good, by its name or one of its addresses.
    pub async fn leave(&mut self, name: String) -> Result<(), Error> {
        self.done(Request::Leave { name }).await
    }

    /// Hands leadership to a member, or to the most caught-up one.
    pub async fn transfer(&mut self, to: Option<String>) -> Result<(), Error> {
        self.done(Request::Transfer { to }).await
    }

    /// Who belongs to the cluster.
    pub async fn members(&mut self) -> Result<Vec<MemberInfo>, Error> {
        match self.call(Request::Members).await? {
            Reply::Members(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    /// How the node that answers is.
    pub async fn status(&mut self) -> Result<Status, Error> {
        match self.call(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }
}

//! A node that is none: the real codec in front of a map.
//!
//! Several fakes can share one state and so look like a cluster. Each has a
//! mood, by which tests make it refuse, vanish or swallow its replies. It lives
//! on a thread of its own, so that tests may block on child processes.

#![expect(clippy::unwrap_used, reason = "a fake that cannot go on fails its test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::bytes::{Bytes, BytesMut};
use raftcache::protocol::binary::BinaryCodec;
use raftcache::protocol::{Codec, Incoming};
use raftcache::request::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How a fake treats requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// Executes and answers.
    Serve,
    /// Answers runs and sessions with this, and executes nothing.
    Refuse(ErrorKind),
    /// The same, but only once.
    RefuseOne(ErrorKind),
    /// Executes, then closes without a reply.
    SwallowReplies,
    /// The same, but only once.
    SwallowOneReply,
    /// Executes nothing and never answers.
    Hang,
}

/// What the fakes of one cluster share.
#[derive(Debug, Default)]
pub struct State {
    items: BTreeMap<Key, (Item, Expiry)>,
    /// Counts what was executed; also the version of the last write.
    pub executed: u64,
    sessions: u64,
    replies: BTreeMap<(u64, u64), Reply>,
    /// Replies are kept no longer.
    pub forgets: bool,
    /// Sessions up to this one are expired.
    pub expired: u64,
    members: Vec<MemberInfo>,
}

/// One node.
#[derive(Clone)]
pub struct Fake {
    pub address: String,
    pub state: Arc<Mutex<State>>,
    mood: Arc<Mutex<Mood>>,
    hang_up: Arc<Notify>,
    name: String,
    /// 1, if it was not moved.
    cluster: Arc<Mutex<u128>>,
}

/// Starts `count` fakes that share their state; the first leads.
pub fn cluster(count: usize) -> Vec<Fake> {
    let state = Arc::new(Mutex::new(State::default()));
    (1..=count).map(|number| start(&state, number)).collect()
}

fn start(state: &Arc<Mutex<State>>, number: usize) -> Fake {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let name = format!("n{number}");
    state.lock().unwrap().members.push(MemberInfo {
        name: name.clone(),
        node: number as u128,
        peer_address: format!("127.0.0.1:{}", 4000 + number),
        client_address: address.clone(),
        voter: true,
        leader: number == 1,
        durable: None,
    });
    let mood = Arc::new(Mutex::new(Mood::Serve));
    let (hang_up, cluster) = (Arc::default(), Arc::new(Mutex::new(1)));
    let fake = Fake { address, state: state.clone(), mood, hang_up, name, cluster };
    let serving = fake.clone();
    std::thread::spawn(move || serve(listener, &serving));
    fake
}

fn serve(listener: std::net::TcpListener, fake: &Fake) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let fake = fake.clone();
            tokio::spawn(async move { fake.converse(stream).await });
        }
    });
}

impl Fake {
    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// From now on it says that it belongs to this cluster.
    pub fn set_cluster(&self, cluster: u128) {
        *self.cluster.lock().unwrap() = cluster;
    }

    /// Closes every connection that is at rest.
    pub fn hang_up(&self) {
        self.hang_up.notify_waiters();
    }

    async fn converse(&self, mut stream: TcpStream) -> Option<()> {
        let mut codec = BinaryCodec::default();
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        loop {
            while let Some(incoming) = codec.decode(&mut input).ok()? {
                let mood = *self.mood.lock().unwrap();
                let reply = match incoming {
                    Incoming::Answered(reply) => reply,
                    Incoming::Written(_) | Incoming::Late(..) | Incoming::Unheard => {
                        unreachable!("the binary codec has no such answers")
                    }
                    Incoming::Ask(_) if mood == Mood::Hang => std::future::pending().await,
                    Incoming::Ask(request) => self.answer(request, mood),
                };
                match mood {
                    Mood::SwallowReplies => return None,
                    Mood::SwallowOneReply => {
                        self.set_mood(Mood::Serve);
                        return None;
                    }
                    _ => {}
                }
                codec.encode(&reply, &mut output);
            }
            stream.write_all_buf(&mut output).await.ok()?;
            tokio::select! {
                read = stream.read_buf(&mut input) => if read.ok()? == 0 { return None },
                () = self.hang_up.notified() => return None,
            }
        }
    }

    fn answer(&self, request: Request, mood: Mood) -> Reply {
        let mut state = self.state.lock().unwrap();
        match (request, mood) {
            (
                Request::Run { .. } | Request::OpenSession,
                Mood::Refuse(kind) | Mood::RefuseOne(kind),
            ) => {
                if mood == Mood::RefuseOne(kind) {
                    self.set_mood(Mood::Serve);
                }
                Reply::Error(kind, format!("{} says {kind:?}", self.name))
            }
            (Request::Run { batch, session, .. }, _) => state.run_once(&batch, session),
            (Request::OpenSession, _) => {
                state.sessions = state.sessions.max(state.expired) + 1;
                Reply::SessionOpened { session: state.sessions }
            }
            (Request::Ping, _) => Reply::Pong,
            (Request::Members, _) => Reply::Members(state.members.clone()),
            (Request::Status, _) => Reply::Status(Box::new(self.status(&state))),
            (Request::Leave { name }, _) if state.members.iter().all(|m| m.name != name) => {
                Reply::Error(ErrorKind::Refused, format!("no member is called {name}"))
            }
            (Request::AwaitDurable { .. } | Request::Usage(_), _) => {
                unreachable!("the binary codec cannot say it")
            }
            (Request::Join { .. } | Request::Leave { .. } | Request::Transfer { .. }, _) => {
                state.executed += 1;
                Reply::Done
            }
        }
    }

    fn status(&self, state: &State) -> Status {
        let leads = self.name == "n1";
        let cluster = *self.cluster.lock().unwrap();
        Status {
            name: self.name.clone(),
            node: 1,
            cluster,
            role: if leads { RoleName::Leader } else { RoleName::Follower },
            leader: Some("n1".to_owned()),
            term: 3,
            last: 100,
            durable: 100,
            commit: if cluster == 1 { 100 } else { 900 },
            applied: if leads { 100 } else { 97 },
            log_bytes: 3 << 20,
            keys: state.items.len() as u64,
            memory_bytes: 2048,
            memory_limit_bytes: 1 << 30,
            state_hash: 0,
            log_time_ms: 0,
            clock_offset_ms: 0,
            members: state.members.clone(),
            warnings: Vec::new(),
        }
    }
}

impl State {
    fn run_once(&mut self, batch: &Batch, stamp: Option<SessionStamp>) -> Reply {
        let Some(stamp) = stamp else { return self.run(batch) };
        let SessionStamp { session, sequence } = stamp;
        if session <= self.expired {
            return Reply::Error(ErrorKind::SessionExpired, "session expired".to_owned());
        }
        match self.replies.get(&(session, sequence)) {
            Some(_) if self.forgets => {
                return Reply::Error(ErrorKind::Unknown, "executed before".to_owned());
            }
            Some(reply) => return reply.clone(),
            None => {}
        }
        let reply = self.run(batch);
        self.replies.insert((session, sequence), reply.clone());
        reply
    }

    fn run(&mut self, batch: &Batch) -> Reply {
        self.executed += 1;
        if batch.guards.iter().any(|guard| self.version(&guard.key) != guard.version) {
            return Reply::GuardFailed;
        }
        match batch.commands.iter().map(|command| self.execute(command)).collect() {
            Some(answers) => Reply::Answers(answers),
            None => Reply::Error(ErrorKind::Invalid, "the fake does not know this".to_owned()),
        }
    }

    fn version(&self, key: &Key) -> u64 {
        self.items.get(key).map_or(0, |(item, _)| item.version)
    }

    /// `None` for a command that it does not know.
    fn execute(&mut self, command: &Command) -> Option<Answer> {
        Some(match command {
            Command::Get(key) => Answer::Item(self.items.get(key).map(|(item, _)| item.clone())),
            Command::Exists(key) => Answer::Integer(self.items.contains_key(key).into()),
            Command::Ttl(key) => Answer::Ttl(match self.items.get(key) {
                None => Ttl::Absent,
                Some((_, Expiry::AfterMs(ms))) => Ttl::Ms(*ms),
                Some(_) => Ttl::Never,
            }),
            Command::Count { db } => {
                Answer::Integer(self.items.keys().filter(|key| key.db == *db).count() as i64)
            }
            Command::Set { key, value, expiry, condition } => {
                self.set(key, value, *expiry, condition)
            }
            Command::Delete(key) => Answer::Integer(self.items.remove(key).is_some().into()),
            Command::Expire { key, expiry } => match self.items.get_mut(key) {
                Some((_, old)) => {
                    let had = *expiry != Expiry::Never || *old != Expiry::Never;
                    *old = *expiry;
                    Answer::Integer(had.into())
                }
                None => Answer::Integer(0),
            },
            Command::Increment { key, by } => self.increment(key, *by),
            Command::Clear { db } => {
                self.items.retain(|key, _| db.is_some_and(|db| db != key.db));
                Answer::Done
            }
            _ => return None,
        })
    }

    fn set(&mut self, key: &Key, value: &Bytes, expiry: Expiry, condition: &Condition) -> Answer {
        let version = self.version(key);
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => version == 0,
            Condition::IfPresent => version != 0,
            Condition::UnlessValue(_) | Condition::IfDigest(_) | Condition::UnlessDigest(_) => {
                unreachable!("the binary codec cannot say it")
            }
            Condition::IfValue(old) => self.items.get(key).is_some_and(|(i, _)| i.value == *old),
            Condition::IfVersion(expected) => version == *expected,
        };
        if !holds {
            return Answer::NotStored { version };
        }
        let version = self.executed;
        let value = Bytes::copy_from_slice(value);
        self.items.insert(key.clone(), (Item { value, version }, expiry));
        Answer::Stored { version }
    }

    fn increment(&mut self, key: &Key, by: i64) -> Answer {
        let old = self.items.get(key).map_or("0".into(), |(item, _)| item.value.clone());
        let old = std::str::from_utf8(&old).ok().and_then(|text| text.parse::<i64>().ok());
        let Some(old) = old else { return Answer::Failed(Failure::NotAnInteger) };
        let Some(new) = old.checked_add(by) else { return Answer::Failed(Failure::Overflow) };
        self.set(key, &new.to_string().into(), Expiry::Never, &Condition::Always);
        Answer::Integer(new)
    }
}

//! How connections end, and what waits on them.
//!
//! Each test is everything a server has between its sockets and its replica; the
//! replica's part is played by a state machine of its own.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, yield_now};
use tokio::time::timeout;

use crate::fsm::{self, Action, Fsm, Proposal};
use crate::protocol;
use crate::replica::{Input, Ticket};
use crate::request::{Batch, Command, Condition, Expiry, Key, MemoryLimit, Reply, Request};
use crate::server::config::ClientLimits;
use crate::server::hub::Hub;

/// A PING, the shortest whole request.
const PING: [u8; 5] = [0x10, 0, 0, 0, 0];

/// What no test comes near unless something is wrong.
const FOR_EVER: Duration = Duration::from_secs(60);

/// More than the system takes for a node that does not read.
const LARGE: usize = 24 << 20;

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        timeout(FOR_EVER, test).await.expect("it ends");
    }));
}

struct Server {
    hub: Rc<Hub>,
    listener: TcpListener,
    data: RefCell<Fsm>,
    index: Cell<u64>,
}

impl Server {
    async fn start(limits: ClientLimits) -> Self {
        let hub = Rc::new(Hub::new(limits, protocol::Limits::default(), MemoryLimit::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let data = RefCell::new(Fsm::new(fsm::Limits::default()));
        Self { hub, listener, data, index: Cell::new(0) }
    }

    /// Somebody connects.
    async fn connect(&self) -> TcpStream {
        let address = self.listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), self.listener.accept());
        self.hub.accept(accepted.unwrap().0);
        client.unwrap()
    }

    /// Somebody connects and says this.
    async fn hears(&self, bytes: &[u8]) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(bytes).await.unwrap();
        client
    }

    fn run(&self, batch: Batch) -> Reply {
        let mut data = self.data.borrow_mut();
        if !batch.is_write() {
            return data.query(&batch, 0);
        }
        self.index.set(self.index.get() + 1);
        let action = Action::Run { batch, session: None };
        data.apply(self.index.get(), &Proposal { stamp_ms: 1, action })
    }

    fn set(&self, name: &str) {
        let (key, value) = (Key::new(Bytes::from(name.to_owned())), Bytes::from("v"));
        let (expiry, condition) = (Expiry::Never, Condition::Always);
        self.run(Batch::of(Command::Set { key, value, expiry, condition }));
    }

    fn keys(&self) -> u64 {
        self.data.borrow().keys()
    }

    fn execute(&self, request: Request) -> Reply {
        match request {
            Request::Run { batch, .. } => self.run(batch),
            Request::Ping => Reply::Pong,
            other => panic!("{other:?}"),
        }
    }

    /// The requests that have arrived.
    fn requests(&self) -> Vec<(Ticket, Request)> {
        self.hub.begin_turn();
        let request = |input| match input {
            Input::Request { ticket, request } => Some((ticket, request)),
            _ => None,
        };
        self.hub.take_inbox().into_iter().filter_map(request).collect()
    }

    fn answer(&self, requests: Vec<(Ticket, Request)>) {
        let reply = |(ticket, request)| (ticket, self.execute(request));
        self.hub.answer(requests.into_iter().map(reply).collect());
    }

    /// Until a request has become whole.
    async fn is_asked(&self) -> Vec<(Ticket, Request)> {
        loop {
            let requests = self.requests();
            if !requests.is_empty() {
                return requests;
            }
            self.hub.arrival().await;
        }
    }

    /// Answers everybody while this goes on.
    async fn during<T>(&self, doing: impl Future<Output = T>) -> T {
        let answering = async {
            loop {
                let requests = self.is_asked().await;
                self.answer(requests);
            }
        };
        tokio::select! { done = doing => done, () = answering => unreachable!("it has no end") }
    }

    /// Until so many are connected.
    async fn has_connections(&self, count: usize) {
        let counting = async {
            while self.hub.connections() != count {
                yield_now().await;
            }
        };
        self.during(counting).await;
    }

    /// Nobody is connected, and nothing is left of those who were.
    async fn is_left_by_all(&self) {
        self.has_connections(0).await;
        assert!(self.holds_nothing(), "something is still counted");
    }

    /// Whether all of what the connections may hold is free.
    fn holds_nothing(&self) -> bool {
        let all = self.hub.limits.buffers_total_bytes;
        let is_free = self.hub.count(0, all);
        self.hub.count(all, 0);
        is_free
    }

    /// Says this, and then that it is all; what comes back until the node closes.
    async fn replies(&self, bytes: &[u8]) -> String {
        let mut client = self.hears(bytes).await;
        client.shutdown().await.unwrap();
        self.rest(&mut client).await
    }

    /// Everything until the node closes. No reset: that might have cost a reply.
    async fn rest(&self, client: &mut TcpStream) -> String {
        let mut rest = Vec::new();
        self.during(client.read_to_end(&mut rest)).await.expect("no reset");
        String::from_utf8(rest).expect("a text")
    }
}

/// Half a request is there, and the rest does not come: the connection is
/// closed. Who has sent a whole one and says nothing may stay.
#[test]
fn an_unfinished_request_ends_its_connection() {
    local(async {
        let partial_request_timeout = Duration::from_millis(50);
        let limits = ClientLimits { partial_request_timeout, ..ClientLimits::default() };
        let server = Server::start(limits).await;
        let mut silent = server.hears(&PING).await;
        server.is_asked().await;
        for sent in [&PING[..1], &[1, 3, 0], &[1, 1, 0, 0, 0, b'k', 255, 0, 0, 0, b'v']] {
            let mut stammering = server.hears(sent).await;
            stammering.read_u8().await.expect_err("it is closed without an answer");
        }
        silent.write_all(&PING).await.unwrap();
        server.is_asked().await;
        assert_eq!(server.hub.connections(), 1);
    });
}

/// [A client sends a file that is too large, and looks only afterwards: it finds
/// that the connection was reset, and not why.]
#[test]
fn the_last_word_reaches_who_is_still_sending() {
    let head = format!("PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nContent-Length: {LARGE}\r\n\r\n");
    let too_long = "GET /".to_owned() + &"a".repeat(9000);
    for (begun, word) in [
        (&head[..], "HTTP/1.1 413 "),
        (&too_long, "HTTP/1.1 414 "),
        ("*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ("SET k ", "ERR line too long\n"),
        ("QUIT\n", "Success\n"),
    ] {
        local(async {
            let server = Server::start(ClientLimits::default()).await;
            let mut client = server.connect().await;
            let sending = async {
                client.write_all(begun.as_bytes()).await?;
                client.write_all(&vec![b'x'; LARGE]).await
            };
            server.during(sending).await.expect("it may send");
            let found = server.rest(&mut client).await;
            assert!(found.starts_with(word), "{found:?} instead of {word:?}");
            drop(client);
            server.is_left_by_all().await;
            assert_eq!(server.keys(), 0);
        });
    }
}

/// Sends a byte at a time until the node has closed.
async fn babble(client: &mut TcpStream) {
    while client.write_all(b"x").await.is_ok() {
        yield_now().await;
    }
}

/// Who does not close and says nothing, who says too much, and who never comes
/// to an end: none of them keeps its place.
#[test]
fn nobody_stays_for_long_after_the_last_word() {
    local(async {
        let patient = ClientLimits { partial_request_timeout: 10 * FOR_EVER, ..Default::default() };
        let server = Server::start(patient).await;
        let behind = "QUIT\n".to_owned() + &"x".repeat(9000);
        let mut silent = server.hears(behind.as_bytes()).await;
        assert_eq!(server.rest(&mut silent).await, "Success\n");
        assert!(server.holds_nothing(), "it keeps what nobody will ever take in");
        server.is_left_by_all().await;

        let mut loud = server.hears(b"QUIT\n").await;
        let much = vec![b'x'; 1 << 20];
        let shouting = async { while loud.write_all(&much).await.is_ok() {} };
        server.during(shouting).await;
        server.is_left_by_all().await;
    });
    local(async {
        let partial_request_timeout = Duration::from_millis(50);
        let hasty = ClientLimits { partial_request_timeout, ..Default::default() };
        let server = Server::start(hasty).await;
        let mut endless = server.hears(b"QUIT\n").await;
        server.during(babble(&mut endless)).await;
        server.is_left_by_all().await;
    });
}

/// The node stops: it does not wait for those who are on their way out, nor for
/// those that it sends away.
#[test]
fn a_stop_waits_for_nobody_who_has_all_replies() {
    local(async {
        let patient = ClientLimits { partial_request_timeout: 10 * FOR_EVER, ..Default::default() };
        let server = Server::start(patient).await;
        let mut leaving = server.hears(b"QUIT\n").await;
        assert_eq!(server.rest(&mut leaving).await, "Success\n");
        let mut staying = server.hears(b"PING\n").await;
        let mut pong = [0; 7];
        server.during(staying.read_exact(&mut pong)).await.unwrap();
        server.hub.stop_reading();
        let babbling = async { tokio::join!(babble(&mut leaving), babble(&mut staying)) };
        tokio::select! { _ = babbling => {}, () = server.has_connections(0) => {} }
        server.is_left_by_all().await;
    });
}

/// What is behind the last request is nothing; what is before it is answered,
/// however much it is.
#[test]
fn nothing_behind_the_last_request_is_executed() {
    let put = |key: &str, last: &str| {
        format!("PUT /v1/keys/{key} HTTP/1.1\r\nHost: n\r\n{last}Content-Length: 1\r\n\r\nv")
    };
    for (each, last, behind) in [
        ("SET k v\n", "QUIT\n", "SET late v\n"),
        ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", "QUIT\r\n", "SET late v\r\n"),
        (&put("k", ""), &put("k", "Connection: close\r\n"), &put("late", "")),
    ] {
        local(async {
            let server = Server::start(ClientLimits::default()).await;
            const BEFORE: usize = 3000;
            let all = each.repeat(BEFORE) + last + behind;
            let mut client = server.connect().await;
            let sending = async { client.write_all(all.as_bytes()).await };
            server.during(sending).await.unwrap();
            let found = server.rest(&mut client).await;
            let line = found.lines().next().expect("a reply").to_owned();
            let is_reply = |found: &&str| line == **found;
            assert_eq!(found.lines().filter(is_reply).count(), BEFORE + 1);
            assert_eq!(server.keys(), 1, "{behind:?} was executed");
            drop(client);
            server.is_left_by_all().await;
        });
    }
}

const REPLY_OFF: &str = "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n";

/// [QUIT has no reply after CLIENT REPLY OFF, and what is behind it is executed.]
#[test]
fn nothing_behind_a_last_request_that_nobody_hears_of_is_executed() {
    local(async {
        let server = Server::start(ClientLimits::default()).await;
        let all = REPLY_OFF.to_owned() + "SET k v\r\nQUIT\r\nSET late v\r\n";
        let mut client = server.hears(all.as_bytes()).await;
        assert_eq!(server.rest(&mut client).await, "");
        assert_eq!(server.keys(), 1);
    });
}

/// [16 KiB of commands without a reply are one piece of work: with two thousand
/// times COMMAND in them, nobody else is heard for a tenth of a second.]
#[test]
fn what_nobody_hears_of_is_work_as_well() {
    for quiet in ["PING\r\n", "\r\n", "*0\r\n"] {
        local(async {
            let limits = ClientLimits { turn_work: 10, ..ClientLimits::default() };
            let server = Server::start(limits).await;
            let all = REPLY_OFF.to_owned() + &quiet.repeat(100) + "SET k v\r\n";
            let _client = server.hears(all.as_bytes()).await;
            let mut turns = 0;
            let mut asked = Vec::new();
            while asked.is_empty() {
                server.hub.arrival().await;
                asked = server.requests();
                turns += 1;
            }
            assert!(turns >= 10, "a hundred of {quiet:?} in {turns} turns");
        });
    }
}

/// Commands that wait for one another, all sent at once.
const WAITING: &str = "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\n1\r\nWATCH k\r\nMULTI\r\nSET k v\r\nEXEC\r\n\
                       KEYS *\r\nRANDOMKEY\r\nWATCH k\r\nSET k w\r\nMULTI\r\nGET k\r\nEXEC\r\nPING\r\n";

/// [It half-closes right after sending: the end that is read behind a request
/// that waits would leave what waits behind that unanswered.]
#[test]
fn a_pipeline_with_requests_that_wait_is_answered_in_order() {
    local(async {
        let server = Server::start(ClientLimits::default()).await;
        let all = "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n";
        let rest = "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n+PONG\r\n";
        let found = server.replies(WAITING.as_bytes()).await;
        let found = found.strip_prefix(all).unwrap_or_else(|| panic!("{found:?}"));
        let found = found.strip_suffix(rest).unwrap_or_else(|| panic!("{found:?}"));
        let (names, chosen) = found.split_at("*2\r\n$1\r\nk\r\n$1\r\nx\r\n".len());
        assert!(["$1\r\nk\r\n$1\r\nx\r\n", "$1\r\nx\r\n$1\r\nk\r\n"].contains(&&names[4..]));
        assert!(["$1\r\nk\r\n", "$1\r\nx\r\n"].contains(&chosen), "{chosen:?}");
        server.is_left_by_all().await;
    });
}

/// KEYS takes several steps; the client goes away between two.
#[test]
fn nothing_is_left_of_who_leaves_between_two_steps() {
    local(async {
        let server = Server::start(ClientLimits::default()).await;
        (0..20_000).for_each(|number| server.set(&number.to_string()));
        for taken in 0..3 {
            let client = server.hears(b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\nPING\r\nKEYS").await;
            for _ in 0..taken {
                let step = server.is_asked().await;
                server.answer(step);
            }
            let step = server.is_asked().await;
            // Unread replies of before and this make it a reset.
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            server.answer(step);
            server.is_left_by_all().await;
            assert!(server.requests().is_empty(), "nobody asks any more");
        }
        let all = server.replies(b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n").await;
        assert_eq!(all.lines().count(), 1 + 2 * 20_000);
    });
}

/// Half a request is behind one that waits for its reply. It is not the client
/// that is slow; it is again from when the node would read the rest.
#[test]
fn half_a_request_behind_one_that_waits_is_in_time() {
    local(async {
        let partial_request_timeout = Duration::from_millis(50);
        let limits = ClientLimits { partial_request_timeout, ..ClientLimits::default() };
        let server = Server::start(limits).await;
        let mut client = server.hears(b"*2\r\n$5\r\nWATCH\r\n$1\r\nk\r\n*1\r\n$4\r\nPI").await;
        let watch = server.is_asked().await;
        // This one begins later, and its time runs out.
        let mut slow = server.hears(b"*1\r\n$4\r\nPI").await;
        slow.read_u8().await.expect_err("it is closed without an answer");
        client.write_all(b"NG\r\n").await.unwrap();
        server.answer(watch);
        let mut both = [0; 12];
        server.during(client.read_exact(&mut both)).await.expect("it is answered");
        assert_eq!(&both, b"+OK\r\n+PONG\r\n");
        client.write_all(b"*1\r\n$4\r\nPI").await.unwrap();
        assert_eq!(server.rest(&mut client).await, "");
    });
}

//! How long a client may keep a node waiting. The limits are cut short; what is
//! waited for is the node's reaction, however long that takes.
//!
//! Each test is everything a server has between its sockets and its replica, and
//! plays the replica.

#![expect(clippy::unwrap_used, reason = "a test ends where a step fails")]

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use raftcache::protocol;
use raftcache::replica::Input;
use raftcache::request::MemoryLimit;
use raftcache::request::{Answer, Item, Reply, Request};
use raftcache::server::config::ClientLimits;
use raftcache::server::hub::Hub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// More than the system takes for a client that reads nothing.
const VALUE_BYTES: usize = 16 << 20;

const PING: &[u8] = &[0x10, 0, 0, 0, 0];
const PONG: &[u8] = &[1, 0, 0, 0, 0];
const GET: &[u8] = &[0x02, 1, 0, 0, 0, b'a'];

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        timeout(PATIENCE, test).await.expect("it ends");
    }));
}

struct Server {
    hub: Rc<Hub>,
    listener: TcpListener,
}

impl Server {
    async fn start(limits: ClientLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (protocol, memory) = (protocol::Limits::default(), MemoryLimit::default());
        Self { hub: Rc::new(Hub::new(limits, protocol, memory)), listener }
    }

    async fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = self.listener.accept().await.unwrap();
        self.hub.accept(stream);
        client
    }

    /// Answers what has been asked, for ever.
    async fn answer(&self) {
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        loop {
            self.hub.arrival().await;
            self.hub.begin_turn();
            let replies = self.hub.take_inbox().into_iter().filter_map(|input| match input {
                Input::Request { ticket, request: Request::Ping } => Some((ticket, Reply::Pong)),
                Input::Request { ticket, .. } => {
                    let item = Item { value: value.clone(), version: 1 };
                    Some((ticket, Reply::Answers(vec![Answer::Item(Some(item))])))
                }
                _ => None,
            });
            self.hub.answer(replies.collect());
        }
    }
}

async fn is_served(client: &mut TcpStream) {
    client.write_all(PING).await.unwrap();
    let mut reply = [0; 5];
    client.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply, PONG);
}

/// Until the node closes. A reset is a way of closing.
async fn is_closed(client: &mut TcpStream) {
    match client.read(&mut [0; 64]).await {
        Ok(count) => assert_eq!(count, 0, "it is not answered"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Counted from its first byte, so that a byte now and then does not help. Who
/// says nothing is not in the middle of anything, and stays.
#[test]
fn a_request_that_is_not_finished_in_time_closes_its_connection() {
    local(async {
        let limits = ClientLimits { partial_request_timeout: SHORT, ..ClientLimits::default() };
        let server = Server::start(limits).await;
        let (mut idle, mut partial, mut dripping) =
            (server.connect().await, server.connect().await, server.connect().await);
        let test = async {
            is_served(&mut idle).await;
            is_served(&mut partial).await;
            partial.write_all(&GET[..5]).await.unwrap();
            is_closed(&mut partial).await;

            // A key of 16 KiB, of which a byte comes whenever the last was taken.
            dripping.write_all(&[0x02, 0, 64, 0, 0]).await.unwrap();
            let mut closed = [0];
            loop {
                match timeout(SHORT / 10, dripping.read(&mut closed)).await {
                    Err(_) => drop(dripping.write_all(b"k").await),
                    Ok(Ok(count)) => break assert_eq!(count, 0),
                    Ok(Err(error)) => break assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
            is_served(&mut idle).await;
            assert_eq!(server.hub.connections(), 1);
        };
        tokio::select! { () = test => {}, () = server.answer() => {} }
    });
}

/// Replies that nobody takes do not stay in memory for ever; who takes them
/// gets them, however large.
#[test]
fn replies_that_nobody_takes_in_time_close_their_connection() {
    local(async {
        let limits = ClientLimits { slow_reader_timeout: SHORT, ..ClientLimits::default() };
        let server = Server::start(limits).await;
        let (mut deaf, mut reader) = (server.connect().await, server.connect().await);
        let test = async {
            deaf.write_all(GET).await.unwrap();
            reader.write_all(GET).await.unwrap();
            let mut reply = vec![0; 1 + 4 + VALUE_BYTES];
            reader.read_exact(&mut reply).await.unwrap();
            assert!(reply[5..].iter().all(|&byte| byte == b'v'));
            while server.hub.connections() > 1 {
                tokio::time::sleep(SHORT / 10).await;
            }
            is_served(&mut reader).await;
            // What the system had taken comes, and then the end.
            let mut taken = Vec::new();
            drop(deaf.read_to_end(&mut taken).await);
            assert!(taken.len() < reply.len(), "it was not all taken");
        };
        tokio::select! { () = test => {}, () = server.answer() => {} }
    });
}

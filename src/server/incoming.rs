//! What other nodes say to this one.
//!
//! A connection has to say in time whose it is and for whom; then it is welcomed
//! and its frames go to the replica, or it is refused. Whatever makes no sense
//! closes that connection, with one line in the log, and nothing else.
//!
//! Who has said nothing yet takes no place of a node: [strangers that connect
//! and are silent keep the members out]. And frames that are not whole are
//! bounded together, not only each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_util::codec::{Decoder, FramedRead};

use super::ACCEPT_REST;
use super::dial::prepare;
use super::peers::Peers;
use crate::protocol::peer::{
    Ends, FRAME_HEAD_BYTES, Hello, LinkClass, PeerError, Refusal, Welcome, decode_frame,
};
use crate::raft::NodeId;
use crate::replica::{Input, PeerMessage};

/// How much is read at once at least.
const READ_BYTES: usize = 64 << 10;

/// Of what a link has to say, one turn takes so much and a frame more.
const TURN_BYTES: usize = 256 << 10;

/// Takes in other nodes' connections, for ever.
pub async fn accept(listener: TcpListener, peers: Rc<Peers>) {
    let (open, silent) = (Rc::new(Cell::new(0)), Rc::new(Silent::default()));
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let stranger = Stranger::new(&silent, peers.limits.silent_connections);
                let (peers, open) = (Rc::clone(&peers), Rc::clone(&open));
                tokio::task::spawn_local(serve(stream, source.ip(), peers, open, stranger));
            }
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// One of the connections that may be open; free again when it is dropped,
/// however its task ends.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The connections that have not said whose they are, the oldest first.
type Silent = RefCell<VecDeque<Rc<Notify>>>;

/// One of them, until it is dropped.
struct Stranger {
    silent: Rc<Silent>,
    /// It makes way for another.
    over: Rc<Notify>,
}

impl Stranger {
    fn new(silent: &Rc<Silent>, limit: usize) -> Self {
        let over = Rc::new(Notify::new());
        let mut queue = silent.borrow_mut();
        if queue.len() >= limit
            && let Some(oldest) = queue.pop_front()
        {
            oldest.notify_one();
        }
        queue.push_back(Rc::clone(&over));
        Self { silent: Rc::clone(silent), over }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.silent.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.over));
    }
}

async fn serve(
    stream: TcpStream,
    source: IpAddr,
    peers: Rc<Peers>,
    open: Rc<Cell<usize>>,
    stranger: Stranger,
) {
    if let Err(error) = exchange(stream, source, &peers, &open, stranger).await {
        let level = match error {
            LinkError::Io(_) => log::Level::Debug,
            _ => log::Level::Warn,
        };
        let about = format!("a connection from {source} to the peer port is closed");
        peers.complain(about, level, &error.to_string());
    }
}

async fn exchange(
    stream: TcpStream,
    source: IpAddr,
    peers: &Rc<Peers>,
    open: &Rc<Cell<usize>>,
    stranger: Stranger,
) -> Result<(), LinkError> {
    prepare(&stream, peers.limits.stall_timeout)?;
    let (input, mut output) = stream.into_split();
    let mut frames = FramedRead::with_capacity(input, LinkDecoder::new(peers), READ_BYTES);
    let welcomed = tokio::select! {
        welcomed = shake_hands(&mut frames, &mut output, peers, open) => welcomed?,
        () = stranger.over.notified() => return Err(LinkError::Displaced),
    };
    drop(stranger);
    let Some((hello, _place)) = welcomed else { return Ok(()) };
    let registered = Registered::new(&hello, source, peers);
    tokio::select! {
        ended = listen(&mut frames, hello.sender.node, peers) => ended,
        () = registered.over.notified() => Ok(()),
    }
}

/// Who speaks, and its place, if it is to be listened to.
async fn shake_hands(
    frames: &mut FramedRead<OwnedReadHalf, LinkDecoder>,
    output: &mut OwnedWriteHalf,
    peers: &Peers,
    open: &Rc<Cell<usize>>,
) -> Result<Option<(Hello, Place)>, LinkError> {
    let hello = match timeout(peers.limits.hello_timeout, frames.next()).await {
        Err(_) => return Err(LinkError::Silent),
        Ok(None) => return Ok(None),
        Ok(Some(Ok(Item::Hello(hello)))) => hello,
        Ok(Some(Ok(Item::Message(_)))) => unreachable!("a link without ends expects a hello"),
        Ok(Some(Err(error))) => {
            if let LinkError::Peer(PeerError::OtherVersion(_)) = error {
                answer(output, peers, &Welcome::Refused(Refusal::UnknownVersion)).await?;
            }
            return Err(error);
        }
    };
    let is_full = open.get() >= peers.limits.incoming_connections;
    let place = Place::take(open);
    let ends = match peers.judge(&hello) {
        Ok(Some(_)) if is_full => Err(Refusal::TooMany),
        judged => judged,
    };
    let refusal = match ends {
        Ok(ends) => {
            answer(output, peers, &Welcome::Here(peers.own())).await?;
            if ends.is_none() {
                peers.note_claim(&hello);
            }
            frames.decoder_mut().ends = ends;
            return Ok(frames.decoder().ends.is_some().then_some((hello, place)));
        }
        Err(refusal) => refusal,
    };
    answer(output, peers, &Welcome::Refused(refusal)).await?;
    peers.note_claim(&hello);
    Err(LinkError::Refused(Box::new(hello), refusal))
}

async fn answer(output: &mut OwnedWriteHalf, peers: &Peers, welcome: &Welcome) -> io::Result<()> {
    let bytes = welcome.encode();
    timeout(peers.limits.hello_timeout, output.write_all(&bytes)).await?
}

async fn listen(
    frames: &mut FramedRead<OwnedReadHalf, LinkDecoder>,
    from: NodeId,
    peers: &Peers,
) -> Result<(), LinkError> {
    while let Some(item) = frames.next().await {
        let Item::Message(message) = item? else { unreachable!("a hello comes once") };
        peers.hub.submit(Input::Peer { from, message });
        // The inbox has no bound of its own: let it be emptied.
        if frames.decoder().taken_bytes >= TURN_BYTES {
            frames.decoder_mut().taken_bytes = 0;
            peers.hub.turn().await;
        }
    }
    Ok(())
}

/// A link that is open, until it is dropped, however its task ends.
struct Registered {
    peers: Rc<Peers>,
    from: NodeId,
    class: LinkClass,
    /// Another one takes its place, or the node ends.
    over: Rc<Notify>,
}

impl Registered {
    fn new(hello: &Hello, source: IpAddr, peers: &Rc<Peers>) -> Self {
        let over = peers.arrived(hello, source);
        Self { peers: Rc::clone(peers), from: hello.sender.node, class: hello.class, over }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.peers.departed(self.from, self.class, &self.over);
    }
}

/// Why a connection ends before its other side closed it.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("it did not say in time whose it is")]
    Silent,
    #[error("it has not said whose it is, and others wait to")]
    Displaced,
    #[error("frames that are not whole hold more than {0} bytes on all connections together")]
    Unfinished(usize),
    #[error("refused {} ({}), for: {}", .0.sender.name, .0.sender.node, explain(.0, *.1))]
    Refused(Box<Hello>, Refusal),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The refusal from this side, for the operator.
fn explain(hello: &Hello, refusal: Refusal) -> String {
    match (refusal, hello.sender.cluster, hello.to) {
        (Refusal::ForeignCluster(ours), Some(theirs), _) => format!(
            "it belongs to cluster {theirs}, this node to {ours}. Two clusters do not become \
             one: to move a node, give it an empty data directory and --join"
        ),
        (Refusal::WrongAddressee(ours), _, Some(to)) => {
            format!("it means node {to}, and this is {ours}")
        }
        (refusal, ..) => refusal.to_string(),
    }
}

/// What a connection carries.
enum Item {
    Hello(Hello),
    Message(PeerMessage),
}

/// A hello, and once its ends are known, frames.
struct LinkDecoder {
    ends: Option<Ends>,
    peers: Rc<Peers>,
    /// Frames taken since this was set to 0.
    taken_bytes: usize,
    /// What it is counted for in the total of what is not whole.
    unfinished_bytes: usize,
}

impl LinkDecoder {
    fn new(peers: &Rc<Peers>) -> Self {
        Self { ends: None, peers: Rc::clone(peers), taken_bytes: 0, unfinished_bytes: 0 }
    }

    /// What is left behind the last whole frame is so much now.
    fn count(&mut self, now: usize) -> Result<(), LinkError> {
        let before = std::mem::replace(&mut self.unfinished_bytes, now);
        let total = self.peers.unfinished_bytes.get() + now - before;
        self.peers.unfinished_bytes.set(total);
        let limit = self.peers.limits.unfinished_total_bytes;
        if total > limit && now > before && now > READ_BYTES {
            return Err(LinkError::Unfinished(limit));
        }
        Ok(())
    }
}

impl Drop for LinkDecoder {
    fn drop(&mut self) {
        let total = self.peers.unfinished_bytes.get();
        self.peers.unfinished_bytes.set(total - self.unfinished_bytes);
    }
}

impl Decoder for LinkDecoder {
    type Item = Item;
    type Error = LinkError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Item>, LinkError> {
        let Some(ends) = &self.ends else {
            return Ok(Hello::decode(input)?.map(Item::Hello));
        };
        let before = input.len();
        let message = decode_frame(ends, self.peers.limits.frame_bytes, input)?;
        self.taken_bytes += before - input.len();
        self.count(input.len())?;
        if message.is_none() && before >= FRAME_HEAD_BYTES {
            // A frame is under way. What it declares is not trusted with memory.
            input.reserve(READ_BYTES);
        }
        Ok(message.map(Item::Message))
    }
}

//! What other nodes say to this one.
//!
//! A connection has to say in time whose it is and for whom; then it is welcomed
//! and its frames go to the replica, or it is refused. Whatever makes no sense
//! closes that connection, with one line in the log, and nothing else.

use std::cell::Cell;
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
    let open = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let source = source.ip();
                if open.get() >= peers.limits.incoming_connections {
                    let about = format!("a connection from {source} is closed");
                    peers.complain(about, log::Level::Warn, "as many are open as may be");
                    // To say why costs nothing; not to wait for it neither.
                    let _ = stream.try_write(&Welcome::Refused(Refusal::TooMany).encode());
                    continue;
                }
                let place = Place::take(&open);
                tokio::task::spawn_local(serve(stream, source, Rc::clone(&peers), place));
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

async fn serve(stream: TcpStream, source: IpAddr, peers: Rc<Peers>, place: Place) {
    if let Err(error) = exchange(stream, source, &peers).await {
        let level = match error {
            LinkError::Io(_) => log::Level::Debug,
            _ => log::Level::Warn,
        };
        let about = format!("a connection from {source} to the peer port is closed");
        peers.complain(about, level, &error.to_string());
    }
    drop(place);
}

async fn exchange(stream: TcpStream, source: IpAddr, peers: &Rc<Peers>) -> Result<(), LinkError> {
    prepare(&stream, peers.limits.stall_timeout)?;
    let (input, mut output) = stream.into_split();
    let limit_bytes = peers.limits.frame_bytes;
    let decoder = LinkDecoder { ends: None, limit_bytes, taken_bytes: 0 };
    let mut frames = FramedRead::with_capacity(input, decoder, READ_BYTES);
    let hello = match timeout(peers.limits.hello_timeout, frames.next()).await {
        Err(_) => return Err(LinkError::Silent),
        Ok(None) => return Ok(()),
        Ok(Some(Ok(Item::Hello(hello)))) => hello,
        Ok(Some(Ok(Item::Message(_)))) => unreachable!("a link without ends expects a hello"),
        Ok(Some(Err(error))) => {
            if let LinkError::Peer(PeerError::OtherVersion(_)) = error {
                answer(&mut output, peers, &Welcome::Refused(Refusal::UnknownVersion)).await?;
            }
            return Err(error);
        }
    };
    match peers.judge(&hello) {
        Err(refusal) => {
            answer(&mut output, peers, &Welcome::Refused(refusal)).await?;
            peers.note_claim(&hello);
            Err(LinkError::Refused(Box::new(hello), refusal))
        }
        Ok(None) => {
            answer(&mut output, peers, &Welcome::Here(peers.own())).await?;
            peers.note_claim(&hello);
            Ok(())
        }
        Ok(Some(ends)) => {
            answer(&mut output, peers, &Welcome::Here(peers.own())).await?;
            frames.decoder_mut().ends = Some(ends);
            let registered = Registered::new(&hello, source, peers);
            tokio::select! {
                ended = listen(&mut frames, hello.sender.node, peers) => ended,
                () = registered.over.notified() => Ok(()),
            }
        }
    }
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
    limit_bytes: usize,
    /// Frames taken since this was set to 0.
    taken_bytes: usize,
}

impl Decoder for LinkDecoder {
    type Item = Item;
    type Error = LinkError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Item>, LinkError> {
        let Some(ends) = &self.ends else {
            return Ok(Hello::decode(input)?.map(Item::Hello));
        };
        let before = input.len();
        let message = decode_frame(ends, self.limit_bytes, input)?;
        self.taken_bytes += before - input.len();
        if message.is_none() && before >= FRAME_HEAD_BYTES {
            // A frame is under way. What it declares is not trusted with memory.
            input.reserve(READ_BYTES);
        }
        Ok(message.map(Item::Message))
    }
}

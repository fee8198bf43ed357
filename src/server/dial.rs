//! Reaching another node: connect, say hello, be welcomed. Used by the links
//! that stay, and by probes, which only ask who is there.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::os;
use crate::protocol::peer::{Hello, Welcome};
use crate::replica::Peer;

/// An idle connection is asked after so long, and as often, whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// Unanswered so often, it is dead.
const KEEPALIVE_RETRIES: u32 = 3;

/// Connects and shakes hands. An error is one sentence for a person.
pub async fn dial(
    address: &str,
    hello: &Hello,
    patience: Duration,
) -> Result<(TcpStream, Peer), String> {
    let sentence = |why: &str| format!("cannot reach {address}: {why}");
    let shaking = async {
        let mut stream = TcpStream::connect(address).await?;
        prepare(&stream, patience)?;
        stream.write_all(&hello.encode()).await?;
        let welcome = welcomed(&mut stream).await?;
        Ok::<_, io::Error>((stream, welcome))
    };
    match timeout(patience, shaking).await {
        Ok(Ok((stream, Welcome::Here(peer)))) => Ok((stream, peer)),
        Ok(Ok((_, Welcome::Refused(refusal)))) => {
            Err(format!("{address} refuses this node: {refusal}"))
        }
        Ok(Err(error)) => Err(sentence(&reason(&error))),
        Err(_) => Err(sentence(&format!("no answer in {} ms", patience.as_millis()))),
    }
}

async fn welcomed(stream: &mut TcpStream) -> io::Result<Welcome> {
    let mut input = BytesMut::new();
    loop {
        let welcome = Welcome::decode(&mut input)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(welcome) = welcome {
            return Ok(welcome);
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::Error::other("it closed the connection without a word"));
        }
    }
}

/// Nothing waits to fill a packet, and a connection to a machine that is gone
/// does not look alive.
pub fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    os::limit_unacknowledged(&socket, patience.max(KEEPALIVE * KEEPALIVE_RETRIES))
}

/// What a person wants to know of an error.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => error.kind().to_string(),
        _ => error.to_string(),
    }
}

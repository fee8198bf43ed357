//! Connections that are closed because patience has an end.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::protocol;
use crate::replica::Input;
use crate::server::config::ClientLimits;
use crate::server::hub::Hub;

/// A PING, the shortest whole request.
const PING: [u8; 5] = [0x10, 0, 0, 0, 0];

/// What no test comes near unless something is wrong.
const FOR_EVER: Duration = Duration::from_secs(60);

/// Somebody connected to this hub.
async fn connect(listener: &TcpListener, hub: &Rc<Hub>) -> TcpStream {
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    hub.accept(accepted.unwrap().0);
    client.unwrap()
}

/// Until a request has become whole.
async fn is_heard(hub: &Hub) {
    let heard = |input: &Input| matches!(input, Input::Request { .. });
    let hearing = async {
        while !hub.take_inbox().iter().any(heard) {
            hub.arrival().await;
        }
    };
    timeout(FOR_EVER, hearing).await.expect("it is heard");
}

/// Half a request is there, and the rest does not come: the connection is
/// closed. Who has sent a whole one and says nothing may stay.
#[test]
fn an_unfinished_request_ends_its_connection() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let partial_request_timeout = Duration::from_millis(50);
        let limits = ClientLimits { partial_request_timeout, ..ClientLimits::default() };
        let hub = Rc::new(Hub::new(limits, protocol::Limits::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut silent = connect(&listener, &hub).await;
        silent.write_all(&PING).await.unwrap();
        is_heard(&hub).await;
        for sent in [&PING[..1], &[1, 3, 0], &[1, 1, 0, 0, 0, b'k', 255, 0, 0, 0, b'v']] {
            let mut stammering = connect(&listener, &hub).await;
            stammering.write_all(sent).await.unwrap();
            let end = timeout(FOR_EVER, stammering.read_u8()).await.expect("it is closed");
            end.expect_err("without an answer");
        }
        hub.take_inbox();
        silent.write_all(&PING).await.unwrap();
        is_heard(&hub).await;
        assert_eq!(hub.connections(), 1);
    });
}

//! Addresses as people write them, and hosts that mean "wherever this comes
//! from".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The address with `ip` for its host, if its host is empty or unspecified.
pub fn with_host(address: &str, ip: IpAddr) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) if names_no_host(host) => match ip.to_canonical() {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        },
        _ => address.to_owned(),
    }
}

/// The address with the host of another one, if its own is empty or unspecified.
pub fn with_host_of(address: &str, other: &str) -> String {
    match (address.rsplit_once(':'), other.rsplit_once(':')) {
        (Some((host, port)), Some((theirs, _))) if names_no_host(host) => {
            format!("{theirs}:{port}")
        }
        _ => address.to_owned(),
    }
}

/// The address with this machine's own, if its host is empty or unspecified:
/// for a first member, whom nobody sees from outside.
pub fn with_own_host(address: &str) -> String {
    with_host(address, own_ip())
}

/// Whether others know this node by the address it gives, as far as that says
/// anything: an empty or unspecified host was filled in by whoever was told.
pub fn is_known_as(own: &str, known: &str) -> bool {
    match (own.rsplit_once(':'), known.rsplit_once(':')) {
        (Some((host, port)), Some((_, theirs))) if names_no_host(host) => port == theirs,
        _ => own == known,
    }
}

/// The address with this port, if its own is 0.
pub fn with_port(address: &str, actual: u16) -> String {
    match address.rsplit_once(':') {
        Some((host, "0")) => format!("{host}:{actual}"),
        _ => address.to_owned(),
    }
}

/// The port; 0 if there is none.
pub fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
}

fn names_no_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.is_empty() || bare.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified())
}

/// The address that this machine would speak from to the outside; loopback if
/// there is no outside. Connecting a datagram socket sends nothing.
fn own_ip() -> IpAddr {
    let speaks_from = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses that are kept for documentation, and so are nobody's.
    let somewhere = Ipv4Addr::new(192, 0, 2, 1);
    let somewhere_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    speaks_from(Ipv4Addr::UNSPECIFIED.into(), somewhere.into())
        .or_else(|| speaks_from(Ipv6Addr::UNSPECIFIED.into(), somewhere_v6.into()))
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_says_nothing_is_filled_in() {
        let v4: IpAddr = "10.0.0.7".parse().unwrap();
        let v6: IpAddr = "fe80::7".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        for empty in [":4001", "0.0.0.0:4001", "[::]:4001", "[]:4001"] {
            assert_eq!(with_host(empty, v4), "10.0.0.7:4001");
            assert_eq!(with_host(empty, mapped), "10.0.0.7:4001");
            assert_eq!(with_host(empty, v6), "[fe80::7]:4001");
            assert_eq!(with_host_of(empty, "node1:1"), "node1:4001");
            assert!(is_known_as(empty, "node1:4001"));
            assert!(!is_known_as(empty, "node1:4002"));
        }
        for full in ["node1:4001", "127.0.0.1:4001", "[::1]:4001", "no port"] {
            assert_eq!(with_host(full, v4), full);
            assert_eq!(with_host_of(full, "node1:1"), full);
            assert_eq!(with_own_host(full), full);
            assert!(is_known_as(full, full));
            assert!(!is_known_as(full, "node2:4001"));
        }
        assert!(!with_own_host("0.0.0.0:4001").starts_with("0.0.0.0"));
        assert_eq!(with_port("a:0", 7), "a:7");
        assert_eq!(with_port("a:10", 7), "a:10");
    }
}

//! Text and HTTP over sockets, on the node that leads and on one that follows.

use super::wire::Wire;
use crate::cluster::{Cluster, Node, eventually};

/// Sends a line, and expects exactly this.
fn says(wire: &mut Wire, line: &str, reply: &str) {
    wire.send(line.as_bytes());
    let found = wire.receive(reply.len());
    assert_eq!(String::from_utf8_lossy(&found), reply, "to {line:?}");
}

/// A response to HTTP.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    /// Reads one, as long as it says it is.
    fn read(wire: &mut Wire, has_body: bool) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(wire.receive(1));
        }
        let head = String::from_utf8(head).expect("ASCII");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let body = wire.receive(if has_body { length } else { 0 });
        let status = head[9..12].parse().expect("a number");
        Self { status, head, body: String::from_utf8(body).expect("UTF-8") }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

fn send(wire: &mut Wire, request: &str, body: &str) {
    let head =
        format!("{request} HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n", body.len());
    wire.send((head + body).as_bytes());
}

fn ask(wire: &mut Wire, request: &str, body: &str) -> Response {
    send(wire, request, body);
    Response::read(wire, !request.starts_with("HEAD"))
}

/// Asks, and expects this status and body.
fn answers(wire: &mut Wire, request: &str, body: &str, status: u16, expected: &str) {
    let found = ask(wire, request, body);
    assert_eq!((found.status, &found.body[..]), (status, expected), "to {request}: {found:?}");
}

/// The one that leads, one that follows, and one more.
fn roles(cluster: &Cluster) -> [usize; 3] {
    let leader = cluster.wait_leader();
    [leader, (leader + 1) % 3, (leader + 2) % 3]
}

fn text_of_a_pipeline() -> (String, String) {
    let numbers = 0..200;
    let lines = numbers.clone().map(|n| format!("SET p{} {n}\nGET p{}\n\n", n % 7, n % 7));
    let too_few = "message must atleast have command, key or nodeID and remoteAddr";
    (lines.collect(), numbers.map(|n| format!("Success\n{n}\n{too_few}\n")).collect())
}

#[test]
fn text_on_the_leader_and_on_a_follower() {
    let cluster = Cluster::of(3, &[]);
    let [leader, follower, other] = roles(&cluster);
    let other = &cluster.nodes[other];
    let mut elsewhere = Wire::to(other);
    for (round, node) in [leader, follower].into_iter().enumerate() {
        let mut wire = Wire::to(&cluster.nodes[node]);
        says(&mut wire, "PING\r\n", "+PONG\r\n");
        says(&mut wire, &format!("GET k{round}\n"), "\n");
        says(&mut wire, &format!("SET k{round} two words\r\n"), "Success\n");
        says(&mut wire, &format!("GET k{round}\n"), "two words\n");
        says(&mut elsewhere, &format!("get k{round}\n"), "two words\n");
        says(&mut wire, &format!("TTL k{round}\n"), "-1\n");
        says(&mut wire, &format!("DEL k{round}\n"), "Success\n");
        says(&mut wire, &format!("DEL k{round}\n"), "Success\n");
        says(&mut elsewhere, &format!("GET k{round}\n"), "\n");
        says(&mut wire, &format!("TTL k{round}\n"), "-2\n");
        says(&mut wire, &format!("EXPIRE k{round} 1\n"), "ERR no such key\n");
        says(&mut wire, &format!("SET k{round} v\n"), "Success\n");
        says(&mut wire, &format!("EXPIRE k{round} 1000000\n"), "Success\n");
        says(&mut wire, &format!("EXPIRE k{round} 1\n"), "Success\n");
        eventually("it is gone", || {
            wire.send(format!("TTL k{round}\n").as_bytes());
            match &wire.receive(2)[..] {
                b"1\n" => Err("not yet".to_owned()),
                b"-2" => Ok(wire.receive(1)),
                found => panic!("{found:?}"),
            }
        });
        // A member joins again, and is what it was.
        for _ in 0..2 {
            let join = format!("JOIN {} {}\n", other.name, other.peer_address);
            says(&mut wire, &join, "Success\n");
        }
        let (lines, replies) = text_of_a_pipeline();
        says(&mut wire, &lines, &replies);
        says(&mut wire, "NONSENSE a\n", "Invalid command in message\n");
        wire.send(b"SET last 1\nQUIT\nSET last 2\n");
        assert_eq!(wire.rest(), b"Success\nSuccess\n");
        says(&mut elsewhere, "GET last\n", "1\n");
    }
    assert_eq!(cluster.nodes[leader].user().status().expect("a status").members.len(), 3);
    let mut wire = Wire::to(&cluster.nodes[leader]);
    let leave = format!("LEAVE {}\n", cluster.nodes[follower].name);
    says(&mut wire, &leave, "Success\n");
    assert_eq!(cluster.nodes[leader].user().status().expect("a status").members.len(), 2);
    wire.send(&leave.into_bytes());
    assert_eq!(wire.receive(4), b"ERR ");
}

#[test]
fn a_text_line_that_is_too_long() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    // One byte too many, and none behind it that the node would not have read.
    wire.send(&[&b"SET a 1\nSET b "[..], &[b'x'; (64 << 10) - 5]].concat());
    let rest = wire.rest();
    assert_eq!(String::from_utf8_lossy(&rest), "Success\nERR line too long\n");
    assert_eq!(cluster.user().get("b"), Ok(None));
}

/// What one node says about itself and the others.
fn check_status(cluster: &Cluster, wire: &mut Wire, node: &Node, leader: &Node) {
    let status = ask(wire, "GET /status", "");
    assert_eq!(status.status, 200);
    let status = status.json();
    assert_eq!(status["me"]["id"], node.name, "{status}");
    assert_eq!(status["me"]["address"], node.peer_address, "{status}");
    assert_eq!(status["leader"]["id"], leader.name, "{status}");
    assert_eq!(status["leader"]["address"], leader.peer_address, "{status}");
    assert_eq!(status["role"] == "leader", node.name == leader.name, "{status}");
    let followers = status["followers"].as_array().expect("a list");
    assert_eq!(followers.len(), cluster.nodes.len() - 1, "{status}");
    assert!(followers.iter().all(|member| member["id"] != leader.name), "{status}");
}

fn check_keys(wire: &mut Wire, elsewhere: &mut Wire) {
    let missing = r#"{"message":"there is no such key","status":404}"#;
    answers(wire, "GET /v1/keys/a%2Fb", "", 404, missing);
    answers(wire, "PUT /v1/keys/a%2Fb?nx", "v", 204, "");
    assert_eq!(ask(wire, "PUT /v1/keys/a%2Fb?nx", "w").status, 412);
    let found = ask(elsewhere, "GET /v1/keys/a%2Fb", "");
    assert_eq!((found.status, &found.body[..]), (200, "v"));
    let tag = found.head.split_once("ETag: \"").expect("a version").1;
    let version = tag.split_once('"').expect("its end").0;
    assert_eq!(ask(wire, "PUT /v1/keys/a%2Fb?version=1", "w").status, 409);
    assert_eq!(ask(wire, &format!("DELETE /v1/keys/a%2Fb?version={version}0"), "").status, 409);
    answers(wire, &format!("PUT /v1/keys/a%2Fb?version={version}"), "w", 204, "");
    answers(elsewhere, "GET /key/a%2Fb", "", 200, r#"{"a/b":"w"}"#);
    answers(wire, "DELETE /v1/keys/a%2Fb", "", 204, "");
    answers(elsewhere, "DELETE /v1/keys/a%2Fb", "", 404, missing);
    answers(wire, "POST /key", r#"{"a":"1","b":"2"}"#, 200, "OK");
    answers(elsewhere, "GET /api/v1/key/b", "", 200, "2\n");
    answers(wire, "DELETE /key/a", "", 200, "");
    answers(elsewhere, "GET /key/a", "", 404, r#"{"a":""}"#);
    answers(wire, "POST /api/v1/key/c/value/3", "", 200, "");
    answers(elsewhere, "GET /v1/keys/c", "", 200, "3");
    answers(wire, "PUT /v1/keys/c?ttl=300ms", "4", 204, "");
    eventually("it is gone", || match ask(wire, "GET /v1/keys/c", "").status {
        404 => Ok(()),
        status => Err(status.to_string()),
    });
}

/// What a monitoring system reads.
fn check_metrics(wire: &mut Wire, leads: bool) {
    let found = ask(wire, "GET /metrics", "");
    assert_eq!(found.status, 200);
    assert!(found.head.contains("Content-Type: text/plain"), "{}", found.head);
    let value = |name: &str| {
        let line = found.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{}", found.body));
        line.parse::<f64>().expect("a number")
    };
    assert_eq!(value("raftcache_is_leader") > 0.0, leads);
    assert_eq!(value("raftcache_serving"), 1.0);
    assert_eq!(value("raftcache_members"), 3.0);
    assert!(value("raftcache_raft_applied_index") > 3.0);
    assert!(value("raftcache_sync_duration_seconds_count") > 0.0);
    assert!(value("raftcache_apply_duration_seconds_count") > 0.0);
    assert!(value("raftcache_requests_total{protocol=\"http\",command=\"status\"}") >= 2.0);
    assert!(value("raftcache_request_duration_seconds_count{protocol=\"http\"}") >= 3.0);
    let lags = found.body.lines().filter(|line| line.starts_with("raftcache_raft_peer_lag{"));
    assert_eq!(lags.count(), if leads { 3 } else { 0 }, "{}", found.body);
    wire.send(b"GET /metrics HTTP/1.1\r\nHost: n\r\nAccept: application/openmetrics-text\r\n\r\n");
    let open = Response::read(wire, true);
    assert!(open.head.contains("Content-Type: application/openmetrics-text"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    assert!(ask(wire, "HEAD /metrics", "").body.is_empty());
}

/// Requests before the first response is read.
fn check_pipeline(wire: &mut Wire) {
    for number in 0..100 {
        send(wire, "PUT /v1/keys/p", &number.to_string());
        send(wire, "GET /v1/keys/p", "");
        send(wire, "GET /nowhere", "");
    }
    for number in 0..100 {
        assert_eq!(Response::read(wire, true).status, 204);
        assert_eq!(Response::read(wire, true).body, number.to_string());
        assert_eq!(Response::read(wire, true).status, 404);
    }
}

#[test]
fn http_on_the_leader_and_on_a_follower() {
    let cluster = Cluster::of(3, &[]);
    let [leader, follower, other] = roles(&cluster);
    let mut elsewhere = Wire::to(&cluster.nodes[other]);
    for node in [leader, follower] {
        let node = &cluster.nodes[node];
        let mut wire = Wire::to(node);
        check_status(&cluster, &mut wire, node, &cluster.nodes[leader]);
        answers(&mut wire, "GET /health", "", 200, "OK");
        answers(&mut wire, "GET /ready", "", 200, "OK");
        check_metrics(&mut wire, node.name == cluster.nodes[leader].name);
        check_keys(&mut wire, &mut elsewhere);
        check_pipeline(&mut wire);
        let Node { name, peer_address, .. } = &cluster.nodes[other];
        for _ in 0..2 {
            let join = format!(r#"{{"id":"{name}","addr":"{peer_address}"}}"#);
            answers(&mut wire, "POST /join", &join, 200, "");
            let join = format!(r#"{{"node_id":"{name}","addr":"{peer_address}"}}"#);
            answers(&mut wire, "POST /api/v1/node", &join, 200, "");
        }
        // It waits to be told to send its body, and sends it in chunks.
        wire.send(b"PUT /v1/keys/chunks HTTP/1.1\r\nHost: node\r\nExpect: 100-continue\r\n");
        wire.send(b"Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(Response::read(&mut wire, true).status, 100);
        wire.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(Response::read(&mut wire, true).status, 204);
        answers(&mut elsewhere, "GET /v1/keys/chunks", "", 200, "abcde");
        assert_eq!(ask(&mut wire, "HEAD /v1/keys/chunks", "").status, 200);
        wire.send(b"GET /v1/keys/chunks HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n");
        let last = String::from_utf8(wire.rest()).expect("UTF-8");
        assert!(
            last.starts_with("HTTP/1.1 200 OK\r\n") && last.ends_with("\r\n\r\nabcde"),
            "{last}"
        );
    }
    assert_eq!(cluster.nodes[leader].user().status().expect("a status").members.len(), 3);
    let mut wire = Wire::to(&cluster.nodes[leader]);
    let name = &cluster.nodes[follower].name;
    answers(&mut wire, &format!("DELETE /api/v1/node/{name}"), "", 200, "");
    assert_eq!(ask(&mut wire, &format!("DELETE /api/v1/node/{name}"), "").status, 409);
}

/// As large as values may be; one byte more is refused before it is sent.
#[test]
fn the_largest_value_over_http() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    let value = "x".repeat(16 << 20);
    answers(&mut wire, "PUT /v1/keys/large", &value, 204, "");
    let found = ask(&mut wire, "GET /v1/keys/large", "");
    assert!(found.body == value);
    let found = ask(&mut wire, "GET /key/large", "");
    assert!(found.json()["large"] == value);
    wire.send(b"PUT /v1/keys/large HTTP/1.1\r\nHost: n\r\nContent-Length: 16777217\r\n\r\n");
    let last = String::from_utf8(wire.rest()).expect("UTF-8");
    assert!(last.starts_with("HTTP/1.1 413 "), "{last}");
}

/// Without a majority: what is not known is not said, and what has failed is
/// told so that it can be told apart.
#[test]
fn front_doors_without_a_majority() {
    let mut cluster = Cluster::of(3, &["--request-timeout-ms", "500"]);
    cluster.user().set("k", "v").expect("a write");
    cluster.wait_caught_up();
    let [leader, left, other] = roles(&cluster);
    cluster.nodes[leader].kill9();
    cluster.nodes[other].kill9();
    let mut text = Wire::to(&cluster.nodes[left]);
    says(&mut text, "GET k\n", "ERR no leader, not applied\n");
    says(&mut text, "PING\n", "+PONG\r\n");
    let mut http = Wire::to(&cluster.nodes[left]);
    answers(&mut http, "GET /health", "", 200, "OK");
    answers(&mut http, "GET /v1/keys/k?consistency=stale", "", 200, "v");
    let written = ask(&mut http, "POST /api/v1/key/k/w", "").status;
    assert!([503, 504].contains(&written), "{written}");
    for request in ["GET /ready", "GET /key/k"] {
        let found = ask(&mut http, request, "");
        assert_eq!(found.status, 503, "{request}: {found:?}");
        assert!(found.head.contains("\r\nRetry-After: 1\r\n"), "{found:?}");
        assert_eq!(found.json()["status"], 503);
    }
}

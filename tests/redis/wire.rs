//! RESP as a client sees it, in its simplest form: replies as trees.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What no test comes near unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// One reply.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// A line: its kind and text.
    Line(u8, Vec<u8>),
    /// A length and bytes: its kind and the bytes.
    Bulk(u8, Vec<u8>),
    /// A length and other replies: its kind and those.
    Many(u8, Vec<Reply>),
}

impl Reply {
    /// A number.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Line(b':', text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// As `redis-cli` without a terminal would have it, in a line.
    pub fn text(&self) -> String {
        match self {
            Self::Line(kind, text) => format!("{}{}", *kind as char, text.escape_ascii()),
            Self::Bulk(kind, bytes) => format!("{}{}", *kind as char, bytes.escape_ascii()),
            Self::Many(kind, all) => {
                let all: Vec<_> = all.iter().map(Self::text).collect();
                format!("{}[{}]", *kind as char, all.join(" "))
            }
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

/// A connection.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub fn receive(&mut self) -> Reply {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "the connection has ended: {}", line.escape_ascii());
        let (kind, text) = (line[0], line[1..line.len() - 2].to_vec());
        let count = || std::str::from_utf8(&text).unwrap().parse::<i64>().unwrap();
        match kind {
            b'$' | b'=' if count() >= 0 => {
                let mut bytes = vec![0; count() as usize + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(count() as usize);
                Reply::Bulk(kind, bytes)
            }
            b'*' | b'~' if count() >= 0 => {
                Reply::Many(kind, (0..count()).map(|_| self.receive()).collect())
            }
            b'%' => Reply::Many(kind, (0..2 * count()).map(|_| self.receive()).collect()),
            _ => Reply::Line(kind, text),
        }
    }

    /// Whether the node has closed it, with nothing more to say.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    pub fn ask(&mut self, words: &[&str]) -> Reply {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        self.send(&command(&words));
        self.receive()
    }
}

/// A command's bytes.
pub fn command(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

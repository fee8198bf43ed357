//! Against a codec that others wrote: what it writes is what we read, and what we
//! write is what it reads.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use redis_protocol::resp2;
use redis_protocol::resp2::types::{OwnedFrame as Frame2, Resp2Frame};
use redis_protocol::resp3;
use redis_protocol::resp3::types::{OwnedFrame as Frame3, Resp3Frame, VerbatimStringFormat};

use super::*;
use crate::protocol::resp::parse::Parser;

/// A reply of any kind that we write.
#[derive(Debug, Clone)]
enum Tree {
    Simple(String),
    Error(String),
    Number(i64),
    Bulk(Vec<u8>),
    Verbatim(String),
    Null,
    NullArray,
    Array(Vec<Tree>),
    /// Of words.
    Set(Vec<Vec<u8>>),
    /// Of names.
    Map(BTreeMap<Vec<u8>, Tree>),
}

impl Tree {
    fn write(&self, out: &mut Out<'_>) {
        match self {
            Self::Simple(text) => out.simple(text),
            Self::Error(text) => out.error(text),
            Self::Number(number) => out.integer(*number),
            Self::Bulk(bytes) => out.bulk(bytes),
            Self::Verbatim(text) => out.verbatim(text),
            Self::Null => out.null(),
            Self::NullArray => out.null_array(),
            Self::Array(trees) => {
                out.array(trees.len());
                trees.iter().for_each(|tree| tree.write(out));
            }
            Self::Set(words) => {
                out.set(words.len());
                words.iter().for_each(|word| out.bulk(word));
            }
            Self::Map(pairs) => {
                out.map(pairs.len());
                for (name, tree) in pairs {
                    out.bulk(name);
                    tree.write(out);
                }
            }
        }
    }

    /// What version 2 makes of it.
    fn frame2(&self) -> Frame2 {
        match self {
            Self::Simple(text) => Frame2::SimpleString(text.clone().into()),
            Self::Error(text) => Frame2::Error(one_line(text)),
            Self::Number(number) => Frame2::Integer(*number),
            Self::Bulk(bytes) => Frame2::BulkString(bytes.clone()),
            Self::Verbatim(text) => Frame2::BulkString(text.clone().into()),
            Self::Null | Self::NullArray => Frame2::Null,
            Self::Array(trees) => Frame2::Array(trees.iter().map(Self::frame2).collect()),
            Self::Set(words) => {
                Frame2::Array(words.iter().cloned().map(Frame2::BulkString).collect())
            }
            Self::Map(pairs) => {
                let pair = |(name, tree): (&Vec<u8>, &Self)| {
                    [Frame2::BulkString(name.clone()), tree.frame2()]
                };
                Frame2::Array(pairs.iter().flat_map(pair).collect())
            }
        }
    }

    /// What version 3 makes of it.
    fn frame3(&self) -> Frame3 {
        let attributes = None;
        match self {
            Self::Simple(text) => Frame3::SimpleString { data: text.clone().into(), attributes },
            Self::Error(text) => Frame3::SimpleError { data: one_line(text), attributes },
            Self::Number(number) => Frame3::Number { data: *number, attributes },
            Self::Bulk(bytes) => blob(bytes),
            Self::Verbatim(text) => Frame3::VerbatimString {
                data: text.clone().into(),
                format: VerbatimStringFormat::Text,
                attributes,
            },
            Self::Null | Self::NullArray => Frame3::Null,
            Self::Array(trees) => {
                Frame3::Array { data: trees.iter().map(Self::frame3).collect(), attributes }
            }
            Self::Set(words) => {
                Frame3::Set { data: words.iter().map(|word| blob(word)).collect(), attributes }
            }
            Self::Map(pairs) => {
                let pair = |(name, tree): (&Vec<u8>, &Self)| (blob(name), tree.frame3());
                Frame3::Map { data: pairs.iter().map(pair).collect(), attributes }
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn blob(bytes: &[u8]) -> Frame3 {
    Frame3::BlobString { data: bytes.to_vec(), attributes: None }
}

fn decoded2(bytes: &[u8]) -> Option<(Frame2, usize)> {
    resp2::decode::decode(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
}

fn decoded3(bytes: &[u8]) -> Option<(Frame3, usize)> {
    resp3::decode::complete::decode(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        "[ -~]{0,20}".prop_map(Tree::Simple),
        "[A-Z]{1,9}[ -~\r\n\u{e4}]{0,20}".prop_map(Tree::Error),
        any::<i64>().prop_map(Tree::Number),
        any_bytes().prop_map(Tree::Bulk),
        "[ -~\r\n\u{e4}]{0,20}".prop_map(Tree::Verbatim),
        Just(Tree::Null),
        Just(Tree::NullArray),
        btree_map(any_bytes(), Just(()), 0..4)
            .prop_map(|words| Tree::Set(words.into_keys().collect())),
    ];
    leaf.prop_recursive(3, 24, 4, |tree| {
        prop_oneof![
            vec(tree.clone(), 0..4).prop_map(Tree::Array),
            btree_map(any_bytes(), tree, 0..4).prop_map(Tree::Map),
        ]
    })
}

/// Both ways in which it writes a command.
fn commands(words: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let frame2 = Frame2::Array(words.iter().cloned().map(Frame2::BulkString).collect());
    let mut bytes2 = vec![0; frame2.encode_len(false)];
    resp2::encode::encode(&mut bytes2, &frame2, false).unwrap();
    let data = words.iter().map(|word| blob(word)).collect();
    let frame3 = Frame3::Array { data, attributes: None };
    let mut bytes3 = vec![0; frame3.encode_len(false)];
    resp3::encode::complete::encode(&mut bytes3, &frame3, false).unwrap();
    [bytes2, bytes3]
}

fn is_parsed(bytes: &[u8], words: &[Vec<u8>], cut: usize) {
    let (mut parser, limits) = (Parser::default(), Limits::default());
    let mut input = BytesMut::from(&bytes[..cut]);
    assert_eq!(parser.next(&mut input, &limits), Ok(None), "it is cut off");
    input.extend_from_slice(&bytes[cut..]);
    input.extend_from_slice(b"*1");
    let parsed = parser.next(&mut input, &limits).unwrap().expect("it is whole");
    let parsed: Vec<_> = (0..parsed.count()).map(|i| parsed.get(i).to_vec()).collect();
    assert_eq!(parsed, words);
    assert_eq!(input, "*1", "what is behind it stays");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn its_commands_are_ours(words in vec(any_bytes(), 1..8), cut in any::<prop::sample::Index>()) {
        for bytes in commands(&words) {
            is_parsed(&bytes, &words, cut.index(bytes.len()));
        }
    }

    #[test]
    fn our_replies_are_its(tree in any_tree(), cut in any::<prop::sample::Index>()) {
        let bytes = |resp3| written(resp3, |out| tree.write(out));
        let (bytes2, bytes3) = (bytes(false), bytes(true));
        prop_assert_eq!(decoded2(&bytes2), Some((tree.frame2(), bytes2.len())));
        prop_assert_eq!(decoded3(&bytes3), Some((tree.frame3(), bytes3.len())));
        prop_assert_eq!(decoded2(&bytes2[..cut.index(bytes2.len())]), None);
        prop_assert_eq!(decoded3(&bytes3[..cut.index(bytes3.len())]), None);
    }
}

/// A reply that is one frame, no less and no more, in both versions.
#[test]
fn every_reply_is_one_frame() {
    let local: &[&[&str]] = &[
        &["HELLO"],
        &["COMMAND"],
        &["COMMAND", "DOCS"],
        &["COMMAND", "INFO", "get", "none"],
        &["COMMAND", "COUNT"],
        &["CLIENT", "INFO"],
        &["CLIENT", "LIST"],
        &["CONFIG", "GET", "*"],
        &["ECHO", "\r\n"],
        &["NONSENSE", "\r\n"],
    ];
    for version in ["2", "3"] {
        let is_one = |bytes: &[u8], words: &[&str]| {
            let length = match version {
                "2" => decoded2(bytes).map(|(_, length)| length),
                _ => decoded3(bytes).map(|(_, length)| length),
            };
            assert_eq!(length, Some(bytes.len()), "{words:?}: {}", bytes.escape_ascii());
        };
        let mut codec = codec();
        is_one(said(&mut codec, &["HELLO", version]).as_bytes(), &["HELLO"]);
        for words in local {
            is_one(said(&mut codec, words).as_bytes(), words);
        }
        for (words, _, reply, _) in exchanges() {
            asked(&mut codec, words);
            is_one(told(&mut codec, &answers(reply)).as_bytes(), words);
            asked(&mut codec, words);
            let refused = Reply::Error(ErrorKind::Refused, "why\r\nnot".to_owned());
            is_one(told(&mut codec, &refused).as_bytes(), words);
        }
    }
}

//! The snapshot files of one node, in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftcache::encoding::Reader;
use raftcache::fsm::{Fsm, Limits, Restore};
use raftcache::raft::{EntryId, SnapshotMeta};
use raftcache::replica::snapshots::Available;
use raftcache::replica::{SnapshotJob, SnapshotReport};

/// Small, so that a transfer takes many messages.
const CHUNK_BYTES: usize = 1000;

/// What is written, and what is half written.
#[derive(Default)]
pub struct Files {
    files: BTreeMap<EntryId, File>,
    writing: Option<File>,
    receiving: Option<(EntryId, u64, Vec<u8>)>,
    /// How many were begun to be taken in from a leader, from their first byte.
    pub begun: usize,
    /// How many were taken in from a leader.
    pub received: usize,
}

#[derive(Clone)]
struct File {
    meta: SnapshotMeta,
    /// The meta, the head and every piece, each behind its length.
    bytes: Vec<u8>,
}

fn put(bytes: &mut Vec<u8>, block: &[u8]) {
    bytes.extend((block.len() as u32).to_le_bytes());
    bytes.extend(block);
}

fn blocks(bytes: &[u8]) -> Vec<Bytes> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    let mut blocks = Vec::new();
    while reader.remaining() > 0 {
        blocks.push(reader.bytes().expect("it was written whole"));
    }
    blocks
}

impl Files {
    pub fn work(&mut self, job: SnapshotJob) -> Option<SnapshotReport> {
        match job {
            SnapshotJob::Begin { meta, head } => {
                let (mut bytes, mut block) = (Vec::new(), Vec::new());
                meta.encode(&mut block);
                put(&mut bytes, &block);
                block.clear();
                head.encode(&mut block);
                put(&mut bytes, &block);
                self.writing = Some(File { meta, bytes });
                None
            }
            SnapshotJob::Piece(piece) => {
                let mut block = Vec::new();
                piece.encode(&mut block);
                put(&mut self.writing.as_mut().expect("it was begun").bytes, &block);
                Some(SnapshotReport::PieceWritten)
            }
            SnapshotJob::Finish(durable) => {
                let file = self.writing.take().expect("it was begun");
                let last = file.meta.last;
                assert!(durable >= last.index, "named only when the journal has it");
                let size_bytes = file.bytes.len() as u64;
                self.files.insert(last, file);
                Some(SnapshotReport::Written { last, size_bytes })
            }
            SnapshotJob::Abandon => {
                self.writing = None;
                None
            }
            SnapshotJob::Read { to, last, offset } => {
                let bytes = self.files.get(&last).map(|file| {
                    let rest = &file.bytes[offset as usize..];
                    Bytes::copy_from_slice(&rest[..rest.len().min(CHUNK_BYTES)])
                });
                Some(SnapshotReport::Read { to, last, offset, bytes })
            }
            SnapshotJob::Close(_) | SnapshotJob::Drop(_) => None,
            SnapshotJob::Receive { last, size_bytes, resume } => {
                if !resume || self.receiving.as_ref().is_none_or(|(known, ..)| *known != last) {
                    self.begun += 1;
                    self.receiving = Some((last, size_bytes, Vec::new()));
                }
                let bytes = self.receiving.as_ref().map_or(0, |(.., bytes)| bytes.len() as u64);
                Some(SnapshotReport::Received { last, bytes })
            }
            SnapshotJob::Take { last, offset, bytes } => self.take(last, offset, &bytes),
        }
    }

    fn take(&mut self, last: EntryId, offset: u64, bytes: &[u8]) -> Option<SnapshotReport> {
        let (known, size_bytes, here) = self.receiving.as_mut()?;
        if *known != last || offset != here.len() as u64 {
            return None;
        }
        here.extend(bytes);
        if (here.len() as u64) < *size_bytes {
            return Some(SnapshotReport::Received { last, bytes: here.len() as u64 });
        }
        let (_, size_bytes, bytes) = self.receiving.take()?;
        let mut first = Reader::new(blocks(&bytes)[0].clone());
        let meta = SnapshotMeta::decode(&mut first).expect("it was written whole");
        self.files.insert(last, File { meta: meta.clone(), bytes });
        self.received += 1;
        let fsm = Box::new(self.load(last));
        Some(SnapshotReport::Complete { meta, size_bytes, fsm })
    }

    pub fn load(&self, last: EntryId) -> Fsm {
        let blocks = blocks(&self.files[&last].bytes);
        let mut restore = Restore::new(blocks[1].clone(), Limits::default()).expect("a head");
        for block in &blocks[2..] {
            restore.push(block.clone()).expect("a piece");
        }
        restore.finish().expect("all of it")
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    pub fn meta(&self, last: EntryId) -> SnapshotMeta {
        self.files[&last].meta.clone()
    }

    pub fn available(&self, last: EntryId) -> Available {
        Available { last, size_bytes: self.files[&last].bytes.len() as u64 }
    }
}

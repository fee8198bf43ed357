//! Reading entries back, for peers that are further behind than memory reaches.

use bytes::Bytes;

use super::Wal;
use super::contents::Run;
use super::disk::{Disk, DiskFile};
use super::error::{Context, WalError};
use super::record::{Kind, Record};
use super::segment;
use crate::encoding::Reader;
use crate::raft::{Entry, EntryId, Index};

impl<D: Disk> Wal<D> {
    /// The id of the entry at an index, if the journal or a snapshot it keeps
    /// still knows it; of index 0, that before the first entry.
    pub fn id_at(&self, index: Index) -> Option<EntryId> {
        let kept = [self.contents.kept.newest, self.contents.kept.previous];
        match self.contents.term(index) {
            Some(term) => Some(EntryId { term, index }),
            None if index == Index(0) => Some(EntryId::ZERO),
            None => kept.into_iter().flatten().find(|id| id.index == index),
        }
    }

    /// The entries `from ..= to`, as many as fit into `max_bytes`, but at least
    /// the first; none behind the end of the log. Every record's CRC is checked.
    ///
    /// Fails with [`WalError::Compacted`] if the first one is gone.
    pub fn read_entries(
        &self,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, WalError> {
        self.check_running()?;
        if from < self.contents.first() {
            return Err(WalError::Compacted { first: self.contents.first() });
        }
        let mut entries = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while next <= to {
            let Some((run, end)) = self.contents.run(next) else { return Ok(entries) };
            for entry in self.read_run(&run, next, end.min(to.next()))? {
                bytes += entry.size();
                if bytes > max_bytes && !entries.is_empty() {
                    return Ok(entries);
                }
                next = entry.id.index.next();
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// The entries `from .. to` of one run, all of them.
    fn read_run(&self, run: &Run, from: Index, to: Index) -> Result<Vec<Entry>, WalError> {
        let place = self.segments.iter().find(|held| held.header.number == run.segment);
        let held = place.expect("runs are in segments that are held");
        let path = || self.disk.path(&segment::name(run.segment));
        let damaged = |at: usize, index| WalError::Damaged {
            file: path(),
            offset: run.start + at as u64,
            index: Some(index),
            what: "no longer what was written".to_owned(),
        };
        let mut bytes = vec![0; (run.end - run.start) as usize];
        match &held.file {
            Some(file) => file.read_at(run.start, &mut bytes),
            None => {
                let file = self.disk.open(&segment::name(run.segment)).at("open", path())?;
                file.read_at(run.start, &mut bytes)
            }
        }
        .at("read", path())?;
        let bytes = Bytes::from(bytes);
        let mut entries = Vec::new();
        let (mut at, mut next) = (0, run.first);
        while next < to {
            let record = Record::parse(&bytes, at, held.header.frame());
            let record = record.ok_or_else(|| damaged(at, next))?;
            let here = std::mem::replace(&mut at, self.next_in_file(run, &record));
            if record.kind != Kind::Entry {
                continue;
            }
            let entry = Entry::decode(&mut Reader::new(record.payload));
            let entry = entry.ok().filter(|entry| {
                entry.id.index == next
                    && self.contents.term(next).is_none_or(|t| t == entry.id.term)
            });
            let entry = entry.ok_or_else(|| damaged(here, next))?;
            if next >= from {
                entries.push(entry);
            }
            next = next.next();
        }
        Ok(entries)
    }

    /// Sectors are counted from the start of the file, not of the run.
    fn next_in_file(&self, run: &Run, record: &Record) -> usize {
        let within = (run.start % super::record::SECTOR_BYTES as u64) as usize;
        if record.kind == Kind::Seal {
            super::record::round_up(within + record.span.end) - within
        } else {
            record.span.end
        }
    }
}

//! What the journal held: scan, judge, mend.
//!
//! **Scan** replays all segments in order. An entry supersedes every earlier
//! record of its index and behind; the last seal has the hard state.
//!
//! **Judge** where the scan stops. A segment that another one follows has to
//! reach exactly the batch and the chain that the next header names. In the last
//! one the first batch that is not there up to its seal is
//!
//! 1. *the end*, if zeros are all there is;
//! 2. *a torn write*, if it is past the mark and no record of a later batch
//!    stands behind it. A batch is begun only when the one before is synced, so
//!    a later record proves that this one was synced, and perhaps acknowledged;
//! 3. *damage* otherwise, zeros included: the node refuses to start, because
//!    what it said on the strength of that batch cannot be known any more.
//!
//! Marks that were written and cannot be read are damage, too: see [`Mark`].
//!
//! So what can be claimed: a killed process loses nothing, and after a power cut
//! only damage inside the very last batch, or that leaves nothing of all batches
//! since the last durable mark, cannot be told from a torn write.
//!
//! **Mend** only when all is judged; a refusal changes nothing on the disk. The
//! batches past the mark came from the page cache, which is not the disk: the
//! process before this one may have been killed between a write and its sync, or
//! by a failed sync after which the pages look clean but never arrived. They are
//! written again in place and synced before anything is said on their strength.
//! (The same bytes over the same bytes, so a crash in the middle changes
//! nothing.) A torn batch goes as a whole, and what is left of it turns to
//! zeros, lest a part of it follow the batch that is written over it next. Names
//! may be in the cache only, too: the directory is synced. At last the mark.
//!
//! **Snapshots** count when the journal names them, because a file that it does
//! not name was never acknowledged. The newest has to be there and whole, and a
//! state to be made of it, or the one before it has to be and the log unbroken
//! from that one through the newest's last entry, or the log from index 1. Each is
//! read once: the state that proves it is the one to go on with.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Config;
use super::contents::{Contents, Kept};
use super::disk::{Disk, DiskFile};
use super::error::{Context, WalError};
use super::mark::Mark;
use super::record::{Frame, Kind, Position, Record, SECTOR_BYTES, Sealed};
use super::segment::{self, DATA_START, Header, Segment};
use super::snapshot_file::{self, SnapshotReader};
use crate::encoding::{Malformed, Reader};
use crate::mutants::{self, Mutant};
use crate::raft::entry::decode_id;
use crate::raft::{Entry, Index, Recovered, SnapshotMeta};

/// All that [`super::Wal`] starts from.
pub struct Recovery<F, S> {
    pub segments: VecDeque<Segment<F>>,
    pub contents: Contents,
    pub position: Position,
    /// The offset of the next batch in the last segment.
    pub end: u64,
    /// The slot that the next mark goes to.
    pub mark_slot: usize,
    /// What to keep from now on: less than the journal names, if a damaged
    /// snapshot was passed over.
    pub kept: Kept,
    pub recovered: Recovered,
    /// What was made of the snapshot in it.
    pub state: Option<S>,
}

/// Recovers the journal; `None` if there is none and there may be none.
pub fn recover<D: Disk, S>(
    disk: &D,
    config: &Config,
    restore: impl FnMut(&mut SnapshotReader<D::File>) -> Result<S, WalError>,
) -> Result<Option<Recovery<D::File, S>>, WalError> {
    let names = disk.list().at("list", disk.path(""))?;
    let numbers = segment_numbers(disk, &names)?;
    if numbers.is_empty() {
        return nothing(disk, config, &names).map(|()| None);
    }
    let mut replay: Option<Replay> = None;
    let mut segments: VecDeque<Segment<D::File>> = VecDeque::new();
    let (mut bytes, mut end) = (Bytes::new(), 0);
    for number in numbers {
        let (segment, content) = load(disk, config, number)?;
        let replay = replay.get_or_insert_with(|| Replay::new(&segment.header));
        if let Some(before) = segments.back_mut() {
            before.file = None;
            let scan = Scan { disk, header: &before.header, bytes: &bytes };
            scan.check_followed(end, replay, &segment.header)?;
        }
        bytes = content;
        end = Scan { disk, header: &segment.header, bytes: &bytes }.batches(replay)?;
        segments.push_back(segment);
    }
    let mut replay = replay.expect("there is a segment");
    let segment = segments.back().expect("there is a segment");
    let number = segment.header.number;
    if Mark::find(&bytes, number).is_some_and(|(_, mark)| mark.closed) {
        let missing = segment::name(number + 1);
        return Err(damaged(disk, &missing, 0, None, "this segment is missing"));
    }
    Scan { disk, header: &segment.header, bytes: &bytes }.judge_end(end, &replay)?;
    let (kept, snapshot) = choose_snapshot(disk, config, &replay.contents, restore)?;
    let (snapshot, state) = snapshot.unzip();
    let mark_slot = mend(disk, segment, &bytes, end, replay.position)?;
    let recovered = replay.recovered(snapshot);
    let Replay { contents, position, .. } = replay;
    let end = end as u64;
    let recovery =
        Recovery { segments, contents, position, end, mark_slot, kept, recovered, state };
    Ok(Some(recovery))
}

fn damaged<D: Disk>(
    disk: &D,
    name: &str,
    offset: u64,
    index: Option<Index>,
    what: impl ToString,
) -> WalError {
    WalError::Damaged { file: disk.path(name), offset, index, what: what.to_string() }
}

/// Ascending, and without a gap: segments are only ever deleted from the front,
/// each durably before the next.
fn segment_numbers<D: Disk>(disk: &D, names: &[String]) -> Result<Vec<u64>, WalError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            let missing = segment::name(pair[0] + 1);
            return Err(damaged(disk, &missing, 0, None, "this segment is missing"));
        }
    }
    Ok(numbers)
}

/// No journal: right for a directory that never had one.
fn nothing<D: Disk>(disk: &D, config: &Config, names: &[String]) -> Result<(), WalError> {
    let snapshots = names.iter().any(|name| snapshot_file::id(name).is_some());
    if (config.create && !snapshots) || mutants::on(Mutant::EmptyDiskVotes) {
        return Ok(());
    }
    Err(damaged(disk, &segment::name(1), 0, None, "the journal is missing"))
}

/// A whole segment in memory. How much there is to read is believed when the
/// header says so: a file may have any length.
fn load<D: Disk>(
    disk: &D,
    config: &Config,
    number: u64,
) -> Result<(Segment<D::File>, Bytes), WalError> {
    let name = segment::name(number);
    let path = || disk.path(&name);
    let file = disk.open(&name).at("open", path())?;
    let size = file.size().at("measure", path())?;
    let read = |length: u64| {
        let mut bytes = vec![0; length as usize];
        file.read_at(0, &mut bytes).at("read", path()).map(|()| Bytes::from(bytes))
    };
    let header = Header::decode(read(size.min(SECTOR_BYTES as u64))?);
    let header = header.map_err(|error| damaged(disk, &name, 0, None, error))?;
    if (header.cluster, header.node) != (config.cluster, config.node) {
        let what = format!("belongs to node {} of cluster {}", header.node, header.cluster);
        return Err(WalError::Foreign { file: path(), what });
    }
    if header.number != number {
        return Err(damaged(disk, &name, 0, None, "another segment has this one's name"));
    }
    if header.size != size {
        return Err(damaged(disk, &name, size, None, "the file's length has changed"));
    }
    let bytes = read(header.size)?;
    Ok((Segment { file: Some(file), header }, bytes))
}

/// The state that records add up to, and the entries.
struct Replay {
    contents: Contents,
    position: Position,
    entries: VecDeque<Entry>,
}

impl Replay {
    fn new(header: &Header) -> Self {
        let contents = Contents::new(header.hard_state, header.kept, header.last);
        Self { contents, position: header.position, entries: VecDeque::new() }
    }

    fn record(&mut self, record: &Record, segment: u64) -> Result<(), Malformed> {
        // Copied, or a small entry would keep its whole segment in memory.
        let mut reader = Reader::new(Bytes::copy_from_slice(&record.payload));
        match record.kind {
            Kind::Entry => {
                let entry = Entry::decode(&mut reader)?;
                let span = record.span.start as u64..record.span.end as u64;
                self.contents.entry(entry.id, segment, span)?;
                let place = entry.id.index.0 - self.contents.first().0;
                self.entries.truncate(place as usize);
                self.entries.push_back(entry);
            }
            Kind::Kept => self.contents.kept = Kept::decode(&mut reader)?,
            Kind::Restart => {
                self.contents.restart(decode_id(&mut reader)?);
                self.entries.clear();
            }
            Kind::Seal => return Err(Malformed("a seal inside a batch")),
        }
        reader.finish()
    }

    fn batch(&mut self, batch: &Sealed, segment: u64) -> Result<(), Malformed> {
        for record in &batch.records {
            self.record(record, segment)?;
        }
        if batch.hard_state.term < self.contents.hard_state.term {
            return Err(Malformed("the term goes back"));
        }
        self.contents.hard_state = batch.hard_state;
        self.position = batch.position;
        Ok(())
    }

    fn next_index(&self) -> Option<Index> {
        Some(self.contents.last().index.next())
    }

    fn recovered(&mut self, snapshot: Option<SnapshotMeta>) -> Recovered {
        let after = snapshot.as_ref().map_or(Index(0), |meta| meta.last.index);
        let mut hard_state = self.contents.hard_state;
        hard_state.commit = hard_state.commit.min(self.contents.last().index);
        let entries = std::mem::take(&mut self.entries);
        let entries = entries.into_iter().filter(|entry| entry.id.index > after).collect();
        Recovered { hard_state, snapshot, entries }
    }
}

/// One segment being read.
struct Scan<'a, D> {
    disk: &'a D,
    header: &'a Header,
    bytes: &'a Bytes,
}

impl<D: Disk> Scan<'_, D> {
    fn frame(&self) -> Frame {
        self.header.frame()
    }

    fn damaged(&self, offset: usize, replay: &Replay, what: impl ToString) -> WalError {
        let name = segment::name(self.header.number);
        damaged(self.disk, &name, offset as u64, replay.next_index(), what)
    }

    /// Replays every whole batch; returns the offset behind the last one.
    fn batches(&self, replay: &mut Replay) -> Result<usize, WalError> {
        if Mark::are_destroyed(self.bytes, self.header.number) {
            let at = Mark::SLOTS[0] as usize;
            return Err(self.damaged(at, replay, "neither of its two marks is readable"));
        }
        let mut at = DATA_START as usize;
        self.check_mark(at, replay)?;
        while let Some(batch) = Sealed::parse(self.bytes, at, self.frame(), replay.position) {
            let result = replay.batch(&batch, self.header.number);
            result.map_err(|error| self.damaged(at, replay, error))?;
            at = batch.end;
            self.check_mark(at, replay)?;
        }
        let mut torn = at;
        while mutants::on(Mutant::TornTailAccepted)
            && let Some(record) = Record::parse(self.bytes, torn, self.frame())
            && replay.record(&record, self.header.number).is_ok()
        {
            torn = record.next_at();
        }
        Ok(at)
    }

    /// A mark was written after the sync it reports: where it says that a batch
    /// ended, one has to end.
    fn check_mark(&self, at: usize, replay: &Replay) -> Result<(), WalError> {
        let Some((_, mark)) = Mark::find(self.bytes, self.header.number) else { return Ok(()) };
        let here = (mark.end, mark.position) == (at as u64, replay.position);
        let begun = mark.position.batch >= self.header.position.batch;
        if begun && (mark.position.batch != replay.position.batch || here) {
            return Ok(());
        }
        Err(self.damaged(at, replay, "the mark contradicts the batches"))
    }

    /// Torn write or damage: rules 1 to 3 of the module.
    fn judge_end(&self, end: usize, replay: &Replay) -> Result<(), WalError> {
        if let Some((_, mark)) = Mark::find(self.bytes, self.header.number)
            && mark.position.batch > replay.position.batch
            && !mutants::any([Mutant::ZerosAreTheEnd, Mutant::DamageIsTheEnd])
        {
            let what = format!("synced up to byte {} once, and no longer readable", mark.end);
            return Err(self.damaged(end, replay, what));
        }
        let later = (end..self.bytes.len()).step_by(SECTOR_BYTES).find(|&at| {
            Record::parse(self.bytes, at, self.frame())
                .is_some_and(|record| record.batch > replay.position.batch)
        });
        match later {
            Some(at) if !mutants::on(Mutant::DamageIsTheEnd) => {
                let what = format!("unreadable, though a later batch stands at byte {at}");
                Err(self.damaged(end, replay, what))
            }
            _ => Ok(()),
        }
    }

    /// The next header says where this segment ended, and what it all amounted to.
    fn check_followed(&self, end: usize, replay: &Replay, next: &Header) -> Result<(), WalError> {
        if next.position != replay.position {
            return Err(self.damaged(end, replay, "unreadable, though a later segment was begun"));
        }
        let contents = &replay.contents;
        let agrees = next.hard_state == contents.hard_state
            && next.last == contents.last()
            && next.kept == contents.kept;
        if agrees || mutants::on(Mutant::VoteLostWithSegment) {
            return Ok(());
        }
        Err(self.damaged(end, replay, "the next segment's header contradicts this one"))
    }
}

/// The newest snapshot that can be vouched for; a damaged one is forgotten if
/// the log makes up for it.
fn choose_snapshot<D: Disk, S>(
    disk: &D,
    config: &Config,
    contents: &Contents,
    mut restore: impl FnMut(&mut SnapshotReader<D::File>) -> Result<S, WalError>,
) -> Result<(Kept, Option<(SnapshotMeta, S)>), WalError> {
    let kept = contents.kept;
    let first = contents.first();
    let mut refusal = None;
    if kept.newest.is_none_or(|newest| contents.covers(newest)) {
        for id in kept.iter().filter(|id| first <= id.index.next()) {
            match snapshot_file::read(disk, config.cluster, id, &mut restore) {
                Ok(found) if kept.newest == Some(id) => return Ok((kept, Some(found))),
                Ok(found) => {
                    return Ok((Kept { previous: None, newest: Some(id) }, Some(found)));
                }
                Err(error @ WalError::Damaged { .. }) => {
                    log::error!("{error}");
                    refusal.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if first <= Index(1) {
            // No snapshot is whole or there never was one; nothing is compacted.
            return Ok((Kept::default(), None));
        }
    }
    Err(refusal.unwrap_or_else(|| {
        let name = kept.newest.map_or(segment::name(1), snapshot_file::name);
        let what = "the journal does not connect to any snapshot";
        damaged(disk, &name, 0, Some(first), what)
    }))
}

/// Makes true what the scan saw; returns the slot for the next mark.
fn mend<D: Disk>(
    disk: &D,
    segment: &Segment<D::File>,
    bytes: &Bytes,
    end: usize,
    position: Position,
) -> Result<usize, WalError> {
    let number = segment.header.number;
    let path = || disk.path(&segment::name(number));
    let found = Mark::find(bytes, number).filter(|_| !mutants::on(Mutant::ZerosAreTheEnd));
    let synced = found.map_or(DATA_START as usize, |(_, mark)| mark.end as usize);
    let file = segment.file.as_ref().expect("the last segment is open");
    let write = |at: usize, bytes: &[u8]| file.write_at(at as u64, bytes);
    write(synced, &bytes[synced..end]).at("write", path())?;
    for at in (end..bytes.len()).step_by(SECTOR_BYTES) {
        let sector = &bytes[at..bytes.len().min(at + SECTOR_BYTES)];
        if sector.iter().any(|&byte| byte != 0) {
            write(at, &vec![0; sector.len()]).at("write", path())?;
        }
    }
    file.sync_data().synced(path())?;
    disk.sync_dir().synced(disk.path(""))?;
    let slot = found.map_or(0, |(slot, _)| 1 - slot);
    let mark = Mark { segment: number, end: end as u64, position, closed: false };
    write(Mark::SLOTS[slot] as usize, &mark.encode()).at("write", path())?;
    file.sync_data().synced(path())?;
    Ok(1 - slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{EntryId, HardState, Term};

    #[test]
    fn a_batch_whose_term_goes_back_is_none_of_ours() {
        let hard_state = |term| HardState { term: Term(term), ..HardState::default() };
        let contents = Contents::new(hard_state(5), Kept::default(), EntryId::ZERO);
        let position = Position { batch: 1, chain: 0 };
        let mut replay = Replay { contents, position, entries: VecDeque::new() };
        let mut batch = |term| {
            let hard_state = hard_state(term);
            replay.batch(&Sealed { records: Vec::new(), hard_state, end: 0, position }, 1)
        };
        assert!(batch(4).is_err());
        assert!(batch(5).is_ok() && batch(6).is_ok() && batch(5).is_err());
    }
}

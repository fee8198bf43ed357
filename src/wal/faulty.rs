//! A disk in memory that does everything a disk may do: for tests and simulators.
//!
//! It keeps two versions of every file and of the directory, what a process
//! sees (the page cache) and what a power cut leaves (the disk), and the list
//! of all operations. From that list it builds the disk as it would be found
//! after a crash between any two operations:
//!
//! ```text
//!           write          write     sync          write    rename
//! history ────┼──────────────┼─────────┼─────────────┼────────┼──▶
//!             each gap is a crash point; what was not synced by then is
//!             Lost · Kept · Torn (any subset of 512-byte sectors and of names)
//!             · Killed: only the process died; the next one sees the page
//!               cache, the disk still lacks it, and power may go later
//! ```
//!
//! Besides crashes it can fail a sync (and then, as real kernels do, forget the
//! unsynced pages while the cache still shows them), run out of space, flip
//! bits and turn ranges to zeros. After a failed sync of the directory names stay
//! as unsynced as they were: file systems keep them in a journal, and one that
//! cannot write its journal lets nobody write until it is mounted anew.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, DiskFile};

/// The unit that is written whole or not at all: the smallest in use, so that
/// nothing can come to rely on a larger one.
const TORN_BYTES: usize = 512;

/// What a crash does to writes and names that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Power cut; none of them reached the disk.
    Lost,
    /// Power cut; all of them happened to be on the disk.
    Kept,
    /// Power cut; any subset, drawn from this seed.
    Torn(u64),
    /// The process died, the machine did not: all are seen, none is durable.
    Killed,
}

/// One recorded change; what `history` shows of it is its `Debug`.
#[derive(Debug, Clone)]
enum Operation {
    Create { name: String },
    Write { inode: usize, offset: u64, bytes: Bytes },
    Sync { inode: usize, failed: bool },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDir { failed: bool },
}

#[derive(Debug, Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    unsynced: Vec<(u64, Bytes)>,
}

/// A change of one name: what it means from now on.
type Naming = Vec<(String, Option<usize>)>;

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    seen: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    unsynced: Vec<Naming>,
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

fn rename_all(directory: &mut BTreeMap<String, usize>, naming: &Naming) {
    for (name, inode) in naming {
        match inode {
            Some(inode) => directory.insert(name.clone(), *inode),
            None => directory.remove(name),
        };
    }
}

impl State {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name } => {
                self.inodes.push(Inode::default());
                self.name(vec![(name.clone(), Some(self.inodes.len() - 1))]);
            }
            Operation::Write { inode, offset, bytes } => {
                let file = &mut self.inodes[*inode];
                put(&mut file.cache, *offset, bytes);
                file.unsynced.push((*offset, bytes.clone()));
            }
            Operation::Sync { inode, failed } => self.inodes[*inode].sync(*failed),
            Operation::Rename { from, to } => {
                let inode = self.seen.get(from).copied();
                self.name(vec![(from.clone(), None), (to.clone(), inode)]);
            }
            Operation::Remove { name } => self.name(vec![(name.clone(), None)]),
            Operation::SyncDir { failed: false } => {
                for naming in std::mem::take(&mut self.unsynced) {
                    rename_all(&mut self.durable, &naming);
                }
            }
            Operation::SyncDir { failed: true } => {}
        }
    }

    fn name(&mut self, naming: Naming) {
        rename_all(&mut self.seen, &naming);
        self.unsynced.push(naming);
    }

    fn crash(mut self, crash: Crash) -> Self {
        let mut rng = match crash {
            Crash::Killed => return self,
            Crash::Lost | Crash::Kept => None,
            Crash::Torn(seed) => Some(Xoshiro256PlusPlus::seed_from_u64(seed)),
        };
        let mut survives = || rng.as_mut().map_or(crash == Crash::Kept, |rng| rng.random());
        for file in &mut self.inodes {
            file.tear(&mut survives);
        }
        for naming in std::mem::take(&mut self.unsynced) {
            if survives() {
                rename_all(&mut self.durable, &naming);
            }
        }
        self.seen = self.durable.clone();
        self
    }
}

impl Inode {
    /// A failed sync forgets what it could not write, and the next one will not
    /// know of it.
    fn sync(&mut self, failed: bool) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            if !failed {
                put(&mut self.disk, offset, &bytes);
            }
        }
    }

    fn tear(&mut self, survives: &mut impl FnMut() -> bool) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            let mut at = 0;
            while at < bytes.len() {
                let to_boundary = TORN_BYTES - (offset as usize + at) % TORN_BYTES;
                let end = bytes.len().min(at + to_boundary);
                if survives() {
                    put(&mut self.disk, offset + at as u64, &bytes[at..end]);
                }
                at = end;
            }
        }
        self.cache.clone_from(&self.disk);
    }
}

#[derive(Debug, Default)]
struct Machine {
    start: State,
    state: State,
    history: Vec<Operation>,
    capacity_bytes: Option<u64>,
    syncs_until_failure: Option<u64>,
    /// Every open file has a clone.
    open: Arc<()>,
}

impl Machine {
    fn new(start: State) -> Self {
        Self { state: start.clone(), start, ..Self::default() }
    }

    fn run(&mut self, operation: Operation) {
        self.state.apply(&operation);
        self.history.push(operation);
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.state.seen.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        self.state.seen.values().map(|&inode| self.state.inodes[inode].cache.len() as u64).sum()
    }

    /// Counts down to the sync that fails.
    fn sync_fails(&mut self) -> bool {
        match &mut self.syncs_until_failure {
            Some(0) => {
                self.syncs_until_failure = None;
                true
            }
            Some(count) => {
                *count -= 1;
                false
            }
            None => false,
        }
    }
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    machine: Arc<Mutex<Machine>>,
}

impl FaultyDisk {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().expect("no panic happens while it is held")
    }

    /// How many operations there were since this disk was made. Any number up
    /// to this is a crash point.
    pub fn operations(&self) -> usize {
        self.machine().history.len()
    }

    /// The last operation before a crash point, for failure messages.
    pub fn operation(&self, at: usize) -> String {
        let machine = self.machine();
        match at.checked_sub(1).and_then(|last| machine.history.get(last)) {
            Some(Operation::Write { inode, offset, bytes }) => {
                format!("Write {{ inode: {inode}, offset: {offset}, {} bytes }}", bytes.len())
            }
            Some(operation) => format!("{operation:?}"),
            None => "nothing".to_owned(),
        }
    }

    /// The disk as it is found after a crash behind the first `at` operations.
    pub fn image(&self, at: usize, crash: Crash) -> Self {
        let machine = self.machine();
        let mut state = machine.start.clone();
        for operation in &machine.history[..at] {
            state.apply(operation);
        }
        let machine = Machine::new(state.crash(crash));
        Self { machine: Arc::new(Mutex::new(machine)) }
    }

    /// The disk as it is found after a crash now.
    pub fn crash(&self, crash: Crash) -> Self {
        self.image(self.operations(), crash)
    }

    /// Files may hold this many bytes in all.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine().capacity_bytes = bytes;
    }

    /// How many bytes all files hold.
    pub fn used_bytes(&self) -> u64 {
        self.machine().used_bytes()
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        Arc::strong_count(&self.machine().open) - 1
    }

    /// After `count` more syncs, of files or of the directory, one fails.
    pub fn fail_sync_after(&self, count: u64) {
        self.machine().syncs_until_failure = Some(count);
    }

    /// What a file holds, as a process sees it.
    pub fn content(&self, name: &str) -> io::Result<Vec<u8>> {
        let machine = self.machine();
        let inode = machine.inode(name)?;
        Ok(machine.state.inodes[inode].cache.clone())
    }

    /// Changes a file behind everyone's back, in the cache and on the disk.
    pub fn damage(&self, name: &str, change: impl Fn(&mut Vec<u8>)) -> io::Result<()> {
        let mut machine = self.machine();
        let inode = machine.inode(name)?;
        for state in [0, 1] {
            let file = &mut machine.state.inodes[inode];
            change(if state == 0 { &mut file.cache } else { &mut file.disk });
        }
        // Crash images start from the damaged disk.
        machine.start = machine.state.clone();
        machine.history.clear();
        Ok(())
    }

    /// Flips one bit.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        self.damage(name, |content| content[offset as usize] ^= 1 << (bit & 7))
    }

    /// Turns a range to zeros.
    pub fn zero(&self, name: &str, range: Range<u64>) -> io::Result<()> {
        self.damage(name, |content| {
            content[range.start as usize..range.end as usize].fill(0);
        })
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.machine().state.seen.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        self.machine().run(Operation::Create { name: name.to_owned() });
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let machine = self.machine();
        let (inode, open) = (machine.inode(name)?, Arc::clone(&machine.open));
        Ok(FaultyFile { disk: self.clone(), inode, _open: open })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.inode(from)?;
        machine.run(Operation::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.inode(name)?;
        machine.run(Operation::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut machine = self.machine();
        let failed = machine.sync_fails();
        machine.run(Operation::SyncDir { failed });
        if failed { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// An open file of a [`FaultyDisk`].
#[derive(Debug, Clone)]
pub struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
    _open: Arc<()>,
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.machine().state.inodes[self.inode].cache.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let machine = self.disk.machine();
        let content = &machine.state.inodes[self.inode].cache;
        let start = offset as usize;
        match content.get(start..start.saturating_add(into.len())) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut machine = self.disk.machine();
        let size = machine.state.inodes[self.inode].cache.len() as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(size);
        if let Some(capacity) = machine.capacity_bytes
            && growth > 0
            && machine.used_bytes() + growth > capacity
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let bytes = Bytes::copy_from_slice(bytes);
        machine.run(Operation::Write { inode: self.inode, offset, bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        let failed = machine.sync_fails();
        machine.run(Operation::Sync { inode: self.inode, failed });
        if failed { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sectors synced, two not; the name synced in between.
    fn disk() -> FaultyDisk {
        let disk = FaultyDisk::default();
        let file = disk.create("a").unwrap();
        file.write_at(0, &[1; 1024]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, &[2; 1024]).unwrap();
        disk
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_or_any_part_of_it() {
        assert_eq!(disk().crash(Crash::Lost).content("a").unwrap(), [1; 1024]);
        assert_eq!(disk().crash(Crash::Kept).content("a").unwrap(), [2; 1024]);
        let mixed = |seed| {
            let content = disk().crash(Crash::Torn(seed)).content("a").unwrap();
            (content[0], content[512])
        };
        for outcome in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            assert!((0..50).any(|seed| mixed(seed) == outcome), "{outcome:?} never happens");
        }
    }

    #[test]
    fn a_name_is_durable_with_its_directory_only() {
        let disk = disk();
        assert!(disk.image(3, Crash::Lost).content("a").is_err());
        assert!(disk.image(4, Crash::Lost).content("a").is_ok());
        disk.rename("a", "b").unwrap();
        assert!(disk.crash(Crash::Lost).content("a").is_ok());
        assert!(disk.crash(Crash::Kept).content("b").is_ok());
    }

    #[test]
    fn a_killed_process_leaves_a_cache_that_a_power_cut_takes() {
        let killed = disk().crash(Crash::Killed);
        assert_eq!(killed.content("a").unwrap(), [2; 1024]);
        assert_eq!(killed.crash(Crash::Lost).content("a").unwrap(), [1; 1024]);
    }

    #[test]
    fn a_failed_sync_forgets_and_the_next_one_succeeds() {
        let disk = disk();
        disk.fail_sync_after(0);
        let file = disk.open("a").unwrap();
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok());
        assert_eq!(disk.content("a").unwrap(), [2; 1024]);
        assert_eq!(disk.crash(Crash::Lost).content("a").unwrap(), [1; 1024]);
    }

    #[test]
    fn only_growth_finds_the_disk_full() {
        let disk = disk();
        disk.set_capacity(Some(1024));
        let file = disk.open("a").unwrap();
        file.write_at(512, &[3; 512]).unwrap();
        let error = file.write_at(512, &[3; 513]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

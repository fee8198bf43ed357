//! The seam between the journal and a disk: one flat directory of files.
//!
//! Everything this module relies on is in two small traits, so that a test can
//! put a disk beneath the journal that forgets, tears, fails and fills up (see
//! [`super::faulty`]). What is relied on:
//!
//! - a write becomes durable when `sync_data` of its file returns, not before,
//!   and until then any of its sectors may be there or not;
//! - a created, renamed or removed *name* becomes durable when `sync_dir`
//!   returns, whatever was synced in the file itself;
//! - `rename` replaces its target as one step;
//! - once a sync has failed nothing is known, and asking again proves nothing.
//!
//! [`StdDisk`] is the real one. It holds a lock on its directory for as long as
//! any clone of it lives: two processes on one journal would destroy it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One directory. Clones are the same directory.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: DiskFile;
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file; what had that name before is gone.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name; what had it before is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// The name with its directory, for people.
    fn path(&self, name: &str) -> String;
}

/// One open file. Offsets and sizes are in bytes.
pub trait DiskFile: Send {
    /// How long it is.
    fn size(&self) -> io::Result<u64>;
    /// Fills `into`; a file that ends before is an error.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`; writing past the end grows the file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content durable, and the size if it changed.
    fn sync_data(&self) -> io::Result<()>;
}

/// A directory of the file system, locked while in use.
#[derive(Clone)]
pub struct StdDisk {
    held: Arc<Held>,
}

struct Held {
    root: PathBuf,
    directory: File,
    /// Released by the system when the last clone goes, however it goes.
    _lock: File,
}

impl StdDisk {
    /// Where the lock is. It is never removed: another process may wait on it.
    pub const LOCK: &str = "lock";

    /// Opens or creates the directory, and locks it.
    ///
    /// Fails with `WouldBlock`, naming the directory, if another process has it.
    pub fn open(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref().to_path_buf();
        create_durably(&root, |directory| File::open(directory)?.sync_all())?;
        let path = root.join(Self::LOCK);
        let lock =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is in use by another process", root.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let directory = File::open(&root)?;
        Ok(Self { held: Arc::new(Held { root, directory, _lock: lock }) })
    }
}

/// Creates a directory and its parents; each name is synced in the directory
/// that holds it, or all below it could vanish with it. Also a name that was
/// there: an operator, or this program before it was killed, may have made it a
/// moment ago. A mount point is not of the file system that holds its name.
fn create_durably(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let path = path.canonicalize()?;
    let device = path.metadata()?.dev();
    for parent in path.ancestors().skip(1) {
        if parent.metadata()?.dev() != device {
            break;
        }
        match sync(parent) {
            // Above what this user may read, names are the operator's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}

impl Disk for StdDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.held.root)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let path = self.held.root.join(name);
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.held.root.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.held.root.join(from), self.held.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.held.root.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.held.directory.sync_all()
    }

    fn path(&self, name: &str) -> String {
        self.held.root.join(name).display().to_string()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("new/data");
        let disk = StdDisk::open(&root).unwrap();
        let error = StdDisk::open(&root).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(disk);
        StdDisk::open(&root).unwrap();
    }

    #[test]
    fn a_directory_that_was_there_is_made_durable_as_a_new_one_is() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        let root = top.join("new/data");
        for _ in 0..2 {
            let mut synced = Vec::new();
            create_durably(&temp.path().join("new/data"), |directory| {
                synced.push(directory.to_path_buf());
                Ok(())
            })
            .unwrap();
            assert!(root.is_dir() && synced.starts_with(&[top.join("new"), top.clone()]));
            assert!(!synced.contains(&root), "the journal syncs that when it has to");
        }
    }

    #[test]
    fn the_real_disk_does_what_the_traits_say() {
        let temp = tempfile::tempdir().unwrap();
        let disk = StdDisk::open(temp.path()).unwrap();
        let file = disk.create("a.tmp").unwrap();
        DiskFile::write_at(&file, 4, b"text").unwrap();
        DiskFile::sync_data(&file).unwrap();
        disk.rename("a.tmp", "a").unwrap();
        disk.sync_dir().unwrap();
        let file = disk.open("a").unwrap();
        assert_eq!(file.size().unwrap(), 8);
        let mut bytes = [1; 8];
        DiskFile::read_at(&file, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0\0text");
        assert!(DiskFile::read_at(&file, 1, &mut bytes).is_err(), "it ends before");
        disk.remove("a").unwrap();
        assert_eq!(disk.list().unwrap(), ["lock"]);
    }
}

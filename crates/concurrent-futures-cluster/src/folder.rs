//! The folders of this process for temporary files.
//!
//! A process that is killed leaves its folders behind. So the next process of the same user that makes one removes them.
//! Each folder has a file that its process has locked: the system releases the lock when the process ends, whatever its
//! end.

#![forbid(unsafe_code)]

use crate::os;
use std::fs::{self, DirEntry, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// The name of the locked file.
const LOCK: &str = "lock";
/// The age from which on a folder without a locked file is one that was left. A younger one may be in the making.
const MAKING: Duration = Duration::from_secs(60);

/// A folder that this process has, and that is removed with this object.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes a folder, which only this user can read. Removes those with this prefix that killed processes have left.
    ///
    /// # Errors
    /// When the folder or its file cannot be made.
    pub(crate) fn make(prefix: &str, place: &Path) -> io::Result<Self> {
        // A folder that cannot be removed stays.
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(prefix.as_bytes())
                && was_left(&entry, MAKING).unwrap_or(false)
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(place)?;
        let lock = File::create(folder.path().join(LOCK))?;
        // Where the system has no locks, no process removes the folder of another one.
        let _ = lock.try_lock();
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Returns whether the process of a folder has ended.
fn was_left(entry: &DirEntry, making: Duration) -> io::Result<bool> {
    // A link has metadata of its own here, and is no folder.
    let metadata = entry.metadata()?;
    // A time to come is one of a clock that was set back, and tells no age.
    let age = SystemTime::now().duration_since(metadata.modified()?);
    let is_old = age.is_ok_and(|age| age >= making);
    let is_ours = metadata.is_dir() && os::is_of_this_user(&metadata);
    if !is_ours || !is_old {
        return Ok(false);
    }
    Ok(File::open(entry.path().join(LOCK))?.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn names(place: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(place).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn age(path: &Path) {
        let then = SystemTime::now() - 2 * MAKING;
        File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn a_folder_is_removed_with_its_object() {
        let place = TempDir::new().unwrap();
        let folder = Folder::make("cf-", place.path()).unwrap();
        assert!(folder.path().starts_with(place.path()));
        drop(folder);
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn a_folder_whose_process_was_killed_is_removed_by_the_next_one() {
        let place = TempDir::new().unwrap();
        let Folder {
            folder,
            _lock: lock,
        } = Folder::make("cf-", place.path()).unwrap();
        let left = folder.keep();
        fs::write(left.join("socket"), "").unwrap();
        age(&left);
        // As long as the process runs, its folder stays.
        let other = Folder::make("cf-", place.path()).unwrap();
        assert!(left.exists());
        drop((lock, other));
        let next = Folder::make("cf-", place.path()).unwrap();
        assert_eq!(names(place.path()), [next.path()]);
    }

    #[test]
    fn folders_of_others_and_young_ones_stay() {
        let place = TempDir::new().unwrap();
        let of = |name: &str, is_locked: bool| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            if is_locked {
                File::create(path.join(LOCK)).unwrap();
            }
            path
        };
        let (other, without) = (of("other", true), of("cf-without", false));
        let young = of("cf-young", true);
        let future = of("cf-future", true);
        let to_come = SystemTime::now() + 2 * MAKING;
        File::open(&future).unwrap().set_modified(to_come).unwrap();
        let target = of("target", true);
        let link = place.path().join("cf-link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [&other, &without, &target] {
            age(path);
        }
        let ours = Folder::make("cf-", place.path()).unwrap();
        for path in [&other, &without, &young, &future, &target, &link] {
            assert!(path.exists(), "{}", path.display());
        }
        drop(ours);
    }
}

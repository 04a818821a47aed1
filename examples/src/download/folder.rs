//! The folder that files are downloaded into.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder for downloaded files. Incomplete files lie in a hidden folder in it, so that a file of the final
/// name is always whole. Dropping this removes the hidden folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    unfinished: TempDir,
}

impl Folder {
    /// Opens a folder, and makes it first if there is none.
    ///
    /// # Errors
    /// If the folder can't be made or written to.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        // In the same folder: a file can only be moved for free within one file system.
        let unfinished = tempfile::Builder::new()
            .prefix(".unfinished-")
            .tempdir_in(&path)?;
        Ok(Self { path, unfinished })
    }

    /// Returns the path of the folder for complete files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the hidden folder for incomplete files.
    #[must_use]
    pub fn unfinished(&self) -> &Path {
        self.unfinished.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // After Ctrl-C some downloads may still run, and one of them may make a file while
        // the others' are removed. Each makes one at most.
        for _ in 0..100 {
            match fs::remove_dir_all(self.unfinished()) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                _ => break,
            }
        }
    }
}

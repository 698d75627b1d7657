//! A private directory that goes away with its owner.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;

/// How many names are tried. Only directories left by killed processes of the same number are in the way.
const TRIES: u32 = 100;

/// A directory that only this user can enter, removed on drop.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one among the temporary files.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn new() -> io::Result<Self> {
        // Absolute, since applications change their working directory.
        let folder = std::path::absolute(env::temp_dir())?;
        let mut last = io::ErrorKind::AlreadyExists.into();
        for attempt in 0..TRIES {
            let path = folder.join(format!("tidemark-command-{}-{attempt}", process::id()));
            // Fails on whatever is there already, links included: nobody else can have prepared it.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it: it is among the temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_its_own_and_removed_with_all_in_it() {
        let (first, second) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        assert_ne!(first.path(), second.path());
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(first.path().join("file"), "").unwrap();
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }
}

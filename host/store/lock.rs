//! One broker for a data folder: each takes a lock on a file in it. Two would take channels from each other, and a member of the one
//! would not see what comes in through the other.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The folder is this process's, until this is dropped or the process ends, however it does.
pub struct DataLock(#[expect(dead_code, reason = "held, not used")] File);

/// Why a folder cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum DataLockError {
    /// Another process has it.
    #[error("another hotbay (process {process}) uses this folder: stop it, or give this one a --data-dir of its own")]
    InUse {
        /// Its id, as it wrote it.
        process: String,
    },
    /// The folder or the file cannot be made.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl DataLock {
    /// Takes a folder, and makes it if need be.
    ///
    /// # Errors
    /// If another process has it, or nothing can be written there.
    pub fn take(folder: &Path) -> Result<Self, DataLockError> {
        const PROCESS_BYTES_MAX: u64 = 16;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(io::Error::from(error).into());
            }
            let mut process = String::new();
            file.take(PROCESS_BYTES_MAX).read_to_string(&mut process)?;
            return Err(DataLockError::InUse { process: process.trim().to_owned() });
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_who_is_named() {
        let folder = tempfile::TempDir::new().unwrap();
        let data = folder.path().join("data");
        let first = DataLock::take(&data).unwrap();

        let second = DataLock::take(&data).err().unwrap();

        assert!(second.to_string().contains(&format!("(process {})", std::process::id())), "{second}");
        drop(first);
        assert!(DataLock::take(&data).is_ok());
    }
}

//! Notes about a component, kept beside its code and authenticated like it: what was found out about it once need not be found out again.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use hmac::Mac;
use wasmtime::Engine;

use crate::plugin::PluginError;
use crate::plugin::compile::{Artifacts, Digest, MAC_BYTES, write_whole};

impl Artifacts {
    /// What was noted about a component under a name, if that was here. One that was changed since is none.
    pub fn note(&self, digest: Digest, name: &str) -> Option<Vec<u8>> {
        let note = fs::read(self.note_path(digest, name)).ok()?;
        let (mac, words) = note.split_at_checked(MAC_BYTES)?;
        let keyed = self.keyed(digest).chain_update(name).chain_update(words);
        keyed.verify_slice(mac).is_ok().then(|| words.to_vec())
    }

    /// Notes something about a component. `name` is part of a file's name.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn keep_note(&self, digest: Digest, name: &str, words: &[u8]) -> Result<(), PluginError> {
        let path = self.note_path(digest, name);
        let mac = self.keyed(digest).chain_update(name).chain_update(words).finalize().into_bytes();
        let written = write_whole(&path, |file| file.write_all(&mac).and_then(|()| file.write_all(words)));
        written.map_err(|e| PluginError::Artifacts { path, cause: e.to_string() })
    }

    /// Whether there is code of a component for this engine.
    pub fn has(&self, engine: &Engine, digest: Digest) -> bool {
        self.path(engine, digest).exists()
    }

    fn note_path(&self, digest: Digest, name: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{name}.note"))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Goal: a note is taken for one only where it was made, about that component, under that name, and unchanged.
    #[test]
    fn a_note_that_was_changed_or_moved_is_none() {
        let folder = TempDir::new().unwrap();
        let artifacts = Artifacts::open(folder.path().join("a")).unwrap();
        let (one, other) = (Digest([1; 32]), Digest([2; 32]));
        artifacts.keep_note(one, "vetted", b"words").unwrap();
        assert_eq!(artifacts.note(one, "vetted").as_deref(), Some(&b"words"[..]));
        let note = fs::read(artifacts.note_path(one, "vetted")).unwrap();

        for (digest, name, bytes) in [
            (other, "vetted", note.clone()),
            (one, "else", note.clone()),
            (one, "vetted", note[..note.len() - 1].to_vec()),
            (one, "vetted", [note.as_slice(), b"more"].concat()),
            (one, "vetted", note[..10].to_vec()),
            (one, "vetted", Vec::new()),
        ] {
            fs::write(artifacts.note_path(digest, name), bytes).unwrap();
            assert_eq!(artifacts.note(digest, name), None, "{digest} {name}");
        }
        let stranger = Artifacts::open(folder.path().join("b")).unwrap();
        fs::write(stranger.note_path(one, "vetted"), note).unwrap();
        assert_eq!(stranger.note(one, "vetted"), None);
    }
}

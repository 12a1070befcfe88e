//! Compiled code: made once by a [`worker`] process, kept on disk, and loaded from there at every start.
//!
//! An artifact is named by the digest of its component and the compatibility hash of the engine, and is authenticated by a
//! MAC under a key only this data folder has: loading compiled code is running it.

mod note;
mod worker;

use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits::{COMPILED_BYTES_MAX, NodeLimits};
use crate::plugin::PluginError;

pub use crate::plugin::compile::worker::{COMMAND as WORKER_COMMAND, compile_file, work};

/// An artifact begins with its MAC, then comes the code.
const MAC_BYTES: usize = 32;
/// A file of a compilation that was not written to for so long was left behind.
const LEFT_BEHIND_AFTER: Duration = Duration::from_hours(1);

/// Names a version of a plugin: the SHA-256 of its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a component.
    pub fn of(component: &[u8]) -> Self {
        Self(Sha256::digest(component).into())
    }

    /// The digest of what is read, and its length, without holding it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_reader(mut component: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = Sha256::new();
        let bytes = in_pieces(&mut component, |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok((Self(hasher.finalize().into()), bytes))
    }
}

/// Reads to the end, piece by piece; returns how much it was, in bytes.
fn in_pieces(from: &mut impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut piece = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(read) => {
                take(&piece[..read])?;
                bytes += read as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Compiled code on disk. The folder and all in it are this user's alone.
pub struct Artifacts {
    folder: PathBuf,
    /// One block of SHA-256, so that HMAC uses it as it is.
    key: [u8; 64],
}

impl Artifacts {
    /// Opens the folder, and makes its key at the first time.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn open(folder: PathBuf) -> Result<Self, PluginError> {
        let io = |e: io::Error| PluginError::Artifacts { path: folder.clone(), cause: e.to_string() };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io)?;
        // Whoever may write here may run code as the broker; an earlier version, or an operator, was more generous.
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(io)?;
        let path = folder.join("key");
        let key = match fs::read(&path) {
            Ok(key) => {
                fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(io)?;
                key
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = rand::random::<[u8; 64]>();
                write_whole(&path, |file| file.write_all(&key)).map_err(io)?;
                key.to_vec()
            }
            Err(e) => return Err(io(e)),
        };
        let key = key.try_into().map_err(|_| PluginError::Artifacts {
            path: path.clone(),
            cause: "the key is damaged; delete the folder, it is made anew".into(),
        })?;
        Ok(Self { folder, key })
    }

    /// Loads a component's compiled code, compiling it first if there is none that fits. Blocks for as long as that takes.
    ///
    /// # Errors
    /// If the worker fails or is stopped at a limit, or the folder cannot be written.
    pub fn load(&self, engine: &Engine, component: &[u8], limits: &NodeLimits) -> Result<Component, PluginError> {
        let digest = Digest::of(component);
        let path = self.path(engine, digest);
        self.load_with(engine, digest, &path, |out| worker::compile(component, out, limits))
    }

    fn load_with(
        &self,
        engine: &Engine,
        digest: Digest,
        path: &Path,
        compile: impl FnOnce(&Path) -> Result<(), PluginError>,
    ) -> Result<Component, PluginError> {
        match self.kept(engine, digest, path) {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(plugin = %digest, %error, "the compiled code that was kept is not used; compiling anew");
            }
        }
        let started = Instant::now();
        let code = self.compile(digest, path, compile)?;
        tracing::info!(plugin = %digest, ms = started.elapsed().as_millis() as u64, "compiled");
        deserialize(engine, path, &code)
    }

    /// The code kept for a component, if there is some.
    ///
    /// # Errors
    /// If it cannot be read, was not made here, or does not fit this machine.
    fn kept(&self, engine: &Engine, digest: Digest, path: &Path) -> Result<Option<Component>, PluginError> {
        let refused = |cause: String| PluginError::Artifacts { path: path.to_owned(), cause };
        let artifact = match fs::read(path) {
            Ok(artifact) => artifact,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(refused(e.to_string())),
        };
        let authentic = artifact
            .split_at_checked(MAC_BYTES)
            .filter(|(mac, code)| self.keyed(digest).chain_update(code).verify_slice(mac).is_ok());
        // The very bytes that were authenticated are loaded, so it does not matter what becomes of the file.
        match authentic {
            Some((_, code)) => deserialize(engine, path, code).map(Some),
            None => Err(refused("it is damaged, or was not made by this broker (its MAC does not fit)".into())),
        }
    }

    fn path(&self, engine: &Engine, digest: Digest) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.folder.join(format!("{digest}-{:016x}.artifact", hasher.finish()))
    }

    /// Loads code that was kept, without its component.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn load_kept(&self, engine: &Engine, digest: Digest) -> Result<Component, PluginError> {
        let path = self.path(engine, digest);
        self.kept(engine, digest, &path)?.ok_or(PluginError::NotCompiled { digest })
    }

    /// Keeps code that the worker made of a component. It is copied piece by piece: this process holds none of it.
    ///
    /// # Errors
    /// If the code is too large, or cannot be read or written.
    pub fn adopt(&self, engine: &Engine, digest: Digest, code: &Path) -> Result<(), PluginError> {
        let path = self.path(engine, digest);
        let io = |e: io::Error| PluginError::Artifacts { path: path.clone(), cause: e.to_string() };
        let mut code = fs::File::open(code).map_err(io)?;
        let bytes = code.metadata().map_err(io)?.len();
        if bytes > COMPILED_BYTES_MAX {
            return Err(io(io::Error::other(format!("the code has {bytes} bytes; the limit is {COMPILED_BYTES_MAX}"))));
        }
        write_whole(&path, |file| {
            let mut mac = self.keyed(digest);
            file.write_all(&[0; MAC_BYTES])?;
            in_pieces(&mut code, |piece| {
                mac.update(piece);
                file.write_all(piece)
            })?;
            file.rewind()?;
            file.write_all(&mac.finalize().into_bytes())
        })
        .map_err(io)?;
        self.remove_stale(digest, &path);
        Ok(())
    }

    /// Copies code that is kept, without its MAC, to a file that is not there yet, for a worker. This process holds none of it.
    ///
    /// # Errors
    /// If there is none, it is not authentic, or it cannot be read or written.
    pub fn export(&self, engine: &Engine, digest: Digest, to: &Path) -> Result<(), PluginError> {
        let path = self.path(engine, digest);
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => PluginError::NotCompiled { digest },
            _ => PluginError::Artifacts { path: path.clone(), cause: e.to_string() },
        };
        let mut artifact = fs::File::open(&path).map_err(io)?;
        let mut expected = [0; MAC_BYTES];
        artifact.read_exact(&mut expected).map_err(io)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io)?;
        let mut mac = self.keyed(digest);
        let copied = in_pieces(&mut artifact, |piece| {
            mac.update(piece);
            file.write_all(piece)
        });
        let authentic = || mac.verify_slice(&expected).map_err(|_| io::Error::other("its MAC does not fit"));
        copied.and_then(|_| authentic()).map_err(|e| {
            drop(fs::remove_file(to));
            io(e)
        })
    }

    /// Compiles, keeps the code for the next start, and returns it.
    fn compile(
        &self,
        digest: Digest,
        path: &Path,
        compile: impl FnOnce(&Path) -> Result<(), PluginError>,
    ) -> Result<Vec<u8>, PluginError> {
        let io = |e: io::Error| PluginError::Artifacts { path: path.to_owned(), cause: e.to_string() };
        let out = path.with_extension(format!("code-{}", std::process::id()));
        let code = compile(&out).and_then(|()| fs::read(&out).map_err(io));
        drop(fs::remove_file(&out));
        let code = code?;
        let mac = self.keyed(digest).chain_update(&code).finalize().into_bytes();
        write_whole(path, |file| file.write_all(&mac).and_then(|()| file.write_all(&code))).map_err(io)?;
        self.remove_stale(digest, path);
        Ok(code)
    }

    /// Removes what other engines made of the same component, and what compilations that were cut off left of it. What is younger
    /// than any compilation may take stays: another process may be writing it, as `plugin check` beside a broker is.
    fn remove_stale(&self, digest: Digest, path: &Path) {
        let prefix = format!("{digest}-");
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let stale = entry.path();
            let is_of_component = entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
            if !is_of_component || stale == path || may_be_under_way(&entry) {
                continue;
            }
            match fs::remove_file(&stale) {
                Ok(()) => tracing::info!(plugin = %digest, path = %stale.display(), "stale compiled code removed"),
                Err(error) => {
                    tracing::warn!(plugin = %digest, path = %stale.display(), %error, "stale compiled code stays");
                }
            }
        }
    }

    /// The MAC of a component's code, before the code.
    fn keyed(&self, digest: Digest) -> Hmac<Sha256> {
        Hmac::<Sha256>::new((&self.key).into()).chain_update(digest.0)
    }
}

/// Whether some process may be writing this file at this moment.
fn may_be_under_way(entry: &fs::DirEntry) -> bool {
    if entry.path().extension().is_some_and(|extension| extension == "artifact") {
        return false; // Those are there whole or not at all.
    }
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age < LEFT_BEHIND_AFTER))
}

/// Writes a file that is there whole or not at all, for this user only.
fn write_whole(path: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// The one place where compiled code becomes runnable. wasmtime copies it, which costs the size of the code (about 3 bytes for
/// each of the component) once for each version, and no page of it can be changed by whoever can write to a file.
pub(super) fn deserialize(engine: &Engine, path: &Path, code: &[u8]) -> Result<Component, PluginError> {
    #[expect(
        unsafe_code,
        reason = "our worker made these bytes: just now, or their MAC under our key was just checked"
    )]
    // SAFETY: see the reason.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(|e| PluginError::Artifacts { path: path.to_owned(), cause: format!("{e:#}") })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tempfile::TempDir;

    use super::*;
    use crate::plugin::engine;

    /// A folder of artifacts, and an engine for a component without anything in it.
    struct Fixture {
        folder: TempDir,
        artifacts: Artifacts,
        engine: Engine,
        compiled: Cell<u32>,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let artifacts = Artifacts::open(folder.path().join("artifacts")).unwrap();
            let engine = engine::for_compiling().unwrap();
            Self { folder, artifacts, engine, compiled: Cell::new(0) }
        }

        fn component() -> Vec<u8> {
            wat::parse_str("(component)").unwrap()
        }

        fn path(&self) -> PathBuf {
            self.artifacts.path(&self.engine, Digest::of(&Self::component()))
        }

        /// Loads it; compiling is done here and not in a worker.
        fn load(&self) -> Result<Component, PluginError> {
            let compile = |out: &Path| {
                self.compiled.set(self.compiled.get() + 1);
                fs::write(out, self.engine.precompile_component(&Self::component()).unwrap()).unwrap();
                Ok(())
            };
            self.artifacts.load_with(&self.engine, Digest::of(&Self::component()), &self.path(), compile)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder.path().join("artifacts")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn code_is_compiled_once_and_kept() {
        let fixture = Fixture::new();

        fixture.load().unwrap();
        fixture.load().unwrap();

        assert_eq!(fixture.compiled.get(), 1);
        let artifact = fixture.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(fixture.names(), [artifact, "key".to_owned()], "nothing else is left behind");
    }

    /// Goal: code that was adopted piece by piece is what compiling would have kept, and is found without the component.
    #[test]
    fn adopted_code_is_loaded_by_its_digest() {
        let fixture = Fixture::new();
        let digest = Digest::of(&Fixture::component());
        let missing = fixture.artifacts.load_kept(&fixture.engine, digest).map(drop);
        let code = fixture.folder.path().join("code");
        fs::write(&code, fixture.engine.precompile_component(&Fixture::component()).unwrap()).unwrap();

        fixture.artifacts.adopt(&fixture.engine, digest, &code).unwrap();
        fixture.artifacts.load_kept(&fixture.engine, digest).unwrap();
        fixture.load().unwrap();

        assert_eq!((missing, fixture.compiled.get()), (Err(PluginError::NotCompiled { digest }), 0));
        assert_eq!((fixture.names().len(), mode(&fixture.path())), (2, 0o600), "nothing else is left behind");
    }

    /// Goal: a worker gets the code that was kept, or none.
    #[test]
    fn kept_code_is_exported_if_it_is_authentic() {
        let fixture = Fixture::new();
        let digest = Digest::of(&Fixture::component());
        let to = fixture.folder.path().join("exported");
        let export = || fixture.artifacts.export(&fixture.engine, digest, &to);
        assert_eq!(export(), Err(PluginError::NotCompiled { digest }));
        fixture.load().unwrap();
        let mut kept = fs::read(fixture.path()).unwrap();

        export().unwrap();

        assert!(fs::read(&to).unwrap() == kept[MAC_BYTES..] && mode(&to) == 0o600);
        fs::remove_file(&to).unwrap();
        *kept.last_mut().unwrap() ^= 1;
        fs::write(fixture.path(), kept).unwrap();
        assert!(matches!(export(), Err(PluginError::Artifacts { .. })) && !to.exists());
    }

    /// Law: everything has a bound.
    #[test]
    fn code_that_is_too_large_is_not_adopted() {
        let fixture = Fixture::new();
        let code = fixture.folder.path().join("code");
        fs::File::create(&code).unwrap().set_len(COMPILED_BYTES_MAX + 1).unwrap();

        let refused = fixture.artifacts.adopt(&fixture.engine, Digest([7; 32]), &code);

        assert!(matches!(refused, Err(PluginError::Artifacts { cause, .. }) if cause.contains("the limit is")));
        assert_eq!(fixture.names(), ["key"]);
    }

    #[test]
    fn a_digest_is_the_same_piece_by_piece() {
        for bytes in [0, 1, 64 << 10, 200_000] {
            let component = vec![7; bytes];
            assert_eq!(Digest::of_reader(&component[..]).unwrap(), (Digest::of(&component), bytes as u64));
        }
    }

    /// Goal: no byte of what is loaded is one that was not authenticated; whatever is wrong, the next load is right again.
    #[test]
    fn damaged_foreign_and_short_code_is_compiled_anew() {
        let fixture = Fixture::new();
        fixture.load().unwrap();
        let good = fs::read(fixture.path()).unwrap();
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let code_without_mac = good[MAC_BYTES..].to_vec();
        let cases =
            [flipped(0), flipped(MAC_BYTES), flipped(good.len() - 1), code_without_mac, good[..10].to_vec(), vec![]];
        for (index, bad) in cases.into_iter().enumerate() {
            fs::write(fixture.path(), bad).unwrap();
            let before = fixture.compiled.get();

            fixture.load().unwrap();
            fixture.load().unwrap();

            assert_eq!(fixture.compiled.get(), before + 1, "case {index}");
            assert!(fs::read(fixture.path()).unwrap() == good, "case {index}");
        }
    }

    /// Code that is authentic, but of another component or under another key, is not taken for this one's.
    #[test]
    fn authentic_code_of_another_component_or_folder_is_not_used() {
        let fixture = Fixture::new();
        fixture.load().unwrap();
        let code = fs::read(fixture.path()).unwrap()[MAC_BYTES..].to_vec();
        let stranger = Fixture::new();
        for mac in [
            fixture.artifacts.keyed(Digest([0; 32])).chain_update(&code).finalize(),
            stranger.artifacts.keyed(Digest::of(&Fixture::component())).chain_update(&code).finalize(),
        ] {
            let before = fixture.compiled.get();
            fs::write(fixture.path(), [&mac.into_bytes(), &code[..]].concat()).unwrap();

            fixture.load().unwrap();

            assert_eq!(fixture.compiled.get(), before + 1);
        }
    }

    /// Authentic code this machine cannot run, as after a move to another one, does not keep the broker from starting.
    #[test]
    fn authentic_code_that_does_not_fit_is_compiled_anew() {
        let fixture = Fixture::new();
        let code = b"from another machine";
        let mac = fixture.artifacts.keyed(Digest::of(&Fixture::component())).chain_update(code).finalize().into_bytes();
        fs::write(fixture.path(), [&mac, &code[..]].concat()).unwrap();

        fixture.load().unwrap();

        assert_eq!(fixture.compiled.get(), 1);
    }

    /// Goal: what nobody needs is removed, and what another process is just writing is not.
    #[test]
    fn code_of_other_engines_is_removed_and_that_of_other_components_and_processes_is_not() {
        let fixture = Fixture::new();
        let digest = Digest::of(&Fixture::component());
        let folder = fixture.folder.path().join("artifacts");
        let other = format!("{}-0123456789abcdef.artifact", Digest([7; 32]));
        let other_engine = format!("{digest}-0123456789abcdef.artifact");
        let left_behind = format!("{digest}-0123456789abcdef.code-1");
        let under_way = format!("{digest}-0123456789abcdef.partial-2");
        for name in [&other, &other_engine, &left_behind, &under_way] {
            fs::write(folder.join(name), "").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * LEFT_BEHIND_AFTER;
        let file = fs::OpenOptions::new().write(true).open(folder.join(&left_behind)).unwrap();
        file.set_modified(long_ago).unwrap();

        fixture.load().unwrap();

        let own = fixture.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = vec![other, own, under_way, "key".to_owned()];
        expected.sort();
        assert_eq!(fixture.names(), expected);
    }

    #[test]
    fn the_folder_and_its_files_are_for_this_user_only() {
        let fixture = Fixture::new();
        fixture.load().unwrap();
        let folder = fixture.folder.path().join("artifacts");
        assert_eq!((mode(&folder), mode(&folder.join("key")), mode(&fixture.path())), (0o700, 0o600, 0o600));

        // What was more open is closed at the next start.
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.join("key"), Permissions::from_mode(0o644)).unwrap();
        Artifacts::open(folder.clone()).unwrap();

        assert_eq!((mode(&folder), mode(&folder.join("key"))), (0o700, 0o600));
    }
}

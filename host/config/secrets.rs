//! Where keys come from: environment variables, files, and in development a random secret of our own.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Config;
use crate::auth::{Algorithm, Key, KeyRules, Keys, PublicKey, Secret};

/// The development secret's file below `data_dir`.
pub(super) const DEVELOPMENT_SECRET_FILE: &str = "jwt-secret";

/// `[key.NAME]`, with its secret or public key at hand.
#[derive(Clone)]
pub struct KeyConfig {
    /// The algorithm of all tokens it verifies.
    pub algorithm: Algorithm,
    /// The key itself.
    pub material: KeyMaterial,
    /// What else tokens must have.
    pub rules: KeyRules,
}

/// The key itself.
#[derive(Clone)]
pub enum KeyMaterial {
    /// For HMAC, from an environment variable or a file.
    Secret(Secret),
    /// For HMAC, in this file, which is made with a random secret when it is first needed. Only in development.
    Development(PathBuf),
    /// For the other algorithms.
    Public(PublicKey),
}

/// Why the development secret cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// Reading or writing failed.
    #[error("the development secret {path} cannot be read or made: {error}; make its folder writable, or set JWT_SECRET", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Others may read it.
    #[error("the development secret {path} can be read by others (mode {mode:03o}): chmod 600 it, or delete it and all tokens made with it become invalid", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what was written there.
    #[error("the development secret {path} is damaged: delete it, and a new one is made; tokens made with it become invalid", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Config {
    /// All keys, ready to verify. In development this makes the random secret at the first call.
    ///
    /// # Errors
    /// If the development secret cannot be read or made.
    pub fn open_keys(&self) -> Result<Keys, SecretFileError> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for (name, key) in &self.keys {
            let rules = key.rules.clone();
            let ready = match &key.material {
                KeyMaterial::Public(public) => Some(Key::public(public.clone(), rules)),
                KeyMaterial::Secret(secret) => Key::symmetric(key.algorithm, secret, rules),
                KeyMaterial::Development(path) => Key::symmetric(key.algorithm, &development_secret(path)?, rules),
            };
            keys.extend(ready.map(|ready| (name.clone(), ready)));
        }
        Ok(Keys::new(keys))
    }
}

impl KeyConfig {
    /// The shared secret, for signing. `None` for public keys. In development this may make the random secret.
    ///
    /// # Errors
    /// If the development secret cannot be read or made.
    pub fn secret(&self) -> Result<Option<Secret>, SecretFileError> {
        match &self.material {
            KeyMaterial::Secret(secret) => Ok(Some(secret.clone())),
            KeyMaterial::Development(path) => development_secret(path).map(Some),
            KeyMaterial::Public(_) => Ok(None),
        }
    }
}

/// Reads the development secret, or makes it if there is none. Two processes that start at once get the same secret.
fn development_secret(path: &Path) -> Result<Secret, SecretFileError> {
    let failed = |error| SecretFileError::Io { path: path.to_owned(), error };
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(path).map_err(failed)?,
        Err(error) => return Err(failed(error)),
    }
    let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let secret = text.trim();
    if secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(Secret::new(secret.as_bytes()))
    } else {
        Err(SecretFileError::Damaged { path: path.to_owned() })
    }
}

/// Writes 256 random bits, as hex, so that the file's text can also be put into `JWT_SECRET` elsewhere. The file gets
/// its name only once it is whole, and never takes the place of another.
fn make_secret(path: &Path) -> io::Result<()> {
    let mut random = [0_u8; 32];
    rand::fill(&mut random);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let whole = path.with_extension(format!("{}-{}", std::process::id(), hex::encode(&random[..4])));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole).and_then(|mut file| {
        writeln!(file, "{}", hex::encode(random))?;
        file.sync_all()
    });
    let named = written.and_then(|()| match fs::hard_link(&whole, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&whole);
    named.and(removed)
}

//! Checks of keys: each must have a secret or a public key at hand before anything starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Check;
use crate::auth::{Algorithm, KeyRules, PublicKey, Secret};
use crate::config::secrets::{DEVELOPMENT_SECRET_FILE, KeyConfig, KeyMaterial};
use crate::config::tree::KeyPath;

/// The key mounts use if they name none; it need not be configured.
const DEFAULT_KEY: &str = "default";
/// An HMAC secret below this many bytes makes a warning (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Longest secret or PEM file, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Longest leeway, in seconds: beyond that, clocks do not differ, they are wrong.
const LEEWAY_S_MAX: u64 = 300;

/// `[key.NAME]` as it is written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KeySettings {
    algorithm: Algorithm,
    /// Variables that may hold the secret; the first that is set and not empty counts.
    secret_env: Vec<String>,
    /// A file that holds the secret; a newline at its end does not belong to it.
    secret_file: Option<PathBuf>,
    /// A PEM file with the public key.
    public_key: Option<PathBuf>,
    kid: Option<String>,
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway_s: u64,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::HS256,
            secret_env: vec!["JWT_SECRET".to_owned()],
            secret_file: None,
            public_key: None,
            kid: None,
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway_s: 5,
        }
    }
}

impl Check<'_> {
    /// Finds the secrets and public keys. `development` is the data folder if a random secret may be made there.
    pub(super) fn keys<'n>(
        &mut self,
        mut settings: BTreeMap<String, KeySettings>,
        named: impl IntoIterator<Item = &'n String>,
        development: Option<&Path>,
    ) -> BTreeMap<String, KeyConfig> {
        let configured = self.known("key");
        if !configured.iter().any(|name| name == DEFAULT_KEY) && named.into_iter().any(|name| name == DEFAULT_KEY) {
            settings.insert(DEFAULT_KEY.to_owned(), KeySettings::default());
        }
        let mut keys = BTreeMap::new();
        for (name, key) in settings {
            let path = KeyPath::new(["key", &name]);
            if key.leeway_s > LEEWAY_S_MAX {
                self.refuse(&path.key("leeway_s"), format!("must be at most {LEEWAY_S_MAX}"));
            }
            if let Some(material) = self.material(&key, &path, development) {
                let KeySettings { algorithm, kid, audience, issuer, leeway_s, .. } = key;
                keys.insert(
                    name,
                    KeyConfig { algorithm, material, rules: KeyRules { kid, audience, issuer, leeway_s } },
                );
            }
        }
        keys
    }

    fn material(&mut self, key: &KeySettings, path: &KeyPath, development: Option<&Path>) -> Option<KeyMaterial> {
        let algorithm = key.algorithm.as_str();
        if !key.algorithm.symmetric() {
            for (name, set) in [
                ("secret_file", key.secret_file.is_some()),
                ("secret_env", self.tree.get(&path.key("secret_env")).is_some()),
            ] {
                if set {
                    self.refuse(
                        &path.key(name),
                        format!("{algorithm} is verified with a public key: use public_key instead"),
                    );
                }
            }
            let Some(file) = &key.public_key else {
                self.refuse(path, format!("{algorithm} needs public_key, a PEM file"));
                return None;
            };
            let pem = self.key_file(file, &path.key("public_key"))?;
            return match PublicKey::parse(key.algorithm, &pem) {
                Ok(public) => Some(KeyMaterial::Public(public)),
                Err(error) => {
                    self.refuse(&path.key("public_key"), error.to_string());
                    None
                }
            };
        }

        if key.public_key.is_some() {
            self.refuse(
                &path.key("public_key"),
                format!("{algorithm} takes a shared secret: use secret_env or secret_file instead"),
            );
            return None;
        }
        if let Some((variable, secret)) =
            key.secret_env.iter().find_map(|name| Some((name, self.environment.get(name)?)))
        {
            let (variable, secret) = (variable.clone(), Secret::new(secret.as_bytes()));
            return Some(self.symmetric(secret, &format!("{variable} (for {path})")));
        }
        if let Some(file) = &key.secret_file {
            let bytes = self.key_file(file, &path.key("secret_file"))?;
            let secret = Secret::new(bytes.trim_ascii_end());
            if secret.is_empty() {
                self.refuse(&path.key("secret_file"), "the file is empty");
                return None;
            }
            return Some(self.symmetric(secret, &format!("the secret file of {path}")));
        }
        if let Some(data_dir) = development {
            return Some(KeyMaterial::Development(data_dir.join(DEVELOPMENT_SECRET_FILE)));
        }
        let variables = if key.secret_env.is_empty() { "secret_env".to_owned() } else { key.secret_env.join(" or ") };
        self.refuse(
            path,
            format!(
                "there is no secret: set {variables} to at least {SECRET_BYTES_MIN} random bytes, for example from \
                 `openssl rand -hex 32`, or name a secret_file, or set development = true to have a random one made"
            ),
        );
        None
    }

    fn symmetric(&mut self, secret: Secret, source: &str) -> KeyMaterial {
        if secret.len() < SECRET_BYTES_MIN {
            self.warnings.push(format!(
                "{source} has only {} bytes; HMAC secrets should have at least {SECRET_BYTES_MIN} random ones (RFC 7518 \
                 section 3.2), because whoever guesses it can be anybody",
                secret.len()
            ));
        }
        KeyMaterial::Secret(secret)
    }

    fn key_file(&mut self, file: &Path, key: &KeyPath) -> Option<Vec<u8>> {
        let file = self.resolve(file, key);
        let read = match std::fs::metadata(&file) {
            Ok(metadata) if metadata.len() > KEY_FILE_BYTES_MAX => {
                Err(format!("it is larger than {KEY_FILE_BYTES_MAX} bytes"))
            }
            _ => std::fs::read(&file).map_err(|error| error.to_string()),
        };
        match read {
            Ok(bytes) => Some(bytes),
            Err(reason) => {
                self.refuse(key, format!("{} cannot be read: {reason}", file.display()));
                None
            }
        }
    }
}

//! Signatures in the format of minisign (<https://jedisct1.github.io/minisign/#signature-format>): Ed25519 over the manifest, of its BLAKE2b
//! hash or, as older versions of minisign do, of itself; the trusted comment is signed as well. The manifest names the component by its
//! digest, so whoever signed the one signed the other.

#[cfg(test)]
mod tests;

use std::fmt;

use minisign_verify::{Error, PublicKey, Signature};

use crate::plugin::compile::Digest;
use crate::registry::manifest::{Manifest, ManifestError};

/// Characters of a public key in base64: two bytes of algorithm, eight of its name, 32 of the key.
const KEY_CHARS: usize = 56;

/// A public key whose signatures count, as minisign writes it: `RW` and 54 more characters.
#[derive(Clone)]
pub struct TrustedKey {
    key: PublicKey,
    id: KeyId,
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({})", self.id)
    }
}

impl PartialEq for TrustedKey {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for TrustedKey {}

/// Names a key: eight bytes, in hexadecimal as minisign shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A number, least byte first.
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

/// Why a signature or a key does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a public key.
    #[error("{0:?} is not a public key of minisign: it is the second line of minisign.pub, which begins with RW")]
    Key(String),
    /// Not a signature.
    #[error("this is not a signature of minisign: it is the whole file plugin.toml.minisig, four lines")]
    Malformed,
    /// By somebody the tenant does not trust.
    #[error("it is by the key {id}, which the tenant does not trust; trusted: {trusted}")]
    Untrusted {
        /// Whose it says it is.
        id: KeyId,
        /// Whom the tenant trusts.
        trusted: String,
    },
    /// Of something else.
    #[error(
        "it does not fit this plugin.toml: sign the very file that is uploaded, after `hotbay plugin push` or `seal` wrote the digest into it"
    )]
    DoesNotFit,
    /// The manifest does not say which component it is about.
    #[error(
        "plugin.toml names no component, so a signature of it says nothing about this one: add `digest`, and sign it then"
    )]
    NoDigest,
    /// The manifest is about another component.
    #[error("plugin.toml, which was signed, names the component {named}, and this is {found}")]
    OtherComponent {
        /// What it names.
        named: Digest,
        /// What was uploaded.
        found: Digest,
    },
    /// The manifest cannot be read.
    #[error("plugin.toml: {0}")]
    Manifest(#[from] ManifestError),
}

impl TrustedKey {
    /// Reads a key.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        use base64::Engine as _;
        let text = text.trim();
        let wrong = || SignatureError::Key(text.chars().take(KEY_CHARS + 4).collect());
        let key = PublicKey::from_base64(text).map_err(|_| wrong())?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| wrong())?;
        let id = bytes.get(2..10).and_then(|id| id.try_into().ok()).ok_or_else(wrong)?;
        Ok(Self { key, id: KeyId(id) })
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// Verifies the signature of a manifest, by one of these keys, and that the manifest is about this component.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify(
    manifest: &[u8],
    signature: &str,
    trusted: &[TrustedKey],
    component: Digest,
) -> Result<KeyId, SignatureError> {
    let decoded = Signature::decode(signature).map_err(|_| SignatureError::Malformed)?;
    let mut by_somebody_else = false;
    for key in trusted {
        match key.key.verify(manifest, &decoded, true) {
            Ok(()) => {
                let named = Manifest::from_bytes(manifest)?.digest.ok_or(SignatureError::NoDigest)?;
                return if named == component {
                    Ok(key.id)
                } else {
                    Err(SignatureError::OtherComponent { named, found: component })
                };
            }
            Err(Error::UnexpectedKeyId) => by_somebody_else = true,
            Err(_) => return Err(SignatureError::DoesNotFit),
        }
    }
    if !by_somebody_else && !trusted.is_empty() {
        return Err(SignatureError::DoesNotFit);
    }
    let ids: Vec<String> = trusted.iter().map(|key| key.id.to_string()).collect();
    let trusted = if ids.is_empty() { "nobody".to_owned() } else { ids.join(", ") };
    Err(SignatureError::Untrusted { id: signer(signature)?, trusted })
}

/// Whose a signature says it is.
fn signer(signature: &str) -> Result<KeyId, SignatureError> {
    use base64::Engine as _;
    let line = signature.lines().nth(1).ok_or(SignatureError::Malformed)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(line.trim()).map_err(|_| SignatureError::Malformed)?;
    bytes.get(2..10).and_then(|id| id.try_into().ok()).map(KeyId).ok_or(SignatureError::Malformed)
}

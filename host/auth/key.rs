//! Keys that tokens are verified with. A key fixes its algorithm; what a token's header says never chooses one.

use jsonwebtoken::DecodingKey;
use serde::Deserialize;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// RSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// The name in a token's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Whether signer and verifier share a secret.
    pub fn symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    pub(super) fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::HS384 => jsonwebtoken::Algorithm::HS384,
            Self::HS512 => jsonwebtoken::Algorithm::HS512,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// A shared secret. It has no `Debug`, `Display` or `Serialize`, so that it cannot reach a log by accident.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// A secret with these bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes. Only for verifying and signing.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes it has; HMAC keys should have at least 32 (RFC 7518 §3.2).
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty and so keeps nobody out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A public key that was parsed and fits its algorithm.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why a file holds no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A private key where a public one belongs.
    #[error(
        "this is a private key: the broker only verifies, so give it the public key and keep this one where tokens are signed"
    )]
    Private,
    /// Not a public key of this algorithm in PEM.
    #[error("this is not a public key in PEM (\"BEGIN PUBLIC KEY\") for {}", algorithm.as_str())]
    Unfit {
        /// The configured algorithm.
        algorithm: Algorithm,
    },
    /// RSA below 2048 bits (RFC 7518 §3.3).
    #[error("this RSA key is shorter than 2048 bits")]
    Short,
    /// A PEM file for an HMAC algorithm.
    #[error("{} takes a shared secret, not a public key", algorithm.as_str())]
    Symmetric {
        /// The configured algorithm.
        algorithm: Algorithm,
    },
}

impl PublicKey {
    /// Parses the text of a PEM file.
    ///
    /// # Errors
    /// If it is not a public key for the algorithm; see [`KeyError`].
    pub fn parse(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        if pem.windows(11).any(|window| window == b"PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return Err(KeyError::Symmetric { algorithm }),
            Algorithm::RS256 | Algorithm::PS256 => DecodingKey::from_rsa_pem(pem),
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| KeyError::Unfit { algorithm })?;
        let bytes = key.try_get_as_bytes().map_err(|_| KeyError::Unfit { algorithm })?.len();
        match algorithm {
            // The DER of a 2048-bit key has 256 bytes of modulus and some more.
            Algorithm::RS256 | Algorithm::PS256 if bytes < 256 => return Err(KeyError::Short),
            // An uncompressed point: a curve taken for another would fail only when the first token comes.
            Algorithm::ES256 if bytes != 65 => return Err(KeyError::Unfit { algorithm }),
            Algorithm::ES384 if bytes != 97 => return Err(KeyError::Unfit { algorithm }),
            Algorithm::EdDSA if bytes != 32 => return Err(KeyError::Unfit { algorithm }),
            _ => {}
        }
        Ok(Self { algorithm, key })
    }
}

/// What a key demands of the tokens it verifies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRules {
    /// Its id: a token whose header has another `kid` is not tried with it.
    pub kid: Option<String>,
    /// If not empty, `aud` must have one of these.
    pub audience: Vec<String>,
    /// If not empty, `iss` must be one of these.
    pub issuer: Vec<String>,
    /// By how much `exp` and `nbf` may be off, in seconds, because clocks differ.
    pub leeway_s: u64,
}

/// A key that is ready to verify tokens.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) rules: KeyRules,
}

impl Key {
    /// A key for HMAC. `None` if the algorithm is not symmetric or the secret is empty.
    pub fn symmetric(algorithm: Algorithm, secret: &Secret, rules: KeyRules) -> Option<Self> {
        let usable = algorithm.symmetric() && !secret.is_empty();
        usable.then(|| Self { algorithm, decoding: DecodingKey::from_secret(secret.bytes()), rules })
    }

    /// A key for signatures that only its owner can make.
    pub fn public(key: PublicKey, rules: KeyRules) -> Self {
        Self { algorithm: key.algorithm, decoding: key.key, rules }
    }

    /// The only algorithm this key verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

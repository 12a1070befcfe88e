//! Signed tokens (JWS compact form, RFC 7515, RFC 7519): taking them apart, verifying, and signing for development.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Algorithm, AuthError, Key, KeyRules, Secret};
use crate::limits::TOKEN_BYTES_MAX;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Verified claims, and when they end in milliseconds since the Unix epoch, leeway included.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Map<String, Value>,
    pub(super) expires_ms: u64,
}

/// Verifies a token with the keys that fit its `alg` and `kid`. The header only narrows the choice of keys: the
/// algorithm that verifies is always the key's own.
pub(super) fn verify(token: &str, keys: &[Key], now_ms: u64) -> Result<Verified, AuthError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthError::TooLong);
    }
    let parts: Vec<&str> = token.splitn(6, '.').collect();
    let (header, payload, signature) = match parts[..] {
        [header, payload, signature] => (header, payload, signature),
        [_, _, _, _, _] => return Err(AuthError::Encrypted),
        _ => return Err(AuthError::Malformed),
    };
    let header: Header = decode(header)?;
    if header.crit.is_some() {
        return Err(AuthError::CriticalHeader);
    }
    let mut refusal = AuthError::WrongAlgorithm;
    for key in keys.iter().filter(|key| key.algorithm().as_str() == header.alg) {
        if let (Some(named), Some(own)) = (&header.kid, &key.rules.kid)
            && named != own
        {
            if refusal == AuthError::WrongAlgorithm {
                refusal = AuthError::UnknownKey;
            }
            continue;
        }
        let signed = &token.as_bytes()[..token.len() - signature.len() - 1];
        if matches!(jsonwebtoken::crypto::verify(signature, signed, &key.decoding, key.algorithm().jwt()), Ok(true)) {
            let claims: Map<String, Value> = decode(payload)?;
            let expires_ms = check_claims(&claims, &key.rules, now_ms)?;
            return Ok(Verified { claims, expires_ms });
        }
        refusal = AuthError::BadSignature;
    }
    Err(refusal)
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed)
}

/// Checks `exp`, `nbf`, `aud` and `iss`; answers when the token ends.
fn check_claims(claims: &Map<String, Value>, rules: &KeyRules, now_ms: u64) -> Result<u64, AuthError> {
    let claim = |name: &str, problem| AuthError::Claim { name: name.to_owned(), problem };
    let leeway_ms = rules.leeway_s.saturating_mul(1_000);

    let expires = date_ms(claims, "exp")?.ok_or_else(|| claim("exp", "is missing: tokens must expire"))?;
    let expires_ms = expires.saturating_add(leeway_ms);
    if expires_ms <= now_ms {
        return Err(AuthError::Expired);
    }
    if date_ms(claims, "nbf")?.is_some_and(|begins| begins > now_ms.saturating_add(leeway_ms)) {
        return Err(AuthError::NotYetValid);
    }

    let among = |value: &Value, allowed: &[String]| {
        value.as_str().is_some_and(|text| allowed.iter().any(|entry| entry == text))
    };
    if !rules.audience.is_empty() {
        let fits = match claims.get("aud") {
            Some(Value::Array(values)) => values.iter().any(|value| among(value, &rules.audience)),
            Some(value) => among(value, &rules.audience),
            None => return Err(claim("aud", "is missing")),
        };
        if !fits {
            return Err(claim("aud", "does not name this service"));
        }
    }
    if !rules.issuer.is_empty() {
        match claims.get("iss") {
            Some(value) if among(value, &rules.issuer) => {}
            Some(_) => return Err(claim("iss", "is not an issuer this service accepts")),
            None => return Err(claim("iss", "is missing")),
        }
    }
    Ok(expires_ms)
}

/// A `NumericDate`: seconds since the Unix epoch, perhaps with a fraction.
fn date_ms(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, AuthError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds.saturating_mul(1_000)));
    }
    match value.as_f64() {
        #[expect(clippy::cast_sign_loss, reason = "a float becomes the nearest u64, a negative one 0")]
        Some(seconds) => Ok(Some((seconds * 1_000.0) as u64)),
        None => Err(AuthError::Claim { name: name.to_owned(), problem: "must be a number of seconds" }),
    }
}

/// Chooses the RustCrypto backend for `jsonwebtoken`, whatever features other crates may turn on in it. Otherwise the
/// first verification would panic if two backends were compiled in.
pub(super) fn install_backend() {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    // An error means that a backend is installed already: nothing to do.
    INSTALL.call_once(|| {
        DEFAULT_PROVIDER.install_default().ok();
    });
}

/// Signs claims with a shared secret. For `hotbay token`; the broker itself issues no tokens. `None` if the algorithm is not
/// symmetric or the secret is empty.
pub fn sign(algorithm: Algorithm, secret: &Secret, kid: Option<&str>, claims: &Map<String, Value>) -> Option<String> {
    install_backend();
    if !algorithm.symmetric() || secret.is_empty() {
        return None;
    }
    let mut header = jsonwebtoken::Header::new(algorithm.jwt());
    header.kid = kid.map(str::to_owned);
    let key = jsonwebtoken::EncodingKey::from_secret(secret.bytes());
    jsonwebtoken::encode(&header, claims, &key).ok()
}

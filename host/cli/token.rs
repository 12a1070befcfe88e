//! `hotbay token`: a signed token, for trying things out and for scripts that have the secret anyway.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Map, Value};

use super::{ConfigArgs, Failure, made_anew, output};
use crate::auth;
use crate::config::{Config, Environment, KeyMaterial};

/// The key that signs if nothing else is said.
pub(super) const KEY_DEFAULT: &str = "default";
/// Longest life of a token, in seconds (a year).
const TTL_S_MAX: u64 = 365 * 24 * 60 * 60;

/// Prints a signed token, made with the secret of a key in the configuration
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user's id (claim `sub`)
    #[arg(long)]
    user: String,
    /// The claim `role`
    #[arg(long)]
    role: Option<String>,
    /// The claim `tenant`
    #[arg(long)]
    tenant: Option<String>,
    /// Another claim; the value is JSON, or else text. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_claim)]
    claim: Vec<(String, Value)>,
    /// How long the token is valid, in s, m, h or d
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    ttl: u64,
    /// The key that signs it; its algorithm must be HS256, HS384 or HS512
    #[arg(long, default_value = KEY_DEFAULT)]
    key: String,
}

impl Token {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::other)?.as_secs();
        let claims = claims(&self, now_s);
        let config = self.config.load(environment)?;
        let secret = config.keys.get(&self.key).and_then(|key| match &key.material {
            KeyMaterial::Development(path) => Some(path.as_path()),
            _ => None,
        });
        let new = secret.filter(|path| !path.exists());
        let token = sign(&config, &self.key, &claims)?;
        if let Some(path) = new {
            made_anew("secret", path, "token");
        }
        output::line(token);
        Ok(())
    }
}

fn claims(token: &Token, now_s: u64) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), token.user.as_str().into());
    for (name, value) in [("role", &token.role), ("tenant", &token.tenant)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.as_str().into());
        }
    }
    claims.insert("iat".to_owned(), now_s.into());
    claims.insert("exp".to_owned(), now_s.saturating_add(token.ttl).into());
    claims.extend(token.claim.iter().cloned());
    claims
}

pub(super) fn sign(config: &Config, name: &str, claims: &Map<String, Value>) -> Result<String, Failure> {
    let Some(key) = config.keys.get(name) else {
        let names: Vec<_> = config.keys.keys().map(String::as_str).collect();
        return Err(Failure::usage(format!("--key {name}: there is no such key; there are: {}", names.join(", "))));
    };
    let secret = key.secret().map_err(Failure::other)?;
    let signed = secret.and_then(|secret| auth::sign(key.algorithm, &secret, key.rules.kid.as_deref(), claims));
    signed.ok_or_else(|| {
        let algorithm = key.algorithm.as_str();
        Failure::usage(format!(
            "--key {name}: {algorithm} tokens are signed with a private key, which the broker does not have"
        ))
    })
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// Seconds from a text like `90s`, `5m`, `1h` or `30d`.
pub(super) fn parse_ttl(text: &str) -> Result<u64, String> {
    let wrong = || format!("write it like 90s, 5m, 1h or 30d, at most {}d", TTL_S_MAX / 86_400);
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let unit_s: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    seconds.filter(|seconds| (1..=TTL_S_MAX).contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_a_bound() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h", 3_600), ("365d", TTL_S_MAX)] {
            assert_eq!(parse_ttl(text), Ok(seconds), "{text}");
        }
        for bad in ["", "h", "1", "0s", "-1h", "1y", "366d", "1ü", "99999999999999999999d", "18446744073709551615h"] {
            assert!(parse_ttl(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn claims_are_json_or_text() {
        assert_eq!(parse_claim("groups=[\"a\"]"), Ok(("groups".to_owned(), serde_json::json!(["a"]))));
        assert_eq!(parse_claim("ownerId=o-1"), Ok(("ownerId".to_owned(), "o-1".into())));
        assert_eq!(parse_claim("n=7"), Ok(("n".to_owned(), 7.into())));
        assert!(parse_claim("novalue").is_err());
        assert!(parse_claim("=x").is_err());
    }
}

//! What a developer sees when the broker has started: where everything is, a token, and one line to try it.

use serde_json::Map;

use super::{Failure, token};
use crate::config::Config;
use crate::telemetry::wall_ms;

/// How long the token is good for, in seconds (a day).
const TTL_S: u64 = 24 * 60 * 60;
const USER: &str = "dev";

/// The greeting of development.
pub(super) struct Welcome {
    paths: Vec<String>,
    token: Option<String>,
}

impl Welcome {
    /// Signs a token with the first key that has a secret.
    pub(super) fn new(config: &Config) -> Result<Self, Failure> {
        let keys = config.mounts.iter().flat_map(|mount| &mount.auth.keys);
        let symmetric = |name: &&String| config.keys.get(*name).is_some_and(|key| key.algorithm.symmetric());
        let token = match keys.into_iter().find(symmetric) {
            Some(key) => {
                let mut claims = Map::new();
                claims.insert("sub".to_owned(), USER.into());
                claims.insert("exp".to_owned(), (wall_ms() / 1_000 + TTL_S).into());
                Some(token::sign(config, key, &claims)?)
            }
            None => None,
        };
        let paths = config.mounts.iter().flat_map(|mount| mount.paths.iter()).map(ToString::to_string).collect();
        Ok(Self { paths, token })
    }

    /// The greeting; `base` is the broker's HTTP address.
    pub(super) fn text(&self, base: &str) -> String {
        let ws = base.replacen("http", "ws", 1);
        let mut lines = vec![format!("  demo     {base}/demo/"), format!("  health   {base}/readyz")];
        lines.extend(self.paths.iter().map(|path| format!("  socket   {ws}{path}")));
        if let Some(token) = &self.token {
            lines.push(format!("  token    {token}"));
            lines.push("  (user \"dev\", for a day; `hotbay token --user NAME` makes others)".to_owned());
            lines.push(format!(
                "  try it   cargo run --release --example chat -- --url {ws}/api/community/ws --token {token}"
            ));
        }
        lines.join("\n")
    }
}

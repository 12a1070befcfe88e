//! What a developer sees when the broker has started: where everything is, a token, and one line to try it.

use serde_json::Map;

use super::{Failure, token};
use crate::config::{Config, Mount};
use crate::telemetry::wall_ms;

/// How long the token is good for, in seconds (a day).
const TTL_S: u64 = 24 * 60 * 60;
const USER: &str = "dev";

/// The greeting of development.
pub(super) struct Welcome {
    paths: Vec<String>,
    /// Where the example client could chat.
    chat: Option<String>,
    token: Option<String>,
    /// What the command line needs to sign another one.
    flags: String,
}

/// What the example client speaks to.
const CHAT_PLUGIN: &str = "community-chat";

impl Welcome {
    /// Signs a token with the first key that has a secret.
    pub(super) fn new(config: &Config, mut flags: String) -> Result<Self, Failure> {
        let keys = config.mounts.iter().flat_map(|mount| &mount.auth.keys);
        let symmetric = |name: &&String| config.keys.get(*name).is_some_and(|key| key.algorithm.symmetric());
        let token = match keys.into_iter().find(symmetric) {
            Some(key) => {
                let mut claims = Map::new();
                claims.insert("sub".to_owned(), USER.into());
                claims.insert("exp".to_owned(), (wall_ms() / 1_000 + TTL_S).into());
                if key != token::KEY_DEFAULT {
                    flags.extend([" --key ", key]);
                }
                Some(token::sign(config, key, &claims)?)
            }
            None => None,
        };
        let paths = |mount: &Mount| -> Vec<String> {
            mount.paths.iter().map(|path| format!("{path}    {}", mount.name)).collect()
        };
        let chat = config.mounts.iter().find(|mount| mount.plugin == CHAT_PLUGIN);
        let chat = chat.and_then(|mount| mount.paths.iter().next()).map(ToString::to_string);
        Ok(Self { paths: config.mounts.iter().flat_map(paths).collect(), chat, token, flags })
    }

    /// The greeting; `base` is the broker's HTTP address.
    pub(super) fn text(&self, base: &str) -> String {
        let ws = base.replacen("http", "ws", 1);
        let mut lines = vec![format!("  demo     {base}/demo/"), format!("  health   {base}/readyz")];
        lines.extend(self.paths.iter().map(|path| format!("  socket   {ws}{path}")));
        if let Some(token) = &self.token {
            lines.push(format!("  token    {token}"));
            lines.push(format!("  (user \"dev\", for a day; `hotbay token{} --user NAME` makes others)", self.flags));
            if let Some(path) = &self.chat {
                lines
                    .push(format!("  try it   cargo run --release --example chat -- --url {ws}{path} --token {token}"));
            }
        }
        lines.join("\n")
    }
}

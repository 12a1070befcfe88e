//! `[admin]`: whose tokens count as an operator's.

use serde::Deserialize;

use crate::auth::TokenSource;

/// `[admin]`. Without the table no token administers, only API keys do (`hotbay key create --operator`).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Names of the keys whose signatures count.
    pub keys: Vec<String>,
    /// The role a token must have.
    #[serde(default = "role")]
    pub role: String,
    /// Where to look for a token: `header` or `query:NAME`.
    #[serde(default = "sources", rename = "tokens")]
    pub sources: Vec<TokenSource>,
}

fn role() -> String {
    "operator".to_owned()
}

fn sources() -> Vec<TokenSource> {
    vec![TokenSource::Header]
}

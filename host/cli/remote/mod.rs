//! Subcommands that ask a running broker, here or elsewhere, by its admin API. One file per group; [`api`] asks, [`show`] prints.

mod api;
pub(super) mod audit;
pub(super) mod channel;
pub(super) mod connection;
pub(super) mod decide;
pub(super) mod deploy;
pub(super) mod key;
pub(super) mod logs;
pub(super) mod push;
pub(super) mod show;
mod stream;
pub(super) mod tape;
pub(super) mod tenant;
mod vetting;

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use self::api::Api;
use super::{Failure, output};
use crate::config::Environment;

/// Flags of every subcommand that asks a broker. The key comes by $HOTBAY_ADMIN_KEY or a file, never by a flag: other users see those.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The broker [default: $HOTBAY_BROKER, else http://127.0.0.1:3000]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// A file with an API key or an operator's token [default: $HOTBAY_ADMIN_KEY]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Prints the broker's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Remote {
    fn api(&self, environment: &Environment) -> Result<Api, Failure> {
        Api::open(self.broker.as_deref(), self.key_file.as_deref(), environment)
    }

    /// Prints an answer: as it is, or in words.
    fn print(&self, answer: &Value, words: impl FnOnce() -> String) {
        if self.json {
            output::line(format_args!("{answer:#}"));
        } else {
            output::line(words().trim_end());
        }
    }
}

/// Whose plugins a subcommand is about.
#[derive(Debug, Args)]
pub(super) struct Whose {
    /// The tenant whose plugin it is [default: the platform's]
    #[arg(long)]
    tenant: Option<String>,
}

impl Whose {
    /// Where its plugins are in the API.
    fn plugins(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("/tenants/{}/plugins", api::segment(tenant)),
            None => "/plugins".to_owned(),
        }
    }

    /// Where one of its versions is.
    fn version(&self, version: &str) -> String {
        format!("{}/{}", self.plugins(), api::segment(version))
    }

    /// The same flag, for a command to type next.
    fn flag(&self) -> String {
        self.tenant.as_ref().map(|tenant| format!(" --tenant {tenant}")).unwrap_or_default()
    }
}

/// How much of a list is shown.
#[derive(Debug, Args)]
pub(super) struct Length {
    /// Rows at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

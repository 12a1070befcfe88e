//! `hotbay plugin logs`: what plugins of a broker log, as it happens.

use clap::Args;
use serde_json::Value;

use super::{Remote, stream};
use crate::cli::Failure;
use crate::cli::remote::show::{Look, number, paint, text, utc};
use crate::config::Environment;

/// Shows what plugins log from now on, until it is interrupted
#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    /// Only of this plugin, by its name in the configuration
    plugin: Option<String>,
    #[command(flatten)]
    remote: Remote,
    /// Only of this tenant's channels
    #[arg(long)]
    tenant: Option<String>,
    /// Only of channels with such names: a name, or one whose last part is *
    #[arg(long)]
    channel: Option<String>,
}

impl Logs {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { plugin, remote, tenant, channel } = self;
        let query = [("plugin", plugin), ("tenant", tenant), ("channel", channel)];
        let response = remote.api(environment)?.stream("/logs", &query)?;
        stream::print(response, |event, data| match (event, remote.json) {
            (_, true) => data.to_string(),
            ("missed", false) => {
                paint(Look::Red, &format!("{} lines came too fast and are missing", number(data, "lines")))
            }
            (_, false) => shown(data),
        })
    }
}

fn shown(line: &Value) -> String {
    let level = text(line, "level");
    let look = if matches!(level.as_str(), "error" | "warn") { Look::Red } else { Look::Faint };
    let when = paint(Look::Faint, &utc(number(line, "at_ms")));
    let level = paint(look, &format!("{level:<5}"));
    format!("{when} {level} {} {} {}", text(line, "plugin"), text(line, "channel"), text(line, "message"))
}

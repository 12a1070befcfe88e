//! `hotbay plugin logs`: what plugins of a broker log, as it happens.

use std::io::{BufRead as _, BufReader, Write as _};

use clap::Args;
use serde_json::Value;

use super::Remote;
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
        let mut is_missed = false;
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|e| Failure::other(format!("the broker ended it: {e}; try again")))?;
            if let Some(event) = line.strip_prefix("event: ") {
                is_missed = event == "missed";
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap_or_default();
                let words = match (std::mem::take(&mut is_missed), remote.json) {
                    (_, true) => data.to_string(),
                    (true, false) => {
                        paint(Look::Red, &format!("{} lines came too fast and are missing", number(&data, "lines")))
                    }
                    (false, false) => shown(&data),
                };
                // Whoever reads this may have gone, as `head` does.
                if writeln!(std::io::stdout(), "{words}").is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn shown(line: &Value) -> String {
    let level = text(line, "level");
    let look = if matches!(level.as_str(), "error" | "warn") { Look::Red } else { Look::Faint };
    let when = paint(Look::Faint, &utc(number(line, "at_ms")));
    format!("{when} {} {} {}", paint(look, &format!("{level:<5}")), text(line, "channel"), text(line, "message"))
}

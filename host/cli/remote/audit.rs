//! `hotbay audit`: who did what, when and why.

use clap::Args;
use serde_json::Value;

use super::{Length, Remote};
use crate::cli::Failure;
use crate::cli::remote::show::{number, short, table, text, utc};
use crate::config::Environment;
use crate::telemetry::wall_ms;

/// Shows who did what on a broker, when and why; the latest first
#[derive(Debug, Args)]
pub(in crate::cli) struct Audit {
    #[command(flatten)]
    remote: Remote,
    /// Only what concerns this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only what is about this: a digest (all of it, as `hotbay plugin show` has it), a mount, a tenant, a channel, key/NAME, connection/ID
    #[arg(long)]
    subject: Option<String>,
    /// Only the last while, in s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = crate::cli::token::parse_ttl)]
    since: Option<u64>,
    #[command(flatten)]
    length: Length,
}

impl Audit {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { remote, tenant, subject, since, length } = self;
        let since = since.map(|seconds| wall_ms().saturating_sub(seconds * 1_000).to_string());
        let query = [("tenant", tenant), ("subject", subject), ("since_ms", since)];
        let answer = remote.api(environment)?.list("/audit", &query, length.limit)?;
        remote.print(&answer, || {
            table(
                ["WHEN", "WHO", "WHAT", "TO", "TENANT", "WHY"],
                &answer,
                "nothing of that happened; --subject takes whole names",
                |row| {
                    let when = utc(number(row, "at_ms"));
                    [when, text(row, "actor"), text(row, "action"), subject_of(row), text(row, "tenant"), why(row)]
                },
            )
        });
        Ok(())
    }
}

/// Why; of a canary that grew by itself, how far.
fn why(row: &Value) -> String {
    match row["detail"]["strategy"]["percent"].as_f64() {
        Some(percent) if row["action"] == "deployment.grown" => format!("to {percent} % of the channels"),
        _ => text(row, "reason"),
    }
}

/// What an entry is about, with the version it names, if it does.
fn subject_of(row: &Value) -> String {
    let subject = text(row, "subject");
    let is_digest = subject.len() == 64 && subject.bytes().all(|byte| byte.is_ascii_hexdigit());
    let subject = if is_digest { short(&subject) } else { subject };
    let detail = &row["detail"];
    match (detail["version"].as_str(), detail["deployment"].as_i64()) {
        (Some(_), _) => format!("{subject} {}", text(detail, "version")),
        (None, Some(deployment)) => format!("{subject} deployment {deployment}"),
        (None, None) => subject,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_canary_that_grew_says_how_far() {
        let row = |action: &str, reason: Option<&str>| json!({ "action": action, "reason": reason, "detail": { "strategy": { "kind": "canary", "percent": 25.0 } } });
        assert_eq!(why(&row("deployment.grown", None)), "to 25 % of the channels");
        assert_eq!(why(&row("deployment.created", Some("noon"))), "noon");
    }
}

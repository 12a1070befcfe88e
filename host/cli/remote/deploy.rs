//! `hotbay plugin deploy|status|rollback|stop`: where versions run.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::decide::{approve_hint, missing};
use super::{Length, Remote, Whose, api};
use crate::cli::Failure;
use crate::cli::remote::show::{Look, ago, fields, items, number, paint, plain, short, table, text, utc};
use crate::config::Environment;
use crate::limits::CATALOG_ROWS_MAX;

/// Deploys an approved version to the channels of a mount; no connection is closed
#[derive(Debug, Args)]
pub(in crate::cli) struct Deploy {
    /// NAME@VERSION, a digest, or at least 8 digits of one
    version: String,
    #[command(flatten)]
    remote: Remote,
    /// The mount whose channels get it, by its name in the configuration
    #[arg(long)]
    mount: String,
    /// Only this tenant's channels; a tenant's own version needs it
    #[arg(long)]
    tenant: Option<String>,
    /// Only channels with such names: a name, or one whose last part is *
    #[arg(long)]
    pattern: Option<String>,
    /// The tenant whose version it is [default: the platform's]
    #[arg(long, value_name = "TENANT")]
    owner: Option<String>,
    #[command(flatten)]
    spread: Spread,
    #[command(flatten)]
    budget: Budget,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// How a deployment spreads.
#[derive(Debug, Args)]
struct Spread {
    /// To all channels at once (the default)
    #[arg(long, conflicts_with_all = ["canary", "shadow"])]
    all: bool,
    /// To so many of a hundred channels first, always the same ones
    #[arg(long, value_name = "PERCENT", conflicts_with = "shadow")]
    canary: Option<f64>,
    /// How far the canary grows, step by step; after the last step it is for all
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', requires = "canary", requires = "step_s")]
    steps: Vec<f64>,
    /// Seconds between two steps
    #[arg(long, value_name = "SECONDS", requires = "canary")]
    step_s: Option<u64>,
    /// To none: it runs beside the current version, and its effects are compared
    #[arg(long)]
    shadow: bool,
}

/// What makes a deployment roll back by itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rolls back by itself after more than")]
struct Budget {
    /// Traps, of 1,000 events [default: 5]
    #[arg(long = "max-traps-per-1000", value_name = "N")]
    traps: Option<f64>,
    /// Calls that took too long, of 1,000 events [default: 5]
    #[arg(long = "max-deadlines-per-1000", value_name = "N")]
    deadlines: Option<f64>,
    /// Batches that broke a bound, of 1,000 events [default: 20]
    #[arg(long = "max-refusals-per-1000", value_name = "N")]
    refusals: Option<f64>,
    /// Processor time of an event on average, in microseconds [default: any]
    #[arg(long = "max-cpu-us-per-event", value_name = "N")]
    cpu_us: Option<f64>,
    /// Batches of a shadow with other effects, of 1,000 events [default: any]
    #[arg(long = "max-shadow-differences-per-1000", value_name = "N")]
    differences: Option<f64>,
}

fn strategy(spread: &Spread, budget: &Budget) -> Value {
    let budget = [
        ("traps_per_1000", budget.traps),
        ("deadlines_per_1000", budget.deadlines),
        ("refusals_per_1000", budget.refusals),
        ("cpu_us_per_event", budget.cpu_us),
        ("shadow_differences_per_1000", budget.differences),
    ];
    let budget: Map<String, Value> =
        budget.into_iter().filter_map(|(name, max)| Some((name.to_owned(), max?.into()))).collect();
    let mut strategy = match (spread.canary, spread.shadow) {
        (Some(percent), _) => json!({ "kind": "canary", "percent": percent }),
        (None, true) => json!({ "kind": "shadow" }),
        (None, false) => json!({ "kind": "all" }),
    };
    if !spread.steps.is_empty() {
        strategy["steps"] = json!(spread.steps);
    }
    if let Some(step_s) = spread.step_s {
        strategy["step_s"] = step_s.into();
    }
    if !budget.is_empty() {
        strategy["budget"] = budget.into();
    }
    strategy
}

impl Deploy {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { version, remote, mount, tenant, pattern, owner, spread, budget, reason } = self;
        let path = format!("/mounts/{}/deployments", api::segment(&mount));
        let body = json!({
            "version": version, "owner": owner, "tenant": tenant, "pattern": pattern, "strategy": strategy(&spread, &budget),
            "reason": reason,
        });
        let api = remote.api(environment)?;
        let answer = api.post(&path, &body).map_err(|failure| undeployed(&api, failure, &version, owner))?;
        remote.print(&answer, || {
            let id = number(&answer, "id");
            format!(
                "deployment {id}: {} goes {}; `hotbay plugin status {id}` shows how it does, `hotbay plugin rollback {id}` takes it back",
                text(&answer, "plugin"),
                scope(&answer),
            )
        });
        Ok(())
    }
}

/// Why a version is not deployed, and what there is to do about it.
fn undeployed(api: &Api, failure: Failure, version: &str, owner: Option<String>) -> Failure {
    if failure.is_missing && owner.is_none() {
        return missing(api, failure, version, |tenant| format!("--owner {tenant} --tenant {tenant}"));
    }
    // What is wrong with the mount, or with the strategy, is no version's fault.
    if !failure.message.contains("only approved versions run") {
        return failure;
    }
    let whose = Whose { tenant: owner };
    let Ok(known) = api.get(&whose.version(version), &[]) else { return failure };
    match known["status"].as_str() {
        Some("vetted") => failure.and(&format!("; {}", approve_hint(&known, &whose))),
        Some("revoked") => failure.and(&format!(
            " ({}); what takes its place needs a version of its own: raise `version` in plugin.toml, and push again",
            text(&known, "reason")
        )),
        _ => failure,
    }
}

/// To whom a deployment goes, in words.
fn scope(deployment: &Value) -> String {
    let mut words = match deployment["strategy"]["kind"].as_str() {
        Some("canary") => {
            format!("to {} % of the channels of {}", percent(deployment), text(deployment, "mount"))
        }
        Some("shadow") => format!("beside the version of the channels of {}", text(deployment, "mount")),
        _ => format!("to the channels of {}", text(deployment, "mount")),
    };
    for (name, before) in [("tenant", ", of the tenant "), ("pattern", ", named ")] {
        if deployment[name].is_string() {
            words.push_str(before);
            words.push_str(&text(deployment, name));
        }
    }
    words
}

/// Shows what is deployed, or one deployment and what it did
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// The number of a deployment
    id: Option<i64>,
    #[command(flatten)]
    remote: Remote,
    /// Only to this mount
    #[arg(long, conflicts_with = "id")]
    mount: Option<String>,
    /// Only to this tenant's channels alone; a tenant's own key needs it
    #[arg(long, conflicts_with = "id")]
    tenant: Option<String>,
    /// Those of the past, too
    #[arg(long, conflicts_with = "id")]
    past: bool,
    #[command(flatten)]
    length: Length,
}

impl Status {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { id, remote, mount, tenant, past, length } = self;
        let api = remote.api(environment)?;
        if let Some(id) = id {
            let answer = api.get(&format!("/deployments/{id}"), &[])?;
            remote.print(&answer, || detail(&answer));
            return Ok(());
        }
        let path = match (&tenant, &mount) {
            (Some(tenant), _) => format!("/tenants/{}/deployments", api::segment(tenant)),
            (None, Some(mount)) => format!("/mounts/{}/deployments", api::segment(mount)),
            (None, None) => "/deployments".to_owned(),
        };
        let query =
            [("mount", mount.clone().filter(|_| tenant.is_some())), ("state", (!past).then(|| "active".to_owned()))];
        let mut answer = api.list(&path, &query, length.limit)?;
        let empty = if past {
            "nothing was deployed there yet; `hotbay plugin deploy` does"
        } else {
            "nothing is in force there; --past shows what was, and `hotbay plugin deploy` deploys"
        };
        // Not to be asked by a tenant's own key.
        let mounts = if tenant.is_none() { api.list("/mounts", &[], CATALOG_ROWS_MAX)? } else { Value::Null };
        let is_meant = |row: &&Value| mount.as_deref().is_none_or(|mount| row["name"] == mount);
        let unavailable: Map<String, Value> = items(&mounts)
            .iter()
            .filter(is_meant)
            .filter(|row| row["unavailable"].is_string())
            .map(|row| (text(row, "name"), row["unavailable"].clone()))
            .collect();
        // As `/readyz` has them.
        answer["mounts"] = json!(unavailable);
        remote.print(&answer, || {
            let mut words = deployments(&answer, empty);
            for (mount, why) in &unavailable {
                // Writing to a text always succeeds.
                write!(words, "\nmount {mount}: {}", plain(why.as_str().unwrap_or_default())).ok();
            }
            words
        });
        Ok(())
    }
}

/// A list of deployments as a table.
pub(super) fn deployments(answer: &Value, empty: &str) -> String {
    let heading = ["ID", "MOUNT", "PLUGIN", "TO", "STATE", "CHANNELS", "EVENTS", "FAULTS", "SINCE"];
    table(heading, answer, empty, |row| {
        let counts = &row["counts"];
        let counted = |number: u64| if counts.is_null() { "-".to_owned() } else { number.to_string() };
        // Not swaps that failed: the fault that made one fail is among these, and would be counted twice.
        let faults = ["traps", "deadlines", "refusals", "shadow_differences"];
        let plugin = if row["plugin"].is_string() { text(row, "plugin") } else { short(&text(row, "digest")) };
        [
            text(row, "id"),
            text(row, "mount"),
            plugin,
            to(row),
            text(row, "state"),
            counted(number(counts, "channels")),
            counted(number(counts, "events") + number(counts, "shadow_events")),
            counted(faults.iter().map(|fault| number(counts, fault)).sum()),
            ago(number(row, "created_ms")),
        ]
    })
}

/// Of how many of a hundred channels a canary is: `5` and `0.5`, not `5.0`.
fn percent(deployment: &Value) -> f64 {
    deployment["strategy"]["percent"].as_f64().unwrap_or_default()
}

/// To whom, in few words.
fn to(row: &Value) -> String {
    let strategy = &row["strategy"];
    let kind = match strategy["kind"].as_str() {
        Some("canary") => format!("canary {} %", percent(row)),
        Some(kind) => kind.to_owned(),
        None => "all".to_owned(),
    };
    let scope = [text(row, "tenant"), text(row, "pattern")].into_iter().filter(|part| !part.is_empty());
    scope.fold(kind, |words, part| format!("{words} {part}"))
}

fn detail(answer: &Value) -> String {
    let mut out = fields(&[
        ("deployment", text(answer, "id")),
        ("mount", text(answer, "mount")),
        ("plugin", text(answer, "plugin")),
        ("digest", text(answer, "digest")),
        ("owner", text(answer, "owner")),
        ("goes", scope(answer)),
        ("strategy", text(answer, "strategy")),
        ("state", text(answer, "state")),
        ("reason", text(answer, "reason")),
        ("since", format!("{} by {}", utc(number(answer, "created_ms")), text(answer, "by"))),
        ("changed", utc(number(answer, "changed_ms"))),
    ]);
    for (name, count) in answer["counts"].as_object().into_iter().flatten() {
        // Writing to a text always succeeds.
        writeln!(out, "{:<20} {count}", name.replace('_', " ")).ok();
    }
    if let Some(difference) = answer["last_difference"].as_str() {
        writeln!(out, "{}\n{}", paint(Look::Bold, "last difference"), plain(difference)).ok();
    }
    out
}

/// Takes a deployment back, at once: its channels get what they had before
#[derive(Debug, Args)]
pub(in crate::cli) struct Rollback {
    /// The number of the deployment
    #[arg(required_unless_present = "mount")]
    id: Option<i64>,
    #[command(flatten)]
    remote: Remote,
    /// The latest deployment to this mount
    #[arg(long, conflicts_with = "id")]
    mount: Option<String>,
    /// Why, for the audit log
    #[arg(long, default_value = "rolled back by hand")]
    reason: String,
}

impl Rollback {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { id, remote, mount, reason } = self;
        let api = remote.api(environment)?;
        let id = match (id, mount) {
            (Some(id), _) => id,
            (None, mount) => {
                let mount = mount.unwrap_or_default();
                let path = format!("/mounts/{}/deployments", api::segment(&mount));
                let answer = api.list(&path, &[("state", Some("active".to_owned()))], 1)?;
                let latest = items(&answer).first().and_then(|row| row["id"].as_i64());
                latest.ok_or_else(|| {
                    Failure::other(format!("nothing is deployed to {mount:?}; see `hotbay plugin status --past`"))
                })?
            }
        };
        let answer = api.post(&format!("/deployments/{id}/rollback"), &json!({ "reason": reason }))?;
        remote.print(&answer, || {
            let gone = text(&answer["deployment"], "plugin");
            match &answer["again"] {
                Value::Null => {
                    format!("deployment {id} ({gone}) is rolled back; its channels have what they have without it")
                }
                again => format!(
                    "deployment {id} ({gone}) is rolled back; deployment {} ({}) is in force again",
                    text(again, "id"),
                    text(again, "plugin")
                ),
            }
        });
        Ok(())
    }
}

/// Ends a deployment that is not to all channels of a mount: its channels get what they have without it
#[derive(Debug, Args)]
pub(in crate::cli) struct Stop {
    /// The number of the deployment
    id: i64,
    #[command(flatten)]
    remote: Remote,
    /// Why, for the audit log
    #[arg(long, default_value = "stopped by hand")]
    reason: String,
}

impl Stop {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { id, remote, reason } = self;
        let answer = remote.api(environment)?.post(&format!("/deployments/{id}/stop"), &json!({ "reason": reason }))?;
        remote.print(&answer, || format!("deployment {id} ({}) is stopped", text(&answer, "plugin")));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::registry::strategy::Strategy;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spread: Spread,
        #[command(flatten)]
        budget: Budget,
    }

    /// Goal: what flags say is a strategy that the registry understands.
    #[test]
    fn flags_make_strategies() {
        for flags in [
            "",
            "--all",
            "--shadow --max-shadow-differences-per-1000 0",
            "--canary 5",
            "--canary 0.5 --steps 10,50 --step-s 60 --max-traps-per-1000 1 --max-cpu-us-per-event 20",
        ] {
            let line = Line::try_parse_from(["x"].into_iter().chain(flags.split_whitespace())).ok().unwrap();
            let strategy = strategy(&line.spread, &line.budget).to_string();
            assert!(Strategy::parse(&strategy).is_ok(), "{flags}: {strategy}");
        }
        for wrong in
            ["--all --shadow", "--canary 5 --shadow", "--steps 10 --step-s 1", "--canary 5 --steps 10", "--canary x"]
        {
            assert!(Line::try_parse_from(["x"].into_iter().chain(wrong.split_whitespace())).is_err(), "{wrong}");
        }
    }
}

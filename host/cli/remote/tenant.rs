//! `hotbay tenant`: who approves a tenant's plugins, what they may use, its limits.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Length, Remote, api};
use crate::cli::Failure;
use crate::cli::remote::show::{ago, fields, number, table, text, utc};
use crate::config::Environment;

/// Works with tenants of a broker
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Tenant {
    List(List),
    Show(Show),
    Set(Set),
    Delete(Delete),
    Usage(Usage),
}

/// Lists the tenants of which something was said
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    length: Length,
}

/// Shows a tenant
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// Its name
    tenant: String,
    #[command(flatten)]
    remote: Remote,
}

/// Adds a tenant, or changes it; what is not given stays as it is
#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// Its name
    tenant: String,
    #[command(flatten)]
    remote: Remote,
    /// Who approves its versions: auto (a signature by a key it trusts is enough), review (an operator), closed (it may not upload)
    #[arg(long)]
    policy: Option<String>,
    /// What its plugins may use, all of it: kv, log, logging, sql, stats; none with an empty text
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    grants: Option<Vec<String>>,
    /// Its limits, all of them, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    limits: Option<Value>,
    /// A public key of minisign whose signatures count as its approval; may be repeated, and is then all of them
    #[arg(long, value_name = "KEY")]
    trusted_key: Option<Vec<String>>,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Forgets what was said of a tenant: it has the defaults from then on; its channels, keys and versions stay
#[derive(Debug, Args)]
pub(in crate::cli) struct Delete {
    /// Its name
    tenant: String,
    #[command(flatten)]
    remote: Remote,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Shows what a tenant takes up now
#[derive(Debug, Args)]
pub(in crate::cli) struct Usage {
    /// Its name
    tenant: String,
    #[command(flatten)]
    remote: Remote,
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("it must be a JSON object, for example {\"connections_max\":100}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn place(tenant: &str) -> String {
    format!("/tenants/{}", api::segment(tenant))
}

impl Tenant {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::List(List { remote, length }) => {
                let answer = remote.api(environment)?.list("/tenants", &[], length.limit)?;
                let empty = "nothing was said of any tenant; `hotbay tenant set NAME` does";
                remote.print(&answer, || {
                    table(["TENANT", "POLICY", "GRANTS", "KEYS", "LIMITS", "CHANGED"], &answer, empty, |row| {
                        let trusted = row["trusted_keys"].as_array().map_or(0, Vec::len).to_string();
                        let changed = ago(number(row, "changed_ms"));
                        [
                            text(row, "name"),
                            text(row, "policy"),
                            words(&row["grants"]),
                            trusted,
                            text(row, "limits"),
                            changed,
                        ]
                    })
                });
            }
            Self::Show(Show { tenant, remote }) => {
                let answer = remote.api(environment)?.get(&place(&tenant), &[])?;
                remote.print(&answer, || detail(&answer));
            }
            Self::Set(set) => return set.run(environment),
            Self::Delete(Delete { tenant, remote, reason }) => {
                remote.api(environment)?.delete(&place(&tenant), &[("reason", reason)])?;
                remote.print(&json!({ "deleted": tenant }), || format!("{tenant} has the defaults from now on"));
            }
            Self::Usage(Usage { tenant, remote }) => {
                let answer = remote.api(environment)?.get(&format!("{}/usage", place(&tenant)), &[])?;
                remote.print(&answer, || {
                    let rows = json!({ "items": answer["mounts"] });
                    let empty = "nobody of it is connected, and none of its channels is awake";
                    let mounts = table(["MOUNT", "CONNECTIONS", "USERS", "CHANNELS AWAKE"], &rows, empty, |row| {
                        [text(row, "mount"), text(row, "connections"), text(row, "users"), text(row, "channels_awake")]
                    });
                    format!("{mounts}\n{} uploads within a day", number(&answer, "uploads_day"))
                });
            }
        }
        Ok(())
    }
}

impl Set {
    fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { tenant, remote, policy, grants, limits, trusted_key, reason } = self;
        let grants = grants.map(|grants| grants.into_iter().filter(|grant| !grant.is_empty()).collect::<Vec<_>>());
        let given = [
            ("policy", policy.map(Value::from)),
            ("grants", grants.map(Value::from)),
            ("limits", limits),
            ("trusted_keys", trusted_key.map(Value::from)),
            ("reason", reason.map(Value::from)),
        ];
        let body: Map<String, Value> =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let answer = remote.api(environment)?.put(&place(&tenant), &body.into())?;
        remote.print(&answer, || detail(&answer));
        Ok(())
    }
}

/// A list of words.
fn words(list: &Value) -> String {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn detail(tenant: &Value) -> String {
    fields(&[
        ("tenant", text(tenant, "name")),
        ("policy", text(tenant, "policy")),
        ("grants", words(&tenant["grants"])),
        ("trusts", words(&tenant["trusted_keys"])),
        ("limits", text(tenant, "limits")),
        ("since", utc(number(tenant, "created_ms"))),
        ("changed", utc(number(tenant, "changed_ms"))),
    ])
}

//! `hotbay tenant`: who approves a tenant's plugins, what they may use, its limits.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Length, Remote, api};
use crate::cli::Failure;
use crate::cli::remote::show::{ago, bytes, fields, number, short, table, text, utc};
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
    /// Its limits, all of them, as a JSON object; what is absent is the node's, and `uploads_per_day` is 100
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

/// Shows what tenants use: one, or, by processor time, those that use most of it, with the plugins that do
#[derive(Debug, Args)]
pub(in crate::cli) struct Usage {
    /// Its name; without one, who is expensive
    tenant: Option<String>,
    #[command(flatten)]
    remote: Remote,
    /// Most tenants and most plugins
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
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
            Self::Usage(Usage { tenant: None, remote, limit }) => {
                let answer = remote.api(environment)?.get("/usage", &[("limit", Some(limit.to_string()))])?;
                remote.print(&answer, || expensive(&answer));
            }
            Self::Usage(Usage { tenant: Some(tenant), remote, .. }) => {
                let answer = remote.api(environment)?.get(&format!("{}/usage", place(&tenant)), &[])?;
                remote.print(&answer, || {
                    let rows = json!({ "items": answer["mounts"] });
                    let empty = "nobody of it is connected, and none of its channels is awake";
                    let mounts = table(["MOUNT", "CONNECTIONS", "USERS", "CHANNELS AWAKE"], &rows, empty, |row| {
                        [text(row, "mount"), text(row, "connections"), text(row, "users"), text(row, "channels_awake")]
                    });
                    format!("{}\n\n{mounts}", used(&answer))
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

/// What one uses, beside its limits.
fn used(usage: &Value) -> String {
    let of = |value: String, limit: &str| match usage["limits"].get(limit) {
        Some(max) => format!("{value} of {max}"),
        None => value,
    };
    let count = |name: &str, limit: &str| of(text(usage, name), limit);
    fields(&[
        ("tenant", text(usage, "tenant")),
        ("connections", count("connections", "connections_max")),
        ("channels", count("channels", "channels_max")),
        ("channels awake", count("channels_awake", "channels_awake_max")),
        ("bytes of state", count("state_bytes", "state_bytes_max")),
        ("bytes of logs", count("log_bytes", "log_bytes_max")),
        ("bytes of memory", count("plugin_memory_bytes", "plugin_memory_bytes_max")),
        ("uploads in a day", count("uploads_day", "uploads_per_day")),
        ("messages", text(usage, "messages")),
        ("bytes in, out", format!("{}, {}", bytes(number(usage, "bytes_in")), bytes(number(usage, "bytes_out")))),
        ("processor time", milliseconds(number(usage, "plugin_cpu_us"))),
        ("waited, refused", format!("{}, {} times at a limit", text(usage, "waits"), text(usage, "refusals"))),
    ])
}

fn expensive(answer: &Value) -> String {
    let tenants = json!({ "items": answer["tenants"] });
    let head = ["TENANT", "CPU", "MESSAGES", "OUT", "CONNECTIONS", "AWAKE", "MEMORY", "STATE", "LOGS", "REFUSED"];
    let tenants = table(head, &tenants, "no tenant used anything yet", |row| {
        [
            if row["tenant"] == "" { "(others)".to_owned() } else { text(row, "tenant") },
            milliseconds(number(row, "plugin_cpu_us")),
            text(row, "messages"),
            bytes(number(row, "bytes_out")),
            text(row, "connections"),
            text(row, "channels_awake"),
            bytes(number(row, "plugin_memory_bytes")),
            bytes(number(row, "state_bytes")),
            bytes(number(row, "log_bytes")),
            text(row, "refusals"),
        ]
    });
    let plugins = json!({ "items": answer["plugins"] });
    let plugins = table(["PLUGIN", "CPU", "EVENTS", "FAULTS", "DIGEST"], &plugins, "no plugin is loaded", |row| {
        [
            text(row, "plugin"),
            milliseconds(number(row, "cpu_us")),
            text(row, "events"),
            text(row, "faults"),
            short(&text(row, "digest")),
        ]
    });
    format!("{tenants}\n\n{plugins}")
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
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

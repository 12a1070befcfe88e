//! `hotbay plugin list|show|approve|reject|revoke`: versions of plugins, and what is decided about them.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::api::Api;
use super::vetting::steps;
use super::{Length, Remote, Whose};
use crate::cli::Failure;
use crate::cli::remote::deploy::deployments;
use crate::cli::remote::show::{ago, bytes, fields, items, number, plain, short, table, text, utc};
use crate::config::Environment;
use crate::limits::CATALOG_ROWS_MAX;

/// Lists versions of plugins, the latest upload first
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    whose: Whose,
    /// Those of the platform and of all tenants
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    /// Only of this plugin
    #[arg(long)]
    name: Option<String>,
    /// Only those that are uploaded, vetting, vetted, rejected, approved or revoked
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    length: Length,
}

impl List {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { remote, whose, all_tenants, name, status, length } = self;
        let query = [("name", name), ("status", status), ("all_tenants", all_tenants.then(|| "true".to_owned()))];
        let answer = remote.api(environment)?.list(&whose.plugins(), &query, length.limit)?;
        remote.print(&answer, || {
            let empty = "there are none; `hotbay plugin push DIR` uploads one";
            table(["PLUGIN", "TENANT", "STATUS", "DIGEST", "SIZE", "UPLOADED", "BY"], &answer, empty, |row| {
                let uploaded = ago(number(row, "uploaded_ms"));
                let tenant = row["tenant"].as_str().map_or_else(|| "-".to_owned(), str::to_owned);
                [
                    name_of(row),
                    tenant,
                    text(row, "status"),
                    short(&text(row, "digest")),
                    bytes(number(row, "bytes")),
                    uploaded,
                    text(row, "uploader"),
                ]
            })
        });
        Ok(())
    }
}

/// `NAME@VERSION` of a version.
pub(super) fn name_of(version: &Value) -> String {
    format!("{}@{}", text(version, "name"), text(version, "version"))
}

/// A version that a subcommand is about.
#[derive(Debug, Args)]
struct Which {
    /// NAME@VERSION, a digest, or at least 8 digits of one
    version: String,
    #[command(flatten)]
    whose: Whose,
}

impl Which {
    fn missing(&self, api: &Api, failure: Failure) -> Failure {
        if self.whose.tenant.is_some() {
            return failure;
        }
        missing(api, failure, &self.version, |tenant| format!("--tenant {tenant}"))
    }
}

/// Says which tenant has a version that the platform does not have. Only operators may know: nobody else is answered.
pub(super) fn missing(api: &Api, failure: Failure, version: &str, flags: impl Fn(&str) -> String) -> Failure {
    let Some((name, _)) = version.split_once('@').filter(|_| failure.is_missing && failure.message.contains("version"))
    else {
        return failure;
    };
    let query = [("all_tenants", Some("true".to_owned())), ("name", Some(name.to_owned()))];
    let Ok(known) = api.list("/plugins", &query, CATALOG_ROWS_MAX) else { return failure };
    let tenants = items(&known).iter().filter(|row| name_of(row) == version).filter_map(|row| row["tenant"].as_str());
    let tenants: Vec<String> = tenants.map(|tenant| format!("{tenant} has one: {}", flags(&plain(tenant)))).collect();
    if tenants.is_empty() { failure } else { failure.and(&format!("; the tenant {}", tenants.join(", "))) }
}

/// Shows a version: its manifest, what its vetting found, who approved it, where it runs
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    which: Which,
}

impl Show {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { remote, which } = self;
        let api = remote.api(environment)?;
        let answer = api.get(&which.whose.version(&which.version), &[]);
        let answer = answer.map_err(|failure| which.missing(&api, failure))?;
        remote.print(&answer, || detail(&answer, &which.whose));
        Ok(())
    }
}

/// A version with all that is known of it, in words.
fn detail(answer: &Value, whose: &Whose) -> String {
    let list = |key: &str| {
        let words = answer[key].as_array().into_iter().flatten();
        words.map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
    };
    let capabilities = list("capabilities");
    let mut out = fields(&[
        ("plugin", name_of(answer)),
        ("tenant", text(answer, "tenant")),
        ("status", text(answer, "status")),
        ("reason", text(answer, "reason")),
        ("digest", text(answer, "digest")),
        ("size", bytes(number(answer, "bytes"))),
        ("contract", text(answer, "contract")),
        ("may use", if capabilities.is_empty() { "nothing".to_owned() } else { capabilities }),
        ("schema", format!("{}; takes over {}", text(answer, "schema"), list("accepts"))),
        ("uploaded", format!("{} by {}", utc(number(answer, "uploaded_ms")), text(answer, "uploader"))),
    ]);
    for approval in answer["approvals"].as_array().into_iter().flatten() {
        let (by, at) = (text(approval, "by"), utc(number(approval, "at_ms")));
        let signed = approval["key_id"].as_str().map(|key| format!(", signed with {key}")).unwrap_or_default();
        let reason = approval["reason"].as_str().map(|_| format!(": {}", text(approval, "reason"))).unwrap_or_default();
        // Writing to a text always succeeds.
        writeln!(out, "approved  {at} by {by}{signed}{reason}").ok();
    }
    out.push_str(&steps(&answer["vetting"]));
    if answer["status"] == "vetted" {
        writeln!(out, "{}", approve_hint(answer, whose)).ok();
    }
    let rows = json!({ "items": answer["deployments"] });
    if answer["deployments"].as_array().is_some_and(|rows| !rows.is_empty()) {
        out.push('\n');
        out.push_str(&deployments(&rows, ""));
    }
    out
}

/// What is decided, and why.
#[derive(Debug, Args)]
struct Decision {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    which: Which,
}

impl Decision {
    /// Tells the broker; `next` says what follows from it.
    fn send(
        self,
        (verb, reason): (&str, Option<&str>),
        environment: &Environment,
        next: impl FnOnce(&Value, &Whose) -> String,
    ) -> Result<(), Failure> {
        let Self { remote, which } = self;
        let path = format!("{}/{verb}", which.whose.version(&which.version));
        let api = remote.api(environment)?;
        let answer = api.post(&path, &json!({ "reason": reason }));
        let answer = answer.map_err(|failure| which.missing(&api, failure))?;
        remote.print(&answer, || {
            format!("{} is {}{}", name_of(&answer), text(&answer, "status"), next(&answer, &which.whose))
        });
        Ok(())
    }
}

/// Approves a version that passed vetting: it may be deployed
#[derive(Debug, Args)]
pub(in crate::cli) struct Approve {
    #[command(flatten)]
    decision: Decision,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Approve {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        self.decision.send(("approve", self.reason.as_deref()), environment, |version, whose| {
            format!("; {}", deploy_hint(version, whose))
        })
    }
}

/// The command that comes after a vetting; who may not say it learns who may.
pub(super) fn approve_hint(version: &Value, whose: &Whose) -> String {
    let by = if whose.tenant.is_some() { "an operator's " } else { "" };
    format!(
        "{} passed vetting and waits for {by}approval: `hotbay plugin approve {}{}`",
        name_of(version),
        name_of(version),
        whose.flag()
    )
}

/// The command that comes after an approval.
pub(super) fn deploy_hint(version: &Value, whose: &Whose) -> String {
    let owner = whose.tenant.as_ref().map(|tenant| format!(" --owner {tenant} --tenant {tenant}")).unwrap_or_default();
    format!("`hotbay plugin deploy {} --mount MOUNT{owner}` puts it to use", name_of(version))
}

/// Refuses a version: it will never run
#[derive(Debug, Args)]
pub(in crate::cli) struct Reject {
    #[command(flatten)]
    decision: Decision,
    /// Why, for the audit log and its author
    #[arg(long)]
    reason: String,
}

impl Reject {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        self.decision.send(("reject", Some(&self.reason)), environment, |_, _| ": it will never run".to_owned())
    }
}

/// Takes an approval back: the version runs no more, nowhere, at once
#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    #[command(flatten)]
    decision: Decision,
    /// Why, for the audit log and its author
    #[arg(long)]
    reason: String,
}

impl Revoke {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        self.decision.send(("revoke", Some(&self.reason)), environment, |answer, _| {
            let mut words = ": it runs no more".to_owned();
            let without = answer["mounts_without_version"].as_array().map(Vec::as_slice).unwrap_or_default();
            if without.is_empty() {
                words.push_str("; its channels have what they had before (`hotbay plugin status`)");
            }
            for mount in without.iter().filter_map(Value::as_str) {
                // Writing to a text always succeeds.
                write!(words, "\nmount {mount}: no version of it may run; deploy one: hotbay plugin deploy NAME@VERSION --mount {mount}").ok();
            }
            words
        })
    }
}

//! `hotbay channel`: channels of a broker, looked at, followed, put to sleep and reset.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Length, Remote, api, stream};
use crate::cli::Failure;
use crate::cli::remote::show::{Look, ago, bytes, fields, items, number, paint, short, table, text, utc};
use crate::config::Environment;

/// Works with channels of a broker
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Channel {
    List(List),
    Inspect(Inspect),
    Tail(Tail),
    Sleep(Sleep),
    Reset(Reset),
}

/// Lists the channels that were ever awake
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
    /// Only of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only those whose names begin so
    #[arg(long, requires = "tenant")]
    prefix: Option<String>,
    #[command(flatten)]
    length: Length,
}

/// Names a channel.
#[derive(Debug, Args)]
struct Which {
    /// Its name, or TENANT/NAME
    channel: String,
    /// Its tenant [default: default]
    #[arg(long)]
    tenant: Option<String>,
}

impl Which {
    /// Tenant and name.
    fn name(&self) -> (&str, &str) {
        match (&self.tenant, self.channel.split_once('/')) {
            (None, Some(name)) => name,
            (tenant, _) => (tenant.as_deref().unwrap_or("default"), &self.channel),
        }
    }

    fn place(&self) -> String {
        let (tenant, name) = self.name();
        format!("/channels/{}/{}", api::segment(tenant), api::segment(name))
    }
}

/// Shows a channel and its members; it is neither woken nor asked
#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    length: Length,
}

/// Shows what happens in a channel from now on, batch by batch, until it is interrupted or the channel is gone
#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    remote: Remote,
}

/// Puts a channel to sleep as if nothing had happened in it for long: its instance is dropped, its members stay
#[derive(Debug, Args)]
pub(in crate::cli) struct Sleep {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    remote: Remote,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Takes away all that a channel keeps: state, log, timers, saved memory; its members stay connected
#[derive(Debug, Args)]
pub(in crate::cli) struct Reset {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    remote: Remote,
    /// The channel's name once more, without the tenant, such as room:1
    #[arg(long, value_name = "NAME")]
    confirm: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Channel {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::List(List { remote, tenant, prefix, length }) => {
                let query = [("tenant", tenant), ("prefix", prefix)];
                let answer = remote.api(environment)?.list("/channels", &query, length.limit)?;
                remote.print(&answer, || list(&answer));
            }
            Self::Inspect(Inspect { which, remote, length }) => {
                let api = remote.api(environment)?;
                let mut answer = api.get(&which.place(), &[])?;
                answer["member_list"] = api.list(&format!("{}/members", which.place()), &[], length.limit)?;
                remote.print(&answer, || detail(&answer));
            }
            Self::Tail(Tail { which, remote }) => {
                let response = remote.api(environment)?.stream(&format!("{}/tail", which.place()), &[])?;
                stream::print(response, |event, data| batch(&remote, event, data))?;
            }
            Self::Sleep(Sleep { which, remote, reason }) => {
                remote.api(environment)?.post(&format!("{}/sleep", which.place()), &json!({ "reason": reason }))?;
                let (tenant, name) = which.name();
                remote.print(&json!({ "asleep": { "tenant": tenant, "name": name } }), || {
                    format!("{tenant}/{name} sleeps; the next event wakes it")
                });
            }
            Self::Reset(Reset { which, remote, confirm, reason }) => {
                let body = json!({ "confirm": confirm, "reason": reason });
                remote.api(environment)?.post(&format!("{}/reset", which.place()), &body)?;
                let (tenant, name) = which.name();
                remote.print(&json!({ "reset": { "tenant": tenant, "name": name } }), || {
                    format!("{tenant}/{name} begins anew; its members are connected as before")
                });
            }
        }
        Ok(())
    }
}

fn list(answer: &Value) -> String {
    let heading = ["CHANNEL", "AWAKE", "MEMBERS", "STATE", "LOG", "VERSION", "TAKEN OVER"];
    table(heading, answer, "there are none", |row| {
        let kept = &row["kept"];
        [
            format!("{}/{}", text(row, "tenant"), text(row, "name")),
            if row["awake"] == true { "yes" } else { "no" }.to_owned(),
            text(row, "members"),
            bytes(number(kept, "state_bytes")),
            text(kept, "log_entries"),
            short(&text(kept, "digest")),
            ago(number(kept, "acquired_ms")),
        ]
    })
}

fn detail(answer: &Value) -> String {
    let kept = &answer["kept"];
    let kept_words = |words: String| if kept.is_null() { String::new() } else { words };
    let assigned = |key: &str| match &answer[key] {
        Value::Null => String::new(),
        version => format!("{} by deployment {}", text(version, "digest"), text(version, "deployment")),
    };
    let mut out = fields(&[
        ("channel", format!("{}/{}", text(answer, "tenant"), text(answer, "name"))),
        ("mount", text(answer, "mount")),
        ("awake", if answer["awake"] == true { "yes" } else { "no" }.to_owned()),
        ("members", text(answer, "members")),
        ("waiting", format!("{} events, {}", number(answer, "events_waiting"), bytes(number(answer, "bytes_waiting")))),
        ("state", kept_words(bytes(number(kept, "state_bytes")))),
        ("log", kept_words(format!("{} entries", number(kept, "log_entries")))),
        (
            "epoch",
            kept_words(format!(
                "{}, {} commits since {}",
                text(kept, "epoch"),
                text(kept, "seq"),
                utc(number(kept, "acquired_ms"))
            )),
        ),
        ("written by", text(kept, "digest")),
        ("runs", assigned("assigned")),
        ("beside it", assigned("shadow")),
    ]);
    let members = &answer["member_list"];
    if !items(members).is_empty() {
        out.push('\n');
        out.push_str(&table(["CONNECTION", "USER", "CAME IN AT"], members, "", |row| {
            [text(row, "id"), text(row, "user"), text(row, "endpoint")]
        }));
    }
    out
}

/// A batch of a channel that is followed, or why there is none.
fn batch(remote: &Remote, event: &str, data: &Value) -> String {
    match event {
        _ if remote.json => data.to_string(),
        "missed" => paint(Look::Red, &format!("{} batches came too fast and are missing", number(data, "batches"))),
        "end" => paint(Look::Faint, &text(data, "reason")),
        _ => {
            let wrote = if data["wrote"] == true { "" } else { ", nothing written" };
            let place =
                format!("{} {}.{}{wrote}", utc(number(data, "at_ms")), number(data, "epoch"), number(data, "seq"));
            let list = |key: &str, indent: &str| {
                let items = data[key].as_array().into_iter().flatten();
                let shown = items.fold(String::new(), |out, item| out + "\n" + indent + &happened(item));
                match number(data, &format!("{key}_left_out")) {
                    0 => shown,
                    more => format!("{shown}\n{indent}and {more} more"),
                }
            };
            format!("{}{}{}", paint(Look::Faint, &place), list("events", "  "), list("effects", "    "))
        }
    }
}

/// An event or an effect: its kind, what it is about, and what it carries.
fn happened(item: &Value) -> String {
    let about =
        item.as_object().into_iter().flatten().filter(|(key, value)| {
            !matches!(key.as_str(), "kind" | "bytes" | "text" | "hex" | "cut") && !value.is_null()
        });
    let about = about.fold(text(item, "kind"), |out, (key, _)| format!("{out} {key}={}", text(item, key)));
    if item["bytes"].is_null() {
        return about;
    }
    let shown = if item["hex"].is_string() {
        format!("hex {}", text(item, "hex"))
    } else {
        format!("{:?}", text(item, "text"))
    };
    let cut = if item["cut"] == true { format!("… ({})", bytes(number(item, "bytes"))) } else { String::new() };
    format!("{about}: {shown}{cut}")
}

//! `hotbay key --broker URL …`: API keys of a broker elsewhere.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::api::{Api, segment};
use crate::cli::remote::show::{items, number, text, utc};
use crate::cli::{Failure, output};
use crate::config::Environment;

/// A key of a list: columns that programs can take apart, too.
pub(in crate::cli) fn listed(tenant: &str, name: &str, created_ms: u64, operator: bool) -> String {
    let operator = if operator { "\toperator" } else { "" };
    format!("{tenant}\t{name}\tcreated {}{operator}", utc(created_ms))
}

/// A broker to ask, instead of the data folder.
#[derive(Debug, Args)]
#[command(next_help_heading = "On a broker elsewhere")]
pub(in crate::cli) struct Elsewhere {
    /// Asks this broker, instead of the data folder here
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "data_dir", "listen", "set"])]
    broker: Option<String>,
    /// A file with an operator's API key or token [default: $HOTBAY_ADMIN_KEY]
    #[arg(long, value_name = "FILE", requires = "broker")]
    key_file: Option<PathBuf>,
}

impl Elsewhere {
    /// Whether one was named.
    pub(in crate::cli) fn is_meant(&self) -> bool {
        self.broker.is_some()
    }

    fn api(&self, environment: &Environment) -> Result<Api, Failure> {
        Api::open(self.broker.as_deref(), self.key_file.as_deref(), environment)
    }

    pub(in crate::cli) fn create(
        &self,
        environment: &Environment,
        tenant: &str,
        name: &str,
        operator: bool,
    ) -> Result<(), Failure> {
        let body = json!({ "tenant": tenant, "name": name, "operator": operator });
        let made = self.api(environment)?.post("/keys", &body)?;
        output::line(text(&made, "secret"));
        Ok(())
    }

    pub(in crate::cli) fn list(&self, environment: &Environment) -> Result<(), Failure> {
        for key in items(&self.api(environment)?.list("/keys", &[], u32::MAX)?) {
            let (tenant, name) = (text(key, "tenant"), text(key, "name"));
            output::line(listed(&tenant, &name, number(key, "created_ms"), key["operator"] == true));
        }
        Ok(())
    }

    pub(in crate::cli) fn revoke(&self, environment: &Environment, tenant: &str, name: &str) -> Result<(), Failure> {
        self.api(environment)?.delete(&format!("/tenants/{}/keys/{}", segment(tenant), segment(name)), &[])?;
        Ok(())
    }
}

//! `hotbay key --broker URL …`: API keys of a broker elsewhere.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::api::{Api, segment};
use crate::cli::Failure;
use crate::cli::remote::show::{items, number, text};
use crate::config::Environment;

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
        println!("{}", text(&made, "secret"));
        Ok(())
    }

    pub(in crate::cli) fn list(&self, environment: &Environment) -> Result<(), Failure> {
        for key in items(&self.api(environment)?.list("/keys", &[], u32::MAX)?) {
            let operator = if key["operator"] == true { "\toperator" } else { "" };
            println!(
                "{}\t{}\tcreated_ms {}{operator}",
                text(key, "tenant"),
                text(key, "name"),
                number(key, "created_ms")
            );
        }
        Ok(())
    }

    pub(in crate::cli) fn revoke(&self, environment: &Environment, tenant: &str, name: &str) -> Result<(), Failure> {
        self.api(environment)?.delete(&format!("/tenants/{}/keys/{}", segment(tenant), segment(name)), &[])?;
        Ok(())
    }
}

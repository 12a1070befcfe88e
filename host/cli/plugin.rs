//! `hotbay plugin`: what can be done with plugins. `check` is here: would this component be accepted?

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use super::author::test::Test;
use crate::limits::{MountLimits, NodeLimits};
use crate::plugin::{Runtime, inspect};
use crate::protocol::capability::Capability;

/// Works with plugins
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    Check(Check),
    Test(Test),
}

/// Checks a component as the broker would, and says what it needs to be granted
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The component
    file: PathBuf,
    /// What it would be granted: kv, log, logging, sql, stats [default: all]
    #[arg(long, value_delimiter = ',')]
    grants: Option<Vec<String>>,
}

impl Plugin {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
        }
    }
}

impl Check {
    fn run(self) -> Result<(), Failure> {
        let file = self.file.display();
        let grants = match &self.grants {
            None => Capability::ALL.into_iter().collect(),
            Some(names) => names.iter().map(|name| grant(name)).collect::<Result<BTreeSet<_>, _>>()?,
        };
        let component =
            std::fs::read(&self.file).map_err(|e| Failure::usage(format!("{file}: cannot be read: {e}")))?;
        let refused = |error| Failure::other(format!("{file}: refused: {error}"));
        let inspection = inspect::inspect(&component).map_err(refused)?;
        let limits = NodeLimits { channels_awake_max: 1, ..NodeLimits::default() };
        let folder = std::env::temp_dir().join(format!("hotbay-check-{}", std::process::id()));
        let runtime = Runtime::new(&limits, std::iter::once(&MountLimits::default()), folder.clone());
        let loaded = runtime.and_then(|runtime| runtime.load("check", &component, &grants));
        // What was compiled was only to see whether it compiles.
        drop(std::fs::remove_dir_all(&folder));
        let plugin = loaded.map_err(refused)?;
        let needs: Vec<_> = inspection.needs.iter().map(|need| need.as_str()).collect();
        println!("{file}: ok");
        println!("digest    {}", plugin.digest());
        println!("contract  {}@{}", inspect::CONTRACT, inspection.contract_version);
        println!("size      {} bytes, {} instances", component.len(), inspection.instances);
        println!("needs     {}", if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") });
        Ok(())
    }
}

fn grant(name: &str) -> Result<Capability, Failure> {
    let known = || Capability::ALL.map(Capability::as_str).join(", ");
    let found = Capability::ALL.into_iter().find(|capability| capability.as_str() == name);
    found.ok_or_else(|| Failure::usage(format!("--grants: there is no capability {name:?}; there are: {}", known())))
}

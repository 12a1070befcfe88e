//! The three sources of values, in order: file, environment, flags.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ConfigErrors;
use super::tree::Tree;

/// What the command line sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--listen ADDRESS`.
    pub listen: Option<String>,
    /// `--data-dir DIR`.
    pub data_dir: Option<String>,
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<String>,
}

/// Environment variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

pub(super) fn read(_: &Overrides, _: &Environment) -> Result<Tree, ConfigErrors> {
    Ok(Tree)
}

//! `hotbay plugin`: what can be done with plugins.

use clap::Subcommand;

use super::Failure;
use super::author::new::New;
use super::author::test::Test;
use super::plugin_check::Check;

/// Works with plugins
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    Check(Check),
    New(New),
    Test(Test),
}

impl Plugin {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::New(new) => new.run(),
            Self::Test(test) => test.run(),
        }
    }
}

//! `hotbay plugin`: what can be done with plugins.

use clap::Subcommand;

use super::Failure;
use super::author::dev::Dev;
use super::author::new::New;
use super::author::test::Test;
use super::plugin_check::Check;
use super::remote::decide::{Approve, List, Reject, Revoke, Show};
use super::remote::deploy::{Deploy, Rollback, Status, Stop};
use super::remote::logs::Logs;
use super::remote::push::Push;
use crate::config::Environment;

/// Works with plugins
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    Check(Check),
    New(New),
    Test(Test),
    Dev(Dev),
    Push(Push),
    List(List),
    Show(Show),
    Approve(Approve),
    Reject(Reject),
    Revoke(Revoke),
    Deploy(Box<Deploy>),
    Status(Status),
    Rollback(Rollback),
    Stop(Stop),
    Logs(Logs),
}

impl Plugin {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::New(new) => new.run(),
            Self::Test(test) => test.run(),
            Self::Dev(dev) => dev.run(environment),
            Self::Push(push) => push.run(environment),
            Self::List(list) => list.run(environment),
            Self::Show(show) => show.run(environment),
            Self::Approve(approve) => approve.run(environment),
            Self::Reject(reject) => reject.run(environment),
            Self::Revoke(revoke) => revoke.run(environment),
            Self::Deploy(deploy) => deploy.run(environment),
            Self::Status(status) => status.run(environment),
            Self::Rollback(rollback) => rollback.run(environment),
            Self::Stop(stop) => stop.run(environment),
            Self::Logs(logs) => logs.run(environment),
        }
    }
}

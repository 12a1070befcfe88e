//! Channels: the unit of ordering, state and plugin instance. [`core`] has the rules, [`actor`] carries them out,
//! [`directory`] finds and wakes channels, [`mailbox`] is where events wait.

mod actor;
pub mod core;
mod courier;
mod directory;
mod logic;
mod mailbox;
mod membership;
mod publish;
mod sleep;
mod tail;
mod version;
mod view;

pub use crate::channel::directory::{Channel, Directory, Glance, LookupError};
pub use crate::channel::logic::{Arrival, Census, Logic};
pub use crate::channel::mailbox::{Enclosure, Letter, Reply};
pub use crate::channel::membership::Membership;
pub use crate::channel::publish::{Publication, PublishError, Publisher};
pub use crate::channel::sleep::{SleepError, Wakeful};
pub use crate::channel::tail::{Tail, Tailed};
pub use crate::channel::version::{
    Assignment, CANARY_PARTS, Deployed, Plan, Recording, Rollout, Rule, RuleKind, Tally, Tapes, Version, canary_part,
    count_fault,
};

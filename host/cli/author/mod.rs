//! What authors of plugins work with: new projects, building them, scenario files that are played on the real component, and a broker that
//! runs each new build.

pub(super) mod dev;
mod item;
pub(super) mod new;
pub(super) mod project;
mod scenario;
mod seen;
mod stage;
mod templates;
pub(super) mod test;

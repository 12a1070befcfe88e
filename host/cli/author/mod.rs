//! What authors of plugins work with: new projects, building them, and scenario files that are played on the real component.

mod item;
pub(super) mod new;
pub(super) mod project;
mod scenario;
mod seen;
mod stage;
mod templates;
pub(super) mod test;

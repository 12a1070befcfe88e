//! check
use super::*;
pub(super) fn check(_: tree::Tree, _: &Environment) -> Result<Config, ConfigErrors> {
    Err(ConfigErrors(vec![]))
}

//! What is asked of a bench on its command line: names of scenarios, and `--name` or `--name=value`.

use crate::Outcome;

/// The arguments, without the one that Cargo adds.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn of_process() -> Self {
        Self(std::env::args().skip(1).filter(|argument| argument != "--bench").collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// What stands behind `--name=`.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    }

    /// The scenarios that are named, or all.
    pub(crate) fn scenarios<'s, S>(&self, all: &'s [S], name: impl Fn(&S) -> &'static str) -> Outcome<Vec<&'s S>> {
        let named: Vec<&str> = self.0.iter().map(String::as_str).filter(|name| !name.starts_with("--")).collect();
        let known: Vec<&str> = all.iter().map(&name).collect();
        if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
            return Err(format!("{unknown}: the scenarios are {}", known.join(", ")).into());
        }
        Ok(all.iter().filter(|scenario| named.is_empty() || named.contains(&name(scenario))).collect())
    }
}

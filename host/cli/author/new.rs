//! `hotbay plugin new`: makes a project that builds, is tested and runs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::templates::{File, Language, files};
use crate::cli::{Failure, output};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Makes a folder with a new plugin: source, scenarios, and how to build and run it
#[derive(Debug, Args)]
pub(in crate::cli) struct New {
    /// What the plugin is called: lower-case letters, digits and -, for example my-poll
    name: String,
    /// The language it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// The folder that is made [default: one of the plugin's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl New {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        check(&self.name, self.lang).map_err(Failure::usage)?;
        let folder = self.dir.unwrap_or_else(|| PathBuf::from(&self.name));
        if folder.exists() {
            let folder = folder.display();
            return Err(Failure::usage(format!("{folder} exists; choose another folder with --dir, or remove it")));
        }
        let files = files(&self.name, self.lang).map_err(Failure::other)?;
        write(&folder, &files).map_err(Failure::other)?;
        let (language, setup, folder) = (self.lang.as_str(), self.lang.setup(), folder.display());
        output::line(format_args!(
            "{folder}: a plugin in {language}. Next:\n\n  cd {folder}\n  {setup}\n  hotbay plugin test\n  hotbay plugin dev\n"
        ));
        output::line("README.md says how to run it.");
        Ok(())
    }
}

/// A name that may be one of a package in every language, and of a path.
fn check(name: &str, language: Language) -> Result<(), String> {
    let refused = |why: &str| {
        Err(format!(
            "the name {name:?} {why}; a plugin's name is made of lower-case letters, digits and -, for example \"my-poll\""
        ))
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return refused(&format!("is not 1 to {NAME_BYTES_MAX} bytes long"));
    }
    if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
        return refused(&format!("has a {wrong:?}"));
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return refused("does not begin with a letter");
    }
    if name.ends_with('-') || name.contains("--") {
        return refused("has a - that joins nothing");
    }
    if language == Language::Rust && TAKEN.contains(&name) {
        return refused("is taken: Cargo, or the project itself, has another thing of that name");
    }
    Ok(())
}

/// Names that a Rust package which uses the SDK cannot have.
const TAKEN: [&str; 3] = ["hotbay-sdk", "serde", "serde-json"];

/// Writes the files into a new folder.
fn write(folder: &Path, files: &[File]) -> Result<(), String> {
    for file in files {
        let path = folder.join(&file.path);
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, &file.text)?;
            if file.is_program() {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        };
        write().map_err(|e: std::io::Error| format!("{}: cannot be written: {e}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_the_reason_is_told() {
        for name in ["a", "my-poll", "poll2", &"a".repeat(NAME_BYTES_MAX)] {
            assert_eq!(check(name, Language::Rust), Ok(()), "{name}");
        }
        for (name, words) in [
            ("", "1 to 64"),
            (&*"a".repeat(NAME_BYTES_MAX + 1), "1 to 64"),
            ("My", "'M'"),
            ("a b", "' '"),
            ("../a", "'.'"),
            ("a/b", "'/'"),
            ("a_b", "'_'"),
            ("é", "'é'"),
            ("2a", "letter"),
            ("-a", "letter"),
            ("a-", "joins nothing"),
            ("a--b", "joins nothing"),
            ("hotbay-sdk", "taken"),
        ] {
            let told = check(name, Language::Rust).unwrap_err();
            assert!(told.contains(words) && told.contains("my-poll"), "{name}: {told}");
        }
        assert_eq!(check("hotbay-sdk", Language::Js), Ok(()));
    }
}

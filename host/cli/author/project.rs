//! An author's folder: its `plugin.toml`, how it is built, and the component that comes of it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::registry::manifest::{Build, FILE_NAME, Manifest, ManifestError};

/// Folders of a project in which the program of a build is looked for first, as npm and Python's venv have them.
const PROGRAM_FOLDERS: [&str; 2] = ["node_modules/.bin", ".venv/bin"];
/// The folder in a project that is ours: compiled code, made anew when it is missing, and what a broker keeps.
const OWN_FOLDER: &str = ".hotbay";

/// A plugin's source.
#[derive(Debug)]
pub(in crate::cli) struct Project {
    folder: PathBuf,
    manifest: Manifest,
}

impl Project {
    /// Reads the `plugin.toml` of a folder.
    ///
    /// # Errors
    /// If there is none, or if it is wrong.
    pub(in crate::cli) fn open(folder: &Path) -> Result<Self, ProjectError> {
        let path = folder.join(FILE_NAME);
        let bytes = std::fs::read(&path).map_err(|e| ProjectError::NoManifest { path, cause: e.to_string() })?;
        let manifest = Manifest::from_bytes(&bytes)
            .map_err(|cause| ProjectError::Manifest { folder: folder.to_owned(), cause })?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Reads its `plugin.toml` again.
    ///
    /// # Errors
    /// If it is not there any more, or wrong now.
    pub(in crate::cli) fn reopen(&mut self) -> Result<(), ProjectError> {
        *self = Self::open(&self.folder)?;
        Ok(())
    }

    /// Where it is.
    pub(in crate::cli) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says of itself.
    pub(in crate::cli) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Runs the build command. What it prints goes where this program's errors go.
    ///
    /// # Errors
    /// If there is no such command, it cannot be run, or it fails.
    pub(in crate::cli) fn build(&self) -> Result<(), ProjectError> {
        let (words, mut command) = self.command()?;
        self.built(words, command.status())
    }

    /// The build command, in words and ready to run.
    ///
    /// # Errors
    /// If there is none.
    pub(in crate::cli) fn command(&self) -> Result<(String, Command), ProjectError> {
        let build = self.steps()?;
        let Some((program, arguments)) = build.command.split_first() else {
            return Err(ProjectError::NoCommand { folder: self.folder.clone() });
        };
        let command = build.command.join(" ");
        let mut own = PROGRAM_FOLDERS.iter().map(|folder| self.folder.join(folder).join(program));
        // A relative program would be looked for in the folder the command runs in.
        let own = own.find_map(|own| own.canonicalize().ok());
        let mut child = Command::new(own.unwrap_or_else(|| program.into()));
        child.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).stdout(std::io::stderr());
        Ok((command, child))
    }

    /// What the end of the build command means.
    ///
    /// # Errors
    /// If it could not be run, or failed.
    pub(in crate::cli) fn built(&self, command: String, status: io::Result<ExitStatus>) -> Result<(), ProjectError> {
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(ProjectError::Build { command, status: status.to_string() }),
            Err(e) => Err(ProjectError::NoProgram {
                program: command.split(' ').next().unwrap_or_default().to_owned(),
                command,
                folder: self.folder.clone(),
                cause: e.to_string(),
            }),
        }
    }

    /// Reads the component.
    ///
    /// # Errors
    /// If it is not there.
    pub(in crate::cli) fn component(&self) -> Result<Vec<u8>, ProjectError> {
        let path = self.component_path()?;
        std::fs::read(&path).map_err(|e| ProjectError::NoComponent { path, cause: e.to_string() })
    }

    /// Where the component is, once it is built.
    ///
    /// # Errors
    /// If the manifest does not say so.
    pub(in crate::cli) fn component_path(&self) -> Result<PathBuf, ProjectError> {
        Ok(self.folder.join(&self.steps()?.component))
    }

    /// The folder for compiled code.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(in crate::cli) fn artifacts(&self) -> Result<PathBuf, ProjectError> {
        Ok(self.own_folder()?.join("artifacts"))
    }

    /// The folder for what this program keeps. Version control ignores it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(in crate::cli) fn own_folder(&self) -> Result<PathBuf, ProjectError> {
        let own = self.folder.join(OWN_FOLDER);
        let made = std::fs::create_dir_all(&own).and_then(|()| std::fs::write(own.join(".gitignore"), "*\n"));
        made.map_err(|e| ProjectError::OwnFolder { path: own.clone(), cause: e.to_string() })?;
        Ok(own)
    }

    fn steps(&self) -> Result<&Build, ProjectError> {
        self.manifest.build.as_ref().ok_or_else(|| ProjectError::NoBuild { folder: self.folder.clone() })
    }
}

/// What is wrong with a project.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ProjectError {
    /// No plugin lives there.
    #[error("{path}: {cause}; is this a plugin's folder? `hotbay plugin new NAME` makes one", path = path.display())]
    NoManifest {
        /// Where it was looked for.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A manifest with a mistake.
    #[error("{folder}: {cause}", folder = folder.display())]
    Manifest {
        /// The project.
        folder: PathBuf,
        /// Which.
        cause: ManifestError,
    },
    /// No `[build]`.
    #[error(
        "{folder}/{FILE_NAME} does not say how the plugin is built; add for example:\n[build]\ncommand = [\"npm\", \"run\", \"build\"]\n\
         component = \"dist/plugin.wasm\"",
        folder = folder.display()
    )]
    NoBuild {
        /// The project.
        folder: PathBuf,
    },
    /// An empty command.
    #[error("{folder}/{FILE_NAME}: `build.command` is empty; it is a program and its arguments", folder = folder.display())]
    NoCommand {
        /// The project.
        folder: PathBuf,
    },
    /// A program that is not there.
    #[error(
        "`{command}` in {folder}: {program} cannot be run: {cause}; the project's README.md says what to install first",
        folder = folder.display()
    )]
    NoProgram {
        /// Which.
        program: String,
        /// The whole command.
        command: String,
        /// The project.
        folder: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A build that failed; it said why itself.
    #[error("`{command}` failed: {status}; the project's README.md says what a build needs")]
    Build {
        /// The whole command.
        command: String,
        /// How it ended.
        status: String,
    },
    /// No component.
    #[error("{path}: {cause}; `build.component` in {FILE_NAME} says where the build puts it", path = path.display())]
    NoComponent {
        /// Where it was looked for.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// No place for compiled code.
    #[error("{path} cannot be written: {cause}", path = path.display())]
    OwnFolder {
        /// Which folder.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
}

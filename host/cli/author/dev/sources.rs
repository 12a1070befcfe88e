//! The files of a project that its build may depend on, and waiting until one of them changes. The system only says that something
//! happened; what changed is seen by reading: editors write a file in many ways, and a build that writes the same again changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::cli::author::project::Project;
use crate::plugin::compile::Digest;

/// What builds make and tools keep, wherever it lies, and what is no part of a component.
const PASSED_OVER: [&str; 5] = ["target", "node_modules", "dist", "__pycache__", "scenarios"];
/// Files that are looked at, at most.
const FILES_MAX: usize = 10_000;
/// Bytes of a file that are looked at, at most.
const BYTES_MAX: u64 = 16 << 20;
/// Bytes of a `.gitignore`.
const IGNORE_BYTES_MAX: u64 = 1 << 20;
/// After a change nothing must happen for so long: editors and version control write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// So long it is waited for quiet.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// Names of changed files that are told.
const TOLD_MAX: usize = 3;

/// Files with the digests of what is in them, by their paths from the project's folder.
pub(super) type Tree = BTreeMap<PathBuf, Digest>;

/// The files that are watched.
pub(super) struct Sources {
    folder: PathBuf,
    passed_over: BTreeSet<String>,
    /// What the build makes, from the folder.
    made: Option<PathBuf>,
    watcher: RecommendedWatcher,
    touched: Arc<Notify>,
}

impl Sources {
    /// Watches a project.
    ///
    /// # Errors
    /// If the system cannot watch it, or it has too many files.
    pub(super) fn watch(project: &Project) -> Result<Self, String> {
        let folder = project.folder().canonicalize();
        let folder = folder.map_err(|e| format!("{}: {e}", project.folder().display()))?;
        let touched = Arc::new(Notify::new());
        let tell = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Whatever cannot be told may be a change.
            if event.is_ok_and(|event| is_reading(event.kind)) {
                return;
            }
            tell.notify_one();
        });
        let watcher = watcher.map_err(|e| format!("{}: cannot be watched: {e}", folder.display()))?;
        let passed_over = PASSED_OVER.iter().map(|name| (*name).to_owned()).chain(ignored(&folder)).collect();
        let made = project.manifest().build.as_ref().and_then(|build| made_in(Path::new(&build.component)));
        let mut sources = Self { folder, passed_over, made, watcher, touched };
        let root = sources.folder.clone();
        sources.watcher.watch(&root, RecursiveMode::NonRecursive).map_err(|e| {
            format!("{}: cannot be watched: {e}; Linux has a bound, fs.inotify.max_user_watches", root.display())
        })?;
        if sources.tree().len() >= FILES_MAX {
            return Err(format!(
                "{}: has {FILES_MAX} files or more; name folders that the build makes in .gitignore",
                root.display()
            ));
        }
        Ok(sources)
    }

    /// What there is now.
    pub(super) fn tree(&mut self) -> Tree {
        let mut tree = Tree::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let folder = self.folder.join(&below);
            // Before it is read, so that nothing is missed. Again each time: it may be another one of the same name.
            drop(self.watcher.watch(&folder, RecursiveMode::NonRecursive));
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = below.join(entry.file_name());
                if self.is_passed_over(&path) {
                    continue;
                }
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    folders.push(path);
                } else if tree.len() < FILES_MAX
                    && let Some(digest) = digest(&entry.path())
                {
                    tree.insert(path, digest);
                }
            }
        }
        tree
    }

    /// Waits until something differs; says what, in a few words.
    pub(super) async fn changed(&mut self, since: &Tree) -> String {
        loop {
            self.touched.notified().await;
            let quiet = async { while tokio::time::timeout(QUIET, self.touched.notified()).await.is_ok() {} };
            // What is written without end must not keep the rest from being seen.
            drop(tokio::time::timeout(QUIET_MAX, quiet).await);
            if let Some(words) = difference(since, &self.tree()) {
                return words;
            }
        }
    }

    fn is_passed_over(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Hidden files are those of tools; some editors keep the file before under a name that ends with ~; and what this very command shows
        // may go to a file.
        name.starts_with('.')
            || name.ends_with('~')
            || path.extension().is_some_and(|extension| extension == "log")
            || self.passed_over.contains(&*name)
            || self.made.as_deref() == Some(path)
    }
}

/// Whether somebody only looked.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// What the build makes: the folder in the project that its component is in, else the component.
fn made_in(component: &Path) -> Option<PathBuf> {
    component.components().next().map(|first| PathBuf::from(first.as_os_str()))
}

/// Names that version control passes over. Of its rules only names alone count.
fn ignored(folder: &Path) -> Vec<String> {
    let path = folder.join(".gitignore");
    if std::fs::metadata(&path).is_ok_and(|file| file.len() > IGNORE_BYTES_MAX) {
        return Vec::new();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let names = text.lines().map(|line| line.trim().trim_matches('/'));
    names.filter(|name| !name.is_empty() && !name.contains(['#', '!', '*', '?', '[', '/'])).map(str::to_owned).collect()
}

fn digest(path: &Path) -> Option<Digest> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).ok()?;
    Digest::of_reader(file.take(BYTES_MAX)).ok().map(|(digest, _)| digest)
}

/// What differs, in a few words; nothing if nothing does.
fn difference(before: &Tree, after: &Tree) -> Option<String> {
    let changed = after.iter().filter(|(path, digest)| before.get(*path) != Some(*digest)).map(|(path, _)| path);
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    let paths: Vec<String> = changed.chain(gone).map(|path| path.display().to_string()).collect();
    let told = paths[..paths.len().min(TOLD_MAX)].join(", ");
    match paths.len() {
        0 => None,
        count if count > TOLD_MAX => Some(format!("{told} and {} more", count - TOLD_MAX)),
        _ => Some(told),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn project(folder: &Path) -> Project {
        let manifest = "name = \"x\"\nversion = \"1.0.0\"\n[build]\ncommand = [\"true\"]\ncomponent = \"out/x.wasm\"\n";
        std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
        Project::open(folder).unwrap()
    }

    fn put(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Goal: what builds and tools write begins no build.
    #[test]
    fn what_builds_and_tools_write_is_passed_over() {
        let folder = TempDir::new().unwrap();
        for path in [
            "src/lib.rs",
            "build.rs",
            "a/target/x",
            "node_modules/b/c",
            "out/x.wasm",
            "made/y",
            ".venv/z",
            "d/e~",
            "dev.log",
        ] {
            put(folder.path(), path, "");
        }
        put(folder.path(), ".gitignore", "/made/\n*.log\n# x\n");

        let tree = Sources::watch(&project(folder.path())).unwrap().tree();

        let paths: Vec<_> = tree.keys().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["build.rs", "plugin.toml", "src/lib.rs"]);
    }

    /// Law: every change is seen, also in folders that came later, and writing the same again is none.
    #[tokio::test]
    async fn changes_are_seen_and_told() {
        let folder = TempDir::new().unwrap();
        put(folder.path(), "src/lib.rs", "1");
        let mut sources = Sources::watch(&project(folder.path())).unwrap();

        let tree = sources.tree();
        put(folder.path(), "src/lib.rs", "1");
        put(folder.path(), "src/new/deep.rs", "2");
        assert_eq!(sources.changed(&tree).await, "src/new/deep.rs");

        let tree = sources.tree();
        put(folder.path(), "src/new/deep.rs", "3");
        assert_eq!(sources.changed(&tree).await, "src/new/deep.rs");

        let tree = sources.tree();
        std::fs::rename(folder.path().join("src/new"), folder.path().join("src/old")).unwrap();
        assert_eq!(sources.changed(&tree).await, "src/old/deep.rs, src/new/deep.rs");
    }

    #[test]
    fn a_long_list_is_cut() {
        let tree: Tree = (0..5).map(|n| (PathBuf::from(n.to_string()), Digest([0; 32]))).collect();
        assert_eq!(difference(&Tree::new(), &tree).unwrap(), "0, 1, 2 and 2 more");
        assert_eq!(difference(&tree, &tree), None);
    }
}

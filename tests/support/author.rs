//! Projects of plugin authors, and the commands they type. All lie below the folder for tests' files, so that Rust is the version of this
//! repository, and what Cargo built for one project serves the next.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::admin::{Ended, ended};
use super::client::Client;

/// How long a build may take, with all that it needs: compiling gets the time that no other test wants. It only matters when a test fails.
const BUILD_DEADLINE: Duration = Duration::from_mins(10);

/// A language of `hotbay plugin new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Js,
    Python,
}

impl Language {
    /// As `--lang` has it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
        }
    }
}

/// A folder that commands are typed in.
pub struct Desk {
    folder: PathBuf,
    /// Of those who build with Cargo one at a time: they share a folder for what is built.
    turn: Option<File>,
}

impl Desk {
    /// An empty folder of this name.
    pub fn clear(name: &str) -> Self {
        let folder = tests_folder().join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", folder.display()),
            _ => std::fs::create_dir_all(&folder).expect("a folder"),
        }
        Self { folder, turn: None }
    }

    /// An example, copied, with what it needs to be built.
    pub fn example(name: &str, language: Language) -> Self {
        let mut desk = Self::clear(&format!("example-{name}"));
        let from = example(name);
        copy(&from, &desk.folder);
        desk.provide(language);
        desk
    }

    /// An example where it lies.
    pub fn in_place(name: &str) -> Self {
        Self { folder: example(name), turn: None }
    }

    /// A project made by `hotbay plugin new`, with what it needs to be built.
    pub fn new_project(name: &str, language: Language) -> Self {
        let around = Self::clear(&format!("new-{name}"));
        let made = around.hotbay(&["plugin", "new", name, "--lang", language.flag()]);
        assert!(made.words().contains("hotbay plugin test"));
        let mut desk = Self { folder: around.folder.join(name), turn: None };
        desk.provide(language);
        desk
    }

    /// Goes into a folder of it.
    pub fn enter(&mut self, name: &str) {
        self.folder.push(name);
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts into a project what its README.md says to install: what `tests/needs.sh` has installed, and what Cargo built before.
    pub fn provide(&mut self, language: Language) {
        match language {
            Language::Rust => {
                let shared = tests_folder().join("cargo");
                std::fs::create_dir_all(&shared).expect("a folder");
                let turn = File::create(shared.join("turn")).expect("a file");
                rustix::fs::flock(&turn, rustix::fs::FlockOperation::LockExclusive).expect("a turn");
                self.turn = Some(turn);
                symlink(shared, self.folder.join("target")).expect("a link");
            }
            Language::Js => self.link_to(&example("poll"), "node_modules"),
            Language::Python => self.link_to(&example("leaderboard"), ".venv"),
        }
    }

    fn link_to(&self, project: &Path, what: &str) {
        let installed = project.join(what);
        assert!(installed.exists(), "{} is missing: run tests/needs.sh", installed.display());
        symlink(installed, self.folder.join(what)).expect("a link");
    }

    /// A file.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Saves a file that has this with that instead, as an editor would.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} has no {from:?}");
        std::fs::write(self.folder.join(path), text.replace(from, to)).expect("a file");
    }

    /// Types a line of a shell.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        self.prepare(command.args(["-euc", line]));
        command
    }

    /// Types a command of the program, and waits for its end.
    pub fn hotbay(&self, arguments: &[&str]) -> Ended {
        ended(&self.command(arguments).output().expect("an end"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
        self.prepare(command.args(arguments));
        command
    }

    /// Nothing of the environment but what builds need, and the program in the search path.
    fn prepare(&self, command: &mut Command) {
        const KEPT: [&str; 6] = ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TMPDIR", "LANG"];
        let own = |name: &str| std::env::vars_os().find(|(known, _)| known == name).map(|(_, value)| value);
        let program = Path::new(env!("CARGO_BIN_EXE_hotbay")).parent().expect("a folder").display().to_string();
        let path = own("PATH").unwrap_or_default();
        command.current_dir(&self.folder).env_clear().env("PATH", format!("{program}:{}", path.to_string_lossy()));
        command.envs(KEPT.iter().filter_map(|name| Some((name, own(name)?))));
    }

    /// Starts a command of the program that goes on.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }
}

/// An example.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plugins").join(name)
}

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("authors")
}

/// Copies what is in a folder; of what its tools made, nothing.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let name = entry.file_name();
        if ["node_modules", ".venv", "dist", ".hotbay", "__pycache__"].iter().any(|made| name == *made) {
            continue;
        }
        let (path, to) = (entry.path(), to.join(&name));
        // Links are followed: the contract lies elsewhere in this repository.
        if path.is_dir() {
            std::fs::create_dir(&to).expect("a folder");
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a file");
        }
    }
}

/// A command that goes on. Killed when dropped.
pub struct Running {
    child: Child,
    /// What it and its children wrote.
    words: Arc<Mutex<String>>,
    /// Up to where of that was waited for.
    read: usize,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a start");
        let words = Arc::default();
        let (stdout, stderr) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        listen(stdout, &words);
        listen(stderr, &words);
        Self { child, words, read: 0 }
    }

    /// Waits until it has written this since what was waited for last; returns what it wrote from there, to the end of the line.
    pub async fn until(&mut self, wanted: &str) -> String {
        let (words, from) = (Arc::clone(&self.words), self.read);
        let wait = async move {
            loop {
                let words = words.lock().expect("words").clone();
                if let Some(at) = words[from..].find(wanted) {
                    let end = from + at + wanted.len();
                    if let Some(line) = words[end..].find('\n') {
                        return (words[from..end + line].to_owned(), end + line);
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(BUILD_DEADLINE, wait).await;
        let (words, read) = waited.unwrap_or_else(|_| panic!("it did not write {wanted:?}"));
        self.read = read;
        words
    }

    /// All that it wrote.
    pub fn words(&self) -> String {
        self.words.lock().expect("words").clone()
    }

    /// The address it says it listens on, once it does.
    pub async fn address(&mut self, before: &str) -> String {
        let words = self.until(before).await;
        let rest = words.rsplit_once(before).expect("an address").1;
        rest.split(['/', ' ']).next().expect("an address").to_owned()
    }

    /// Ctrl-C; waits for the end and returns the exit code.
    pub async fn interrupt(mut self) -> Option<i32> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).expect("a signal");
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a status") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("an end in time")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- what it wrote ---\n{}", self.words());
        }
    }
}

fn listen(from: impl Read + Send + 'static, words: &Arc<Mutex<String>>) {
    let words = Arc::clone(words);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut words = words.lock().expect("words");
            words.push_str(&line);
            words.push('\n');
        }
    });
}

/// Talks to a new project as its source says: it numbers messages.
pub async fn talk(url: &str, first: u64) -> Client {
    let mut client = Client::connect(url).await;
    assert_eq!(client.json().await, serde_json::json!({ "count": first - 1 }));
    client.send(serde_json::json!({ "text": "hi" })).await;
    assert_eq!(client.json().await, serde_json::json!({ "number": first, "user": "ann", "text": "hi" }));
    client
}

//! The files of a new project. They lie in `host/cli/new`, but for what the repository has elsewhere: the contract, the SDK, and the small
//! libraries of the examples. All of it is in this program, so that a project can be made and built with nothing else of ours.

use clap::ValueEnum;
use toml_edit::{DocumentMut, Item};

use crate::protocol::capability::Capability;

/// Embeds files below a folder, with their paths from there.
macro_rules! embedded {
    ($folder:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!($folder, $path)))),+]
    };
}

type Embedded = &'static [(&'static str, &'static str)];

/// The contract.
const WIT: Embedded =
    embedded!("../../../wit/": "capabilities.wit", "channel.wit", "handler.wit", "types.wit", "world.wit");
/// The SDK, which is not on crates.io.
const SDK: Embedded = embedded!(
    "../../../plugins/sdk/src/": "bindings.rs", "channel.rs", "harness/chance.rs", "harness/mod.rs", "harness/outcome.rs",
    "harness/state.rs", "harness/tests.rs", "host.rs", "instance.rs", "json/check.rs", "json/mod.rs", "json/read.rs", "json/write.rs",
    "lib.rs", "plugin.rs", "random.rs", "time.rs", "words.rs",
);
const SDK_MANIFEST: &str = include_str!("../../../plugins/sdk/Cargo.toml");
/// Where the SDK's manifest has its versions from.
const SDK_WORKSPACE: &str = include_str!("../../../plugins/Cargo.toml");
/// The versions of crates the SDK is tested with. Cargo takes out what a project does not use.
const SDK_LOCK: &str = include_str!("../../../plugins/Cargo.lock");
const JS_LOCK: &str = include_str!("../../../examples/plugins/poll/package-lock.json");

const CONFIG: &str = include_str!("../new/hotbay.toml");

/// In all languages alike.
const COMMON: Embedded = &[
    ("README.md", include_str!("../new/readme.md")),
    ("plugin.toml", include_str!("../new/plugin.toml")),
    ("hotbay.toml", CONFIG),
    ("scenarios/first.toml", include_str!("../new/scenario.toml")),
    ("scenarios/README.md", include_str!("../new/scenarios.md")),
];
const RUST: Embedded = &[
    ("Cargo.toml", include_str!("../new/rust/Cargo.toml")),
    ("Cargo.lock", SDK_LOCK),
    ("src/lib.rs", include_str!("../new/rust/src/lib.rs")),
    (".gitignore", "target\n.hotbay\n"),
];
const JS: Embedded = &[
    ("package.json", include_str!("../new/js/package.json")),
    ("src/plugin.js", include_str!("../new/js/src/plugin.js")),
    ("src/hotbay.js", include_str!("../../../examples/plugins/poll/src/hotbay.js")),
    ("src/utf8.js", include_str!("../../../examples/plugins/poll/src/utf8.js")),
    ("wit/world.wit", include_str!("../new/js/world.wit")),
    (".gitignore", "node_modules\ndist\n.hotbay\n"),
];
const PYTHON: Embedded = &[
    ("requirements.txt", include_str!("../../../examples/plugins/leaderboard/requirements.txt")),
    ("build.sh", include_str!("../new/python/build.sh")),
    ("src/app.py", include_str!("../new/python/src/app.py")),
    ("src/hotbay.py", include_str!("../../../examples/plugins/leaderboard/src/hotbay.py")),
    ("wit/world.wit", include_str!("../new/python/world.wit")),
    (".gitignore", ".venv\ndist\n__pycache__\n.hotbay\n"),
];

/// A language that a plugin can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    Js,
    Python,
}

/// What differs between languages in files they share.
struct Words {
    language: &'static str,
    source: &'static str,
    /// What is installed once, as shell commands.
    setup: &'static str,
    /// What else is in the project: file and purpose.
    map: &'static [(&'static str, &'static str)],
    capabilities: &'static str,
    memory: &'static str,
    command: &'static str,
    component: &'static str,
}

impl Language {
    /// What must be installed once before a project can be built: shell commands.
    pub(super) fn setup(self) -> &'static str {
        self.words().setup
    }

    /// For people.
    pub(super) fn as_str(self) -> &'static str {
        self.words().language
    }

    fn words(self) -> Words {
        match self {
            Self::Rust => Words {
                language: "Rust",
                source: "src/lib.rs",
                setup: "rustup target add wasm32-wasip2",
                map: &[
                    ("`vendor/hotbay-sdk`", "the SDK as it was when the project was made; it is not on crates.io"),
                    ("`wit`", "the contract between broker and plugins, which the SDK is built from"),
                    ("`cargo test`", "runs unit tests, without WebAssembly"),
                ],
                capabilities: "\"kv\"",
                memory: "16_777_216",
                command: r#"["cargo", "build", "--release", "--target", "wasm32-wasip2", "--target-dir", "target"]"#,
                component: "target/wasm32-wasip2/release/plugin.wasm",
            },
            Self::Js => Words {
                language: "JavaScript",
                source: "src/plugin.js",
                setup: "npm ci",
                map: &[
                    ("`src/hotbay.js`", "turns the contract into methods of a class; yours to change"),
                    (
                        "`wit/world.wit`",
                        "what the plugin imports, and so what it must be granted; `capabilities` in `plugin.toml` says the same",
                    ),
                    ("`wit/deps`", "the contract between broker and plugins"),
                ],
                capabilities: "\"kv\"",
                memory: "16_777_216",
                command: r#"["npm", "run", "--silent", "build"]"#,
                component: "dist/plugin.wasm",
            },
            Self::Python => Words {
                language: "Python",
                source: "src/app.py",
                setup: "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
                map: &[
                    ("`src/hotbay.py`", "turns the contract into methods of a class; yours to change"),
                    (
                        "`wit/world.wit`",
                        "what the plugin imports, and so what it must be granted; `capabilities` in `plugin.toml` says the same",
                    ),
                    ("`wit/deps`", "the contract between broker and plugins"),
                ],
                capabilities: "\"kv\", \"logging\"",
                memory: "33_554_432",
                command: r#"["./build.sh"]"#,
                component: "dist/plugin.wasm",
            },
        }
    }
}

/// A file of a new project.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// From the project's folder.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
}

impl File {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Whether it is a program.
    pub(super) fn is_program(&self) -> bool {
        self.text.starts_with("#!")
    }
}

/// The files of a project of this name.
///
/// # Errors
/// If the SDK's manifest cannot be made to stand alone; a test says that it can.
pub(super) fn files(name: &str, language: Language) -> Result<Vec<File>, toml_edit::TomlError> {
    let words = language.words();
    let map: Vec<_> = words.map.iter().map(|(file, purpose)| format!("| {file} | {purpose} |")).collect();
    let fill = |text: &str| {
        [
            ("{{name}}", name),
            ("{{host}}", env!("CARGO_PKG_VERSION")),
            ("{{language}}", words.language),
            ("{{source}}", words.source),
            ("{{setup}}", words.setup),
            ("{{map}}", &map.join("\n")),
            ("{{capabilities}}", words.capabilities),
            ("{{memory}}", words.memory),
            ("{{command}}", words.command),
            ("{{component}}", words.component),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (mark, word)| text.replace(mark, word))
    };
    let (own, wit) = match language {
        Language::Rust => (RUST, "wit"),
        Language::Js => (JS, "wit/deps/hotbay-channel"),
        Language::Python => (PYTHON, "wit/deps/hotbay-channel"),
    };
    let mut files: Vec<File> = COMMON.iter().chain(own).map(|(path, text)| File::new(*path, fill(text))).collect();
    files.extend(WIT.iter().map(|(path, text)| File::new(format!("{wit}/{path}"), *text)));
    match language {
        Language::Rust => {
            files.push(File::new("vendor/hotbay-sdk/Cargo.toml", sdk_manifest()?));
            files.extend(SDK.iter().map(|(path, text)| File::new(format!("vendor/hotbay-sdk/src/{path}"), *text)));
        }
        Language::Js => files.push(File::new("package-lock.json", js_lock(name))),
        Language::Python => {}
    }
    Ok(files)
}

/// The configuration of new projects, for one that has none.
pub(super) fn mount_alone(name: &str, granted: &[Capability]) -> String {
    let granted: Vec<_> = granted.iter().map(|capability| format!("{:?}", capability.as_str())).collect();
    // A name may have dots.
    let config = CONFIG.replace(".{{name}}]", &format!(".{name:?}]"));
    config.replace("{{name}}", name).replace("{{capabilities}}", &granted.join(", "))
}

/// The SDK's manifest, with what it has from its workspace put in.
fn sdk_manifest() -> Result<String, toml_edit::TomlError> {
    let mut manifest: DocumentMut = SDK_MANIFEST.parse()?;
    let workspace: DocumentMut = SDK_WORKSPACE.parse()?;
    for table in ["package", "dependencies"] {
        let Some(entries) = manifest.get_mut(table).and_then(Item::as_table_mut) else { continue };
        for (key, item) in entries.iter_mut() {
            let is_inherited = item.get("workspace").is_some();
            let inherited =
                workspace.get("workspace").and_then(|all| all.get(table)).and_then(|all| all.get(key.get()));
            if let Some(inherited) = inherited.filter(|_| is_inherited) {
                *item = inherited.clone();
            }
        }
    }
    manifest.remove("lints");
    Ok(manifest.to_string())
}

/// The lock file of the JavaScript example, for a project of another name.
fn js_lock(name: &str) -> String {
    JS_LOCK
        .replace(r#""name": "poll""#, &format!(r#""name": "{name}""#))
        .replace(r#""version": "1.0.0""#, r#""version": "0.1.0""#)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::registry::manifest::Manifest;

    const ALL: [Language; 3] = [Language::Rust, Language::Js, Language::Python];

    fn made(language: Language) -> Vec<File> {
        files("my-poll", language).unwrap()
    }

    fn text(files: &[File], path: &str) -> String {
        files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is missing")).text.clone()
    }

    /// All files below a folder, from there.
    fn below(folder: &Path, from: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, from, found);
            } else {
                found.insert(path.strip_prefix(from).unwrap().display().to_string());
            }
        }
    }

    /// Goal: a file that comes to the SDK or the contract comes to new projects, too.
    #[test]
    fn all_of_the_sdk_and_the_contract_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (embedded, folder) in [(SDK, "plugins/sdk/src"), (WIT, "wit")] {
            let mut found = BTreeSet::new();
            below(&root.join(folder), &root.join(folder), &mut found);
            assert_eq!(embedded.iter().map(|(path, _)| (*path).to_owned()).collect::<BTreeSet<_>>(), found, "{folder}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in_and_every_path_is_within_the_project() {
        for language in ALL {
            let files = made(language);
            let paths: BTreeSet<_> = files.iter().map(|file| &file.path).collect();
            assert_eq!(paths.len(), files.len(), "{language:?} has a file twice");
            for file in files.iter().filter(|file| !file.path.starts_with("vendor/")) {
                assert!(!file.text.contains("{{"), "{language:?}: {}", file.path);
                assert!(!file.path.starts_with('/') && !file.path.contains(".."), "{}", file.path);
            }
        }
    }

    /// Goal: what is in `plugin.toml` is what the component imports and where the build puts it.
    #[test]
    fn the_manifest_says_what_the_project_is() {
        for language in ALL {
            let files = made(language);
            let manifest = Manifest::parse(&text(&files, "plugin.toml")).unwrap();
            assert_eq!(
                (manifest.name.as_str(), manifest.minimum_host),
                ("my-poll", crate::registry::manifest::host_version())
            );
            let build = manifest.build.unwrap();
            assert!(text(&files, "hotbay.toml").contains(&build.component), "{language:?}");
            if language != Language::Rust {
                let world = text(&files, "wit/world.wit");
                for capability in crate::protocol::capability::Capability::ALL {
                    let import = format!("import hotbay:channel/{}@", capability.as_str());
                    assert_eq!(world.contains(&import), manifest.capabilities.contains(&capability), "{import}");
                }
            }
        }
    }

    #[test]
    fn the_sdk_stands_alone() {
        let manifest = sdk_manifest().unwrap();
        assert!(!manifest.contains("workspace") && !manifest.contains("lints"), "{manifest}");
        for line in ["edition = \"2024\"", "itoa = \"1\""] {
            assert!(manifest.contains(line), "{line}: {manifest}");
        }
    }

    #[test]
    fn the_lock_file_is_the_projects() {
        let files = made(Language::Js);
        let lock: serde_json::Value = serde_json::from_str(&text(&files, "package-lock.json")).unwrap();
        let package: serde_json::Value = serde_json::from_str(&text(&files, "package.json")).unwrap();
        for lock in [&lock, &lock["packages"][""]] {
            assert_eq!((&lock["name"], &lock["version"]), (&package["name"], &package["version"]));
        }
        assert_eq!(lock["packages"][""]["devDependencies"], package["devDependencies"]);
    }
}

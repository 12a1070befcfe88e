//! A broker process under test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tempfile::TempDir;

use super::client::{Client, DEADLINE};
use super::component;
use super::http::{self, Answer};

/// The secret all test tokens are signed with.
pub const SECRET: &str = "a-test-secret-of-at-least-32-bytes!!";

/// How to start a broker.
pub struct Setup {
    config: String,
    env: BTreeMap<String, String>,
    args: Vec<String>,
    program: PathBuf,
    /// Whether its compiled plugins, and what vetting found out about them, are kept for the next test.
    keeps_compiled: bool,
}

impl Setup {
    /// `examples/hotbay.toml`: what `make run` uses.
    pub fn example() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hotbay.toml");
        let config = std::fs::read_to_string(path).expect("examples/hotbay.toml");
        // Paths are meant from the file's folder, and it will lie elsewhere.
        let root = env!("CARGO_MANIFEST_DIR");
        let config = config.replace("\"../target/", &format!("\"{root}/target/"));
        let config = config.replace("\"../plugins/", &format!("\"{root}/plugins/"));
        let config = config.replace("\"hangarshare/", &format!("\"{root}/examples/hangarshare/"));
        Self::config(&config)
    }

    /// One mount `/ws` with the fixture plugin: each connection joins the channel `fixture:{query.channel}`, and tokens come
    /// in the query. `extra` is TOML after `[mount.fixture]`'s own keys, for example a `[mount.fixture.limits]` table.
    pub fn fixture(extra: &str) -> Self {
        Self::fixture_mount(&format!("channel = \"fixture:{{query.channel}}\"\n{extra}"))
    }

    /// The same mount with other ways to its channels: `lines` says which.
    pub fn fixture_mount(lines: &str) -> Self {
        let key = "[key.default]\nalgorithm = \"HS256\"\nsecret_env = [\"JWT_SECRET\"]\n";
        Self::config(&format!("listen = \"127.0.0.1:0\"\n{key}")).and_fixture("/ws", lines)
    }

    /// Adds the mount of the fixture plugin at a path.
    pub fn and_fixture(mut self, path: &str, lines: &str) -> Self {
        let fixture = component("fixture").display().to_string();
        let tables = format!(
            r#"
            [plugin.fixture]
            path = "{fixture}"
            grants = ["kv", "log", "logging", "sql", "stats"]
            [mount.fixture]
            path = "{path}"
            plugin = "fixture"
            auth = {{ keys = ["default"], tokens = ["query:token"] }}
            {lines}
            "#
        );
        self.config.push_str(&tables);
        self
    }

    /// Adds lines to the configuration.
    pub fn and(mut self, lines: &str) -> Self {
        self.config.push('\n');
        self.config.push_str(lines);
        self
    }

    /// Any configuration; `listen` and the data folder are set by flags.
    pub fn config(config: &str) -> Self {
        let env = BTreeMap::from([("JWT_SECRET".to_owned(), SECRET.to_owned())]);
        let program = PathBuf::from(env!("CARGO_BIN_EXE_hotbay"));
        Self { config: config.to_owned(), env, args: Vec::new(), program, keeps_compiled: true }
    }

    /// Compiles and vets its plugins itself. Others share what was found out before, for that takes long.
    pub fn with_nothing_compiled(mut self) -> Self {
        self.keeps_compiled = false;
        self
    }

    /// Another build of the program, to compare it.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// `--set KEY=VALUE`.
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.args.extend(["--set".to_owned(), format!("{key}={value}")]);
        self
    }

    /// Sets an environment variable of the process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Changes the configuration's text.
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.config.contains(from), "the configuration has no {from:?}");
        self.config = self.config.replace(from, to);
        self
    }

    /// Runs a broker that ends by itself, because something is wrong.
    pub fn fail_to_start(self) -> std::process::Output {
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("hotbay.toml"), &self.config).expect("the configuration");
        let data = folder.path().join("data");
        let broker = Broker { setup: self, folder, data, running: None, log: Arc::default() };
        broker.command(&["serve", "--listen", "127.0.0.1:0"]).output().expect("an end")
    }

    /// Starts it with an empty data folder.
    pub fn start(self) -> Broker {
        let folder = TempDir::new().expect("a folder");
        let data = folder.path().join("data");
        self.start_in(folder, data)
    }

    /// Starts it on a data folder.
    pub fn start_in(self, folder: TempDir, data: PathBuf) -> Broker {
        std::fs::write(folder.path().join("hotbay.toml"), &self.config).expect("the configuration");
        if self.keeps_compiled && !data.exists() {
            std::fs::create_dir(&data).expect("a folder");
            std::os::unix::fs::symlink(compiled(), data.join("artifacts")).expect("a link");
        }
        let mut broker = Broker { setup: self, folder, data, running: None, log: Arc::default() };
        broker.start();
        broker
    }
}

/// A folder of compiled plugins that tests share: five take four seconds to compile. Its key is made here, since several brokers that
/// start at once would each make one.
fn compiled() -> PathBuf {
    static MADE: Once = Once::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    MADE.call_once(|| {
        std::fs::create_dir_all(&folder).expect("a folder");
        let key: [u8; 64] = std::array::from_fn(|_| rand::random());
        match std::fs::File::create_new(folder.join("key")) {
            Ok(mut file) => file.write_all(&key).expect("a key"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
        }
    });
    folder
}

/// A running broker. Killed when dropped.
pub struct Broker {
    setup: Setup,
    folder: TempDir,
    data: PathBuf,
    running: Option<(Child, String)>,
    log: Arc<Mutex<String>>,
}

impl Broker {
    /// A command of the program with the broker's configuration, data folder and environment.
    pub fn command(&self, subcommand: &[&str]) -> Command {
        let mut command = Command::new(&self.setup.program);
        command
            .args(subcommand)
            .arg("--config")
            .arg(self.folder.path().join("hotbay.toml"))
            .arg("--data-dir")
            .arg(&self.data)
            .args(&self.setup.args)
            .env_clear()
            .envs(&self.setup.env);
        command
    }

    /// Starts the process and waits until it listens. Also after [`Broker::kill`], on the same data.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker");
        let stderr = child.stderr.take().expect("stderr");
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().expect("log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        stdout.read_line(&mut line).expect("a line");
        let Some((_, address)) = line.trim().split_once("listening on http://") else {
            drop(child.wait());
            panic!("the broker did not start: {line:?}\n{}", self.log());
        };
        // Whatever else it prints must not block it.
        std::thread::spawn(move || drop(stdout.read_to_end(&mut Vec::new())));
        self.running = Some((child, address.to_owned()));
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.running.as_ref().expect("running").1
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("running").0.id()
    }

    /// An HTTP URL on it.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Waits until it has logged this; returns all that it logged. Also after its end.
    pub async fn until_log(&self, words: &str) -> String {
        let wait = async {
            while !self.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "it did not log {words:?}:\n{}", self.log());
        self.log()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            drop(child.kill());
            child.wait().expect("an end");
        }
    }

    /// SIGTERM; waits for the end and returns the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Sends a signal and does not wait.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let (child, _) = self.running.as_ref().expect("running");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("a signal");
    }

    /// Waits for the end of the process and returns its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let (mut child, _) = self.running.take().expect("running");
        let wait = tokio::task::spawn_blocking(move || child.wait().expect("an end").code());
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("an end in time").expect("a thread")
    }

    /// Makes an API key of the tenant `default` with the command line.
    pub fn api_key(&self, name: &str) -> String {
        self.run(&["key", "create", "--name", name]).trim().to_owned()
    }

    /// Runs a subcommand that succeeds; returns what it printed.
    pub fn run(&self, subcommand: &[&str]) -> String {
        let output = self.command(subcommand).output().expect("an end");
        assert!(output.status.success(), "{subcommand:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Publishes JSON to a channel.
    pub async fn publish(&self, key: &str, channel: &str, body: &serde_json::Value) -> Answer {
        let url = self.http(&format!("/v1/channels/{channel}/publish"));
        let authorization = format!("Bearer {key}");
        http::post(&url, &[("authorization", &authorization), ("content-type", "application/json")], body).await
    }

    /// The value of a metric without labels, or of all its series together; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = http::get(&self.http("/metrics"), &[]).await.text;
        let series = metrics
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{')));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric has at least this value.
    pub async fn until_metric(&self, name: &str, at_least: f64) {
        self.watch_metric(name, |value| value >= at_least).await;
    }

    /// Waits until a metric has exactly this value.
    pub async fn until_metric_is(&self, name: &str, expected: f64) {
        self.watch_metric(name, |value| (value - expected).abs() < 0.5).await;
    }

    async fn watch_metric(&self, name: &str, fits: impl Fn(f64) -> bool) {
        let mut last = 0.0;
        let watch = async {
            loop {
                last = self.metric(name).await;
                if fits(last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, watch).await.is_ok();
        assert!(in_time, "{name} is {last} and stays so");
    }

    /// A token for a user, with extra claims, valid for an hour.
    pub fn token(&self, user: &str, claims: serde_json::Value) -> String {
        token(user, claims, 3_600)
    }

    /// A client connected to a path, which may have a query, with a token of `user` in `?token=`.
    pub async fn connect(&self, path: &str, user: &str) -> Client {
        self.connect_with(path, &self.token(user, serde_json::json!({}))).await
    }

    /// The same with any token.
    pub async fn connect_with(&self, path: &str, token: &str) -> Client {
        let join = if path.contains('?') { '&' } else { '?' };
        Client::connect(&format!("ws://{}{path}{join}token={token}", self.address())).await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the broker's log ---\n{}", self.log());
        }
    }
}

/// A signed HS256 token; `ttl_s` may be negative.
pub fn token(user: &str, claims: serde_json::Value, ttl_s: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let mut all = serde_json::json!({ "sub": user, "exp": now.cast_signed() + ttl_s });
    for (name, value) in claims.as_object().expect("an object") {
        all[name] = value.clone();
    }
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &all, &key).expect("a token")
}

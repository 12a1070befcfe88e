//! The broker's inside with a store that misbehaves on demand: one that panics, never answers, or is slow. From outside nobody
//! can make a store do so; sockets, channels and the plugin are real.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hotbay::channel::{Census, Directory, Logic, Plan, Rollout, Version};
use hotbay::connection::{self, Endpoint, Hub, Opened, UserRates};
use hotbay::limits::{MountLimits, NodeLimits};
use hotbay::plugin::{Plugin, Runtime};
use hotbay::protocol::capability::Capability;
use hotbay::protocol::identity::Identity;
use hotbay::protocol::name::{ChannelName, ChannelPattern};
use hotbay::protocol::overlay::Page;
use hotbay::store::sqlite::SqliteStore;
use hotbay::store::{
    Acquired, ApiKey, Catalog, ChannelKey, Commit, Committed, DueMark, DuePage, Durability, LogEntry, Order, Store,
    StoreFuture,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::{component, rebuilt};

/// A store that misbehaves while it is told to.
struct BadStore {
    good: SqliteStore,
    /// The next `acquire` panics.
    panics: AtomicBool,
    /// Each commit takes one. Without one it is neither answered nor written.
    permits: Semaphore,
    /// Each answer to a commit takes one. Without one it is written, and not answered.
    answers: Semaphore,
    /// How long each `get` takes, in milliseconds.
    get_ms: AtomicU64,
}

impl Store for BadStore {
    fn acquire<'a>(&'a self, channel: &'a ChannelName, owner: &'a str) -> StoreFuture<'a, Acquired> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "told to panic");
        self.good.acquire(channel, owner)
    }

    fn commit(&self, commit: Arc<Commit>) -> StoreFuture<'_, Committed> {
        Box::pin(async move {
            self.permits.acquire().await.expect("never closed").forget();
            let committed = self.good.commit(commit).await;
            self.answers.acquire().await.expect("never closed").forget();
            committed
        })
    }

    fn get<'a>(&'a self, channel: ChannelKey, key: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(self.get_ms.load(Ordering::Relaxed))).await;
            self.good.get(channel, key).await
        })
    }

    fn scan<'a>(
        &'a self,
        channel: ChannelKey,
        prefix: &'a str,
        after: Option<&'a str>,
        order: Order,
        limit: u32,
    ) -> StoreFuture<'a, Page> {
        self.good.scan(channel, prefix, after, order, limit)
    }

    fn read_log(&self, channel: ChannelKey, from: u64, before: u64, limit: u32) -> StoreFuture<'_, Vec<LogEntry>> {
        self.good.read_log(channel, from, before, limit)
    }

    fn due_timers(&self, until_ms: u64, after: Option<DueMark>, limit: u32) -> StoreFuture<'_, DuePage> {
        self.good.due_timers(until_ms, after, limit)
    }

    fn answer<'a>(
        &'a self,
        channel: &'a ChannelName,
        sender: &'a str,
        key: &'a str,
        now_ms: u64,
    ) -> StoreFuture<'a, Option<Bytes>> {
        self.good.answer(channel, sender, key, now_ms)
    }

    fn find_key<'a>(&'a self, hash: &'a [u8; 32]) -> StoreFuture<'a, Option<ApiKey>> {
        self.good.find_key(hash)
    }

    fn catalog(&self) -> &dyn Catalog {
        self.good.catalog()
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        self.good.check()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.good.close()
    }
}

/// What a broker has inside, with the fixture plugin.
pub(crate) struct Inside {
    store: Arc<BadStore>,
    pub(crate) directory: Arc<Directory>,
    hub: Arc<Hub>,
    endpoint: Arc<Endpoint>,
    runtime: Runtime,
    limits: Arc<MountLimits>,
    /// Its folder has the compiled plugins.
    folder: TempDir,
    _broker: Broker,
}

/// Everything a plugin can be granted.
fn grants() -> BTreeSet<Capability> {
    BTreeSet::from([Capability::Kv, Capability::Log, Capability::Logging, Capability::Sql, Capability::Stats])
}

impl Inside {
    pub(crate) async fn with(limits: MountLimits) -> Self {
        // Only the program itself can compile: it leaves the code in its folder.
        let folder = TempDir::new().expect("a folder");
        let second = rebuilt("fixture", "second", folder.path()).display().to_string();
        let relay = component("relay").display().to_string();
        let setup = Setup::fixture("").and(&format!(
            "[plugin.second]\npath = {second:?}\ngrants = [\"kv\", \"log\", \"logging\", \"sql\", \"stats\"]\n\
             [plugin.relay]\npath = {relay:?}\n"
        ));
        let mut broker = setup.start();
        broker.kill();
        let node = NodeLimits { channels_awake_max: 8, ..NodeLimits::default() };
        let runtime =
            Runtime::new(&node, std::iter::once(&limits), broker.data().join("artifacts")).expect("a runtime");
        let plugin = Arc::new(runtime.load_file("fixture", &component("fixture"), &grants()).expect("the plugin"));
        let limits = Arc::new(limits);
        let logic = Arc::new(Logic {
            mount: "fixture".to_owned(),
            plugin: "fixture".to_owned(),
            rollout: Rollout::new(Plan::all(Arc::new(Version::new(plugin, Arc::clone(&limits))))),
            limits: Arc::clone(&limits),
            settings: "{}".to_owned(),
            durability: Durability::Fsync,
            statements: BTreeMap::new(),
            patterns: vec![ChannelPattern::parse("fixture:*").expect("a pattern")],
            census: Census::default(),
        });
        let store = Arc::new(BadStore {
            good: SqliteStore::open(&broker.data().join("inside.db")).await.expect("a store"),
            panics: AtomicBool::new(false),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
            get_ms: AtomicU64::new(0),
        });
        let directory = Directory::new(Arc::clone(&store) as _, "test".to_owned(), &node, vec![Arc::clone(&logic)]);
        let endpoint = Endpoint {
            logic,
            route: false,
            evict: false,
            heartbeat_interval_ms: 60_000,
            heartbeat_timeout_ms: 60_000,
            compression: None,
            user_rates: UserRates::new(None),
        };
        let hub = Arc::new(Hub::new(Arc::clone(&directory)));
        Self { store, directory, hub, endpoint: Arc::new(endpoint), runtime, limits, folder, _broker: broker }
    }

    /// What the mount of its channels runs.
    pub(crate) fn logic(&self) -> &Arc<Logic> {
        &self.endpoint.logic
    }

    /// Another version of the fixture, or with `relay` another plugin.
    pub(crate) fn version(&self, name: &str, schema: u32, accepts: &[u32]) -> Arc<Version> {
        Arc::new(Version::with_schema(self.plugin(name), Arc::clone(&self.limits), schema, accepts.to_vec()))
    }

    /// The second version of the fixture with so little room for effects that it fails: to open with 0, in its first batch with 1.
    pub(crate) fn failing_version(&self, effects_max: usize) -> Arc<Version> {
        let limits = MountLimits { effects_max, ..(*self.limits).clone() };
        Arc::new(Version::new(self.plugin("second"), Arc::new(limits)))
    }

    fn plugin(&self, name: &str) -> Arc<Plugin> {
        let path = match name {
            "second" => self.folder.path().join("fixture-second.wasm"),
            name => component(name),
        };
        Arc::new(self.runtime.load_file(name, &path, &grants()).expect("a plugin"))
    }

    /// Lets commits through only one by one, as [`Inside::let_commit`] says.
    pub(crate) fn hold_commits(&self) {
        self.store.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets so many commits through.
    pub(crate) fn let_commit(&self, commits: usize) {
        self.store.permits.add_permits(commits);
    }

    /// Lets commits be written and not answered, until there are so many more answers.
    pub(crate) fn hold_answers(&self) {
        self.store.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets so many answers to commits through.
    pub(crate) fn let_answer(&self, answers: usize) {
        self.store.answers.add_permits(answers);
    }

    /// Lets each read of a key take so long.
    pub(crate) fn delay_reads(&self, ms: u64) {
        self.store.get_ms.store(ms, Ordering::Relaxed);
    }

    /// What is said of channels elsewhere than in their actors.
    pub(crate) fn catalog(&self) -> &dyn Catalog {
        self.store.catalog()
    }

    /// The version that a channel is pinned to. Takes it over.
    pub(crate) async fn pinned(&self, channel: &str) -> Option<[u8; 32]> {
        let name = ChannelName::new("default", &format!("fixture:{channel}")).expect("a name");
        self.store.acquire(&name, "test").await.expect("the channel").version
    }

    /// A connection that joins a channel, and perhaps another one quietly.
    pub(crate) async fn connect(&self, user: &str, channel: &str, quiet: Option<&str>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let identity = Identity::new("default", user, "", "{}", None);
        let arrival = self.endpoint.logic.census.connect(&identity, 100).expect("room for one more");
        let name = |name: &str| ChannelName::new("default", &format!("fixture:{name}")).expect("a name");
        let opened = Opened {
            stream,
            compressed: false,
            early: Bytes::new(),
            quota: self.directory.quotas().of(identity.tenant()),
            identity,
            arrival,
            endpoint: Arc::clone(&self.endpoint),
            channel: Some(name(channel)),
            quiet: quiet.map(name).into_iter().collect(),
        };
        tokio::spawn(connection::run(&self.hub, opened, ()));
        Client::over(client).await
    }

    /// Lets every channel go to sleep, as at the end of a broker.
    pub(crate) async fn drain(&self) {
        tokio::time::timeout(DEADLINE, self.directory.drain()).await.expect("the end of all channels in time");
        assert_eq!(self.directory.awake_count(), 0);
    }
}

pub(crate) async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// Law: an actor that panics closes whoever is in its channel, or was about to be, with 1011, nobody else, and leaves nothing
/// behind: the channel works again, with what was committed, and the broker can end.
#[tokio::test]
async fn a_panic_takes_one_channel_down_for_a_moment() {
    let inside = Inside::with(MountLimits { idle_ms: 1, ..MountLimits::default() }).await;
    let mut other = inside.connect("other", "other", None).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut other, "echo joined").await, "joined");
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    let mut quiet = inside.connect("quiet", "quiet", Some("a")).await;
    assert_eq!(ask(&mut quiet, "echo joined").await, "joined");
    let asleep = async {
        while inside.directory.awake_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asleep).await.expect("all asleep in time");

    inside.store.panics.store(true, Ordering::Relaxed);
    let mut newcomer = inside.connect("newcomer", "a", None).await;

    for (who, client) in [("newcomer", &mut newcomer), ("ann", &mut ann), ("quiet", &mut quiet)] {
        assert_eq!(client.close_code().await, Some(1011), "{who}");
    }
    assert_eq!(ask(&mut other, "echo on").await, "on");
    let mut again = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut again, "get k").await, "value v");
    assert!(ask(&mut again, "members").await.starts_with("members ann#"));
    inside.drain().await;
}

/// Law: a store that never answers a commit holds nobody up for ever: after `commit_ms_max` its sender is told that nobody knows
/// whether it took hold, those behind it have a try of their own, and the channel goes on when the store does.
#[tokio::test]
async fn a_commit_without_an_answer_is_given_up_and_called_unknown() {
    let limits = MountLimits { commit_ms_max: 300, batch_events_max: 1, ..MountLimits::default() };
    let inside = Inside::with(limits).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "put k before").await, "ok");

    inside.store.permits.forget_permits(Semaphore::MAX_PERMITS);
    ann.send_text("put k during").await;
    ann.send_text("put l behind").await;
    let (first, second) = (ann.text().await, ann.text().await);
    inside.store.permits.add_permits(100);

    for answer in [first, second] {
        assert!(answer.starts_with("refused unavailable:"), "{answer}");
        assert!(answer.contains("may or may not have taken hold"), "{answer}");
    }
    assert_eq!(ask(&mut ann, "put k after").await, "ok");
    assert_eq!(ask(&mut ann, "get k").await, "value after");
    assert_eq!(ask(&mut ann, "get l").await, "none");
    inside.drain().await;
}

/// Law: whoever sends something behind a join that is rejected is told that it is no member, also while the refusal waits for
/// the commit of its batch.
#[tokio::test]
async fn messages_behind_a_rejected_join_are_told() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    let mut other = inside.connect("other", "other", None).await;
    assert_eq!(ask(&mut ann, "put k 1").await, "ok");
    assert_eq!(ask(&mut other, "echo joined").await, "joined");
    let permits = &inside.store.permits;
    permits.forget_permits(Semaphore::MAX_PERMITS);
    // A batch on the way, behind which the join and another write become one batch.
    ann.send_text("put k 2").await;
    assert_eq!(ask(&mut other, "echo 1").await, "1");
    let mut unwanted = inside.connect("unwanted", "a", None).await;
    ann.send_text("put k 3").await;
    assert_eq!(ask(&mut other, "echo 2").await, "2");
    permits.add_permits(1);
    assert_eq!(ann.text().await, "ok");

    unwanted.send_text("echo lost").await;
    assert_eq!(ask(&mut other, "echo 3").await, "3");
    permits.add_permits(100);

    assert_eq!(ann.text().await, "ok");
    assert_eq!(unwanted.text().await, "refused forbidden: not you");
    assert_eq!(unwanted.text().await, "refused not-joined: not a member of the channel");
    inside.drain().await;
}

/// Law: what a plugin waits for is not its own time: many slow reads in one call take long, and cost next to nothing.
#[tokio::test]
async fn waiting_for_reads_is_not_charged() {
    const READS: u64 = 200;
    let limits = MountLimits { cpu_ms_max: 500, ..MountLimits::default() };
    let inside = Inside::with(limits).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "echo joined").await, "joined");

    inside.store.get_ms.store(5, Ordering::Relaxed);
    let started = std::time::Instant::now();
    let answer = ask(&mut ann, &format!("gets {READS}")).await;

    assert_eq!(answer, "done");
    assert!(started.elapsed() >= Duration::from_millis(5 * READS), "the reads were not slow: this proves nothing");
    // Its own time still is.
    assert!(ask(&mut ann, "loop").await.starts_with("refused fault:"));
}

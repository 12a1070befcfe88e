//! Law: whatever another tenant does, a tenant sees the same. The same script is run in two tenants: in one of them alone, in the other
//! while a neighbour with a name nearly the same does at random, between any two commands, the same sort of things in channels of the same
//! names. What both saw is compared, word by word; so is everything searched for marks of the neighbour.

use hotbay::limits::FAULTS_IN_A_ROW_MAX;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::seed;

const ROUNDS: u32 = 12;
const COMMANDS: u32 = 60;

/// Somebody of a tenant who speaks in one channel and listens in another.
struct Seat {
    tenant: String,
    /// What stands in all that it writes.
    mark: &'static str,
    speaks: Client,
    listens: Client,
    /// Faults in a row.
    faults: u32,
}

impl Seat {
    async fn take(broker: &Broker, tenant: &str, mark: &'static str) -> Self {
        let token = token("ann", json!({ "tenant": tenant }), 3_600);
        let mut clients = Vec::new();
        for channel in ["room", "other"] {
            let mut client = broker.connect_with(&format!("/ws?channel={channel}"), &token).await;
            client.send_text("echo joined").await;
            assert_eq!(client.text().await, "joined");
            clients.push(client);
        }
        let [speaks, listens] = clients.try_into().unwrap_or_else(|_| panic!("two clients"));
        Self { tenant: tenant.to_owned(), mark, speaks, listens, faults: 0 }
    }

    /// Does something and returns what came of it, without what may differ: ids and marks.
    async fn act(&mut self, act: &Act) -> String {
        let mut command = act.command.replace("MARK", self.mark);
        self.faults = if command == "trap" { self.faults + 1 } else { 0 };
        if self.faults == FAULTS_IN_A_ROW_MAX {
            // It would be closed.
            (command, self.faults) = ("count".to_owned(), 0);
        }
        self.speaks.send_text(&command).await;
        let client = if act.is_heard_elsewhere { &mut self.listens } else { &mut self.speaks };
        let answer = client.text().await;
        let without_ids: Vec<&str> = answer.split(' ').map(|word| word.split('#').next().unwrap_or(word)).collect();
        without_ids.join(" ").replace(&self.tenant, "TENANT").replace(self.mark, "MARK")
    }
}

/// A command, and where its one answer comes.
struct Act {
    command: String,
    is_heard_elsewhere: bool,
}

/// Any of the things that a plugin can do, and whose answer does not depend on time.
fn act(rng: &mut StdRng, number: u32) -> Act {
    const KEYS: [&str; 6] = ["k", "k:1", "../k", "k\0", "ключ", ""];
    let key = KEYS[rng.random_range(0..KEYS.len())];
    let (offset, limit) = (rng.random_range(0..8), rng.random_range(0..5));
    let here = |command: String| Act { command, is_heard_elsewhere: false };
    match rng.random_range(0..22) {
        0..3 => here(format!("put {key} MARK-{number}")),
        3 => here(format!("get {key}")),
        4 => here(format!("delete {key}")),
        5 => here(format!("scan {key}")),
        6..8 => here(format!("append MARK-{number}")),
        8 => here(format!("replace {offset} MARK-{number}")),
        9 => here(format!("read {offset} {limit}")),
        10 => here(format!("trim {offset}")),
        11 => here("members".to_owned()),
        12 => here(format!("timer far{limit} 3600000")),
        13 => here("stats".to_owned()),
        14 => here("count".to_owned()),
        15 => here(format!("say MARK-{number}")),
        16 => Act { command: format!("publish fixture:other say MARK-{number}"), is_heard_elsewhere: true },
        17 => here("sql one ann".to_owned()),
        18 => here("trap".to_owned()),
        19 => here(format!("keep {limit}")),
        20 => here(format!("to ann MARK-{number}")),
        _ => here("batch".to_owned()),
    }
}

/// Does something and forgets what came of it, unless it has the mark of others.
async fn disturb(broker: &Broker, rng: &mut StdRng, seat: &mut Seat, visitors: &mut Vec<Client>, number: u32) {
    match rng.random_range(0..10) {
        0 => {
            let token = token("visitor", json!({ "tenant": seat.tenant }), 3_600);
            let mut visitor = broker.connect_with("/ws?channel=visited", &token).await;
            visitor.send_text("timer tick 1").await;
            visitor.text().await;
            visitors.push(visitor);
        }
        1 => drop(visitors.pop()),
        _ => {
            let seen = seat.act(&act(rng, number)).await;
            assert!(!seen.contains(MINE), "the neighbour sees {seen}");
        }
    }
}

const MINE: &str = "mine";
const THEIRS: &str = "theirs";

async fn start(folder: &TempDir) -> Broker {
    let path = folder.path().join("shop.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut database = options.connect().await.expect("a database");
    // A row of every tenant there will be: which one is asked for is the host's word.
    let rows = "CREATE TABLE stock (owner TEXT, item TEXT); INSERT INTO stock VALUES ('ann', 'of ann')";
    sqlx::raw_sql(rows).execute(&mut database).await.expect("rows");
    let statement = format!(
        "[mount.fixture.statements]\none = \"shop.one\"\n[datasource.shop]\nurl = \"sqlite:{}\"\n[datasource.shop.statement.one]\n\
         sql = \"SELECT $1 AS tenant, item FROM stock WHERE owner = $2\"\nparameters = [\"tenant\", \"text\"]\n",
        path.display()
    );
    let mount = "channel = \"fixture:{query.channel}\"\nchannels = [\"fixture:*\"]\ndurability = \"os\"";
    Setup::fixture_mount(mount).and(&statement).start()
}

#[tokio::test]
async fn whatever_a_neighbour_does_a_tenant_sees_the_same() {
    let folder = TempDir::new().expect("a folder");
    let broker = start(&folder).await;
    let mut rng = StdRng::seed_from_u64(seed());
    for round in 0..ROUNDS {
        let names = [format!("b{round}0"), format!("B{round}"), format!("b{round}."), format!("b{round}-fixture")];
        let neighbour = &names[round as usize % names.len()];
        let mut alone = Seat::take(&broker, &format!("q{round}"), MINE).await;
        let mut beside = Seat::take(&broker, &format!("b{round}"), MINE).await;
        let mut other = Seat::take(&broker, neighbour, THEIRS).await;
        let mut visitors = Vec::new();
        for number in 0..COMMANDS {
            for _ in 0..rng.random_range(0..4) {
                disturb(&broker, &mut rng, &mut other, &mut visitors, number).await;
            }
            let act = act(&mut rng, number);
            let (quiet, busy) = (alone.act(&act).await, beside.act(&act).await);
            assert_eq!(busy, quiet, "{} beside {neighbour}, {}", beside.tenant, act.command);
            assert!(!busy.contains(THEIRS), "{} sees {busy}", beside.tenant);
        }
    }
}

//! A store that is locked, full or damaged: senders wait or are told, nothing is half done, and all works again when the cause
//! is gone.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::http;

const ROOM: &str = "room:1";

pub(crate) async fn database(broker: &Broker) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    options.connect().await.expect("the database")
}

pub(crate) async fn execute(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn subscribe(broker: &Broker, user: &str) -> Client {
    let mut client = broker.connect("/api/community/ws", user).await;
    client.send(json!({"type": "SUBSCRIBE", "channel": ROOM})).await;
    client.until_type("SUBSCRIBED").await;
    client
}

async fn say(client: &mut Client, content: &str) {
    client.send(json!({"type": "CHAT_MESSAGE", "channel": ROOM, "payload": {"content": content}})).await;
}

/// The answer to a message: its echo, or an error.
async fn answer(client: &mut Client) -> Value {
    client.until(|message| matches!(message["type"].as_str(), Some("CHAT_MESSAGE" | "ERROR"))).await
}

/// The contents a newcomer is shown.
async fn history(broker: &Broker) -> Vec<String> {
    let mut client = broker.connect("/api/community/ws", "historian").await;
    client.send(json!({"type": "SUBSCRIBE", "channel": ROOM, "payload": {"since": 0}})).await;
    let subscribed = client.until_type("SUBSCRIBED").await;
    let missed = subscribed["payload"]["missed"].as_array().expect("`missed`");
    missed.iter().map(|message| message["content"].as_str().expect("content").to_owned()).collect()
}

/// Waits until `/readyz` has this status; returns what it says.
async fn until_ready_is(broker: &Broker, status: u16) -> Value {
    let watch = async {
        loop {
            let answer = http::get(&broker.http("/readyz"), &[]).await;
            if answer.status == status {
                return answer.json();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, watch).await.unwrap_or_else(|_| panic!("/readyz does not become {status}"))
}

/// Law: a passing lock delays, and nothing else: nobody is told anything before it is on disk, and nobody is refused.
#[tokio::test]
async fn a_lock_of_another_process_makes_senders_wait() {
    let broker = Setup::example().start();
    let mut ann = subscribe(&broker, "ann").await;
    say(&mut ann, "before").await;
    assert_eq!(answer(&mut ann).await["payload"]["content"], "before");
    let mut other = database(&broker).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;

    for number in 0..5 {
        say(&mut ann, &format!("during {number}")).await;
    }
    broker.until_metric("hotbay_store_errors_total", 2.0).await;
    ann.nothing_before(json!({"type": "PING"}), |message| message["type"] == "PONG").await;
    execute(&mut other, "ROLLBACK").await;

    for number in 0..5 {
        assert_eq!(answer(&mut ann).await["payload"]["content"], format!("during {number}"));
    }
    assert_eq!(history(&broker).await, ["before", "during 0", "during 1", "during 2", "during 3", "during 4"]);
}

/// Law: a client whose channel has no room is not read, so its silence says nothing: it is not closed for that, however long it
/// takes, and goes on when there is room.
#[tokio::test]
async fn a_client_that_is_held_up_is_not_taken_for_dead() {
    let limits = "[mount.fixture.limits]\nmailbox_events_max = 4\nbatch_events_max = 4";
    let heartbeat = "heartbeat = { interval_ms = 300, timeout_ms = 1000 }";
    let broker = Setup::fixture(&format!("{heartbeat}\n{limits}")).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    ann.send_text("echo joined").await;
    assert_eq!(ann.text().await, "joined");
    let mut other = database(&broker).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;

    for number in 0..40 {
        ann.send_text(&format!("put k {number}")).await;
    }
    broker.until_metric("hotbay_backpressure_total", 1.0).await;
    // A client that is silent for no reason is the clock: when it is taken for dead, ann was silent for longer.
    let mut silent = broker.connect("/ws?channel=b", "silent").await;
    broker.until_metric("hotbay_heartbeat_timeouts_total", 1.0).await;
    execute(&mut other, "ROLLBACK").await;

    for number in 0..40 {
        assert_eq!(ann.text().await, "ok", "message {number}");
    }
    ann.send_text("get k").await;
    assert_eq!(ann.text().await, "value 39");
    assert_eq!(broker.metric("hotbay_heartbeat_timeouts_total").await, 1.0);
    assert_eq!(silent.close_code().await, None, "the clock");
}

/// Law: what cannot be stored within `commit_ms_max` is refused loudly and leaves no trace; then all works again.
#[tokio::test]
async fn a_lock_longer_than_the_limit_refuses_and_leaves_nothing_half_done() {
    let broker = Setup::example().set("mount.community.limits.commit_ms_max", 400).start();
    let mut ann = subscribe(&broker, "ann").await;
    let mut bob = subscribe(&broker, "bob").await;
    say(&mut ann, "before").await;
    assert_eq!(answer(&mut ann).await["type"], "CHAT_MESSAGE");
    assert_eq!(answer(&mut bob).await["type"], "CHAT_MESSAGE");
    let mut other = database(&broker).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;

    say(&mut ann, "refused").await;
    let refused = answer(&mut ann).await;
    say(&mut ann, "refused too").await;
    let refused_too = answer(&mut ann).await;
    let not_ready = until_ready_is(&broker, 503).await;
    execute(&mut other, "ROLLBACK").await;

    assert_eq!(refused["payload"]["code"], "unavailable", "{refused}");
    assert_eq!(refused_too["payload"]["code"], "unavailable", "{refused_too}");
    assert!(not_ready["store"].as_str().expect("the cause").contains("locked"), "{not_ready}");
    assert_eq!(http::get(&broker.http("/healthz"), &[]).await.status, 200);
    until_ready_is(&broker, 200).await;
    // The channel may still be pausing after its last failure: a refusal now is honest, silence or half a message is not.
    let stored = until_stored(&mut ann, "after").await;
    assert_eq!(stored["payload"]["id"], "2", "an id was used up by what was never stored");
    assert_eq!(answer(&mut bob).await["payload"]["content"], "after", "bob saw what was refused");
    assert_eq!(history(&broker).await, ["before", "after"]);
}

/// Sends a message until it is stored; each time it is not, there is an `unavailable`.
async fn until_stored(client: &mut Client, content: &str) -> Value {
    let retry = async {
        loop {
            say(client, content).await;
            let answer = answer(client).await;
            if answer["type"] == "CHAT_MESSAGE" {
                return answer;
            }
            assert_eq!(answer["payload"]["code"], "unavailable", "{answer}");
        }
    };
    tokio::time::timeout(DEADLINE, retry).await.expect("the store works again in time")
}

/// A small disk of its own, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `Err` with the reason if this process may not mount.
    fn mount(bytes: usize) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mount {
            Ok(output) if output.status.success() => Ok(Self(folder)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        for size in [1 << 20, 64 << 10, 4 << 10, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a broker that is being dropped as well may still have files open.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// Law: a full disk is said loudly, nothing acknowledged is lost over it, and it ends when there is room.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let disk = match SmallDisk::mount(48 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("!!! NOT TESTED: a full disk needs the right to mount a tmpfs, and there is none: {reason}");
            return;
        }
    };
    let setup = Setup::example()
        .set("mount.community.limits.commit_ms_max", 300)
        .replace("{ per_second = 50, burst = 100 }", "{ per_second = 1_000_000, burst = 1_000_000 }");
    let broker = setup.start_in(TempDir::new().expect("a folder"), disk.path().join("data"));
    let mut ann = subscribe(&broker, "ann").await;
    let filler = disk.fill();

    // What the write-ahead log still has room for is stored; then comes the refusal.
    let padding = "x".repeat(3_900);
    let mut acked = Vec::new();
    let refused = loop {
        let content = format!("{} {padding}", acked.len());
        say(&mut ann, &content).await;
        let answer = answer(&mut ann).await;
        if answer["type"] == "ERROR" {
            break answer;
        }
        acked.push(answer["payload"]["id"].clone());
        assert!(acked.len() < 10_000, "the disk does not get full");
    };
    let not_ready = until_ready_is(&broker, 503).await;
    std::fs::remove_file(filler).expect("room again");

    assert_eq!(refused["payload"]["code"], "unavailable", "{refused}");
    let cause = not_ready["store"].as_str().expect("the cause").to_lowercase();
    assert!(cause.contains("full"), "{not_ready}");
    until_ready_is(&broker, 200).await;
    let stored = until_stored(&mut ann, "after").await;
    let expected = acked.len() + 1;
    assert_eq!(stored["payload"]["id"], expected.to_string(), "an id was used up, or an acknowledged message lost");
}

fn overwrite(path: &Path, from: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
    file.seek(std::io::SeekFrom::Start(from)).expect("a place");
    file.write_all(bytes).expect("room");
}

fn remove_log(data: &Path) {
    for name in ["hotbay.db-wal", "hotbay.db-shm"] {
        drop(std::fs::remove_file(data.join(name)));
    }
}

/// Law: a file that is no database ends the start, with the file's name and a code for scripts.
#[tokio::test]
async fn a_corrupt_database_ends_the_start_and_is_named() {
    let mut broker = Setup::example().start();
    let mut ann = subscribe(&broker, "ann").await;
    say(&mut ann, "hi").await;
    answer(&mut ann).await;
    broker.kill();
    remove_log(broker.data());
    overwrite(&broker.data().join("hotbay.db"), 0, &[0xAB; 8_192]);

    let output = broker.command(&["serve", "--listen", "127.0.0.1:0"]).output().expect("an end");

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{:?}: {said}", output.status);
    assert!(said.contains("hotbay.db"), "{said}");
    assert!(said.contains("not a database") || said.contains("damaged") || said.contains("corrupt"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Law: from a file that was damaged under the running broker nobody gets a part for the whole, and the process goes on.
#[tokio::test]
async fn a_database_damaged_while_running_never_answers_with_a_part() {
    let broker = Setup::example().set("mount.community.limits.idle_ms", 50).start();
    let mut ann = subscribe(&broker, "ann").await;
    for number in 0..60 {
        say(&mut ann, &format!("{number} {}", "x".repeat(2_000))).await;
        assert_eq!(answer(&mut ann).await["type"], "CHAT_MESSAGE");
    }
    let mut other = database(&broker).await;
    execute(&mut other, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    drop(other);
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    let file = broker.data().join("hotbay.db");
    let bytes = std::fs::metadata(&file).expect("the file").len();

    overwrite(&file, 4_096, &vec![0xAB; bytes as usize - 4_096]);

    let mut bob = broker.connect("/api/community/ws", "bob").await;
    bob.send(json!({"type": "SUBSCRIBE", "channel": ROOM, "payload": {"since": 0}})).await;
    let answer = bob.until(|message| matches!(message["type"].as_str(), Some("SUBSCRIBED" | "ERROR"))).await;
    match answer["type"].as_str() {
        Some("SUBSCRIBED") => assert_eq!(answer["payload"]["missed"].as_array().map(Vec::len), Some(60), "a part"),
        _ => assert_eq!(answer["payload"]["code"], "unavailable", "{answer}"),
    }
    assert_eq!(http::get(&broker.http("/healthz"), &[]).await.status, 200);
    let mut ping = broker.connect("/api/community/ws", "carol").await;
    ping.nothing_before(json!({"type": "PING"}), |message| message["type"] == "PONG").await;
}

//! System 5, collaborative drafts, over real sockets: JSON frames on `/ws`, the protocol of y-websocket on `/yjs/{draftId}`. Items are
//! those of system 5. Convergence of real editors is tested in `tests/e2e/drafts.mjs`, the page in a browser.
//!
//! Not here: 22 (the host's logs), 25 (alerts), 29 and 34 (several servers), 30 (saves
//! are grouped by the store), 32's comments and change tracking (documents of the clients).

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio_tungstenite::tungstenite::Message;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http;

fn user(name: &str, firm: &str, claims: &Value) -> String {
    let mut all = json!({ "userId": name, "firmId": firm, "role": "editor", "email": format!("{name}@example.com") });
    for (claim, value) in claims.as_object().expect("an object") {
        all[claim] = value.clone();
    }
    token("somebody", all, 3_600)
}

async fn connect(broker: &Broker, path: &str, name: &str, firm: &str) -> Client {
    broker.connect_with(path, &user(name, firm, &json!({}))).await
}

/// A JSON client, and the document it got.
async fn json_client(broker: &Broker, draft: &str, name: &str) -> (Client, Vec<u8>) {
    let mut client = connect(broker, &format!("/ws?draftId={draft}"), name, "f1").await;
    let state = client.json().await;
    assert_eq!(state["type"], "yjs-state-response", "{state}");
    let bytes = bytes(&state["data"]);
    (client, bytes)
}

fn bytes(data: &Value) -> Vec<u8> {
    let list = data.as_array().unwrap_or_else(|| panic!("{data} is no array"));
    list.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()).expect("a byte")).collect()
}

/// Writes a number as Yjs does.
fn number(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// An update (v1) that inserts a text into the type `t`, behind what the same client inserted before this clock. The format is that of
/// Yjs: number of clients, blocks, client, clock, block info (string, 4, with or without an origin, 128), the origin or the name of a root
/// type, content; an empty delete set.
fn inserts(client: u8, clock: usize, text: &[u8]) -> Vec<u8> {
    let mut update = vec![1, 1, client];
    number(&mut update, clock);
    if let Some(last) = clock.checked_sub(1) {
        update.extend([0x84, client]);
        number(&mut update, last);
    } else {
        update.extend([0x04, 1, 1, b't']);
    }
    number(&mut update, text.len());
    update.extend_from_slice(text);
    update.push(0);
    update
}

/// The same as the first thing of a client.
fn writes(client: u8, text: &str) -> Vec<u8> {
    inserts(client, 0, text.as_bytes())
}

fn update(data: &[u8]) -> Value {
    json!({ "type": "yjs-update", "data": data })
}

/// A frame of y-websocket: sync (0), then step 1 (0), step 2 (1) or update (2), then a length and that many bytes.
fn sync(step: u8, data: &[u8]) -> Message {
    let mut frame = vec![0, step];
    number(&mut frame, data.len());
    frame.extend_from_slice(data);
    Message::binary(frame)
}

/// Proves that nothing came in so far.
async fn hears_nothing(client: &mut Client) {
    client.nothing_before(json!({ "type": "ping" }), |answer| answer["type"] == "pong").await;
}

/// An awareness frame of one client: its clock and its state as JSON.
fn awareness(client: u8, clock: u8, state: &str) -> Message {
    let mut inner = vec![1, client, clock, state.len() as u8];
    inner.extend_from_slice(state.as_bytes());
    let mut frame = vec![1, inner.len() as u8];
    frame.extend(inner);
    Message::binary(frame)
}

async fn binary(client: &mut Client) -> Vec<u8> {
    match client.next().await {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("{other:?} is not binary"),
    }
}

/// Reads binary frames until one fits.
async fn until(client: &mut Client, fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        let frame = binary(client).await;
        if fits(&frame) {
            return frame;
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Items 1 to 4 and 36: the upgrade is accepted, and closed with 1008 and the reason.
#[tokio::test]
async fn who_may_not_open_a_draft_is_closed_with_1008() {
    let broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    // What is written stays its firm's; a draft nobody wrote into is the next one's.
    ann.send(update(&writes(1, "ours"))).await;
    hears_nothing(&mut ann).await;
    ann.close().await;
    let good = user("ann", "f1", &json!({}));
    let base = format!("ws://{}", broker.address());
    let foreign = user("eve", "f2", &json!({}));
    let homeless = token("eve", json!({ "userId": "eve" }), 60);
    let expired = token("ann", json!({ "userId": "ann", "firmId": "f1" }), -60);
    for (path, reason) in [
        (format!("/ws?token={good}"), "draftId"),
        (format!("/ws?token={good}&draftId="), "draftId"),
        ("/ws?draftId=d1".to_owned(), "token"),
        ("/ws?draftId=d1&token=a.b.c".to_owned(), "token"),
        (format!("/ws?draftId=d1&token={expired}"), "expired"),
        (format!("/ws?draftId=d1&token={foreign}"), "Access denied"),
        (format!("/ws?draftId=d1&token={homeless}"), "Access denied"),
        ("/yjs/d1".to_owned(), "token"),
        (format!("/yjs/d1?token={foreign}"), "Access denied"),
    ] {
        let mut client = Client::connect(&format!("{base}{path}")).await;
        let (code, told) = client.closed().await.unwrap_or_else(|| panic!("{path}: no close frame"));
        assert_eq!(code, 1008, "{path}: {told}");
        assert!(told.contains(reason), "{path}: {told}");
    }
    let invited = user("guest", "f2", &json!({ "drafts": ["d1"] }));
    let mut guest = broker.connect_with("/ws?draftId=d1", &invited).await;
    assert_eq!(guest.json().await["type"], "yjs-state-response");
}

/// Items 5 to 8, 12 and 14: the state comes on joining and on request; an update goes to the others, not back, not elsewhere.
#[tokio::test]
async fn an_update_reaches_the_others_of_its_draft() {
    let broker = Setup::example().start();
    let (mut ann, empty) = json_client(&broker, "d1", "ann").await;
    let (mut bob, _) = json_client(&broker, "d1", "bob").await;
    let (mut cleo, _) = json_client(&broker, "d2", "cleo").await;
    assert_eq!(empty, [0, 0], "the update of an empty document");
    let hello = writes(1, "hello");

    ann.send(update(&hello)).await;

    let told = bob.json().await;
    assert_eq!((&told["type"], bytes(&told["data"])), (&json!("yjs-update"), hello.clone()));
    ann.send(json!({ "type": "yjs-state-request" })).await;
    let state = ann.json().await;
    assert_eq!(state["type"], "yjs-state-response", "the sender gets no echo: {state}");
    assert!(contains(&bytes(&state["data"]), b"hello"));
    hears_nothing(&mut cleo).await;

    // The same again says nothing new.
    bob.send(update(&hello)).await;
    hears_nothing(&mut ann).await;
}

/// Items 9 to 11: what is wrong is said, the connection stays, and nothing changes.
#[tokio::test]
async fn bad_frames_get_an_error_and_change_nothing() {
    let broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    let (mut bob, _) = json_client(&broker, "d1", "bob").await;
    ann.send(update(&writes(1, "good"))).await;
    bob.json().await;
    let mut huge = vec![1, 1, 1, 0, 0x04, 1, 1, b't', 0xff, 0xff, 0xff, 0xff, 0x0f];
    huge.extend_from_slice(b"xx");
    for text in [
        "{".to_owned(),
        "[]".to_owned(),
        "NaN".to_owned(),
        json!({ "type": "yjs-update" }).to_string(),
        json!({ "type": "yjs-update", "data": "x" }).to_string(),
        json!({ "type": "yjs-update", "data": [256] }).to_string(),
        json!({ "type": "yjs-update", "data": [-1] }).to_string(),
        json!({ "type": "yjs-update", "data": [1.5] }).to_string(),
        json!({ "type": "yjs-update", "data": [] }).to_string(),
        update(&[1, 2, 3]).to_string(),
        update(&huge).to_string(),
        update(&[0xff; 40]).to_string(),
    ] {
        ann.send_text(&text).await;
        let error = ann.json().await;
        assert!(error["type"] == "error" && error["error"].is_string(), "{text}: {error}");
    }
    ann.send(json!({ "type": "dance" })).await;
    hears_nothing(&mut ann).await;
    ann.send(json!({ "type": "yjs-state-request" })).await;
    let state = bytes(&ann.json().await["data"]);
    assert!(contains(&state, b"good"));
    hears_nothing(&mut bob).await;
}

/// Items 15 and 16: what others saw is on disk; `kill -9` loses nothing, and nobody gets an empty document.
#[tokio::test]
async fn what_was_seen_survives_kill_nine() {
    let mut broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    let (mut bob, _) = json_client(&broker, "d1", "bob").await;
    for number in 1..=20 {
        ann.send(update(&writes(number, &format!("text-{number:02}")))).await;
        bob.json().await;
    }
    broker.kill();
    broker.start();

    let (_ann, state) = json_client(&broker, "d1", "ann").await;

    for number in 1..=20 {
        assert!(contains(&state, format!("text-{number:02}").as_bytes()), "{number}");
    }
}

/// Item 32: y-websocket's protocol, on the same document as JSON at the same time.
#[tokio::test]
async fn both_protocols_share_a_document() {
    let broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    ann.send(update(&writes(1, "from json"))).await;
    hears_nothing(&mut ann).await;
    let mut bob = connect(&broker, "/yjs/d1", "bob", "f1").await;
    // An empty state vector asks for everything.
    bob.send_message(sync(0, &[0])).await;
    let state = until(&mut bob, |frame| frame.starts_with(&[0, 1])).await;
    assert!(contains(&state, b"from json"));

    bob.send_message(sync(2, &writes(2, "from binary"))).await;
    let told = ann.json().await;
    assert_eq!((&told["type"], bytes(&told["data"])), (&json!("yjs-update"), writes(2, "from binary")));
    ann.send(update(&writes(3, "again json"))).await;
    let told = until(&mut bob, |frame| frame.starts_with(&[0, 2])).await;
    assert!(contains(&told, b"again json"));

    // Who knows client 1 up to clock 9 is told of the others only.
    bob.send_message(sync(0, &[1, 1, 9])).await;
    let missing = until(&mut bob, |frame| frame.starts_with(&[0, 1])).await;
    assert!(!contains(&missing, b"from json") && contains(&missing, b"again json"));
}

/// Item 32: awareness goes to the others of y-websocket, to newcomers, and leaves with its member or when nobody renews it.
#[tokio::test]
async fn awareness_comes_and_goes_with_its_member() {
    let broker = Setup::example().set("mount.drafts.settings.awareness_timeout_ms", 2_000).start();
    let mut ann = connect(&broker, "/yjs/d1", "ann", "f1").await;
    let mut bob = connect(&broker, "/yjs/d1", "bob", "f1").await;
    let (mut json, _) = json_client(&broker, "d1", "cleo").await;
    let state = r#"{"user":"ann"}"#;

    ann.send_message(awareness(7, 1, state)).await;
    let told = until(&mut bob, |frame| frame[0] == 1).await;
    assert!(contains(&told, state.as_bytes()));
    let mut late = connect(&broker, "/yjs/d1", "dan", "f1").await;
    let told = until(&mut late, |frame| frame[0] == 1).await;
    assert!(contains(&told, state.as_bytes()), "a newcomer learns who is there");

    ann.close().await;
    let gone = until(&mut bob, |frame| frame[0] == 1).await;
    assert!(contains(&gone, b"null"), "{gone:?}");

    bob.send_message(awareness(8, 1, "{}")).await;
    until(&mut late, |frame| frame[0] == 1 && contains(frame, b"{}")).await;
    let expired = until(&mut late, |frame| frame[0] == 1).await;
    assert!(contains(&expired, b"null"), "nobody renewed it: {expired:?}");
    hears_nothing(&mut json).await;
}

/// A viewer reads and does not write, by either protocol.
#[tokio::test]
async fn a_viewer_reads_and_does_not_write() {
    let broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    ann.send(update(&writes(1, "text"))).await;
    hears_nothing(&mut ann).await;
    let viewer = user("vic", "f1", &json!({ "role": "viewer" }));
    let mut vic = broker.connect_with("/ws?draftId=d1", &viewer).await;
    assert!(contains(&bytes(&vic.json().await["data"]), b"text"));
    vic.send(update(&writes(2, "graffiti"))).await;
    assert_eq!(vic.json().await["type"], "error");
    let mut binary = broker.connect_with("/yjs/d1", &viewer).await;
    binary.send_message(sync(2, &writes(3, "graffiti"))).await;
    binary.send_message(sync(0, &[0])).await;
    let state = until(&mut binary, |frame| frame.starts_with(&[0, 1])).await;
    assert!(!contains(&state, b"graffiti"));
    hears_nothing(&mut ann).await;
}

/// A statement replaces the rule of firms where one is configured.
#[tokio::test]
async fn a_statement_decides_who_may_open_a_draft() {
    let access = r#"
        [datasource.drafts]
        url = "sqlite:{data_dir}/drafts.db"
        create_from = ["SCHEMA"]
        [datasource.drafts.statement.draft_access]
        sql = "SELECT access FROM access WHERE draft = $1 AND person = $2 AND $3 IS NOT NULL AND $4 IS NOT NULL"
        parameters = ["text", "text", "text", "text"]
        [mount.drafts.statements]
        draft_access = "drafts.draft_access"
        "#;
    let folder = tempfile::TempDir::new().expect("a folder");
    let schema = folder.path().join("schema.sql");
    let sql = "CREATE TABLE access (draft TEXT, person TEXT, access TEXT);
        INSERT INTO access VALUES ('d1', 'ann', 'write'), ('d1', 'bob', 'read');";
    std::fs::write(&schema, sql).expect("a file");
    let access = access.replace("SCHEMA", &schema.display().to_string());
    let broker = Setup::example().replace("[mount.drafts.auth]", &format!("{access}\n[mount.drafts.auth]")).start();

    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    let (mut bob, _) = json_client(&broker, "d1", "bob").await;
    let mut eve = connect(&broker, "/ws?draftId=d1", "eve", "f1").await;
    assert_eq!(eve.close_code().await, Some(1008), "the same firm is not enough");
    ann.send(update(&writes(1, "hi"))).await;
    assert_eq!(bob.json().await["type"], "yjs-update");
    bob.send(update(&writes(2, "no"))).await;
    assert_eq!(bob.json().await["type"], "error");
}

/// Items 23 and 24.
#[tokio::test]
async fn health_counts_connections_and_rooms() {
    let broker = Setup::example().start();
    let health = async || http::get(&broker.http("/api/health"), &[]).await;
    let one = json_client(&broker, "d1", "ann").await;
    let two = json_client(&broker, "d1", "bob").await;
    let three = json_client(&broker, "d2", "cleo").await;

    let answer = health().await;

    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["websocket"]),
        (&json!("ok"), &json!({ "connections": 3, "rooms": 2 })),
        "{body}"
    );
    assert!(body["timestamp"].as_str().expect("ISO").ends_with('Z'));
    drop((one, two, three));
}

/// Items 17 and 18: who does not answer pings is dropped after 35 s (here less), and the log says who came and went.
#[tokio::test]
async fn heartbeats_and_log_lines() {
    let broker = Setup::example()
        .set("mount.drafts.heartbeat.interval_ms", 300)
        .set("mount.drafts.heartbeat.timeout_ms", 350)
        .start();
    // It never answers pings, because nobody polls it.
    let (silent, _) = json_client(&broker, "d1", "ann").await;
    broker.until_metric("hotbay_heartbeat_timeouts_total", 1.0).await;
    let log = broker.until_log("ws.disconnect").await;
    assert!(log.contains("ws.connect") && log.contains("draftId=d1") && log.contains("userId=ann"), "{log}");
    drop(silent);
}

/// A large document: up to its bound it is taken, beyond that refused, and it wakes again.
#[tokio::test]
async fn a_document_has_a_bound() {
    let broker = Setup::example()
        .set("mount.drafts.settings.document_bytes_max", 300_000)
        .set("mount.drafts.limits.idle_ms", 500)
        .start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    let mut binary = connect(&broker, "/yjs/d1", "bob", "f1").await;
    binary.send_message(sync(2, &inserts(1, 0, &vec![b'x'; 250_000]))).await;
    assert_eq!(ann.json().await["type"], "yjs-update");
    binary.send_message(sync(2, &inserts(2, 0, &vec![b'x'; 100_000]))).await;
    until(&mut binary, |frame| frame.starts_with(&[2, 0])).await;
    ann.send(json!({ "type": "yjs-state-request" })).await;
    let state = ann.until(|frame| frame["type"] == "yjs-state-response").await;
    let length = state["data"].as_array().expect("bytes").len();
    assert!((250_000..251_000).contains(&length), "{length}");

    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    ann.send(json!({ "type": "yjs-state-request" })).await;
    let state = ann.until(|frame| frame["type"] == "yjs-state-response").await;
    assert_eq!(state["data"].as_array().expect("bytes").len(), length, "it wakes as it was");
}

/// Decided: what makes the document larger than 16 MiB gets `error` and changes nothing.
/// Method: letters whose bytes are one digit, so that 7 MiB of them fit into a frame of JSON, written without a tree of numbers.
#[tokio::test]
async fn a_document_has_16_mib_by_default() {
    const MIB: usize = 1 << 20;
    let tabs = |client, length| {
        let list = serde_json::to_string(&inserts(client, 0, &vec![b'\t'; length])).expect("JSON");
        format!("{{\"type\":\"yjs-update\",\"data\":{list}}}")
    };
    let broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    for client in [1, 2] {
        ann.send_text(&tabs(client, 7 * MIB)).await;
        hears_nothing(&mut ann).await;
    }

    ann.send_text(&tabs(3, 3 * MIB)).await;

    let why = "the update would make the document too large";
    assert_eq!(ann.json().await, json!({ "type": "error", "error": why }));
    // What the server has, as it says itself to who may write.
    let mut vector = vec![2];
    for client in [1, 2] {
        vector.push(client);
        number(&mut vector, 7 * MIB);
    }
    let mut bob = connect(&broker, "/yjs/d1", "bob", "f1").await;
    assert_eq!(Message::binary(binary(&mut bob).await), sync(0, &vector));
    ann.send(update(&inserts(4, 0, b"small"))).await;
    assert_eq!(Message::binary(binary(&mut bob).await), sync(2, &inserts(4, 0, b"small")));
}

/// Item 9: who sends an update while one before it is missing learns of it, once, and can mend it. Else it would write for nobody.
#[tokio::test]
async fn who_leaves_a_gap_is_told_and_closes_it() {
    let broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    let (mut bob, _) = json_client(&broker, "d1", "bob").await;

    ann.send(update(&inserts(1, 3, b"def"))).await;

    let why = "updates before this one are missing; send your whole state";
    assert_eq!(ann.json().await, json!({ "type": "error", "error": why }));
    ann.send(update(&inserts(1, 6, b"g"))).await;
    hears_nothing(&mut ann).await;
    ann.send(update(&inserts(1, 0, b"abcdefg"))).await;
    hears_nothing(&mut ann).await;
    for told in [inserts(1, 3, b"def"), inserts(1, 6, b"g"), inserts(1, 0, b"abcdefg")] {
        assert_eq!(bob.json().await, update(&told));
    }
    let (_cleo, state) = json_client(&broker, "d1", "cleo").await;
    let blocks = b"\x04\x01\x01t\x03abc\x84\x01\x02\x03def\x84\x01\x05\x01g";
    assert_eq!(state, [&[1, 3, 1, 0], &blocks[..], &[0]].concat(), "three blocks from clock 0 on, and no gap");
}

/// Items 15 and 16, decided: 500 updates become a snapshot, and that with the tail behind it is the document.
#[tokio::test]
async fn a_folded_document_is_the_same_after_a_restart() {
    let mut broker = Setup::example().start();
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    // Those of a batch are folded together, at its end, and it leaves its own in the log: 256 at most. The rest comes after that.
    for clock in 0..600 {
        if clock == 550 {
            hears_nothing(&mut ann).await;
        }
        ann.send(update(&inserts(1, clock, &[b'a' + (clock % 26) as u8]))).await;
    }
    ann.send(json!({ "type": "yjs-state-request" })).await;
    let before = bytes(&ann.json().await["data"]);
    broker.kill();
    let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut database = options.connect().await.expect("the database");
    let count = "SELECT (SELECT count(*) FROM state WHERE key = CAST('snapshot' AS BLOB)), log_next - log_first
        FROM channel WHERE name = 'draft:d1'";
    let (heads, tail): (i64, i64) = sqlx::query_as(count).fetch_one(&mut database).await.expect("counts");
    assert!(heads == 1 && (50..400).contains(&tail), "{heads} snapshots, {tail} updates behind");
    database.close().await.expect("an end");
    broker.start();

    let (_ann, after) = json_client(&broker, "d1", "ann").await;

    assert_eq!(after, before);
    let letters: Vec<u8> = (0..500_u16).map(|clock| b'a' + (clock % 26) as u8).collect();
    assert!(contains(&after, &letters), "what was folded is one text");
}

/// Decided: an application server changes a draft with `yjs-update`, and what it publishes is as durable as any other update.
#[tokio::test]
async fn a_server_publishes_an_update() {
    let mut broker = Setup::example().start();
    let key = broker.api_key("backend");
    let (mut ann, _) = json_client(&broker, "d1", "ann").await;
    let mut bob = connect(&broker, "/yjs/d1", "bob", "f1").await;
    let published = writes(9, "by a server");

    let answer = broker.publish(&key, "draft:d1", &update(&published)).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(ann.json().await, update(&published));
    until(&mut bob, |frame| Message::binary(frame.to_vec()) == sync(2, &published)).await;
    for wrong in [json!({ "type": "ping" }), update(&[1, 2, 3])] {
        let answer = broker.publish(&key, "draft:d1", &wrong).await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text);
    }
    hears_nothing(&mut ann).await;
    broker.kill();
    broker.start();
    let (_ann, state) = json_client(&broker, "d1", "ann").await;
    assert_eq!(state, published);
}

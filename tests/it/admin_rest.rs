//! Tenants, keys, channels, connections, tapes and the audit log, by HTTP and by the command line.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::admin::Admin;
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

fn begin() -> (Broker, Admin) {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    (broker, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_set_shown_and_forgotten() {
    let (_broker, operator) = begin();
    let shown = operator.cli(&["tenant", "show", "acme"]);
    assert!(shown.code == Some(1) && shown.err.contains("hotbay tenant set acme"), "{shown:?}");
    let set = [
        "tenant",
        "set",
        "acme",
        "--policy",
        "closed",
        "--grants",
        "kv,log",
        "--limits",
        "{\"connections_max\":5}",
        "--json",
    ];
    let set = operator.cli(&set).json();
    assert_eq!((&set["policy"], &set["grants"]), (&json!("closed"), &json!(["kv", "log"])));
    let again =
        operator.cli(&["tenant", "set", "acme", "--policy", "review", "--reason", "they paid", "--json"]).json();
    assert_eq!(
        (&again["policy"], &again["grants"]),
        (&json!("review"), &json!(["kv", "log"])),
        "what is not given stays"
    );
    let listed = operator.cli(&["tenant", "list"]).words();
    assert!(listed.lines().nth(1).is_some_and(|line| line.starts_with("acme") && line.contains("kv,log")), "{listed}");
    for (arguments, words) in [
        (&["tenant", "set", "acme", "--policy", "open"][..], "there are auto, review and closed"),
        (&["tenant", "set", "acme", "--grants", "root"], "there is no capability \"root\""),
        (&["tenant", "set", "acme", "--trusted-key", "abc"], "not a public key of minisign"),
        (&["tenant", "set", "a/b"], "tenant name"),
        (&["tenant", "delete", "globex"], "there is no tenant \"globex\""),
    ] {
        let ended = operator.cli(arguments);
        assert!(ended.code == Some(1) && ended.err.contains(words), "{arguments:?}: {ended:?}");
    }
    assert_eq!(operator.cli(&["tenant", "delete", "acme", "--json"]).json(), json!({ "deleted": "acme" }));
    assert_eq!(operator.get("/tenants").await.json()["items"], json!([]));
    let audit = operator.cli(&["audit", "--tenant", "acme", "--json"]).json();
    let actions: Vec<&Value> =
        audit["items"].as_array().expect("entries").iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["tenant.deleted", "tenant.put", "tenant.put"]);
    assert_eq!(audit["items"][1]["reason"], "they paid");
}

/// Goal: a key made over HTTP works, its secret is told once and never again, and it ends when it is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_used_and_revoked_from_afar() {
    let (broker, operator) = begin();
    let url = broker.http("");
    let made = operator.cli(&["key", "create", "--name", "shop", "--tenant", "acme", "--broker", &url]).words();
    let acme = Admin::with(&broker, Some(made.trim()));
    assert_eq!(acme.get("/tenants/acme/plugins").await.status, 200);
    let twice = operator.post("/keys", &json!({ "tenant": "acme", "name": "shop" })).await;
    assert!(twice.status == 409 && twice.text.contains("revoke it first"), "{}", twice.text);
    let listed = operator.cli(&["key", "list", "--broker", &url]).words();
    assert!(
        listed.contains("acme\tshop\t") && listed.contains("default\tops\t") && listed.contains("\toperator"),
        "{listed}"
    );
    let page = operator.get("/keys?tenant=acme").await;
    assert_eq!(page.json()["items"].as_array().map(Vec::len), Some(1));
    assert!(!page.text.contains("hb_") && !page.text.contains("hash"), "{}", page.text);
    operator.cli(&["key", "revoke", "--name", "shop", "--tenant", "acme", "--broker", &url]).words();
    assert_eq!(acme.get("/tenants/acme/plugins").await.status, 401);
    let gone = operator.send("DELETE", "/tenants/acme/keys/shop", &[], String::new()).await;
    assert_eq!(gone.status, 404, "{}", gone.text);
    let audit = operator.get("/audit?subject=key%2Fshop").await;
    assert!(
        audit.text.contains("key.created") && audit.text.contains("key.revoked") && !audit.text.contains("hb_"),
        "{}",
        audit.text
    );
}

/// Goal: a channel is looked at without being woken, and resetting it takes away what it keeps and nobody's connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_inspected_and_reset() {
    let (broker, operator) = begin();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    let mut bob = broker.connect("/ws?channel=a", "bob").await;
    assert_eq!(ask(&mut bob, "echo joined").await, "joined");
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    assert_eq!(ask(&mut ann, "append one").await, "offset 1");

    let listed = operator.cli(&["channel", "list"]).words();
    assert!(listed.lines().nth(1).is_some_and(|line| line.starts_with("default/fixture:a  yes    2")), "{listed}");
    let inspected = operator.cli(&["channel", "inspect", "fixture:a", "--json"]).json();
    assert_eq!(
        (&inspected["awake"], &inspected["members"], &inspected["mount"]),
        (&json!(true), &json!(2), &json!("fixture"))
    );
    assert_eq!((&inspected["kept"]["log_entries"], &inspected["kept"]["state_bytes"]), (&json!(1), &json!(2)));
    assert_eq!(inspected["assigned"]["digest"], inspected["kept"]["digest"]);
    let members = inspected["member_list"]["items"].as_array().expect("members");
    let mut users: Vec<&str> = members.iter().filter_map(|member| member["user"].as_str()).collect();
    users.sort_unstable(); // Their ids, by which they are listed, have no order.
    assert_eq!(users, ["ann", "bob"]);
    let first = operator.get("/channels/default/fixture:a/members?limit=1").await.json();
    let rest = operator
        .get(&format!("/channels/default/fixture:a/members?after={}", first["next"].as_str().expect("more")))
        .await
        .json();
    let mut paged = [&first, &rest].map(|page| page["items"][0]["user"].as_str());
    paged.sort_unstable();
    assert_eq!((paged, &rest["next"]), ([Some("ann"), Some("bob")], &Value::Null));

    let unsure = operator.cli(&["channel", "reset", "fixture:a", "--confirm", "fixture:b"]);
    assert!(unsure.code == Some(1) && unsure.err.contains("{\"confirm\":\"fixture:a\"}"), "{unsure:?}");
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    operator.cli(&["channel", "reset", "fixture:a", "--confirm", "fixture:a", "--reason", "spoilt"]).words();
    // The instance that ran is fenced out with its next commit; whoever sent it is told, and the next one is run by a new one.
    assert_ne!(ask(&mut ann, "put other v").await, "ok");
    assert_eq!(ask(&mut ann, "get k").await, "none");
    assert_eq!(ask(&mut ann, "append two").await, "offset 2", "no offset comes twice");
    assert!(ask(&mut bob, "members").await.contains("ann"), "members stay");
    let after = operator.get("/channels/default/fixture:a").await.json();
    assert_eq!((&after["kept"]["log_entries"], &after["members"]), (&json!(1), &json!(2)));
    let none = operator.cli(&["channel", "reset", "fixture:none", "--confirm", "fixture:none"]);
    assert!(none.code == Some(1) && none.err.contains("there is no channel default/fixture:none"), "{none:?}");
    assert!(operator.cli(&["channel", "inspect", "acme/fixture:a"]).err.contains("hotbay channel list"));
    let audit = operator.cli(&["audit", "--subject", "fixture:a", "--json"]).json();
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["reason"]),
        (&json!("channel.reset"), &json!("spoilt"))
    );
}

/// Goal: connections are listed in pages by tenant, and one is closed with the words it is given; others stay.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_and_closed() {
    let (broker, operator) = begin();
    let mut clients = Vec::new();
    for number in 0..5 {
        let tenant = if number % 2 == 0 { "default" } else { "acme" };
        let token = broker.token(&format!("user{number}"), json!({ "tenant": tenant, "role": "member" }));
        clients.push(broker.connect_with("/ws?channel=a", &token).await);
        assert_eq!(ask(clients.last_mut().expect("a client"), "echo joined").await, "joined");
    }
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = operator.get(&format!("/connections?limit=2{after}")).await.json();
        found.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let users: Vec<&str> = found.iter().map(|one| one["user"].as_str().expect("a user")).collect();
    assert_eq!(users, ["user0", "user1", "user2", "user3", "user4"]);
    assert_eq!(
        (&found[1]["tenant"], &found[1]["role"], &found[1]["mount"]),
        (&json!("acme"), &json!("member"), &json!("fixture"))
    );
    let acme = operator.cli(&["connection", "list", "--tenant", "acme"]).words();
    assert_eq!(acme.lines().count(), 3, "{acme}");

    let id = found[1]["id"].to_string();
    let closed = operator.cli(&["connection", "close", &id, "--code", "4000", "--reason", "go home"]).words();
    assert!(closed.contains("of acme/user1 is closed"), "{closed}");
    assert_eq!(clients[1].closed().await, Some((4000, "go home".to_owned())));
    let default = found[2]["id"].to_string();
    assert_eq!(operator.post(&format!("/connections/{default}/close"), &json!({})).await.status, 200);
    assert_eq!(clients[2].closed().await, Some((4502, "removed by an operator".to_owned())));
    assert_eq!(ask(&mut clients[0], "echo here").await, "here");
    for (body, words) in [
        (json!({ "code": 1006 }), "1011 to 1013"),
        (json!({ "code": 5000 }), "3000 to 4999"),
        (json!({ "reason": "x".repeat(124) }), "123 bytes"),
        (json!({ "why": "x" }), "unknown field"),
    ] {
        let answer = operator.post(&format!("/connections/{}/close", found[0]["id"]), &body).await;
        assert!(answer.status == 400 && answer.text.contains(words), "{body}: {}", answer.text);
    }
    broker.until_metric_is("hotbay_connections", 3.0).await;
    let gone = operator.cli(&["connection", "close", &id]);
    assert!(gone.code == Some(1) && gone.err.contains("hotbay connection list"), "{gone:?}");
    let usage = operator.cli(&["tenant", "usage", "acme", "--json"]).json();
    assert_eq!(usage["mounts"], json!([{ "mount": "fixture", "connections": 1, "users": 1, "channels_awake": 1 }]));
    let audit = operator.cli(&["audit", "--subject", &format!("connection/{id}"), "--json"]).json();
    assert_eq!((&audit["items"][0]["tenant"], &audit["items"][0]["reason"]), (&json!("acme"), &json!("go home")));
}

/// Goal: what happens in a channel is recorded, fetched and shown, and the tape can be deleted when it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_recorded_and_its_tape_fetched() {
    let (broker, operator) = begin();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    assert_eq!(ask(&mut ann, "echo before").await, "before");
    let recording = operator.cli(&["tape", "record", "--mount", "fixture", "--pattern", "fixture:*", "--json"]).json();
    let wait = async {
        while operator.get("/tapes").await.json()["items"] == json!([]) {
            assert_eq!(ask(&mut ann, "echo on tape").await, "on tape");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("a tape");
    assert_eq!(ask(&mut ann, "echo on tape").await, "on tape");
    let tape = operator.get("/tapes").await.json()["items"][0].clone();
    let id = tape["id"].to_string();
    let early = operator.cli(&["tape", "delete", &id]);
    assert!(early.code == Some(1) && early.err.contains("end its recording first"), "{early:?}");
    assert!(operator.cli(&["tape", "recordings"]).words().contains("fixture:*"));
    operator.cli(&["tape", "stop", &recording["id"].to_string()]).words();
    let ended = async {
        while operator.get(&format!("/tapes/{id}")).await.json()["ended_ms"].is_null() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("an end");
    let shown = operator.get(&format!("/tapes/{id}")).await.json();
    assert_eq!((&shown["header"]["channel"], &shown["channel"]), (&json!("fixture:a"), &json!("fixture:a")));

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("one.tape").display().to_string();
    let fetched = operator.cli(&["tape", "fetch", &id, "--to", &file]).words();
    assert!(fetched.contains("hotbay tape show"), "{fetched}");
    let text = operator.cli(&["tape", "show", &file]).words();
    assert!(text.contains("on tape"), "{text}");
    let twice = operator.cli(&["tape", "fetch", &id, "--to", &file]);
    assert!(twice.code == Some(1) && twice.err.contains("--to"), "{twice:?}");
    assert!(operator.cli(&["tape", "list", "--tenant", "default"]).words().contains("default/fixture:a"));
    operator.cli(&["tape", "delete", &id, "--reason", "seen"]).words();
    assert!(operator.cli(&["tape", "fetch", &id]).err.contains("hotbay tape list"));
    let nonsense = operator.cli(&["tape", "record", "--mount", "fixture", "--redact", "no pointer"]);
    assert!(nonsense.code == Some(1) && nonsense.err.contains("redact"), "{nonsense:?}");
}

/// Goal: what a plugin logs is seen while it happens, by whoever asked for that plugin and tenant, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn what_plugins_log_is_followed() {
    let (broker, operator) = begin();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    assert_eq!(ask(&mut ann, "echo joined").await, "joined");
    let (lines, mut first) = tokio::sync::mpsc::channel(16);
    for (name, arguments) in [
        ("all", &["plugin", "logs", "--json"][..]),
        ("own", &["plugin", "logs", "fixture", "--tenant", "default", "--channel", "fixture:*"]),
        ("other tenant", &["plugin", "logs", "--tenant", "acme"]),
        ("other plugin", &["plugin", "logs", "echo"]),
    ] {
        let mut child = operator.command(arguments).stdout(Stdio::piped()).spawn().expect("a process");
        let (output, lines) = (child.stdout.take().expect("stdout"), lines.clone());
        std::thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).ok();
            lines.blocking_send((name, line)).ok();
            child.kill().ok();
            child.wait().ok();
        });
    }
    drop(lines);
    let mut found = Vec::new();
    let seen = async {
        while found.len() < 2 {
            ann.send_text("log 1").await;
            assert_eq!(ask(&mut ann, "echo logged").await, "logged");
            let wait = tokio::time::timeout(Duration::from_millis(50), first.recv()).await;
            found.extend(wait.ok().flatten());
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("lines");
    found.sort_unstable();
    let json: Value = serde_json::from_str(&found[0].1).expect("JSON");
    assert_eq!((found[0].0, found[1].0), ("all", "own"), "{found:?}");
    assert_eq!(json["plugin"], "fixture");
    assert_eq!((&json["channel"], &json["level"]), (&json!("default/fixture:a"), &json!("info")));
    assert!(found[1].1.contains("info  fixture default/fixture:a") && found[1].1.contains("line 0"), "{found:?}");
    // Ends the ones that see nothing, too: a broker that stops lets nobody wait.
    let mut broker = broker;
    assert_eq!(broker.terminate().await, Some(0));
    while let Some((name, line)) = first.recv().await {
        assert_eq!(line, "", "{name}");
    }
}

/// Goal: what each subcommand prints with `--json` is JSON, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn every_list_prints_json() {
    let (_broker, operator) = begin();
    for arguments in [
        &["plugin", "list"][..],
        &["plugin", "status"],
        &["plugin", "show", "fixture@0.0.0"],
        &["tenant", "list"],
        &["tenant", "usage", "acme"],
        &["channel", "list"],
        &["connection", "list"],
        &["tape", "list"],
        &["tape", "recordings"],
        &["audit"],
        &["audit", "--since", "1h", "--tenant", ""],
    ] {
        let answer = operator.cli(&[arguments, &["--json"]].concat()).json();
        assert!(answer.is_object(), "{arguments:?}: {answer}");
        assert!(!operator.cli(arguments).words().contains('\u{1b}'), "{arguments:?}: colours are for terminals");
    }
}

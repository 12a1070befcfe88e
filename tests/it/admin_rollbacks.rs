//! What is in force after something was taken back: never what was taken back before, neither by a further rollback nor by a restart; and
//! where nothing is left, that is said.

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::support::admin::Admin;
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::{http, rebuilt};

/// A broker with the fixture, and further versions of it that may run.
fn begin(versions: &[&str]) -> (Broker, Admin, TempDir) {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let folder = TempDir::new().expect("a folder");
    for version in versions {
        let component = rebuilt("fixture", version, folder.path());
        operator.push(&component, "fixture", version, &["--approve"]).words();
    }
    (broker, operator, folder)
}

fn deploy(operator: &Admin, version: &str) -> i64 {
    let deploy = ["plugin", "deploy", &format!("fixture@{version}"), "--mount", "fixture", "--json"];
    operator.cli(&deploy).json()["id"].as_i64().expect("an id")
}

/// Restarts the broker, which listens elsewhere then.
async fn restart(broker: &mut Broker, operator: &Admin) -> Admin {
    broker.terminate().await;
    broker.start();
    Admin::with(broker, Some(operator.key()))
}

/// The version that all channels have.
async fn in_force(operator: &Admin) -> Value {
    let active = operator.get("/mounts/fixture/deployments?state=active").await.json();
    assert!(active["items"].as_array().is_some_and(|items| items.len() <= 1), "{active}");
    active["items"][0]["plugin"].clone()
}

/// Asserts that the mount has no version, and that everybody who looks after it is told.
async fn has_no_version(broker: &Broker, operator: &Admin) {
    assert_eq!(in_force(operator).await, Value::Null);
    let mount = operator.get("/mounts").await.json()["items"][0].clone();
    let why = mount["unavailable"].as_str().unwrap_or_default();
    assert!(why.contains("hotbay plugin deploy NAME@VERSION --mount fixture"), "{mount}");
    assert_eq!(mount["rules"], json!([]));
    let ready = http::get(&broker.http("/readyz"), &[]).await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")), "{}", ready.text);
    assert_eq!(ready.json()["mounts"], json!({ "fixture": why }));
}

async fn serves(broker: &Broker) {
    let mut client: Client = broker.connect("/ws?channel=a", "ann").await;
    client.send_text("echo on").await;
    assert_eq!(client.text().await, "on");
    let ready = http::get(&broker.http("/readyz"), &[]).await.json();
    assert_eq!((&ready["status"], &ready["mounts"]), (&json!("ready"), &json!({})));
}

/// Law: each rollback goes to an earlier deployment, and never to a version that was rolled back since.
#[tokio::test(flavor = "multi_thread")]
async fn rollbacks_never_go_forward() {
    let (_broker, operator, _folder) = begin(&["2.0.0", "3.0.0"]);
    let second = deploy(&operator, "2.0.0");
    deploy(&operator, "3.0.0");
    // Once more, as after a change of its budget.
    let third = deploy(&operator, "3.0.0");
    let roll_back = ["plugin", "rollback", "--mount", "fixture"];
    for version in ["fixture@2.0.0", "fixture@0.0.0"] {
        operator.cli(&roll_back).words();
        assert_eq!(in_force(&operator).await, version);
    }
    let nothing = operator.cli(&roll_back);
    assert!(nothing.code == Some(1) && nothing.err.contains("there is nothing before"), "{nothing:?}");

    // What somebody deploys again on purpose counts again.
    let again = deploy(&operator, "2.0.0");
    let last = deploy(&operator, "3.0.0");
    operator.cli(&roll_back).words();
    assert_eq!(in_force(&operator).await, "fixture@2.0.0");
    deploy(&operator, "0.0.0");

    for (id, words) in [
        (third, "is not in force: it was rolled back at 20"),
        (second, "is not in force: it was rolled back at 20"),
        (last, "Z: rolled back by hand"),
        (again, "is not in force: another one took its place at 20"),
    ] {
        for command in ["rollback", "stop"] {
            let over = operator.cli(&["plugin", command, &id.to_string()]);
            assert!(over.code == Some(1) && over.err.contains(words), "{over:?}");
        }
    }
}

/// Law: a mount whose last version was revoked says so until another one is deployed, also after a restart; and revoking it again is no
/// failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_without_a_version_says_so() {
    let (mut broker, operator, _folder) = begin(&["2.0.0"]);
    serves(&broker).await;

    let revoke = "/plugins/fixture@0.0.0/revoke";
    let revoked = operator.post(revoke, &json!({ "reason": "leaks" })).await;

    assert_eq!(revoked.status, 200, "{}", revoked.text);
    let revoked = revoked.json();
    assert_eq!((&revoked["status"], &revoked["mounts_without_version"]), (&json!("revoked"), &json!(["fixture"])));
    let ended = &revoked["deployments"][0];
    assert_eq!((&ended["state"], &ended["reason"]), (&json!("rolled_back"), &json!("fixture 0.0.0 was revoked")));
    has_no_version(&broker, &operator).await;
    let entries = async |operator: &Admin| operator.get("/audit?limit=1000").await.json()["items"].clone();
    let before = entries(&operator).await;
    let again = operator.post(revoke, &json!({ "reason": "once more" })).await;
    assert_eq!((again.status, &again.json()["mounts_without_version"]), (200, &json!(["fixture"])), "{}", again.text);
    assert_eq!(entries(&operator).await, before, "it changed nothing");

    let operator = restart(&mut broker, &operator).await;
    has_no_version(&broker, &operator).await;
    deploy(&operator, "2.0.0");
    serves(&broker).await;
    let operator = restart(&mut broker, &operator).await;
    serves(&broker).await;
    assert_eq!(in_force(&operator).await, "fixture@2.0.0");
}

/// Law: what was rolled back is not in force again because the broker started, though it is what the configuration names.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_nothing_back() {
    let (mut broker, operator, _folder) = begin(&["2.0.0"]);
    deploy(&operator, "2.0.0");
    deploy(&operator, "0.0.0");
    operator.cli(&["plugin", "rollback", "--mount", "fixture"]).words();
    assert_eq!(in_force(&operator).await, "fixture@2.0.0");
    let remedy =
        "mount fixture: no version of it may run; deploy one: hotbay plugin deploy NAME@VERSION --mount fixture";
    let revoked = operator.cli(&["plugin", "revoke", "fixture@2.0.0", "--reason", "leaks"]).words();
    assert!(revoked.contains(remedy), "{revoked}");
    let status = operator.cli(&["plugin", "status", "--mount", "fixture"]).words();
    assert!(status.contains(remedy), "{status}");
    let status = operator.cli(&["plugin", "status", "--json"]).json();
    assert!(remedy.ends_with(status["mounts"]["fixture"].as_str().expect("why")), "{status}");
    has_no_version(&broker, &operator).await;

    let operator = restart(&mut broker, &operator).await;

    has_no_version(&broker, &operator).await;
    deploy(&operator, "0.0.0");
    serves(&broker).await;
}

/// Law: a version that was revoked is left by all channels, also by one that stayed with it while others were deployed, which could not take
/// over what it saves.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_version_is_left_by_channels_that_stayed_behind() {
    let (broker, operator, _folder) = begin(&["2.0.0", "3.0.0", "4.0.0"]);
    deploy(&operator, "2.0.0");
    let mut client = broker.connect("/ws?channel=a", "ann").await;
    let counted = async |id: i64, what: &str| {
        let wait = async {
            while operator.get(&format!("/deployments/{id}")).await.json()["counts"][what] != 1 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what} of deployment {id}"));
    };
    let mut saves_nonsense = async || {
        client.send_text("save-corrupt").await;
        assert_eq!(client.text().await, "ok");
    };
    let mut last = 0;
    for version in ["3.0.0", "4.0.0"] {
        saves_nonsense().await;
        last = deploy(&operator, version);
        counted(last, "swaps_failed").await;
    }
    saves_nonsense().await;

    operator.cli(&["plugin", "revoke", "fixture@2.0.0", "--reason", "leaks"]).words();

    counted(last, "channels").await;
    client.send_text("echo on").await;
    assert_eq!(client.text().await, "on");
}

/// Law: a revocation that the broker's end cut off is done to its end at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_goes_on_after_a_restart() {
    let (mut broker, operator, _folder) = begin(&["2.0.0"]);
    let id = deploy(&operator, "2.0.0");
    broker.kill();
    // What the first of its changes has written.
    write(&broker, "UPDATE plugin SET status = 'revoked' WHERE version = '2.0.0'").await;

    broker.start();
    let operator = Admin::with(&broker, Some(operator.key()));

    let ended = operator.get(&format!("/deployments/{id}")).await.json();
    assert_eq!((&ended["state"], &ended["reason"]), (&json!("rolled_back"), &json!("fixture 2.0.0 was revoked")));
    assert_eq!(in_force(&operator).await, "fixture@0.0.0");
    serves(&broker).await;
}

/// Changes rows behind the broker's back, as a change does that took hold and whose answer got lost.
async fn write(broker: &Broker, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut database = options.connect().await.expect("the database");
    assert_eq!(sqlx::query(sql).execute(&mut database).await.expect("a change").rows_affected(), 1, "{sql}");
}

/// Law: a rollback that took hold in the store and was answered with an error is done to its end when it is tried again; and what ended
/// otherwise is not called rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_was_written_already_is_done_when_it_is_tried_again() {
    let (broker, operator, _folder) = begin(&["2.0.0"]);
    let id = deploy(&operator, "2.0.0");
    write(&broker, "UPDATE deployment SET state = 'active' WHERE state = 'superseded'").await;
    write(&broker, "UPDATE deployment SET state = 'rolled_back', reason = 'slow' WHERE state = 'active' AND id > 1")
        .await;

    let because = json!({ "reason": "slow" });
    let roll_back = format!("/deployments/{id}/rollback");
    let answer = operator.post(&roll_back, &because).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["again"]["plugin"], "fixture@0.0.0", "{}", answer.text);
    let mount = operator.get("/mounts").await.json()["items"][0].clone();
    assert_eq!(mount["rules"].as_array().map(Vec::len), Some(1), "{mount}");
    assert_eq!(mount["rules"][0]["deployment"], answer.json()["again"]["id"], "{mount}");
    serves(&broker).await;
    let once_more = operator.post(&roll_back, &because).await;
    assert_eq!(once_more.status, 409, "{}", once_more.text);
    assert!(once_more.text.contains("it was rolled back at 20"), "{}", once_more.text);
}

/// Law: a canary whose version was revoked grows no more, also if the revocation got no further than the status.
#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_a_revoked_version_does_not_grow() {
    let (broker, operator, _folder) = begin(&["2.0.0"]);
    let strategy = json!({ "kind": "canary", "percent": 1, "steps": [100], "step_s": 1 });
    let asked = json!({ "version": "fixture@2.0.0", "strategy": strategy });
    let answer = operator.post("/mounts/fixture/deployments", &asked).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    write(&broker, "UPDATE plugin SET status = 'revoked' WHERE version = '2.0.0'").await;

    broker.until_log("it does not grow").await;

    let id = answer.json()["id"].clone();
    assert_eq!(operator.get(&format!("/deployments/{id}")).await.json()["strategy"]["kind"], "canary");
    let revoked = operator.post("/plugins/fixture@2.0.0/revoke", &json!({ "reason": "leaks" })).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(operator.get(&format!("/deployments/{id}")).await.json()["state"], "rolled_back");
    assert_eq!(in_force(&operator).await, "fixture@0.0.0");
}

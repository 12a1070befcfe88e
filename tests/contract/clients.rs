//! Clients that nobody here wrote: npm `ws` for every system, and stock y-websocket for drafts.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::broker::{Broker, Setup, token};
use crate::support::seed;

/// Runs one of the scripts of `tests/e2e`.
async fn node(script: &'static str, arguments: Vec<String>) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    assert!(folder.join("node_modules").exists(), "npm packages are missing: run tests/needs.sh");
    let run = move || Command::new("node").current_dir(folder).arg(script).args(arguments).output().expect("node");
    tokio::task::spawn_blocking(run).await.expect("an end")
}

fn printed(output: &Output) -> String {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    print!("{errors}");
    text.trim().to_owned()
}

async fn speaks(system: &str, claims: Value) {
    let broker = Setup::example().start();
    let url = format!("ws://{}", broker.address());
    let output = node("systems.mjs", vec![system.to_owned(), url, token("node", claims, 600)]).await;
    assert_eq!(printed(&output), format!("{system} ok"));
}

#[tokio::test]
async fn ws_speaks_to_owner_metrics() {
    speaks("metrics", json!({ "ownerId": "ann" })).await;
}

#[tokio::test]
async fn ws_speaks_to_widget_sync() {
    speaks("widgets", json!({ "userId": "ann" })).await;
}

#[tokio::test]
async fn ws_speaks_to_tenant_events() {
    speaks("events", json!({ "tenantId": "acme", "userId": "node" })).await;
}

#[tokio::test]
async fn ws_speaks_to_drafts() {
    speaks("drafts", json!({ "userId": "ann", "firmId": "f1" })).await;
}

/// Goal: five editors whose connections break off and come back end with the same document, and it is the one on disk.
#[tokio::test]
async fn editors_of_y_websocket_converge_with_what_is_stored() {
    let mut broker = Setup::example().start();
    let seed = seed() as u32;
    let arguments = |broker: &Broker, mode: &str| {
        let token = token("editor", json!({ "userId": "editor", "firmId": "f1" }), 600);
        let url = format!("ws://{}/yjs", broker.address());
        vec![mode.to_owned(), url, "draft".to_owned(), token, seed.to_string()]
    };
    let edited = printed(&node("drafts.mjs", arguments(&broker, "edit")).await);

    broker.kill();
    broker.start();
    let stored = printed(&node("drafts.mjs", arguments(&broker, "read")).await);

    assert_eq!(edited, stored);
}

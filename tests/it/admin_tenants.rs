//! Tenants at the admin API: what one has uploaded is to another as if it were not there, also when it is the very same component; and
//! what is decided about it is decided about the other's as little.

use serde_json::{Value, json};

use crate::support::admin::{Admin, VETTED, fixture, manifest_text};
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};

/// A broker with two tenants that may upload, an operator, and the tenants' own keys.
fn begin() -> (Broker, Admin, [Admin; 2]) {
    // What an earlier run found out about their components must not be known.
    let broker = Setup::fixture("").with_nothing_compiled().start();
    let operator = Admin::operator(&broker);
    for tenant in ["acme", "globex"] {
        operator.cli(&["tenant", "set", tenant, "--grants", "kv,log,logging,sql,stats"]).words();
    }
    let own = ["acme", "globex"].map(|tenant| Admin::tenant(&broker, tenant));
    (broker, operator, own)
}

/// Uploads a component for a tenant and waits until it was looked at; answers what its owner is told of that.
async fn upload(admin: &Admin, tenant: &str, name: &str) -> Value {
    let pushed = admin.push(&fixture(), name, "1.0.0", &["--wait", "--tenant", tenant]);
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    admin.get(&format!("/tenants/{tenant}/plugins/{name}@1.0.0")).await.json()
}

async fn answers(client: &mut Client) -> String {
    client.send_text("echo on").await;
    client.text().await
}

/// Takes numbers of time out of what a tenant is told.
fn timeless(told: &Value) -> Value {
    match told {
        Value::Object(fields) => {
            let known = fields.iter().filter(|(name, _)| !name.ends_with("ms") && !name.contains("ms_"));
            known.map(|(name, value)| (name.clone(), timeless(value))).collect()
        }
        Value::Array(items) => items.iter().map(timeless).collect(),
        // Processor time, memory and the like differ from run to run.
        Value::Number(_) => json!(0),
        other => other.clone(),
    }
}

/// Law: a version of another tenant is not there, whether it is asked for by name, by digest or by the beginning of one; and an upload
/// tells nothing of whether another tenant has the same component.
#[tokio::test(flavor = "multi_thread")]
async fn versions_of_another_tenant_are_not_there() {
    let (_broker, operator, [acme, globex]) = begin();
    let first = upload(&acme, "acme", "secret").await;
    let digest = first["digest"].as_str().expect("a digest").to_owned();
    let none = "0".repeat(64);
    for (theirs, nothing) in [("secret@1.0.0", "nothing@1.0.0"), (&*digest, &*none), (&digest[..8], &none[..8])] {
        let ask = async |version: &str| {
            let answer = globex.get(&format!("/tenants/globex/plugins/{version}")).await;
            (answer.status, answer.text.replace(version, "VERSION"))
        };
        assert_eq!(ask(theirs).await.0, 404, "{theirs}");
        assert_eq!(ask(theirs).await, ask(nothing).await);
    }
    let listed = globex.get("/tenants/globex/plugins").await.json();
    assert_eq!(listed["items"], json!([]));

    // The same component and the same manifest, which now is there twice; and of somebody who has it alone.
    let second = upload(&globex, "globex", "secret").await;
    let told = timeless(&second).to_string().replace("globex", "TENANT");
    assert_eq!(told, timeless(&first).to_string().replace("acme", "TENANT"));
    assert!(!told.contains("found_before"), "{told}");
    assert!(!operator.get("/plugins?all_tenants=true").await.text.is_empty());
}

/// Law: each owner of a component decides about its own: when the version of one is revoked, that of the other and that of the platform go
/// on, also where they are the same component.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_revoked_for_one_owner_goes_on_for_the_others() {
    let (broker, operator, [acme, globex]) = begin();
    let mut clients = Vec::new();
    for tenant in ["default", "acme", "globex"] {
        let token = broker.token("ann", json!({ "tenant": tenant }));
        let mut client = broker.connect_with("/ws?channel=a", &token).await;
        assert_eq!(answers(&mut client).await, "on");
        clients.push((tenant, client));
    }
    for (admin, tenant) in [(&acme, "acme"), (&globex, "globex")] {
        upload(admin, tenant, "own").await;
        operator.cli(&["plugin", "approve", "own@1.0.0", "--tenant", tenant]).words();
        let deploy = ["plugin", "deploy", "own@1.0.0", "--mount", "fixture", "--owner", tenant, "--tenant", tenant];
        operator.cli(&deploy).words();
    }

    let revoked = operator.cli(&["plugin", "revoke", "own@1.0.0", "--tenant", "acme", "--reason", "leaks"]).words();

    assert!(revoked.contains("is revoked"), "{revoked}");
    for (tenant, client) in &mut clients {
        let answer = tokio::time::timeout(DEADLINE, answers(client)).await.expect("an answer in time");
        assert_eq!(answer, "on", "{tenant}");
    }
    let status = operator.get("/deployments?mount=fixture").await.json();
    let of_globex = status["items"].as_array().expect("items").iter().find(|one| one["tenant"] == "globex");
    assert_eq!(of_globex.map(|one| &one["state"]), Some(&json!("active")), "{status}");
}

/// Law: a version keeps to the limits of its own manifest, and not to those that another owner of the same component wrote.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_manifest_are_of_its_owner() {
    let (broker, operator, [acme, globex]) = begin();
    let wasm = std::fs::read(fixture()).expect("a component");
    for (admin, tenant, memory) in [(&acme, "acme", "8388608"), (&globex, "globex", "33554432")] {
        let manifest = format!("{}\n[limits]\nmemory_bytes_max = {memory}\n", manifest_text("own", "1.0.0"));
        let parts = [("manifest", manifest.as_bytes()), ("component", wasm.as_slice())];
        let uploaded = admin.upload(&format!("/tenants/{tenant}/plugins"), &parts).await;
        assert_eq!(uploaded.status, 202, "{}", uploaded.text);
        let wait = async {
            while admin.get(&format!("/tenants/{tenant}/plugins/own@1.0.0")).await.json()["status"] != "vetted" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(VETTED, wait).await.expect("a verdict in time");
        operator.cli(&["plugin", "approve", "own@1.0.0", "--tenant", tenant]).words();
        let deploy = ["plugin", "deploy", "own@1.0.0", "--mount", "fixture", "--owner", tenant, "--tenant", tenant];
        operator.cli(&deploy).words();
    }
    for (tenant, answer) in [("acme", "refused fault"), ("globex", "grown 20"), ("default", "grown 20")] {
        let token = broker.token("ann", json!({ "tenant": tenant }));
        let mut client = broker.connect_with("/ws?channel=a", &token).await;
        client.send_text("grow 20").await;
        let grown = client.text().await;
        assert!(grown.starts_with(answer), "{tenant}: {grown}");
    }
}

/// Law: what a tenant is granted holds when its version is approved and when it is deployed, and not only when it was vetted.
#[tokio::test(flavor = "multi_thread")]
async fn grants_that_were_taken_back_count_no_more() {
    let (_broker, operator, [acme, _]) = begin();
    upload(&acme, "acme", "own").await;
    let grant = |grants: &str| drop(operator.cli(&["tenant", "set", "acme", "--grants", grants]).words());
    let approve = ["plugin", "approve", "own@1.0.0", "--tenant", "acme"];
    let deploy = ["plugin", "deploy", "own@1.0.0", "--mount", "fixture", "--owner", "acme", "--tenant", "acme"];
    for command in [&approve[..], &deploy[..]] {
        grant("kv,log,logging,stats");
        let refused = operator.cli(command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for words in ["capability \"sql\"", "`hotbay tenant set acme --grants kv,log,logging,sql,stats`"] {
            assert!(refused.err.contains(words), "{words}: {refused:?}");
        }
        grant("kv,log,logging,sql,stats");
        operator.cli(command).words();
    }
}

/// Law: each owner's use of a component is told under its own name, also where several have the same one.
#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_under_the_name_that_its_owner_gave() {
    let (broker, operator, own) = begin();
    for (admin, tenant) in own.iter().zip(["acme", "globex"]) {
        let name = format!("of-{tenant}");
        upload(admin, tenant, &name).await;
        let version = format!("{name}@1.0.0");
        operator.cli(&["plugin", "approve", &version, "--tenant", tenant]).words();
        operator
            .cli(&["plugin", "deploy", &version, "--mount", "fixture", "--owner", tenant, "--tenant", tenant])
            .words();
    }
    for (tenant, events) in [("default", 1), ("acme", 2), ("globex", 3)] {
        let token = broker.token("ann", json!({ "tenant": tenant }));
        let mut client = broker.connect_with("/ws?channel=a", &token).await;
        for _ in 0..events {
            assert_eq!(answers(&mut client).await, "on");
        }
    }
    let told = operator.get("/usage").await.json();
    let plugins = told["plugins"].as_array().expect("plugins");
    for (owner, name, events) in [(None, "fixture", 1), (Some("acme"), "of-acme", 2), (Some("globex"), "of-globex", 3)]
    {
        let of = |one: &&Value| one["owner"].as_str() == owner && one["plugin"] == name;
        let told_events = plugins.iter().find(of).and_then(|one| one["events"].as_u64());
        assert!(told_events.is_some_and(|told| told >= events), "{name}: {told}");
    }
    assert_eq!(plugins.len(), 3, "{told}");
}

/// Law: what an operator set a mount to is not told to a tenant that uploads something of the name of its plugin.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_mount_are_not_told_to_tenants() {
    // The platform's plugin looks at no settings, so that these do nothing to it; the tenant's would fail by them, and say so.
    let relay = crate::support::component("relay").display().to_string();
    let mount = "[mount.relayed]\npath = \"/relayed\"\nplugin = \"relay\"\nauth = { keys = [\"default\"], tokens = [\"query:token\"] }\n\
                 channel = \"relay:room\"\nsettings = { misbehave = \"error-on-open\" }";
    let relay = format!("[plugin.relay]\npath = {relay:?}\n{mount}");
    let broker = Setup::fixture("").and(&relay).with_nothing_compiled().start();
    let operator = Admin::operator(&broker);
    operator.cli(&["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats"]).words();
    let acme = Admin::tenant(&broker, "acme");

    // A tape of one of its channels has them, too.
    let recording = operator.cli(&["tape", "record", "--mount", "relayed", "--json"]).json()["id"].to_string();
    let token = broker.token("ann", json!({ "tenant": "acme" }));
    let mut client = broker.connect_with("/relayed", &token).await;
    client.send_text("hello").await;
    assert_eq!(client.text().await, "hello");
    client.close().await;
    operator.cli(&["tape", "stop", &recording]).words();
    let wait = async {
        while !operator.get("/tapes?channel=relay:room").await.json()["items"][0]["ended_ms"].is_number() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("a tape in time");

    let shown = upload(&acme, "acme", "relay").await;

    assert_eq!(shown["status"], "vetted", "{shown}");
    let steps = shown["vetting"]["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["step"] == "tapes" && step["verdict"] == "passed"), "{shown}");
    let folder = tempfile::TempDir::new().expect("a folder");
    let component = crate::support::rebuilt("fixture", "settings", folder.path());
    let itself = operator.push(&component, "relay", "1.0.0", &["--wait"]);
    assert!(
        itself.out.contains("told to fail") || itself.err.contains("told to fail"),
        "this proves nothing: {itself:?}"
    );
}

//! Versions that are played what happened in channels before anybody may approve them.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::admin::{Admin, Ended, manifest_text};
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::{component, rebuilt};

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// Asks until the broker says so.
async fn until(operator: &Admin, path: &str, is_so: impl Fn(&Value) -> bool) {
    let wait = async {
        while !is_so(&operator.get(path).await.json()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{path}");
}

/// Records what is asked in a channel; the number of its tape.
async fn record(broker: &Broker, operator: &Admin, channel: &str, commands: &[&str]) -> String {
    let arguments = ["tape", "record", "--mount", "fixture", "--pattern", &format!("fixture:{channel}"), "--json"];
    let recording = operator.cli(&arguments).json()["id"].to_string();
    let mut client = broker.connect(&format!("/ws?channel={channel}"), "ann").await;
    for command in commands {
        ask(&mut client, command).await;
    }
    client.close().await;
    let tapes = format!("/tapes?channel=fixture:{channel}");
    operator.cli(&["tape", "stop", &recording]).words();
    until(operator, &tapes, |page| page["items"][0]["ended_ms"].is_number()).await;
    operator.get(&tapes).await.json()["items"][0]["id"].to_string()
}

/// Pushes a component as a version of the fixture, with more lines in its manifest, and follows its vetting.
fn push(admin: &Admin, folder: &Path, component: &Path, version: &str, lines: &str, more: &[&str]) -> Ended {
    let manifest = folder.join(format!("{version}.toml"));
    std::fs::write(&manifest, manifest_text("fixture", version) + lines).expect("a manifest");
    let (component, manifest) = (component.display().to_string(), manifest.display().to_string());
    admin.cli(&[&["plugin", "push", &component, "--manifest", &manifest, "--wait"][..], more].concat())
}

/// Goal: whoever decides about a version sees what it would have done differently in channels as they were used: those they chose, against
/// what was deployed, in words and as evidence that stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_played_the_tapes_that_were_chosen() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let folder = TempDir::new().expect("a folder");
    let first = record(&broker, &operator, "a", &["echo hello", "put k v", "say one"]).await;
    let second = record(&broker, &operator, "b", &["grow 8"]).await;
    let deployed = operator.get("/channels/default/fixture:a").await.json()["assigned"]["digest"].clone();

    // The same logic does the same.
    let same = push(
        &operator,
        folder.path(),
        &rebuilt("fixture", "same", folder.path()),
        "2.0.0",
        "",
        &["--tape", &first, "--tape", &second],
    );
    let words = same.words();
    assert!(words.contains(&format!("tapes {first},{second}")), "{words}");
    assert_eq!(words.matches(": the same effects").count(), 2, "{words}");
    let shown = operator.cli(&["plugin", "show", "fixture@2.0.0"]).words();
    assert!(shown.contains("✓ tapes") && shown.contains(": the same effects"), "{shown}");

    // Other logic does something else: that is for people to judge.
    let other = push(&operator, folder.path(), &component("echo"), "3.0.0", "", &["--tape", &first]).words();
    assert!(other.contains("passed vetting and waits for approval"), "{other}");
    let shown = operator.cli(&["plugin", "show", "fixture@3.0.0"]).words();
    let digest = deployed.as_str().expect("a digest");
    for words in [
        &format!("deployed is {}", &digest[..12])[..],
        "differences",
        "message from ann",
        "\"hello\"",
        "missing: put \"k\": \"v\"",
        "missing: append to the log: \"one\"",
    ] {
        assert!(shown.contains(words), "{words:?}: {shown}");
    }
    let vetting = operator.get("/plugins/fixture@3.0.0").await.json()["vetting"].clone();
    let steps = vetting["steps"].as_array().expect("steps");
    let step = |name: &str| &steps.iter().find(|step| step["step"] == name).expect("a step")["evidence"];
    assert_eq!(step("chosen")["tapes"], json!([first.parse::<u64>().expect("a number")]));
    let tapes = step("tapes")["tapes"].as_array().expect("tapes");
    assert_eq!((tapes.len(), &tapes[0]["recorded"]), (1, &json!([deployed])));
    assert!(tapes[0]["differing"].as_u64() >= Some(3) && tapes[0]["faults"] == 0, "{}", tapes[0]);

    // What counts is what is deployed now, not what was when the tape was made.
    operator.cli(&["plugin", "approve", "fixture@3.0.0"]).words();
    operator.cli(&["plugin", "deploy", "fixture@3.0.0", "--mount", "fixture"]).words();
    let marked = rebuilt("echo", "marked", folder.path());
    let like = push(&operator, folder.path(), &marked, "3.0.1", "", &["--tape", &first]).words();
    assert!(like.contains(": the same effects"), "{like}");
    operator.cli(&["plugin", "rollback", "--mount", "fixture"]).words();

    // What fails where the version before did not must not run.
    let small = rebuilt("fixture", "small", folder.path());
    let lines = "[limits]\nmemory_bytes_max = 4194304\n";
    let failed = push(&operator, folder.path(), &small, "4.0.0", lines, &["--tape", &second]);
    assert!(failed.code == Some(1) && failed.out.contains("✗ tapes"), "{failed:?}");
    assert!(failed.out.contains("where the version before did not") && failed.out.contains("rejected"), "{failed:?}");
    let played =
        push(&operator, folder.path(), &rebuilt("fixture", "tiny", folder.path()), "5.0.0", lines, &["--tape", &first]);
    assert!(played.words().contains("✓ tapes"), "it is the tape that tells");
}

/// Goal: what is chosen is there, has ended, and is no other tenant's business.
#[tokio::test(flavor = "multi_thread")]
async fn tapes_are_chosen_among_those_there_are() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    operator.cli(&["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats"]).words();
    let acme = Admin::tenant(&broker, "acme");
    let folder = TempDir::new().expect("a folder");
    let tape = record(&broker, &operator, "a", &["echo hello"]).await;
    let file = rebuilt("fixture", "chosen", folder.path());
    let own = ["--tape", tape.as_str(), "--tenant", "acme"];
    for (ended, words) in [
        (push(&operator, folder.path(), &file, "2.0.0", "", &["--tape", "12345"]), "there is no tape 12345"),
        (push(&acme, folder.path(), &file, "2.0.0", "", &own), "of the tenant \"acme\""),
        (push(&operator, folder.path(), &file, "2.0.0", "", &["--tape", "1"].repeat(9)), "at most 8"),
    ] {
        assert!(ended.code == Some(1) && ended.err.contains(words), "{words}: {ended:?}");
    }
    let nonsense = operator.upload("/plugins?tapes=1,x", &[]).await;
    assert!(nonsense.status == 400 && nonsense.text.contains("not the number of a tape"), "{}", nonsense.text);
    for tenant in ["", "/tenants/acme"] {
        let page = operator.get(&format!("{tenant}/plugins?name=fixture")).await.json();
        let versions = page["items"].as_array().expect("versions").iter();
        assert!(versions.clone().all(|one| one["version"] != "2.0.0"), "{page}");
    }
}

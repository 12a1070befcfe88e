//! The life of a version, by the command line alone: pushed, vetted, approved, deployed while somebody is connected, rolled back.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::admin::{Admin, fixture};
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::rebuilt;

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// How often the plugin was asked since it was opened first: what its memory is for.
async fn count(client: &mut Client) -> u64 {
    let answer = ask(client, "count").await;
    answer.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

/// Waits until the broker says so.
async fn until(what: &str, admin: &Admin, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let wait = async {
        loop {
            last = admin.get(path).await.json();
            if is_so(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: {last}");
    last
}

/// A broker with the fixture, a client in a channel, and another version of the fixture.
async fn begin() -> (Broker, Admin, Client, TempDir, PathBuf) {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let client = broker.connect("/ws?channel=a", "ann").await;
    let folder = TempDir::new().expect("a folder");
    let second = rebuilt("fixture", "second", folder.path());
    (broker, operator, client, folder, second)
}

/// Goal: a platform team changes a channel's logic while somebody is connected, and takes it back, with the command line alone; and
/// afterwards it can be read who did what, when and why.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_pushed_deployed_and_rolled_back() {
    let (_broker, operator, mut client, _folder, second) = begin().await;
    let before = count(&mut client).await;

    let pushed = operator.push(&second, "fixture", "2.0.0", &["--approve"]).words();
    assert!(pushed.contains("✓ validate") && pushed.contains("✓ conformance"), "{pushed}");
    assert!(pushed.contains("fixture@2.0.0 may run: `hotbay plugin deploy fixture@2.0.0 --mount MOUNT`"), "{pushed}");
    let deploy = ["plugin", "deploy", "fixture@2.0.0", "--mount", "fixture", "--reason", "noon", "--json"];
    let deployed = operator.cli(&deploy).json();
    let id = deployed["id"].as_i64().expect("an id");
    until("the swap", &operator, &format!("/deployments/{id}"), |one| one["counts"]["swaps"] == 1).await;
    assert_eq!(count(&mut client).await, before + 1, "its memory was handed over");

    let status = operator.cli(&["plugin", "status"]).words();
    let line = status.lines().find(|line| line.starts_with(&id.to_string())).expect("a line");
    assert!(line.contains("fixture@2.0.0") && line.contains("active"), "{status}");
    let rolled_back = operator.cli(&["plugin", "rollback", "--mount", "fixture", "--reason", "too loud"]).words();
    assert!(
        rolled_back.contains("(fixture@2.0.0) is rolled back") && rolled_back.contains("in force again"),
        "{rolled_back}"
    );
    let first = operator.cli(&["plugin", "status", "--json"]).json()["items"][0]["id"].as_i64().expect("an id");
    until("the swap back", &operator, &format!("/deployments/{first}"), |one| one["counts"]["channels"] == 1).await;
    assert_eq!(count(&mut client).await, before + 2);

    let audit = operator.cli(&["audit", "--json"]).json();
    let entries = audit["items"].as_array().expect("entries");
    let of = |action: &str| {
        let mut found = entries.iter().filter(|entry| entry["action"] == action);
        found.next().unwrap_or_else(|| panic!("no {action} in {audit}"))
    };
    let subject = deployed["digest"].as_str().expect("a digest");
    for (action, actor, subject, reason) in [
        ("plugin.uploaded", "key default/ops", subject, Value::Null),
        ("plugin.vetted", "vetting", subject, Value::Null),
        ("plugin.approved", "key default/ops", subject, json!("approved when it was pushed")),
        ("deployment.created", "key default/ops", "fixture", json!("noon")),
        ("deployment.rolled_back", "key default/ops", "fixture", json!("too loud")),
    ] {
        let entry = of(action);
        assert_eq!(
            (&entry["actor"], &entry["subject"], &entry["reason"]),
            (&json!(actor), &json!(subject), &reason),
            "{entry}"
        );
        assert!(entry["at_ms"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{entry}");
    }
}

/// Goal: a version that was revoked runs nowhere, at once, and cannot be deployed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_version_runs_no_more() {
    let (_broker, operator, mut client, _folder, second) = begin().await;
    operator.push(&second, "fixture", "2.0.0", &["--approve"]).words();
    let deployed = operator.cli(&["plugin", "deploy", "fixture@2.0.0", "--mount", "fixture", "--json"]).json();
    let path = format!("/deployments/{}", deployed["id"]);
    until("the swap", &operator, &path, |one| one["counts"]["swaps"] == 1).await;

    let unsaid = operator.cli(&["plugin", "revoke", "fixture@2.0.0"]);
    assert!(unsaid.code == Some(2) && unsaid.err.contains("--reason"), "{unsaid:?}");
    let revoked = operator.cli(&["plugin", "revoke", "fixture@2.0.0", "--reason", "leaks"]).words();
    assert!(revoked.contains("fixture@2.0.0 is revoked"), "{revoked}");
    let ended = operator.get(&path).await.json();
    assert_eq!((&ended["state"], &ended["reason"]), (&json!("rolled_back"), &json!("fixture 2.0.0 was revoked")));
    assert!(count(&mut client).await > 0);
    let again = operator.cli(&["plugin", "deploy", "fixture@2.0.0", "--mount", "fixture"]);
    assert!(again.code == Some(1) && again.err.contains("is revoked; only approved versions run (leaks)"), "{again:?}");
    assert!(again.err.contains("raise `version` in plugin.toml"), "{again:?}");
    let show = operator.cli(&["plugin", "show", "fixture@2.0.0"]).words();
    for part in ["revoked", "leaks", "approved", "✓ imports", "rolled_back"] {
        assert!(show.contains(part), "{part:?}: {show}");
    }
}

/// Goal: what does not pass vetting is told with its cause, and can neither be approved nor deployed.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_vetting_goes_no_further() {
    let (_broker, operator, _client, folder, second) = begin().await;
    let manifest = folder.path().join("plugin.toml");
    std::fs::write(&manifest, "name = \"fixture\"\nversion = \"2.0.0\"\ncapabilities = [\"kv\"]\n")
        .expect("a manifest");
    let push = ["plugin", "push", &second.display().to_string(), "--wait"].map(str::to_owned);
    let refused = operator.cli(&push.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.out.contains("✗ imports") && refused.out.contains("fixture@2.0.0 is rejected"), "{refused:?}");
    let approve = operator.cli(&["plugin", "approve", "fixture@2.0.0"]);
    assert!(
        approve.code == Some(1)
            && approve.err.contains("is rejected; this is for versions that passed vetting and wait"),
        "{approve:?}"
    );
    let deploy = operator.cli(&["plugin", "deploy", "fixture@2.0.0", "--mount", "fixture"]);
    assert!(deploy.code == Some(1) && deploy.err.contains("only approved versions run"), "{deploy:?}");
}

/// Goal: a tenant uploads its own logic and follows its vetting; an operator decides; and it runs on channels of that tenant alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_version_is_for_its_own_channels() {
    let (broker, operator, mut others, _folder, second) = begin().await;
    operator.cli(&["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats"]).words();
    let acme = Admin::tenant(&broker, "acme");
    let own = ["--tenant", "acme"];
    let pushed = acme.push(&second, "fixture", "2.0.0", &["--wait", "--tenant", "acme"]).words();
    let hint = "waits for an operator's approval: `hotbay plugin approve fixture@2.0.0 --tenant acme`";
    assert!(pushed.contains(hint), "{pushed}");
    // Only operators learn whose it is.
    let globex = Admin::tenant(&broker, "globex");
    for (command, words) in [("show", "; the tenant acme has one: --tenant acme"), ("approve", "--tenant acme")] {
        let missed = operator.cli(&["plugin", command, "fixture@2.0.0"]);
        assert!(missed.code == Some(1) && missed.err.contains(words), "{missed:?}");
        let missed = globex.cli(&["plugin", command, "fixture@2.0.0", "--tenant", "globex"]);
        assert!(missed.code == Some(1) && !missed.err.contains("acme"), "{missed:?}");
        assert!(!globex.cli(&["plugin", command, "fixture@2.0.0"]).err.contains("acme"));
    }
    let deploy = ["plugin", "deploy", "fixture@2.0.0", "--mount", "fixture"];
    let missed = operator.cli(&deploy);
    assert!(missed.err.contains("the tenant acme has one: --owner acme --tenant acme"), "{missed:?}");
    let early = operator.cli(&[&deploy[..], &["--owner", "acme", "--tenant", "acme"]].concat());
    assert!(early.code == Some(1) && early.err.contains(hint), "{early:?}");
    let shown = acme.cli(&[&["plugin", "show", "fixture@2.0.0"][..], &own].concat()).words();
    assert!(shown.contains(hint), "{shown}");
    let none = acme.cli(&[&["plugin", "status"][..], &own].concat()).words();
    assert!(none.contains("nothing is in force there; --past shows what was"), "{none}");
    let approve = [&["plugin", "approve", "fixture@2.0.0"][..], &own].concat();
    let itself = acme.cli(&approve);
    assert!(itself.code == Some(1) && itself.err.contains("acme/own is not an operator's"), "{itself:?}");
    let listed = acme.cli(&[&["plugin", "list"][..], &own].concat()).words();
    assert!(listed.contains("fixture@2.0.0") && listed.contains("vetted"), "{listed}");
    assert!(acme.cli(&["plugin", "list"]).err.contains("--tenant acme"));

    operator.cli(&approve).words();
    let elsewhere = ["plugin", "deploy", "fixture@2.0.0", "--mount", "fixture", "--owner", "acme"];
    let refused = operator.cli(&elsewhere);
    assert!(refused.code == Some(1) && refused.err.contains("channels of that tenant alone"), "{refused:?}");
    let mut theirs = broker.connect_with("/ws?channel=a", &broker.token("bob", json!({ "tenant": "acme" }))).await;
    assert!(count(&mut theirs).await > 0);
    let deployed = operator.cli(&[&elsewhere[..], &own, &["--json"]].concat()).json();
    let path = format!("/deployments/{}", deployed["id"]);
    until("the swap", &operator, &path, |one| one["counts"]["swaps"] == 1).await;
    assert!(count(&mut theirs).await > 0 && count(&mut others).await > 0);
    let one = acme.cli(&[&["plugin", "status"][..], &own].concat()).words();
    assert!(one.contains("fixture@2.0.0") && one.contains("all acme"), "{one}");
    assert_eq!(operator.get(&path).await.json()["counts"]["channels"], 1);
    let stopped = operator.cli(&["plugin", "stop", &deployed["id"].to_string()]).words();
    assert!(stopped.contains("is stopped"), "{stopped}");
}

/// Goal: what goes wrong says its cause and the next thing to try.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_says_what_to_try_next() {
    let (broker, operator, _client, folder, second) = begin().await;
    let manifest = folder.path().join("plugin.toml");
    let second = second.display().to_string();
    for (arguments, code, words) in [
        (&["plugin", "show", "none@1.0.0"][..], 1, "`hotbay plugin list` shows those there are"),
        (&["plugin", "show", "none"], 1, "write NAME@VERSION, or at least 8 digits"),
        (
            &["plugin", "deploy", "fixture@0.0.0", "--mount", "nowhere"],
            1,
            "there is no mount \"nowhere\"; there are: fixture",
        ),
        (&["plugin", "deploy", "fixture@0.0.0", "--mount", "fixture", "--pattern", "a*b"], 1, "pattern: "),
        (&["plugin", "deploy", "fixture@0.0.0", "--mount", "fixture", "--canary", "500"], 1, "at most 100"),
        (&["plugin", "rollback", "12345"], 1, "there is no deployment 12345"),
        (&["plugin", "rollback", "--mount", "fixture"], 1, "there is nothing before deployment"),
        (&["plugin", "rollback"], 2, "required"),
        (&["plugin", "status", "--mount", "nowhere"], 1, "there is no mount"),
        (&["plugin", "push", "/nowhere/plugin.wasm"], 2, "cannot be read"),
        (&["plugin", "push", &second], 2, "needs a manifest; name it with --manifest FILE"),
        (&["plugin", "push", folder.path().to_str().expect("UTF-8")], 2, "hotbay plugin new NAME"),
        (
            &["plugin", "list", "--broker", "http://127.0.0.1:1"],
            1,
            "is a broker running there? `hotbay serve` starts one",
        ),
        (&["plugin", "list", "--broker", "nonsense"], 2, "with http or https"),
        (&["plugin", "list", "--key-file", "/nowhere/key"], 2, "--key-file /nowhere/key: cannot be read"),
        (&["plugin", "list", "--status", "good"], 1, "the query: "),
        (&["plugin", "list", "--limit", "0"], 2, "--limit"),
        (&["plugin", "list", "--limit", "ten"], 2, "'--limit <LIMIT>': write a whole number, such as 10\n"),
        (&["plugin", "status", "99999999999999999999"], 2, "'[ID]': the number is too large\n"),
        (
            &["plugin", "deploy", "fixture@0.0.0", "--mount", "fixture", "--canary", "x"],
            2,
            "'--canary <PERCENT>': write a number, such as 10 or 0.5\n",
        ),
    ] {
        let ended = operator.cli(arguments);
        assert!(
            ended.code == Some(code) && ended.err.contains(words) && ended.out.is_empty(),
            "{arguments:?}: {ended:?}"
        );
    }
    std::fs::write(&manifest, "name = \"fixture\"\nversion = \"3.0.0\"\n").expect("a manifest");
    let unbuilt = operator.cli(&["plugin", "push", folder.path().to_str().expect("UTF-8")]);
    assert!(unbuilt.code == Some(2) && unbuilt.err.contains("[build]\ncommand"), "{unbuilt:?}");
    assert!(unbuilt.err.contains("or name the component: `hotbay plugin push FILE.wasm --manifest "), "{unbuilt:?}");
    std::fs::write(&manifest, "name = \"fixture\"\n").expect("a manifest");
    let bad = operator.cli(&["plugin", "push", &second]);
    assert!(bad.code == Some(2) && bad.err.contains("`version` is missing"), "{bad:?}");
    for (admin, words) in [
        (Admin::with(&broker, None), "hotbay key create --operator --name NAME"),
        (Admin::with(&broker, Some("hb_1234")), "the API key is not known"),
        (Admin::with(&broker, Some("a.b.c")), "hotbay key create --operator"),
    ] {
        let ended = admin.cli(&["plugin", "list"]);
        assert!(ended.err.contains(words), "{ended:?}");
    }
    let file = folder.path().join("key");
    std::fs::write(&file, operator.key()).expect("a file");
    let by_file =
        Admin::with(&broker, None).cli(&["plugin", "list", "--key-file", file.to_str().expect("UTF-8"), "--json"]);
    assert_eq!(by_file.json()["items"][0]["name"], "fixture");
}

/// Goal: a key is never a flag: other users of the machine see those.
#[test]
fn no_flag_takes_a_key() {
    for subcommand in [&["plugin", "push"][..], &["tenant", "set"], &["audit"], &["key", "create"]] {
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_hotbay")).args(subcommand).arg("--help").output();
        let help = String::from_utf8(help.expect("an end").stdout).expect("UTF-8");
        assert!(help.contains("--key-file") && !help.contains("--key ") && !help.contains("--token"), "{help}");
    }
}

/// Goal: a push that is refused midway is told, not reset: the manifest that is there already.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_there_is_refused_with_the_remedy() {
    let (_broker, operator, _client, folder, second) = begin().await;
    operator.push(&second, "fixture", "2.0.0", &[]).words();
    let third = rebuilt("fixture", "third", folder.path());
    let again = operator.push(&third, "fixture", "2.0.0", &[]);
    assert!(again.code == Some(1) && again.err.contains("raise `version` in plugin.toml"), "{again:?}");
    let same = operator.push(&fixture(), "other", "1.0.0", &[]);
    assert!(same.code == Some(1) && same.err.contains("is there already, as fixture@0.0.0"), "{same:?}");
}

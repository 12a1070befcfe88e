//! Signed uploads: a signature by a key the tenant trusts is its approval where its policy says so; any other is refused at once.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use sha2::{Digest as _, Sha256};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::support::admin::{Admin, ended, manifest_text};
use crate::support::broker::Setup;
use crate::support::client::DEADLINE;
use crate::support::rebuilt;

/// What minisign calls the key.
const KEY_ID: [u8; 8] = *b"hot-bay!";

/// A public key as minisign writes it: algorithm, name, key.
fn public_key() -> String {
    let pem = include_str!("../../host/auth/testdata/ed25519_public.pem");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).expect("base64");
    STANDARD.encode([b"Ed".as_slice(), &KEY_ID, &der[der.len() - 32..]].concat())
}

fn sign(message: &[u8]) -> Vec<u8> {
    let key = EncodingKey::from_ed_pem(include_bytes!("../../host/auth/testdata/ed25519_private.pem")).expect("a key");
    let signature = jsonwebtoken::crypto::sign(message, &key, Algorithm::EdDSA).expect("a signature");
    URL_SAFE_NO_PAD.decode(signature).expect("base64")
}

/// A signature as minisign writes it (of the message itself, as `minisign -l` does), with its signed comment.
fn minisig(message: &[u8]) -> String {
    let signature = sign(message);
    let comment = "timestamp:1 file:plugin.toml";
    let line = STANDARD.encode([b"Ed".as_slice(), &KEY_ID, &signature].concat());
    let global = STANDARD.encode(sign(&[signature.as_slice(), comment.as_bytes()].concat()));
    format!("untrusted comment: of a test\n{line}\ntrusted comment: {comment}\n{global}\n")
}

/// A component with a manifest that names its digest, and a signature of that.
fn write_signed(folder: &Path, component: &Path, version: &str) -> (String, String) {
    let digest = hex::encode(Sha256::digest(std::fs::read(component).expect("a component")));
    let text = manifest_text("fixture", version).replacen(
        "capabilities",
        &format!("digest = \"sha256:{digest}\"\ncapabilities"),
        1,
    );
    let (manifest, signature) = (folder.join(format!("{version}.toml")), folder.join(format!("{version}.minisig")));
    std::fs::write(&manifest, &text).expect("a manifest");
    std::fs::write(&signature, minisig(text.as_bytes())).expect("a signature");
    (manifest.display().to_string(), signature.display().to_string())
}

/// Goal: with the policy `auto` a trusted signature is enough, without anybody at work; with `review` it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_signature_is_an_approval_where_the_policy_says_so() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let acme = Admin::tenant(&broker, "acme");
    let folder = TempDir::new().expect("a folder");
    let all = ["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats", "--trusted-key", &public_key()];
    operator.cli(&[&all[..], &["--policy", "auto"]].concat()).words();
    let push = |version: &str, more: &[&str]| {
        let component = rebuilt("fixture", version, folder.path());
        let (manifest, signature) = write_signed(folder.path(), &component, version);
        let component = component.display().to_string();
        let arguments =
            ["plugin", "push", &component, "--manifest", &manifest, "--tenant", "acme", "--wait", "--signature"];
        acme.cli(&[&arguments[..], &[signature.as_str()], more].concat())
    };

    let approved = push("2.0.0", &[]).words();
    assert!(approved.contains("✓ signature") && approved.contains("fixture@2.0.0 may run"), "{approved}");
    let shown = operator.cli(&["plugin", "show", "fixture@2.0.0", "--tenant", "acme"]).words();
    let id = format!("{:016X}", u64::from_le_bytes(KEY_ID));
    assert!(shown.contains(&format!("signed with {id}")) && shown.contains("by signature"), "{shown}");
    operator.cli(&["tenant", "set", "acme", "--policy", "review"]).words();
    let reviewed = push("2.0.1", &[]).words();
    assert!(reviewed.contains("✓ signature") && reviewed.contains("waits for an operator's approval"), "{reviewed}");
    operator.cli(&["tenant", "set", "acme", "--policy", "closed"]).words();
    let closed = push("2.0.2", &[]);
    assert!(closed.code == Some(1) && closed.err.contains("its policy is closed"), "{closed:?}");
}

/// Goal: a signature that says nothing is refused at once, not passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_does_not_fit_is_refused() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let folder = TempDir::new().expect("a folder");
    let component = rebuilt("fixture", "signed", folder.path());
    let (manifest, signature) = write_signed(folder.path(), &component, "2.0.0");
    let component = component.display().to_string();
    let push = ["plugin", "push", &component, "--manifest", &manifest, "--tenant", "acme", "--signature", &signature];

    let untrusted = operator.cli(&push);
    assert!(untrusted.code == Some(1) && untrusted.err.contains("which the tenant does not trust"), "{untrusted:?}");
    operator
        .cli(&["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats", "--trusted-key", &public_key()])
        .words();
    let changed = std::fs::read_to_string(&manifest).expect("a manifest").replace("2.0.0", "2.0.1");
    std::fs::write(&manifest, changed).expect("a manifest");
    let other = operator.cli(&push);
    assert!(other.code == Some(1) && other.err.contains("signature: "), "{other:?}");
    std::fs::write(&signature, "nonsense").expect("a file");
    let nonsense = operator.cli(&push);
    assert!(nonsense.code == Some(1) && nonsense.err.contains("not a signature of minisign"), "{nonsense:?}");
    assert_eq!(operator.get("/tenants/acme/plugins").await.json()["items"], serde_json::json!([]));
}

/// A key pair of the real program, without a password: the public key, and where the secret one is.
fn minisign_keys(folder: &Path, name: &str) -> (String, String) {
    let (public, secret) = (folder.join(format!("{name}.pub")), folder.join(format!("{name}.key")));
    let made = Command::new("minisign").args(["-G", "-W", "-p"]).arg(&public).arg("-s").arg(&secret).output();
    let made = made.expect("minisign: tests/needs.sh installs it");
    assert!(made.status.success(), "{made:?}");
    let public = std::fs::read_to_string(&public).expect("a public key");
    (public.lines().nth(1).expect("a second line").to_owned(), secret.display().to_string())
}

/// Goal: `--sign` has the real program sign what is pushed, and that signature counts; where it cannot sign, nothing is pushed.
#[tokio::test(flavor = "multi_thread")]
async fn what_minisign_signs_counts() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let acme = Admin::tenant(&broker, "acme");
    let folder = TempDir::new().expect("a folder");
    let [(trusted, secret), (_, strangers)] = ["trusted", "stranger"].map(|name| minisign_keys(folder.path(), name));
    let set = ["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats", "--policy", "auto", "--trusted-key"];
    operator.cli(&[&set[..], &[&trusted]].concat()).words();
    let component = rebuilt("fixture", "signed", folder.path());
    let own = |key: &str, more: &[&str]| {
        let arguments = [&["--tenant", "acme", "--wait", "--sign", key][..], more].concat();
        acme.push(&component, "fixture", "2.0.0", &arguments)
    };

    for (key, words) in [(strangers.as_str(), "which the tenant does not trust"), ("/nowhere/key", "did not sign it")] {
        let refused = own(key, &[]);
        assert!(refused.code == Some(1) && refused.err.contains(words), "{refused:?}");
    }
    let (file, manifest) = (component.display().to_string(), folder.path().join("plugin.toml"));
    std::fs::write(&manifest, manifest_text("fixture", "2.0.0")).expect("a manifest");
    let mut without = acme.command(&["plugin", "push", &file, "--tenant", "acme", "--sign", &secret]);
    let without = ended(&without.env("PATH", "/nowhere").output().expect("an end"));
    assert!(without.code == Some(2) && without.err.contains("install minisign"), "{without:?}");
    assert_eq!(operator.get("/tenants/acme/plugins").await.json()["items"], serde_json::json!([]));

    let approved = own(&secret, &["--json"]).json();
    assert_eq!(approved["status"], "approved", "{approved}");
    let shown = operator.cli(&["plugin", "show", "fixture@2.0.0", "--tenant", "acme"]).words();
    assert!(shown.contains("✓ signature") && shown.contains("by signature"), "{shown}");
    let left = std::fs::read_to_string(&manifest).expect("a manifest");
    assert_eq!(left, manifest_text("fixture", "2.0.0"), "the manifest stays as it was written");
}

/// Law: whose signature counts, and whether it is enough, is judged when a version is approved, and not by what held when it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_trusted_any_more_approves_nothing() {
    for (since, status) in [
        ("UPDATE tenant SET trusted_keys = '[]'", "vetted"),
        ("UPDATE tenant SET policy = 'review'", "vetted"),
        ("UPDATE tenant SET changed_ms = changed_ms", "approved"),
    ] {
        let mut broker = Setup::fixture("").start();
        let operator = Admin::operator(&broker);
        let folder = TempDir::new().expect("a folder");
        let set =
            ["tenant", "set", "acme", "--grants", "kv,log,logging,sql,stats", "--policy", "auto", "--trusted-key"];
        operator.cli(&[&set[..], &[&public_key()]].concat()).words();
        let component = rebuilt("fixture", "signed", folder.path());
        let (manifest, signature) = write_signed(folder.path(), &component, "2.0.0");
        let component = component.display().to_string();
        let push =
            ["plugin", "push", &component, "--manifest", &manifest, "--tenant", "acme", "--signature", &signature];
        operator.cli(&[&push[..], &["--wait"]].concat()).words();
        // As if the broker had ended before it was vetted, and an operator had changed their mind since.
        broker.kill();
        let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
        let mut database = options.connect().await.expect("the database");
        for change in ["UPDATE plugin SET status = 'uploaded' WHERE tenant = 'acme'", since] {
            assert_eq!(
                sqlx::query(change).execute(&mut database).await.expect("a change").rows_affected(),
                1,
                "{change}"
            );
        }
        drop(database);

        broker.start();
        broker.until_log("\"vetted\",\"plugin\":\"fixture\",\"version\":\"2.0.0\"").await;
        let operator = Admin::with(&broker, Some(operator.key()));

        let decided = async {
            loop {
                let shown = operator.get("/tenants/acme/plugins/fixture@2.0.0").await.json()["status"].clone();
                let log = broker.log();
                if shown == status && (since.contains("keys") == log.contains("is not approved by its signature")) {
                    return log;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let log = tokio::time::timeout(DEADLINE, decided).await.unwrap_or_else(|_| panic!("{since}: {}", broker.log()));
        assert!(!log.contains("could not be vetted"), "{log}");
    }
}

//! Uploads: what is not whole, not in order or too large leaves nothing behind and is told why.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::admin::{Admin, VETTED, fixture, form, manifest_text};
use crate::support::broker::{Broker, Setup};
use crate::support::client::DEADLINE;

/// What lies in the folder of components, beside those of the configuration.
fn left_behind(broker: &Broker) -> Vec<String> {
    let names = std::fs::read_dir(broker.data().join("plugins")).expect("a folder").flatten();
    names
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("incoming"))
        .collect()
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_default()
}

/// Goal: each mistake is told with the remedy, and leaves no file.
#[tokio::test]
async fn what_is_wrong_with_an_upload_is_told() {
    type Parts<'a> = Vec<(&'a str, &'a [u8])>;
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let (manifest, component) = (manifest_text("good", "1.0.0"), b"\0asm".as_slice());
    let manifest = manifest.as_bytes();
    let long = vec![b'#'; 17 << 10];
    let cases: Vec<(Parts<'_>, u16, &str)> = vec![
        (vec![], 400, "\"manifest\" is missing"),
        (vec![("component", component)], 400, "the order is manifest"),
        (vec![("manifest", manifest)], 400, "\"component\" is missing"),
        (vec![("component", component), ("manifest", manifest)], 400, "the order is manifest"),
        (vec![("manifest", manifest), ("component", component), ("component", component)], 400, "one too many"),
        (vec![("manifest", b"name = \"x\""), ("component", component)], 400, "`version` is missing"),
        (vec![("manifest", b"name = \"a b\"\nversion = \"1.0.0\""), ("component", component)], 400, "choose a name"),
        (vec![("manifest", b"\xff"), ("component", component)], 400, "not UTF-8"),
        (vec![("manifest", &long), ("component", component)], 413, "over 16384 bytes"),
    ];
    for (parts, status, words) in cases {
        let answer = operator.upload("/plugins", &parts).await;
        let body = answer.json();
        assert!(answer.status == status && message(&body).contains(words), "{words}: {} {body}", answer.status);
    }
    let text = operator.post("/plugins", &json!({})).await;
    assert!(text.status == 400 && text.text.contains("multipart/form-data"), "{}", text.text);
    assert_eq!(left_behind(&broker), Vec::<String>::new());
}

/// Goal: what is over the bound is refused, announced or not, and the broker neither keeps it nor holds it.
#[tokio::test]
async fn an_upload_over_the_bound_is_refused() {
    let broker = Setup::fixture("").set("limits.plugin_bytes_max", 4 << 20).start();
    let operator = Admin::operator(&broker);
    let manifest = manifest_text("large", "1.0.0");
    for bytes in [(4 << 20) + 1, 100 << 20] {
        let component = vec![0; bytes];
        let answer = operator.upload("/plugins", &[("manifest", manifest.as_bytes()), ("component", &component)]).await;
        let body = answer.json();
        assert!(answer.status == 413 && message(&body).contains("4194304"), "{bytes}: {} {body}", answer.status);
    }
    assert_eq!(left_behind(&broker), Vec::<String>::new());
}

/// Writes a part of an upload by hand, and nothing more.
fn begin_upload(broker: &Broker, key: &str, length: usize) -> TcpStream {
    let manifest = manifest_text("cut", "1.0.0");
    let wasm = std::fs::read(fixture()).expect("a component");
    let (kind, body) = form(&[("manifest", manifest.as_bytes()), ("component", &wasm)]);
    let mut socket = TcpStream::connect(broker.address()).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let head = format!(
        "POST /v1/admin/tenants/acme/plugins HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).expect("room");
    socket.write_all(&body[..length]).expect("room");
    socket
}

/// Waits until a file of an upload is there, or is not.
async fn until(broker: &Broker, is_there: bool) {
    let wait = async {
        while left_behind(broker).is_empty() == is_there {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("in time");
}

/// Law: an upload that breaks off leaves nothing; and of each tenant one is taken at a time, so that nobody takes all the room.
#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let broker = Setup::fixture("").start();
    let key = broker.run(&["key", "create", "--name", "own", "--tenant", "acme"]);
    let (acme, operator) = (Admin::with(&broker, Some(key.trim())), Admin::operator(&broker));
    let wasm = std::fs::read(fixture()).expect("a component");
    let manifest = manifest_text("whole", "1.0.0");
    let parts = [("manifest", manifest.as_bytes()), ("component", wasm.as_slice())];

    let socket = begin_upload(&broker, key.trim(), 100_000);
    until(&broker, true).await;
    let second = acme.upload("/tenants/acme/plugins", &parts).await;
    assert_eq!(second.status, 503, "{}", second.text);
    assert!(
        second.text.contains("one is taken at a time") && second.header("retry-after").is_some(),
        "{}",
        second.text
    );
    let others = operator.upload("/tenants/globex/plugins", &parts).await;
    assert_eq!(others.status, 202, "{}", others.text);
    drop(socket);
    until(&broker, false).await;

    let mut half = begin_upload(&broker, key.trim(), 100_000);
    until(&broker, true).await;
    half.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut answer = String::new();
    half.read_to_string(&mut answer).ok();
    until(&broker, false).await;
    let listed = acme.get("/tenants/acme/plugins").await.json();
    assert_eq!(listed["items"], json!([]), "{answer}");
    let whole = acme.upload("/tenants/acme/plugins", &parts).await;
    assert_eq!(whole.status, 202, "{}", whole.text);
    let place = whole.header("location").expect("a place").to_owned();
    assert_eq!(whole.json()["vetting"], place.as_str());
    let shown = acme.get(place.strip_prefix("/v1/admin").expect("a path")).await.json();
    assert_eq!(
        (&shown["name"], &shown["tenant"], &shown["manifest"]),
        (&json!("whole"), &json!("acme"), &json!(manifest))
    );
}

/// Law: a version never changes: neither its component nor its number is taken a second time; and what is refused leaves no file.
#[tokio::test]
async fn a_version_never_changes() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let wasm = std::fs::read(fixture()).expect("a component");
    let other = [wasm.as_slice(), &[0, 2, 1, b'x']].concat();
    let upload = async |version: &str, component: &[u8]| {
        let manifest = manifest_text("kept", version);
        let parts = [("manifest", manifest.as_bytes()), ("component", component)];
        let answer = operator.upload("/tenants/acme/plugins", &parts).await;
        (answer.status, message(&answer.json()).to_owned())
    };
    assert_eq!(upload("1.0.0", &wasm).await.0, 202);
    let (status, words) = upload("1.0.0", &other).await;
    assert!(status == 409 && words.contains("raise `version`"), "{words}");
    let (status, words) = upload("1.0.1", &wasm).await;
    assert!(status == 409 && words.contains("there already, as kept@1.0.0"), "{words}");
    assert_eq!(upload("1.0.1", &other).await.0, 202);
    let files = std::fs::read_dir(broker.data().join("plugins")).expect("a folder").flatten();
    let components: Vec<PathBuf> = files.map(|file| file.path()).filter(|path| path.extension().is_some()).collect();
    assert_eq!(components.len(), 2, "the first one is the configuration's, too: {components:?}");
    assert!(components.iter().all(|path| mode(path) == 0o600));
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// The components that are there, by digest.
fn components(broker: &Broker) -> Vec<String> {
    let files = std::fs::read_dir(broker.data().join("plugins")).expect("a folder").flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_suffix(".wasm").map(str::to_owned)).collect()
}

/// Waits until a version was looked at; answers its status and its digest.
async fn looked_at(admin: &Admin, path: &str) -> (String, String) {
    let wait = async {
        loop {
            let shown = admin.get(path).await.json();
            let status = shown["status"].as_str().unwrap_or_default().to_owned();
            if !["uploaded", "vetting"].contains(&status.as_str()) {
                return (status, shown["digest"].as_str().unwrap_or_default().to_owned());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(VETTED, wait).await.expect("a verdict in time")
}

/// Goal: a component that failed vetting for its manifest, or for what its tenant was granted, comes again under another number when that
/// is mended. Law: not more often than the tenant may upload, and not if somebody rejected it.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_vetting_may_come_again() {
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let grants = |grants: &str| {
        let limits = ["--limits", r#"{"uploads_per_day":3}"#];
        operator.cli(&[&["tenant", "set", "acme", "--grants", grants][..], &limits].concat()).words();
    };
    grants("kv");
    let wasm = std::fs::read(fixture()).expect("a component");
    let upload = async |version: &str| {
        let manifest = manifest_text("own", version);
        let parts = [("manifest", manifest.as_bytes()), ("component", wasm.as_slice())];
        let answer = operator.upload("/tenants/acme/plugins", &parts).await;
        if answer.status != 202 {
            return (answer.status, message(&answer.json()).to_owned());
        }
        (202, looked_at(&operator, &format!("/tenants/acme/plugins/own@{version}")).await.0)
    };
    assert_eq!(upload("1.0.0").await, (202, "rejected".to_owned()));
    let (status, words) = upload("1.0.0").await;
    assert!(status == 409 && words.contains("raise `version` in plugin.toml, and push it again"), "{words}");
    assert_eq!(upload("1.0.1").await, (202, "rejected".to_owned()));
    grants("kv,log,logging,sql,stats");
    assert_eq!(upload("1.0.2").await, (202, "vetted".to_owned()));
    let (status, words) = upload("1.0.3").await;
    assert!(status == 429 && words.contains("uploads_per_day"), "{words}");

    operator.cli(&["tenant", "set", "acme", "--limits", "{}"]).words();
    operator.cli(&["plugin", "reject", "own@1.0.2", "--tenant", "acme", "--reason", "leaks"]).words();
    let (status, words) = upload("1.0.3").await;
    assert!(status == 409 && words.contains("push another component"), "{words}");
}

/// Law: what was refused leaves no component behind, unless another version has the same; and what no version names goes when the broker
/// starts.
#[tokio::test(flavor = "multi_thread")]
async fn components_that_nobody_needs_go() {
    let mut broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let folder = tempfile::TempDir::new().expect("a folder");
    let wasm = std::fs::read(crate::support::rebuilt("fixture", "shared", folder.path())).expect("a component");
    operator.cli(&["tenant", "set", "globex", "--grants", "kv,log,logging,sql,stats"]).words();
    let upload = async |tenant: &str, wasm: &[u8]| {
        let manifest = manifest_text("own", "1.0.0");
        let parts = [("manifest", manifest.as_bytes()), ("component", wasm)];
        let answer = operator.upload(&format!("/tenants/{tenant}/plugins"), &parts).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        looked_at(&operator, &format!("/tenants/{tenant}/plugins/own@1.0.0")).await
    };
    // acme is granted too little.
    let (status, digest) = upload("acme", &wasm).await;
    assert_eq!(status, "rejected");
    assert!(!components(&broker).contains(&digest));
    assert_eq!(upload("globex", &wasm).await, ("vetted".to_owned(), digest.clone()));
    assert_eq!(upload("initech", &wasm).await, ("rejected".to_owned(), digest.clone()));
    assert!(components(&broker).contains(&digest), "globex needs it");
    let nobodys = "0".repeat(64);
    std::fs::write(broker.data().join(format!("plugins/{nobodys}.wasm")), "x").expect("a file");

    broker.terminate().await;
    broker.start();
    let operator = Admin::with(&broker, Some(operator.key()));

    let there = components(&broker);
    assert!(there.contains(&digest) && !there.contains(&nobodys) && there.len() == 2, "{there:?}");
    operator.cli(&["plugin", "reject", "own@1.0.0", "--tenant", "globex", "--reason", "no"]).words();
    assert!(!components(&broker).contains(&digest));
}

/// Law: who cannot get a version in is told before its component is taken; and a tenant nobody said anything about has 100 a day.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_chance_is_refused_before_its_component() {
    let broker = Setup::fixture("").set("limits.plugin_bytes_max", 4 << 20).start();
    let operator = Admin::operator(&broker);
    operator.cli(&["tenant", "set", "closed", "--policy", "closed"]).words();
    operator.cli(&["tenant", "set", "few", "--limits", "{\"uploads_per_day\":0}"]).words();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut database = sqlx::ConnectOptions::connect(&options).await.expect("the database");
    let ninety_nine = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 99) \
        INSERT INTO plugin (tenant, digest, name, version, contract, manifest, schema, accepts, capabilities, bytes, uploader, \
        uploaded_ms, status) SELECT 'stranger', randomblob(32), 'x', '1.0.' || n, '1', '', 1, '[]', '[]', 1, 'test', \
        unixepoch() * 1000, 'rejected' FROM n";
    sqlx::query(ninety_nine).execute(&mut database).await.expect("rows");
    let manifest = manifest_text("own", "1.0.0");
    let upload = async |tenant: &str, component: &[u8]| {
        let parts = [("manifest", manifest.as_bytes()), ("component", component)];
        let answer = operator.upload(&format!("/tenants/{tenant}/plugins"), &parts).await;
        (answer.status, message(&answer.json()).to_owned())
    };
    // Whoever has a chance hears of its size, which is known when all of it came.
    let large = vec![0; (4 << 20) + 1];
    assert_eq!(upload("stranger", &large).await.0, 413);
    let (status, words) = upload("closed", &large).await;
    assert!(status == 403 && words.contains("its policy is closed"), "{status} {words}");
    let (status, words) = upload("few", &large).await;
    assert!(status == 429 && words.contains("uploads_per_day"), "{status} {words}");

    assert_eq!(upload("stranger", b"\0asm").await.0, 202, "the hundredth");
    let (status, words) = upload("stranger", &large).await;
    assert!(status == 429 && words.contains("100 uploads within 24 hours (uploads_per_day)"), "{status} {words}");
    assert_eq!(left_behind(&broker), Vec::<String>::new());
}

/// Law: a tenant that uploads one version after the other gets no more than its places in front of vetting, and others get theirs; what
/// waits in the store beyond that is vetted after a restart, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_does_not_fill_the_line() {
    let mut broker = Setup::fixture("").with_nothing_compiled().start();
    let operator = Admin::operator(&broker);
    for tenant in ["acme", "globex"] {
        operator.cli(&["tenant", "set", tenant, "--grants", "kv,log,logging,sql,stats"]).words();
    }
    let wasm = std::fs::read(fixture()).expect("a component");
    let upload = async |tenant: &str, number: u8| {
        let component = [wasm.as_slice(), &[0, 2, 1, number]].concat();
        let manifest = manifest_text(tenant, &format!("1.0.{number}"));
        let parts = [("manifest", manifest.as_bytes()), ("component", component.as_slice())];
        let answer = operator.upload(&format!("/tenants/{tenant}/plugins"), &parts).await;
        (answer.status, answer.text)
    };
    let mut refused = None;
    for number in 0..100 {
        match upload("acme", number).await {
            (202, _) => {}
            other => {
                refused = Some(other);
                break;
            }
        }
    }
    let (status, words) = refused.expect("a refusal");
    assert!(
        status == 429 && words.contains("8 versions of the tenant \\\"acme\\\" wait to be vetted"),
        "{status} {words}"
    );
    for number in 100..102 {
        let (status, words) = upload("globex", number).await;
        assert_eq!(status, 202, "{words}");
    }

    // All of it is one tenant's, and waits.
    broker.kill();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut database = sqlx::ConnectOptions::connect(&options.foreign_keys(false)).await.expect("the database");
    for table in ["vetting_step", "vetting", "plugin"] {
        let sql = format!("UPDATE {table} SET tenant = 'acme' WHERE tenant = 'globex'");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut database).await.expect("rows");
    }
    let waits = "UPDATE plugin SET status = 'uploaded' WHERE tenant = 'acme'";
    let waiting = sqlx::query(waits).execute(&mut database).await.expect("rows").rows_affected();
    assert!(waiting > 8, "{waiting}");
    drop(database);

    broker.start();

    let operator = Admin::with(&broker, Some(operator.key()));
    // Vetting gets what time nobody else wants: each of them has a deadline of its own.
    for more in 1..=waiting {
        let wait = async {
            loop {
                let listed = operator.get("/tenants/acme/plugins?status=vetted").await.json();
                if listed["items"].as_array().is_some_and(|vetted| vetted.len() as u64 >= more) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("{more} of {waiting} are not vetted in time"));
    }
}

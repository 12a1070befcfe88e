//! Who may ask the admin API, for what; and that its document says what there is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::admin::{Admin, fixture, manifest_text};
use crate::support::broker::{Broker, Setup, token};

/// What a tenant's own key may ask for.
const OF_TENANTS: [(&str, &str); 6] = [
    ("get", "/tenants/{tenant}/plugins"),
    ("post", "/tenants/{tenant}/plugins"),
    ("get", "/tenants/{tenant}/plugins/{version}"),
    ("get", "/tenants/{tenant}/deployments"),
    ("get", "/tenants/{tenant}/usage"),
    ("get", "/openapi.json"),
];

/// Every method and path of the document.
async fn operations(admin: &Admin) -> Vec<(String, String)> {
    let document = admin.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        operations.extend(item.as_object().expect("an item").keys().map(|method| (method.clone(), path.clone())));
    }
    assert!(operations.len() > 15, "{operations:?}");
    operations
}

/// A path with names in it.
fn filled(path: &str, tenant: &str) -> String {
    let named = path.replace("{tenant}", tenant).replace("{version}", "none@1.0.0").replace("{mount}", "fixture");
    named.replace("{id}", "12345").replace("{name}", "none")
}

async fn ask(admin: &Admin, method: &str, path: &str) -> (u16, Value) {
    let answer = admin.send(&method.to_uppercase(), path, &[], String::new()).await;
    let status = answer.status;
    (status, if answer.text.is_empty() { Value::Null } else { answer.json() })
}

fn setup() -> Setup {
    Setup::fixture("")
}

/// Law: nobody gets past the door who does not say who they are; a tenant sees its own plugins and nothing else; and what is another
/// tenant's is, to it, not there.
#[tokio::test]
async fn every_endpoint_knows_who_may_ask() {
    let broker = setup().start();
    let (operator, acme) = (Admin::operator(&broker), Admin::tenant(&broker, "acme"));
    let (nobody, stranger) = (Admin::with(&broker, None), Admin::with(&broker, Some("hb_1234")));
    for (method, path) in operations(&operator).await {
        let own = filled(&path, "acme");
        let (status, body) = ask(&nobody, &method, &own).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!("unauthorized")), "{method} {path}: {body}");
        // It has no end.
        if path != "/logs" {
            let (status, body) = ask(&operator, &method, &own).await;
            assert!(!matches!(status, 401 | 403 | 405), "{method} {path}: {status} {body}");
        }

        let (status, body) = ask(&acme, &method, &own).await;
        if OF_TENANTS.contains(&(method.as_str(), path.as_str())) {
            assert!(!matches!(status, 401 | 403 | 405), "{method} {path}: {status} {body}");
        } else {
            assert_eq!((status, &body["error"]["code"]), (403, &json!("forbidden")), "{method} {path}: {body}");
            assert!(body["error"]["message"].as_str().is_some_and(|words| words.contains("acme/own")), "{body}");
        }
        if path.starts_with("/tenants/") && OF_TENANTS.contains(&(method.as_str(), path.as_str())) {
            let foreign = ask(&acme, &method, &filled(&path, "globex")).await;
            let nonexistent = ask(&acme, &method, &filled(&path, "none")).await;
            assert_eq!(foreign.0, 404, "{method} {path}: {}", foreign.1);
            assert_eq!(foreign.1.to_string().replace("globex", "none"), nonexistent.1.to_string(), "{method} {path}");
        }
    }
    assert_eq!(ask(&stranger, "get", "/plugins").await.0, 401);
    assert_eq!(ask(&operator, "get", "/nothing").await.1["error"]["code"], "not_found");
    assert_eq!(ask(&nobody, "get", "/nothing").await.0, 401, "not even that is told");
}

/// Goal: the document has every method of every path. The router itself says which those are: whoever asks with another one is told.
#[tokio::test]
async fn the_document_has_every_method_there_is() {
    let broker = setup().start();
    let operator = Admin::operator(&broker);
    let described = operations(&operator).await;
    let paths: BTreeSet<&String> = described.iter().map(|(_, path)| path).collect();
    for path in paths {
        let answer = operator.send("BREW", &filled(path, "acme"), &[], String::new()).await;
        let allowed = answer.header("allow").expect("methods").to_lowercase();
        let there: BTreeSet<&str> = allowed.split(',').map(str::trim).filter(|method| *method != "head").collect();
        let here: BTreeSet<&str> =
            described.iter().filter(|(_, of)| of == path).map(|(method, _)| method.as_str()).collect();
        assert_eq!((answer.status, there), (405, here), "{path}");
        assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

fn with_tokens(lines: &str) -> Broker {
    setup().and(&format!("[admin]\nkeys = [\"default\"]\n{lines}")).start()
}

/// Goal: a token administers if its role says so and its key is named, and in no other way: not by a cookie, not from a query unless
/// that was configured.
#[tokio::test]
async fn tokens_administer_by_their_role() {
    let broker = with_tokens("");
    let status = async |token: &str| Admin::with(&broker, Some(token)).get("/plugins").await.status;
    let operator = token("ann", json!({ "role": "operator" }), 60);

    assert_eq!(status(&operator).await, 200);
    assert_eq!(status(&token("ann", json!({ "role": "member" }), 60)).await, 403);
    assert_eq!(status(&token("ann", json!({}), 60)).await, 403);
    assert_eq!(status(&token("ann", json!({ "role": ["operator"] }), 60)).await, 403);
    assert_eq!(status(&token("ann", json!({ "role": "operator" }), -60)).await, 401);
    assert_eq!(status(&format!("{operator}x")).await, 401);
    assert_eq!(status("hb_nothing").await, 401);
    let nobody = Admin::with(&broker, None);
    let cookie = nobody.send("GET", "/plugins", &[("cookie", &format!("token={operator}"))], String::new()).await;
    let query = nobody.get(&format!("/plugins?token={operator}")).await;
    assert_eq!((cookie.status, query.status), (401, 401));

    let broker = with_tokens("role = \"admin\"\ntokens = [\"header\", \"query:token\"]\n");
    let admin = token("ann", json!({ "role": "admin" }), 60);
    assert_eq!(Admin::with(&broker, Some(&operator)).get("/plugins").await.status, 403);
    assert_eq!(Admin::with(&broker, Some(&admin)).get("/plugins").await.status, 200);
    let by_query = Admin::with(&broker, None);
    let one = by_query.get(&format!("/mounts?limit=1&tok%65n={admin}")).await;
    assert_eq!((one.status, one.json()["items"][0]["name"].clone()), (200, json!("fixture")));
    assert_eq!(by_query.get(&format!("/mounts?token={operator}")).await.status, 403);

    let broker = setup().start();
    let answer = Admin::with(&broker, Some(&operator)).get("/plugins").await;
    assert_eq!(answer.status, 401);
    assert!(answer.text.contains("hotbay key create --operator"), "{}", answer.text);
}

/// A table that would let the wrong ones in is refused when the broker starts.
#[test]
fn a_table_that_would_let_everybody_in_is_refused() {
    for (lines, words) in [
        ("keys = []", "admin.keys"),
        ("keys = [\"nobody\"]", "there is no [key.nobody]"),
        ("keys = [\"default\"]\nrole = \"\"", "admin.role"),
        ("keys = [\"default\"]\ntokens = [\"cookie:session\"]", "every web page"),
        ("keys = [\"default\"]\ntokens = [\"subprotocol\"]", "no sockets"),
        ("keys = [\"default\"]\ntokens = []", "admin.tokens"),
        ("role = \"operator\"", "keys is missing"),
    ] {
        let output = setup().and(&format!("[admin]\n{lines}\n")).fail_to_start();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && err.contains(words), "{lines}: {err}");
    }
}

/// Law: whoever tries keys has to wait, and is told how long; others do not.
#[tokio::test]
async fn who_comes_with_wrong_keys_has_to_wait() {
    let broker = setup().start();
    let operator = Admin::operator(&broker);
    assert_eq!(operator.get("/plugins").await.status, 200);
    let mut last = None;
    for number in 0..40 {
        last = Some(Admin::with(&broker, Some(&format!("hb_{number}"))).get("/plugins").await);
    }
    let last = last.expect("an answer");
    assert_eq!(last.status, 429, "{}", last.text);
    assert_eq!(last.json()["error"]["code"], "rate_limited");
    assert!(last.header("retry-after").and_then(|wait| wait.parse::<u64>().ok()).is_some_and(|wait| wait >= 1));
    assert_eq!(operator.get("/plugins").await.status, 200, "a key that was right before");
}

/// Law: no page of another site may read what is here; and a revoked key ends at once.
#[tokio::test]
async fn browsers_are_told_nothing() {
    let broker = setup().start();
    let operator = Admin::operator(&broker);
    let origin = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let preflight = Admin::with(&broker, None).send("OPTIONS", "/plugins", &origin, String::new()).await;
    let answer = operator.send("GET", "/plugins", &origin, String::new()).await;
    for answer in [&preflight, &answer] {
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{:?}", answer.headers);
    }
    assert_eq!((preflight.status, answer.status), (401, 200));

    broker.run(&["key", "revoke", "--name", "ops"]);
    assert_eq!(operator.get("/plugins").await.status, 401);
}

/// Lists come in pages that meet: nothing is left out, nothing comes twice, whatever their size; and what makes no sense is told.
#[tokio::test]
async fn lists_come_in_pages() {
    let broker = setup().start();
    let operator = Admin::operator(&broker);
    let wasm = std::fs::read(fixture()).expect("a component");
    for number in 0..7_u8 {
        let manifest = manifest_text("paged", &format!("1.0.{number}"));
        let component = [&wasm[..8], &[0, 2, 1, number], &wasm[8..]].concat();
        let parts = [("manifest", manifest.as_bytes()), ("component", &component)];
        let answer = operator.upload("/tenants/acme/plugins", &parts).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    for limit in [1, 2, 3, 6, 7, 8, 1_000] {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = operator.get(&format!("/tenants/acme/plugins?limit={limit}{after}")).await.json();
            let items = page["items"].as_array().expect("items");
            assert!(items.len() <= limit);
            found.extend(items.iter().map(|item| item["version"].as_str().expect("a version").to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let expected: Vec<String> = (0..7).rev().map(|number| format!("1.0.{number}")).collect();
        assert_eq!(found, expected, "limit {limit}");
    }
    for (query, words) in [
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=many", "invalid digit"),
        ("after=x", "not a cursor"),
        ("after=n61.61", "of another list"),
        ("status=good", "unknown variant"),
        ("nmae=paged", "unknown field"),
        ("all_tenants=true", "/v1/admin/plugins"),
    ] {
        let answer = operator.get(&format!("/tenants/acme/plugins?{query}")).await;
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && message.contains(words), "{query}: {message}");
    }
    let all = operator.get("/plugins?all_tenants=true&name=paged").await.json();
    let platform = operator.get("/plugins?name=paged").await.json();
    assert_eq!((all["items"].as_array().map(Vec::len), platform["items"].as_array().map(Vec::len)), (Some(7), Some(0)));
}

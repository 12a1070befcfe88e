//! The ways into a mount: several paths, an HTTP base of its own, what requests say of themselves, and pages of other hosts.

use serde_json::json;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http;

/// Two paths to the same channels, HTTP elsewhere, and a tenant and a user in the query.
const MOUNT: &str = r#"
channel = "fixture:{path.id|query.channel}"
refusal = "close"
errors = "object"
origins = ["https://app.example"]
http_path = "/api"

[[mount.fixture.http]]
path = "/things/*"
methods = ["GET", "PUT"]
channel = "fixture:http"
must_state = ["tenant"]
headers = ["x-tenant-id"]

[[mount.fixture.http]]
path = "/open"
channel = "fixture:http"
auth = "none"
"#;

fn setup(auth: &str) -> Setup {
    let auth = format!("tokens = [\"query:token\", \"header\"], tenant_claims = [\"tenantId\", \"tenant\"], {auth}");
    Setup::fixture_mount(MOUNT)
        .replace("path = \"/ws\"", "path = [\"/ws\", \"/by/{id}\"]")
        .replace("tokens = [\"query:token\"]", &auth)
}

const STATED: &str = "stated_tenant = [\"query:tenant_id\", \"header:x-tenant-id\"], stated_user = [\"query:user_id\", \"header:x-user-id\"]";

fn ann() -> String {
    token("ann", json!({ "tenantId": "acme" }), 60)
}

async fn close_of(broker: &Broker, path: &str) -> (u16, String) {
    let mut client = Client::connect(&format!("ws://{}{path}", broker.address())).await;
    match client.next_or_close().await {
        Err(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn several_paths_lead_to_the_same_channel_and_the_plugin_knows_which() {
    let broker = setup(STATED).start();
    let token = ann();
    let mut one = broker.connect_with("/ws?channel=a", &token).await;
    let mut other = broker.connect_with("/by/a", &token).await;

    one.send_text("endpoint").await;
    assert_eq!(one.text().await, "/ws");
    other.send_text("endpoint").await;
    assert_eq!(other.text().await, "/by/{id}");
    other.send_text("hello").await;
    assert_eq!((one.text().await, other.text().await), ("hello".to_owned(), "hello".to_owned()));

    let (code, reason) = close_of(&broker, &format!("/ws?token={token}")).await;
    assert_eq!((code, reason.as_str()), (1008, "there is no value for {path.id|query.channel}"));
    assert_eq!(http::get(&broker.http("/ws"), &[]).await.status, 426);
    assert_eq!(http::get(&broker.http("/by/a/open"), &[]).await.status, 404, "HTTP has a base of its own");
}

#[tokio::test]
async fn requests_lie_below_the_http_path() {
    let broker = setup(STATED).start();
    let bearer = format!("Bearer {}", ann());
    let headers = [("authorization", bearer.as_str()), ("x-tenant-id", "acme")];

    assert_eq!(http::get(&broker.http("/api/open"), &[]).await.status, 200);
    let below = http::get(&broker.http("/api/things/a/b?x=1"), &headers).await;
    assert_eq!((below.status, below.text.as_str()), (200, "GET /things/a/b [(\"x\", \"1\")] ann "));
    for (path, status) in [("/api", 404), ("/api/things", 404), ("/api/things/", 404), ("/things/a", 404)] {
        assert_eq!(http::get(&broker.http(path), &headers).await.status, status, "{path}");
    }
    let method = http::send("DELETE", &broker.http("/api/things/a"), &headers, String::new()).await;
    assert_eq!((method.status, method.header("allow")), (405, Some("GET, PUT")));
    assert_eq!(method.json()["error"]["code"], "method_not_allowed");
}

/// What a request says of itself must be what its token says; refusals have the mount's form.
#[tokio::test]
async fn what_a_request_says_must_agree_with_its_token() {
    let broker = setup(&format!("{STATED}, must_state = [\"tenant\", \"user\"]")).start();
    let token = ann();
    let path = |says: &str| format!("/ws?channel=a&token={token}{says}");

    let mut good = Client::connect(&format!("ws://{}{}", broker.address(), path("&tenant_id=acme&user_id=ann"))).await;
    good.send_text("echo hi").await;
    assert_eq!(good.text().await, "hi");
    for (says, reason) in [
        ("&tenant_id=other&user_id=ann", "tenant_id and the token do not name the same"),
        ("&tenant_id=acme&user_id=bob", "user_id and the token do not name the same"),
        ("&tenant_id=acme", "user_id or the header x-user-id is missing"),
        ("&tenant_id=&user_id=ann", "tenant_id or the header x-tenant-id is missing"),
        ("&tenant_id=acme&tenant_id=acme&user_id=ann", "the token is not a signed JWT"),
    ] {
        assert_eq!(close_of(&broker, &path(says)).await, (1008, reason.to_owned()), "{says}");
    }
    let bearer = format!("Bearer {token}");
    let ask = async |headers: &[(&str, &str)]| {
        // The query of a request that is no upgrade is the plugin's.
        let answer = http::get(&broker.http("/api/things/a?tenant_id=other"), headers).await;
        (answer.status, answer.json()["error"]["code"].as_str().map(str::to_owned))
    };
    let code = |status, code: &str| (status, Some(code.to_owned()));
    assert_eq!(ask(&[]).await, code(401, "unauthorized"));
    assert_eq!(ask(&[("authorization", &bearer)]).await, code(400, "bad_request"));
    assert_eq!(ask(&[("authorization", &bearer), ("x-tenant-id", "other")]).await, code(403, "forbidden"));
}

/// Without a token nobody is believed, unless the mount says so, and then the log warns.
#[tokio::test]
async fn a_request_without_a_token_is_believed_only_where_the_mount_says_so() {
    let strict = setup(STATED).start();
    let path = "/ws?channel=a&tenant_id=acme&user_id=ann&userId=ann";
    assert_eq!(close_of(&strict, path).await.0, 1008);
    assert!(!strict.log().contains("can be anybody"));

    let query = setup(&format!("{STATED}, insecure_query = true")).start();
    let mut ann = Client::connect(&format!("ws://{}{path}", query.address())).await;
    ann.send_text("members").await;
    assert!(ann.text().await.starts_with("members ann#"));
    assert_eq!(close_of(&query, "/ws?channel=a&tenant_id=acme").await.0, 1008);
    assert_eq!(close_of(&query, "/ws?channel=a&tenant_id=a%2Fb&user_id=ann").await.0, 1008);
    assert_eq!(close_of(&query, &format!("{path}&token=a.b.c")).await.0, 1008, "a bad token is not no token");
    query.until_log("insecure_query = true").await;

    let user = setup(&format!("{STATED}, insecure_user_id = true")).start();
    for (path, headers) in [
        ("/ws?channel=a&userId=ann", &[][..]),
        ("/ws?channel=a", &[("authorization", "Bearer ann")][..]),
        ("/ws?channel=a", &[("cookie", "userId=ann"), ("origin", "https://app.example")][..]),
    ] {
        let url = format!("ws://{}{path}", user.address());
        let mut ann = Client::try_connect(&url, headers).await.expect("an upgrade");
        ann.send_text("echo hi").await;
        assert_eq!(ann.text().await, "hi", "{path}");
    }
    let mut foreign = Client::try_connect(
        &format!("ws://{}/ws?channel=a", user.address()),
        &[("cookie", "userId=ann"), ("origin", "https://evil.example")],
    )
    .await
    .expect("an upgrade");
    assert_eq!(foreign.close_code().await, Some(1008), "a page of another site must not use the cookie");
}

/// Pages of the listed origins may read answers, pages of others may not.
#[tokio::test]
async fn listed_origins_may_read_answers() {
    let broker = setup(STATED).start();
    let url = broker.http("/api/open");
    let good = http::get(&url, &[("origin", "https://app.example")]).await;
    assert_eq!(good.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!((good.header("access-control-allow-credentials"), good.header("vary")), (Some("true"), Some("origin")));
    let foreign = http::get(&url, &[("origin", "https://evil.example")]).await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));

    let things = broker.http("/api/things/a");
    let ask = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization, x-tenant-id"),
    ];
    let preflight = http::send("OPTIONS", &things, &ask, String::new()).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, Some("GET, PUT")));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization, x-tenant-id"));
    let foreign = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    assert_eq!(http::send("OPTIONS", &things, &foreign, String::new()).await.status, 405);
}

/// Law: of mounts that fit a request the closest takes it, whatever they are called.
#[tokio::test]
async fn the_closest_mount_takes_a_request_and_sockets_come_before_routes() {
    let root = "channel = \"fixture:root\"\n[[mount.fixture.http]]\npath = \"/*\"\nmethods = [\"GET\"]\nchannel = \"fixture:root\"\nauth = \"none\"";
    let component = crate::support::component("relay").display().to_string();
    let closer = format!(
        "[plugin.relay]\npath = \"{component}\"\n[mount.zz]\npath = \"/api/ws\"\nhttp_path = \"/api/ws\"\nplugin = \"relay\"\nchannel = \"relay:{{user}}\"\nauth.tokens = [\"query:token\"]\n[[mount.zz.http]]\npath = \"/\"\nchannel = \"relay:http\"\n"
    );
    let broker = Setup::fixture_mount(root).replace("path = \"/ws\"", "path = \"/\"").and(&closer).start();

    let mut client = broker.connect("/api/ws", "ann").await;
    client.send_text("endpoint").await;
    client.close().await;
    let below = http::get(&broker.http("/api/other"), &[]).await;
    assert!(below.status == 200 && below.text.starts_with("GET /api/other"), "{} {}", below.status, below.text);
    let closest = http::get(&broker.http("/api/ws"), &[]).await;
    assert_eq!(closest.status, 401, "the closer mount asks for a token: {}", closest.text);
}

/// Law: of mounts on one path the one that asks for more of the query takes what has it.
#[tokio::test]
async fn mounts_on_one_path_are_told_apart_by_the_query() {
    let component = crate::support::component("fixture").display().to_string();
    let mut config = format!(
        "listen = \"127.0.0.1:0\"\n[key.default]\nalgorithm = \"HS256\"\nsecret_env = [\"JWT_SECRET\"]\n[plugin.fixture]\npath = \"{component}\"\ngrants = [\"kv\", \"log\", \"logging\", \"sql\", \"stats\"]\n"
    );
    for (name, path, query) in [
        ("a-open", "/{x}", ""),
        ("b-rest", "/ws", ""),
        ("c-any", "/ws", "required_query = { any = [\"t\", \"u\"] }"),
        ("d-all", "/ws", "required_query = { all = [\"t\", \"u\"] }"),
    ] {
        let lines = format!(
            "[mount.{name}]\npath = \"{path}\"\nplugin = \"fixture\"\nchannel = \"{name}:{{user}}\"\nauth.tokens = [\"query:token\"]\n{query}\n"
        );
        config.push_str(&lines);
    }
    let broker = Setup::config(&config).start();

    for (path, mount) in [("/ws", "b-rest"), ("/ws?u=1", "c-any"), ("/ws?t&u=1", "d-all"), ("/wss?u=1", "a-open")] {
        let mut client = broker.connect(path, "ann").await;
        client.send_text("channel").await;
        assert_eq!(client.text().await, format!("channel {mount}:ann"), "{path}");
    }
}

/// Law: two mounts may share a place for their HTTP routes and each answer a method of its own.
#[tokio::test]
async fn mounts_at_one_place_answer_different_methods() {
    let route = |method: &str| {
        format!(
            "http_path = \"/api\"\n[[mount.NAME.http]]\npath = \"/x\"\nmethods = [\"{method}\"]\nchannel = \"NAME:http\"\nauth = \"none\"\n"
        )
    };
    let mount = |name: &str, method: &str| {
        let lines =
            format!("[mount.NAME]\npath = \"/NAME\"\nplugin = \"fixture\"\nchannel = \"NAME:a\"\n{}", route(method));
        lines.replace("NAME", name)
    };
    let broker = Setup::fixture("").and(&mount("a", "GET")).and(&mount("b", "POST")).start();

    for method in ["GET", "POST"] {
        let answer = http::send(method, &broker.http("/api/x"), &[], String::new()).await;
        assert!(answer.status == 200 && answer.text.starts_with(method), "{method}: {} {}", answer.status, answer.text);
    }
    assert_eq!(http::send("DELETE", &broker.http("/api/x"), &[], String::new()).await.status, 405);
}

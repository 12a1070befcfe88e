//! HTTP requests as events: what of a request reaches a plugin, what of its answer goes out, and when.

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::broker::{Broker, Setup};
use crate::support::http::{self, Answer};

const ROUTES: &str = r#"
channel = "fixture:{query.channel}"
[[mount.fixture.http]]
path = "/api/*"
methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
channel = "fixture:http"
headers = ["X-Allowed"]
[[mount.fixture.http]]
path = "/late"
channel = "fixture:http"
[[mount.fixture.http]]
path = "/never"
channel = "fixture:http"
[[mount.fixture.http]]
path = "/trap"
channel = "fixture:http"
[[mount.fixture.http]]
path = "/put"
channel = "fixture:http"
[[mount.fixture.http]]
path = "/headers"
channel = "fixture:http"
headers = ["x-allowed"]
"#;

fn start() -> Broker {
    Setup::fixture_mount(ROUTES)
        .set("mount.fixture.limits.request_bytes_max", 1_000)
        .set("mount.fixture.limits.request_ms_max", 2_000)
        .start()
}

async fn ask(broker: &Broker, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let join = if path.contains('?') { '&' } else { '?' };
    let token = broker.token("ann", serde_json::json!({}));
    let url = broker.http(&format!("/ws{path}{join}token={token}"));
    http::send(method, &url, headers, body.to_owned()).await
}

#[tokio::test]
async fn method_path_query_and_body_reach_the_plugin_and_the_token_does_not() {
    let broker = start();
    for method in ["POST", "PUT", "PATCH"] {
        let answer = ask(&broker, method, "/api/a/b%20c?x=1&x=2&y=%26", &[], "{\"a\":1}").await;
        let expected =
            format!("{method} /api/a/b%20c [(\"x\", \"1\"), (\"x\", \"2\"), (\"y\", \"&\")] ann {{\"a\":1}}");
        assert_eq!((answer.status, answer.text), (200, expected));
    }
    let answer = ask(&broker, "DELETE", "/api/a", &[], "").await;
    assert_eq!(answer.text, "DELETE /api/a [] ann ");
    let answer = http::get(&broker.http("/ws/api/a"), &[]).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
}

#[tokio::test]
async fn only_listed_headers_reach_the_plugin() {
    let broker = start();
    let headers = [("x-allowed", "yes"), ("x-other", "no"), ("cookie", "secret=1")];
    assert_eq!(ask(&broker, "GET", "/headers", &headers, "").await.text, "[(\"x-allowed\", \"yes\")]");
    assert_eq!(ask(&broker, "GET", "/headers", &[], "").await.text, "[]");
}

#[tokio::test]
async fn a_body_has_a_bound() {
    let broker = start();
    assert_eq!(ask(&broker, "POST", "/api/a", &[], &"x".repeat(1_000)).await.status, 200);
    let large = ask(&broker, "POST", "/api/a", &[], &"x".repeat(1_001)).await;
    assert_eq!(large.status, 413);
    assert!(large.text.contains("request_bytes_max"), "{}", large.text);
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_or_fails_is_answered_for() {
    let broker = start();
    let never = ask(&broker, "GET", "/never", &[], "").await;
    assert_eq!((never.status, never.json()["error"].as_str()), (504, Some("the plugin did not answer in time")));
    assert_eq!(ask(&broker, "GET", "/trap", &[], "").await.status, 500);
    assert_eq!(ask(&broker, "GET", "/api/a", &[], "").await.status, 200, "the next one is served");
}

#[tokio::test]
async fn an_answer_may_come_with_a_later_event() {
    let broker = start();
    let mut ann = broker.connect("/ws?channel=http", "ann").await;
    ann.send_text("stats").await;
    ann.text().await;
    let late = ask(&broker, "GET", "/late", &[], "");
    let talk = async {
        // It is told to the plugin at some point, and the message after that answers it.
        loop {
            ann.send_text("echo").await;
            ann.text().await;
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::select! {
        answer = late => answer,
        () = talk => unreachable!("it never ends"),
    };
    assert_eq!((answer.status, answer.text.as_str()), (200, "\"late\""));
}

/// Law: an answer is an effect. While what it speaks of is not on disk, nobody hears of it.
#[tokio::test]
async fn an_answer_leaves_after_its_commit() {
    let broker = start();
    assert_eq!(ask(&broker, "GET", "/put", &[], "").await.status, 200);
    let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut other = options.connect().await.expect("the database");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("the lock");

    let put = ask(&broker, "GET", "/put", &[], "");
    tokio::pin!(put);
    tokio::select! {
        answer = &mut put => panic!("answered {} before the commit", answer.status),
        () = broker.until_metric("hotbay_store_errors_total", 1.0) => {}
    }
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("the lock given back");

    assert_eq!(put.await.status, 200);
}

/// Law: HTTP is no way around a rate, and waiting requests have a bound.
#[tokio::test]
async fn requests_of_a_user_have_a_rate_and_all_that_wait_a_bound() {
    let broker = Setup::fixture_mount(ROUTES)
        .set("mount.fixture.limits.rate_per_connection", "{ per_second = 1, burst = 5 }")
        .set("mount.fixture.limits.requests_waiting_max", 2)
        .start();

    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(ask(&broker, "GET", "/api/a", &[], "").await.status);
    }
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses[5..].contains(&429), "{statuses:?}");
    let bob = broker.token("bob", serde_json::json!({}));
    let url = |user: &str, path: &str| broker.http(&format!("/ws{path}?token={user}"));
    assert_eq!(http::get(&url(&bob, "/api/a"), &[]).await.status, 200, "others have their own");

    let waiting = ["cleo", "dan"].map(|user| url(&broker.token(user, serde_json::json!({})), "/never"));
    let waiting = waiting.map(|url| tokio::spawn(async move { http::get(&url, &[]).await.status }));
    broker.until_metric("hotbay_http_requests_waiting", 2.0).await;
    let refused = http::get(&url(&bob, "/api/a"), &[]).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("requests_waiting_max"), "{}", refused.text);
    drop(waiting);
}

#[tokio::test]
async fn a_plugins_page_has_no_origin() {
    let broker = start();

    let page = ask(&broker, "GET", "/api/a", &[], "").await;
    assert_eq!(page.header("content-security-policy"), Some("default-src 'none'; sandbox"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
}

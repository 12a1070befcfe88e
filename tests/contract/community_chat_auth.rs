//! Items 1, 2, 3, 28: the endpoint, and who may connect to it.

use serde_json::{Value, json};

use crate::community_chat::{PATH, join, say, send, subscribe};
use crate::support::broker::{Broker, SECRET, Setup, token};
use crate::support::client::Client;
use crate::support::http::{self, Answer};

/// An upgrade that is refused, so that its answer can be read.
async fn refused_upgrade(broker: &Broker, query: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.extend_from_slice(headers);
    http::get(&broker.http(&format!("{PATH}{query}")), &all).await
}

fn url(broker: &Broker) -> String {
    format!("ws://{}{PATH}", broker.address())
}

/// Who the broker takes a client for: the author of its message.
async fn author(client: &mut Client) -> String {
    subscribe(client, "room:who").await;
    say(client, "room:who", "me").await["payload"]["userId"].as_str().expect("an author").to_owned()
}

fn signed(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a token")
}

/// Item 1: sockets and plain HTTP are served on the same port; a plain `GET` on the endpoint is told to upgrade.
#[tokio::test]
async fn item_01_the_endpoint_shares_its_port_with_http_and_asks_for_an_upgrade() {
    let broker = Setup::example().start();

    let mut client = broker.connect(PATH, "alice").await;
    let plain = http::get(&broker.http(PATH), &[]).await;
    let health = http::get(&broker.http(&format!("{PATH}/health")), &[]).await;

    assert_eq!(author(&mut client).await, "alice");
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
    assert_eq!(plain.json()["success"], false);
    assert_eq!(health.status, 200);
}

/// Decided: a token comes in the `Authorization` header.
#[tokio::test]
async fn item_02_a_token_in_the_header_is_accepted() {
    let broker = Setup::example().start();
    let bearer = format!("Bearer {}", broker.token("alice", json!({})));

    let client = Client::try_connect(&url(&broker), &[("Authorization", &bearer)]).await;

    assert_eq!(author(&mut client.expect("a connection")).await, "alice");
}

/// Decided: a token comes in `?token=`.
#[tokio::test]
async fn item_02_a_token_in_the_query_is_accepted() {
    let broker = Setup::example().start();

    let mut client = Client::connect(&format!("{}?token={}", url(&broker), broker.token("alice", json!({})))).await;

    assert_eq!(author(&mut client).await, "alice");
}

/// Decided: a token comes as the subprotocol `bearer.<JWT>`; the other offered subprotocol is echoed, wherever it stands, and
/// the token never.
#[tokio::test]
async fn item_02_a_token_as_a_subprotocol_is_accepted_and_the_other_subprotocol_is_echoed() {
    let broker = Setup::example().start();
    let token = broker.token("alice", json!({}));
    for offer in [format!("bearer.{token}, velonx"), format!("velonx, bearer.{token}")] {
        let client = Client::try_connect(&url(&broker), &[("Sec-WebSocket-Protocol", &offer)]).await;

        let mut client = client.expect("a connection");
        assert_eq!(client.subprotocol(), Some("velonx"), "{offer}");
        assert_eq!(author(&mut client).await, "alice");
    }
}

/// Decided: a signed token comes in the cookie `next-auth.session-token`, or with the prefix NextAuth gives it over HTTPS, from a
/// page of the same host. One that is left over from before HTTPS changes nothing.
#[tokio::test]
async fn item_02_a_token_in_the_session_cookie_is_accepted() {
    let broker = Setup::example().start();
    let token = broker.token("alice", json!({}));
    let origin = broker.http("");
    for cookie in [
        format!("theme=dark; next-auth.session-token={token}"),
        format!("theme=dark; __Secure-next-auth.session-token={token}"),
        format!("next-auth.session-token=old; __Secure-next-auth.session-token={token}"),
    ] {
        let client = Client::try_connect(&url(&broker), &[("Cookie", &cookie), ("Origin", &origin)]).await;

        assert_eq!(author(&mut client.expect("a connection")).await, "alice", "{cookie}");
    }
}

/// Decided: the user's id is `sub`, else `id`, else `userId`.
#[tokio::test]
async fn item_02_the_user_is_sub_else_id_else_user_id() {
    let broker = Setup::example().start();
    let exp = 4_000_000_000_u64;
    for (claims, user) in [
        (json!({"exp": exp, "sub": "by-sub", "id": "x", "userId": "y"}), "by-sub"),
        (json!({"exp": exp, "id": "by-id", "userId": "y"}), "by-id"),
        (json!({"exp": exp, "userId": "by-user-id"}), "by-user-id"),
    ] {
        let mut client = broker.connect_with(PATH, &signed(&claims, SECRET)).await;

        assert_eq!(author(&mut client).await, user, "{claims}");
    }
}

/// Item 2, decided: whoever has no good token gets 401 before the upgrade, with a JSON body that says why.
#[tokio::test]
async fn item_02_a_bad_token_is_refused_with_401_before_the_upgrade() {
    let broker = Setup::example().start();
    let exp = 4_000_000_000_u64;
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6NDAwMDAwMDAwMH0.";
    let bad = [
        ("nothing", String::new()),
        ("no JWT", "?token=rubbish".to_owned()),
        (
            "another secret",
            format!("?token={}", signed(&json!({"sub": "a", "exp": exp}), "another-secret-of-32-bytes-or-so!!!")),
        ),
        ("expired", format!("?token={}", token("alice", json!({}), -60))),
        ("without an end", format!("?token={}", signed(&json!({"sub": "a"}), SECRET))),
        ("not yet valid", format!("?token={}", token("alice", json!({"nbf": exp - 1}), 3_600))),
        ("without a user", format!("?token={}", signed(&json!({"exp": exp}), SECRET))),
        ("an empty user", format!("?token={}", signed(&json!({"sub": "", "exp": exp}), SECRET))),
        ("a user that names another part", format!("?token={}", signed(&json!({"sub": "a:b", "exp": exp}), SECRET))),
        ("unsigned", format!("?token={none}")),
        ("too long", format!("?token={}", "a".repeat(9_000))),
        ("two tokens", format!("?token={0}&token={0}", token("alice", json!({}), 60))),
    ];
    for (why, query) in bad {
        let answer = refused_upgrade(&broker, &query, &[]).await;

        assert_eq!(answer.status, 401, "{why}: {}", answer.text);
        let body = answer.json();
        assert_eq!(body["success"], false, "{why}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{why}: {body}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{why}");
    }
}

/// Decided: an encrypted session token, as NextAuth makes by default, is refused, and the message says that this is why.
#[tokio::test]
async fn item_02_an_encrypted_session_token_is_refused_with_words_that_say_so() {
    let broker = Setup::example().start();
    let jwe = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAAAAAAAAAAAAAA.cGF5bG9hZA.AAAAAAAAAAAAAAAAAAAAAA";
    let cookie = format!("next-auth.session-token={jwe}");
    let origin = broker.http("");

    let answer = refused_upgrade(&broker, "", &[("cookie", &cookie), ("origin", &origin)]).await;

    assert_eq!(answer.status, 401);
    let words = answer.json()["error"].as_str().expect("an error").to_owned();
    assert!(words.contains("encrypted") && words.contains("signed"), "{words}");
    assert!(!words.contains("cGF5bG9hZA"), "the token is shown: {words}");
}

/// Items 2 and 28: `NEXTAUTH_SECRET` signs the chat's tokens where it is set; `JWT_SECRET` does not count beside it.
#[tokio::test]
async fn item_28_nextauth_secret_goes_before_jwt_secret() {
    let secret = "a-secret-of-nextauth-with-32-bytes-or-more";
    let broker = Setup::example().env("NEXTAUTH_SECRET", secret).start();
    let claims = json!({"sub": "alice", "exp": 4_000_000_000_u64});

    let mut client = broker.connect_with(PATH, &signed(&claims, secret)).await;
    let by_the_other = refused_upgrade(&broker, &format!("?token={}", signed(&claims, SECRET)), &[]).await;

    assert_eq!(author(&mut client).await, "alice");
    assert_eq!(by_the_other.status, 401);
}

/// Item 3: a user may hold several connections, and each gets what the user's channel is sent. A connection that ends is
/// removed, and the others go on.
#[tokio::test]
async fn item_03_a_user_holds_several_connections() {
    let broker = Setup::example().start();
    let mut first = join(&broker, "alice", "room:1").await;
    let mut second = join(&broker, "alice", "room:1").await;

    let said = say(&mut first, "room:1", "from my phone").await;

    assert_eq!(second.until_type("CHAT_MESSAGE").await["payload"], said["payload"]);
    first.close().await;
    send(&mut second, "CHAT_MESSAGE", "room:1", json!({"content": "still here"})).await;
    assert_eq!(second.until_type("CHAT_MESSAGE").await["payload"]["content"], "still here");
}

/// Item 34: connections per user are limited; the one too many is refused with 429, and room is made when one ends.
#[tokio::test]
async fn item_34_connections_of_a_user_are_limited() {
    let broker = Setup::example().set("mount.community.limits.connections_per_user_max", 2).start();
    let first = broker.connect(PATH, "alice").await;
    let _second = broker.connect(PATH, "alice").await;
    let query = format!("?token={}", broker.token("alice", json!({})));

    let third = refused_upgrade(&broker, &query, &[]).await;
    let _another_user = broker.connect(PATH, "bob").await;

    assert_eq!(third.status, 429, "{}", third.text);
    first.close().await;
    let again = async {
        while Client::try_connect(&format!("{}{query}", url(&broker)), &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::client::DEADLINE, again).await.expect("room for a connection");
}

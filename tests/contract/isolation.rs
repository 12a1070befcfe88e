//! Nothing crosses: owners, rooms, dashboards, tenants and firms, in one broker with all five systems. Identities and channels are
//! combined as a matrix; each combination is let in or turned away as the contract says, each channel gets a mark that nobody
//! else has, and everybody's frames and HTTP answers are searched for marks that are not theirs.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http;

/// Somebody, with every claim that any of the systems looks at.
#[derive(Clone)]
struct Person {
    name: &'static str,
    tenant: &'static str,
    claims: Value,
}

fn people() -> Vec<Person> {
    let person = |name, tenant, claims| Person { name, tenant, claims };
    vec![
        person("ann", "acme", json!({ "firmId": "f1", "groups": ["g1"], "dashboards": ["team"], "role": "editor" })),
        person("bob", "acme", json!({ "firmId": "f2", "groups": ["g2"], "dashboards": [], "role": "admin" })),
        person("cleo", "acme", json!({ "firmId": "f1", "groups": "g1", "dashboards": "team", "role": "viewer" })),
        // The same names, in another tenant.
        person("ann", "rival", json!({ "firmId": "f1", "groups": ["g1"], "dashboards": ["team"], "role": "admin" })),
        person("bob", "rival", json!({ "firmId": "f3", "groups": [], "dashboards": ["bob", "ann"], "drafts": ["d1"] })),
    ]
}

impl Try {
    /// Whether frames of a channel are for this connection. In the chat all connections of a user are in the user's own channel.
    fn may_see(&self, channel: &str) -> bool {
        let own = self
            .path
            .starts_with("/api/community/")
            .then(|| format!("{}/user:{}", self.person.tenant, self.person.name));
        self.channel.as_deref() == Some(channel) || own.as_deref() == Some(channel)
    }
}

impl Person {
    fn token(&self) -> String {
        let mut claims = self.claims.clone();
        for (name, value) in [("userId", self.name), ("ownerId", self.name), ("tenant", self.tenant)] {
            claims[name] = json!(value);
        }
        token(self.name, claims, 3_600)
    }

    fn has(&self, claim: &str, value: &str) -> bool {
        self.claims[claim].as_array().is_some_and(|list| list.contains(&json!(value)))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token())
    }
}

/// A place where somebody tries to listen, and the channel it leads to if it is open to them.
struct Try {
    person: Person,
    path: String,
    subscribe: Option<Value>,
    channel: Option<String>,
}

/// All combinations of all systems.
fn matrix() -> Vec<Try> {
    let mut tries = Vec::new();
    for person in people() {
        let Person { name, tenant, .. } = person.clone();
        let mut add = |path: String, subscribe: Option<Value>, channel: Option<String>| {
            tries.push(Try {
                person: person.clone(),
                path,
                subscribe,
                channel: channel.map(|name| format!("{tenant}/{name}")),
            });
        };
        // 1: everybody has a channel of their own, whatever they ask for.
        for asked in ["ann", "bob"] {
            add(format!("/api/ws?ownerId={asked}&owner={asked}"), None, Some(format!("owner:{name}")));
        }
        // 2.
        for channel in ["room:1", "group:g1", "group:g2", "dm:ann:bob", "dm:bob:cleo", "user:ann", "user:bob"] {
            let (kind, id) = channel.split_once(':').expect("a kind");
            let open = match kind {
                "room" => true,
                "group" => person.has("groups", id),
                _ => id.split(':').any(|part| part == name),
            };
            let subscribe = json!({ "type": "SUBSCRIBE", "channel": channel });
            add("/api/community/ws?".to_owned(), Some(subscribe), open.then(|| channel.to_owned()));
        }
        // 3.
        for dashboard in ["ann", "bob", "team"] {
            let open = dashboard == name || person.has("dashboards", dashboard);
            add(format!("/api/realtime?dashboardId={dashboard}"), None, open.then(|| format!("dashboard:{dashboard}")));
        }
        // 4.
        for stated in ["acme", "rival"] {
            let path = format!("/ws?tenant_id={stated}&user_id={name}");
            add(path, None, (stated == tenant).then(|| format!("tenant:{stated}")));
        }
        // 5: in each tenant, ann opened d1 and bob d2 before.
        for (draft, opener) in [("d1", "ann"), ("d2", "bob")] {
            let firm =
                people().into_iter().find(|other| other.name == opener && other.tenant == tenant).expect("an opener");
            let open = firm.claims["firmId"] == person.claims["firmId"] || person.has("drafts", draft);
            for path in [format!("/ws?draftId={draft}"), format!("/yjs/{draft}?")] {
                add(path, None, open.then(|| format!("draft:{draft}")));
            }
        }
    }
    tries
}

async fn connect(broker: &Broker, person: &Person, path: &str) -> Client {
    let join = if path.ends_with('?') { "" } else { "&" };
    Client::connect(&format!("ws://{}{path}{join}token={}", broker.address(), person.token())).await
}

fn text_of(message: &Message) -> String {
    match message {
        Message::Text(text) => text.to_string(),
        // What is written in a document stands in its updates as it is.
        Message::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// The text a JSON update would show: its numbers as bytes.
fn decoded(text: &str) -> String {
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let Some(bytes) = frame["data"].as_array() else { return text.to_owned() };
    let bytes: Option<Vec<u8>> = bytes.iter().map(|byte| byte.as_u64().and_then(|byte| byte.try_into().ok())).collect();
    bytes.map_or_else(|| text.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// An update of a Yjs document (v1) that writes a text at its beginning, as a client of this id.
fn writes(client: u8, text: &str) -> Vec<u8> {
    let mut update = vec![1, 1, client, 0, 0x04, 1, 1, b't'];
    update.push(text.len() as u8);
    update.extend_from_slice(text.as_bytes());
    update.push(0);
    update
}

/// Marks the channel of a seat with a text, by what its system's clients send.
async fn mark(broker: &Broker, seat: &mut Client, attempt: &Try, text: &str, client: u8) {
    let (tenant, name) = attempt.channel.as_deref().and_then(|channel| channel.split_once('/')).expect("a channel");
    let frame = match name.split(':').next().expect("a kind") {
        "owner" => {
            // Only servers speak here, and their keys are of one tenant.
            let key = broker.run(&["key", "create", "--tenant", tenant, "--name", &format!("k{client}")]);
            let event = json!({ "type": "booking_updated", "data": { "bookingId": text } });
            assert_eq!(broker.publish(key.trim(), name, &event).await.status, 200);
            return;
        }
        "dashboard" => {
            let payload = json!({ "widgetId": text, "data": { "mark": text } });
            json!({ "type": "WIDGET_UPDATE", "id": "m", "userId": attempt.person.name, "payload": payload })
        }
        "tenant" => json!({ "type": "mark", "data": { "mark": text } }),
        "draft" if attempt.path.starts_with("/yjs") => {
            let update = writes(client, text);
            let mut frame = vec![0, 2, update.len() as u8];
            frame.extend(update);
            seat.send_message(Message::binary(frame)).await;
            return;
        }
        "draft" => json!({ "type": "yjs-update", "data": writes(client, text) }),
        _ => json!({ "type": "CHAT_MESSAGE", "channel": name, "payload": { "content": text } }),
    };
    seat.send(frame).await;
}

/// Goal: who may not enter is turned away, and no frame reaches anybody but the members of its channel.
/// Method: everybody tries every place; each channel is marked by one of its members; everybody reads until the marks of their
/// own channel are there, and nothing else may be.
#[tokio::test]
async fn no_frame_crosses() {
    let broker = Setup::example().start();
    // A draft nobody wrote into is bound to a firm only as long as somebody of it is there.
    let mut openers = Vec::new();
    for person in people().iter().filter(|person| person.name != "cleo") {
        let draft = if person.name == "ann" { "d1" } else { "d2" };
        let mut opener = connect(&broker, person, &format!("/ws?draftId={draft}")).await;
        opener.until_type("yjs-state-response").await;
        openers.push(opener);
    }
    let mut seats: Vec<(Try, Client)> = Vec::new();
    let mut turned_away = 0;
    for attempt in matrix() {
        let mut client = connect(&broker, &attempt.person, &attempt.path).await;
        if let Some(subscribe) = &attempt.subscribe {
            client.send(subscribe.clone()).await;
            let answer = client.json().await;
            let expected = if attempt.channel.is_some() { "SUBSCRIBED" } else { "ERROR" };
            assert_eq!(
                answer["type"], expected,
                "{} of {} at {subscribe}: {answer}",
                attempt.person.name, attempt.person.tenant
            );
        } else if attempt.channel.is_none() {
            let code = client.close_code().await;
            assert_eq!(code, Some(1008), "{} of {} at {}", attempt.person.name, attempt.person.tenant, attempt.path);
        }
        if attempt.channel.is_some() || attempt.subscribe.is_some() {
            seats.push((attempt, client));
        } else {
            turned_away += 1;
        }
    }
    let channels: BTreeSet<String> = seats.iter().filter_map(|(attempt, _)| attempt.channel.clone()).collect();
    println!("{} seats in {} channels, {turned_away} turned away", seats.len(), channels.len());
    assert!(channels.len() > 20 && turned_away > 15);

    let marks: Vec<(String, String)> = channels
        .iter()
        .enumerate()
        .map(|(number, channel)| (channel.clone(), format!("mark-{number:03}-end")))
        .collect();
    for (number, (channel, text)) in marks.iter().enumerate() {
        let writer = seats.iter().position(|(attempt, _)| {
            let may_write = !channel.contains("/draft:") || attempt.person.claims["role"] != "viewer";
            attempt.channel.as_ref() == Some(channel) && may_write
        });
        let writer = writer.expect("a writer");
        let (attempt, client) = &mut seats[writer];
        mark(&broker, client, attempt, text, number as u8 + 1).await;
        // Everybody else of the channel has it before the next one is marked.
        let echoes = !channel.contains("/dashboard:") && !channel.contains("/draft:");
        for (index, (attempt, client)) in seats.iter_mut().enumerate() {
            if attempt.channel.as_ref() != Some(channel) || (index == writer && !echoes) {
                continue;
            }
            let own = text;
            loop {
                let frame = decoded(&text_of(&client.next().await));
                let foreign =
                    marks.iter().find(|(other, text)| !attempt.may_see(other) && frame.contains(text.as_str()));
                assert!(foreign.is_none(), "seat {index} of {channel} got {foreign:?}: {frame}");
                if frame.contains(own.as_str()) {
                    break;
                }
            }
        }
    }
    // What is left in anybody's socket must be theirs, too.
    let mut broker = broker;
    let end = tokio::spawn(async move { broker.terminate().await });
    for (attempt, client) in &mut seats {
        while let Ok(message) = client.next_or_close().await {
            let frame = decoded(&text_of(&message));
            let foreign = marks.iter().find(|(other, text)| !attempt.may_see(other) && frame.contains(text.as_str()));
            assert!(foreign.is_none(), "{} at {} got {foreign:?}: {frame}", attempt.person.name, attempt.path);
        }
    }
    drop(seats);
    assert_eq!(end.await.expect("an end"), Some(0));
}

/// Goal: HTTP answers and statistics speak of the asker's own, and nothing else.
#[tokio::test]
async fn no_http_answer_crosses() {
    let broker = Setup::example().start();
    let ask = async |person: &Person, method: &str, path: &str, tenant: &str, body: &str| {
        let bearer = person.bearer();
        let headers = [("authorization", bearer.as_str()), ("x-tenant-id", tenant), ("x-user-id", person.name)];
        http::send(method, &broker.http(path), &headers, body.to_owned()).await
    };
    let mut sockets = Vec::new();
    for person in people() {
        for path in ["/api/ws?", "/api/realtime?"] {
            let mut client = connect(&broker, &person, path).await;
            client.json().await;
            sockets.push(client);
        }
        let secret = format!("secret-of-{}-{}", person.tenant, person.name);
        let operation =
            json!({ "operationId": "o1", "type": "WIDGET_UPDATE", "payload": { "widgetId": secret, "data": {} } });
        let sync = json!({ "type": "SYNC", "operations": [operation] }).to_string();
        assert_eq!(ask(&person, "POST", "/api/realtime", "", &sync).await.status, 200);
        let event = json!({ "channel": "ideas", "event": secret, "payload": {} }).to_string();
        assert_eq!(ask(&person, "POST", "/api/websocket", person.tenant, &event).await.status, 200);
    }
    for person in people() {
        let (name, tenant) = (person.name, person.tenant);
        let metrics = ask(&person, "GET", "/api/ws", "", "").await.json();
        assert_eq!((&metrics["ownerId"], &metrics["connections"]), (&json!(name), &json!(1)));

        let stats = ask(&person, "GET", "/api/realtime/stats", "", "").await.json();
        assert_eq!((&stats["clientCount"], &stats["clients"][0]["userId"]), (&json!(1), &json!(name)), "{stats}");

        for dashboard in ["ann", "bob", "team"] {
            let open = dashboard == name || person.has("dashboards", dashboard);
            for (method, path) in [("GET", "/api/realtime"), ("GET", "/api/realtime/stats"), ("POST", "/api/realtime")]
            {
                let body = json!({ "type": "SYNC", "operations": [] }).to_string();
                let answer = ask(&person, method, &format!("{path}?dashboardId={dashboard}"), "", &body).await;
                assert_eq!(
                    answer.status == 200,
                    open,
                    "{name} of {tenant}, {method} {path} of {dashboard}: {}",
                    answer.text
                );
            }
        }
        for other in ["acme", "rival"] {
            for path in
                ["/api/websocket", "/api/websocket/status?detailed=true", "/api/websocket/history?channel=ideas"]
            {
                let answer = ask(&person, "GET", path, other, "").await;
                assert_eq!(
                    answer.status,
                    if other == tenant { 200 } else { 403 },
                    "{name} of {tenant} asks {path} of {other}"
                );
                let rival = if tenant == "acme" { "secret-of-rival" } else { "secret-of-acme" };
                assert!(!answer.text.contains(rival), "{}", answer.text);
            }
        }
        let history = ask(&person, "GET", "/api/websocket/history?channel=ideas", tenant, "").await.json();
        let count = people().iter().filter(|other| other.tenant == tenant).count();
        assert_eq!(history["events"].as_array().expect("events").len(), count, "{history}");
        let foreign =
            format!("/api/websocket/history?channel=ideas:{}", if tenant == "acme" { "rival" } else { "acme" });
        assert_eq!(ask(&person, "GET", &foreign, tenant, "").await.status, 403);
    }
}

//! Bad input over real sockets: ten thousand frames of each system from a seeded generator. Each is answered in the system's own
//! format, or with silence where the contract says so; nobody else is closed or told anything; no plugin traps; and what was
//! there before is there afterwards. `HOTBAY_TEST_SEED` runs a failure again.

mod drafts;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http;

const FRAMES: usize = 10_000;
/// Sent before the answers are read, and on one connection: system 1 takes fewer than a hundred bad frames in a minute.
const BURST: usize = 96;

/// What a bad frame gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Told,
    Silence,
}

use Answer::{Silence, Told};

/// Makes bad frames, each with what it gets.
type Bad = Box<dyn Fn(&mut StdRng) -> (Message, Answer)>;

/// How a system is treated badly.
struct Abuse {
    bad: Bad,
    /// A frame that is answered at once.
    question: Message,
    is_reply: fn(&Message) -> bool,
    is_error: fn(&Message) -> bool,
    /// What a server sends on its own.
    is_noise: fn(&Message) -> bool,
}

impl Abuse {
    /// Sends so many bad frames, and reads what answers each of them.
    async fn burst(&self, client: &mut Client, rng: &mut StdRng, frames: usize) {
        let sent: Vec<(Message, Answer)> = (0..frames).map(|_| (self.bad)(rng)).collect();
        for (frame, _) in &sent {
            client.send_message(frame.clone()).await;
        }
        // Refusals are told when their batch has ended: what was asked behind them may be answered before.
        client.send_message(self.question.clone()).await;
        let told = sent.iter().filter(|(_, answer)| *answer == Told).count();
        let (mut errors, mut replies) = (0, 0);
        while errors + replies < told + 1 {
            let answer =
                self.next(client).await.unwrap_or_else(|close| panic!("{close}, after {errors} of {told}: {sent:?}"));
            match ((self.is_error)(&answer), (self.is_reply)(&answer)) {
                (true, _) => errors += 1,
                (_, true) => replies += 1,
                _ => panic!("{answer:?} answers one of {sent:?}"),
            }
        }
        assert_eq!((errors, replies), (told, 1), "{sent:?}");
        self.is_untouched(client).await;
    }

    /// Proves that a client got nothing more and is still served.
    async fn is_untouched(&self, client: &mut Client) {
        client.send_message(self.question.clone()).await;
        let reply = self.next(client).await.unwrap_or_else(|close| panic!("{close}"));
        assert!((self.is_reply)(&reply), "instead of a reply: {reply:?}");
    }

    async fn next(&self, client: &mut Client) -> Result<Message, String> {
        loop {
            let message = client.next_or_close().await.map_err(|close| format!("closed: {close:?}"))?;
            if !(self.is_noise)(&message) {
                return Ok(message);
            }
        }
    }
}

fn setup(mount: &str) -> Setup {
    let rate = format!("mount.{mount}.limits.rate_per_connection");
    Setup::example().set(&format!("{rate}.per_second"), 1_000_000).set(&format!("{rate}.burst"), 1_000_000)
}

/// Every claim that one of the systems asks for.
fn ann(role: &str) -> String {
    let claims = json!({ "ownerId": "ann", "userId": "ann", "tenantId": "acme", "firmId": "f1", "role": role });
    token("ann", claims, 3_600)
}

async fn no_traps(broker: &Broker) {
    let log = broker.log();
    assert!(!log.contains("trap") && !log.contains("panicked"), "{log}");
    assert!(broker.metric("hotbay_batches_total").await > 0.0, "the metrics are there");
    let faults = broker.metric("hotbay_plugin_faults_total").await;
    assert!(faults.abs() < 0.5, "{faults} faults of the plugin");
}

fn json_of(message: &Message) -> Value {
    let Message::Text(text) = message else { return Value::Null };
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn has_type(message: &Message, kinds: &[&str]) -> bool {
    let json = json_of(message);
    let kind = if json["eventType"].is_null() { &json["type"] } else { &json["eventType"] };
    kinds.iter().any(|known| kind == known)
}

fn one<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(rng).expect("one of them")
}

/// What no system takes for a frame, made of good ones, which begin with their type.
fn spoil(rng: &mut StdRng, good: &[&str]) -> Message {
    let whole = one(rng, good);
    let after_type =
        whole.strip_prefix("{\"type\":\"").and_then(|rest| rest.split_once('"')).expect("a type in front").1;
    Message::text(match rng.random_range(0..9) {
        // Without its end.
        0 => whole[..rng.random_range(0..whole.len())].to_owned(),
        1 => format!("{whole}{}", one(rng, &["}", "x", ",{}", "\0", "[]", "NaN"])),
        2 => format!("[{whole}]"),
        3 => one(rng, &["", " ", "null", "true", "7", "1e999", "NaN", "-Infinity", "\"text\"", "[]", "\u{feff}{}"])
            .to_owned(),
        4 => format!("{{\"{}\":\"x\"{after_type}", one(rng, &["typ", "TYPE", "", "type\\u0000"])),
        5 => format!(
            "{{\"type\":{}{after_type}",
            one(rng, &["7", "null", "[\"ping\"]", "{\"a\":1}", "true", "\"\\ud800\""])
        ),
        6 => whole.replacen(
            '{',
            &format!("{{\"x\":{},", one(rng, &["NaN", "undefined", "'a'", "+1", "01", "\"\\x\"", "\"\n\""])),
            1,
        ),
        7 => format!("{{\"type\":{}", "[".repeat(rng.random_range(1..10_000))),
        _ => {
            let mut bytes = vec![0; rng.random_range(0..200)];
            rng.fill(&mut bytes[..]);
            // Neither white space nor an object.
            bytes.iter_mut().take(1).for_each(|first| *first |= 0x80);
            return Message::binary(bytes);
        }
    })
}

/// Half of the frames are spoilt, half are sound JSON that the system must not take.
fn texts(good: &'static [&'static str], spoilt: Answer, wrong: Vec<(String, Answer)>) -> Bad {
    Box::new(move |rng| {
        if rng.random() {
            return (spoil(rng, good), spoilt);
        }
        let (text, answer) = wrong.choose(rng).expect("a frame");
        (Message::text(text.clone()), *answer)
    })
}

fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

fn all(answer: Answer, frames: &[&str]) -> Vec<(String, Answer)> {
    frames.iter().map(|frame| ((*frame).to_owned(), answer)).collect()
}

/// Runs the whole abuse on one connection after the other while a witness is there.
async fn abuse(broker: &Broker, abuse: &Abuse, witness: &mut Client, connect: impl AsyncFn() -> Client) {
    let mut rng = StdRng::seed_from_u64(crate::support::seed());
    let mut sent = 0;
    while sent < FRAMES {
        let mut client = connect().await;
        abuse.burst(&mut client, &mut rng, BURST).await;
        sent += BURST;
        client.close().await;
    }
    abuse.is_untouched(witness).await;
    no_traps(broker).await;
}

/// Items 19 and 28: no answer, whatever comes.
#[tokio::test]
async fn owner_metrics() {
    let broker = setup("metrics").start();
    // Nothing but the first figures, or a tick would be mistaken for an effect.
    let connect = async || {
        let mut client = broker.connect_with("/api/ws", &ann("")).await;
        client.until_type("metrics_update").await;
        client
    };
    let figures = async || {
        let mut client = broker.connect_with("/api/ws", &ann("")).await;
        client.until_type("metrics_update").await["data"].clone()
    };
    let before = figures().await;
    let mut witness = connect().await;
    let mut wrong = all(
        Silence,
        &[
            r#"{"type":"hello"}"#,
            r#"{"type":"PING"}"#,
            r#"{"type":""}"#,
            r#"{"type":"metrics_update","data":{"revenue":{"daily":1}},"timestamp":1}"#,
            r#"{"type":"booking_updated","data":{"bookingId":"1","status":"confirmed"}}"#,
            r#"{"type":"connection_established","data":{"ownerId":"bob"}}"#,
            r#"{"type":"subscribe","ownerId":"bob","owner":["bob"]}"#,
            r#"{"type":"ping ","timestamp":1e999}"#,
        ],
    );
    wrong.push((format!(r#"{{"type":"x","data":{}}}"#, nested(120)), Silence));
    wrong.push((format!(r#"{{"type":"{}"}}"#, "x".repeat(60_000)), Silence));
    let metrics = Abuse {
        bad: texts(&[r#"{"type":"ping","timestamp":1700000000000}"#], Silence, wrong),
        question: Message::text(r#"{"type":"ping","timestamp":7}"#),
        is_reply: |message| has_type(message, &["pong"]),
        is_error: |_| false,
        is_noise: |message| has_type(message, &["metrics_update"]),
    };

    abuse(&broker, &metrics, &mut witness, connect).await;

    assert_eq!(figures().await, before);
}

/// `ERROR`, for everything.
#[tokio::test]
async fn community_chat() {
    let broker = setup("community").start();
    let subscribe = json!({ "type": "SUBSCRIBE", "channel": "room:1" });
    let subscribed = async || {
        let mut client = broker.connect_with("/api/community/ws", &ann("")).await;
        client.send(subscribe.clone()).await;
        let answer = client.until_type("SUBSCRIBED").await;
        (client, answer["payload"].clone())
    };
    let (mut witness, _) = subscribed().await;
    for content in ["one", "two"] {
        witness.send(json!({ "type": "CHAT_MESSAGE", "channel": "room:1", "payload": { "content": content } })).await;
        witness.until_type("CHAT_MESSAGE").await;
    }
    let (_, before) = subscribed().await;
    assert_eq!(before["recent"].as_array().map(Vec::len), Some(2));
    let mut wrong = all(
        Told,
        &[
            r#"{"type":"CHAT_MESSAGE","channel":"room:1"}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":7}}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":""}}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":"\ud800"}}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":"a","content":"b"}}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":"a","clientId":""}}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":"a","x":1e999}}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":["a"]}"#,
            r#"{"type":"CHAT_MESSAGE","channel":"room:2","payload":{"content":"not subscribed"}}"#,
            r#"{"type":"CHAT_MESSAGE","payload":{"content":"no channel"}}"#,
            r#"{"type":"SUBSCRIBE","channel":"group:g1"}"#,
            r#"{"type":"SUBSCRIBE","channel":"dm:bob:cleo"}"#,
            r#"{"type":"SUBSCRIBE","channel":"room:"}"#,
            r#"{"type":"SUBSCRIBE","channel":"nowhere"}"#,
            r#"{"type":"SUBSCRIBE","channel":7}"#,
            r#"{"type":"SUBSCRIBE","channel":"room:1","payload":{"since":"x"}}"#,
            r#"{"type":"MESSAGE_EDIT","channel":"room:1","payload":{"id":"999999","content":"x"}}"#,
            r#"{"type":"MESSAGE_EDIT","channel":"room:1","payload":{"id":1}}"#,
            r#"{"type":"MESSAGE_DELETE","channel":"room:1","payload":{"id":-1}}"#,
            r#"{"type":"MESSAGE_DELETE","channel":"room:1","payload":{"id":18446744073709551616}}"#,
            r#"{"type":"TYPING","channel":"room:1","payload":{"isTyping":"yes"}}"#,
            r#"{"type":"USER_JOINED","channel":"room:1","payload":{"userId":"bob"}}"#,
            r#"{"type":"chat_message","channel":"room:1","payload":{"content":"x"}}"#,
        ],
    );
    let chat = |field: &str, value: &str| {
        format!(r#"{{"type":"CHAT_MESSAGE","channel":"room:1","payload":{{"content":"a","{field}":{value}}}}}"#)
    };
    wrong.push((chat("x", &nested(200)), Told));
    wrong.push((chat("x", &format!("\"{}\"", "x".repeat(5_000))), Told));
    wrong.push((chat("clientId", &format!("\"{}\"", "x".repeat(129))), Told));
    wrong.push((chat("x", "1").replace("\"a\"", &format!("\"{}\"", "ä".repeat(4_001))), Told));
    wrong.push((format!(r#"{{"type":"PING","id":"{}"}}"#, "x".repeat(129)), Told));
    let chat = Abuse {
        bad: texts(
            &[
                r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":"good","clientId":"c"},"id":"f"}"#,
                r#"{"type":"SUBSCRIBE","channel":"room:1"}"#,
                r#"{"type":"PING"}"#,
            ],
            Told,
            wrong,
        ),
        question: Message::text(r#"{"type":"PING"}"#),
        is_reply: |message| has_type(message, &["PONG"]),
        is_error: |message| {
            let payload = &json_of(message)["payload"];
            has_type(message, &["ERROR"]) && payload["code"].is_string() && payload["message"].is_string()
        },
        is_noise: |_| false,
    };

    abuse(&broker, &chat, &mut witness, async || subscribed().await.0).await;

    assert_eq!(subscribed().await.1, before);
}

/// Item 4: `NACK`, for everything.
#[tokio::test]
async fn widget_sync() {
    let broker = setup("widgets").start();
    let connect = async || {
        let mut client = broker.connect_with("/api/realtime", &ann("")).await;
        client.until_type("CONNECT").await;
        client
    };
    let frame = |kind: &str, payload: &str| format!(r#"{{"type":"{kind}","userId":"ann","payload":{payload}}}"#);
    let mut witness = connect().await;
    witness.send_text(&frame("WIDGET_UPDATE", r#"{"widgetId":"w","data":{"a":1}}"#)).await;
    witness.until_type("ACK").await;
    witness.send_text(&frame("LAYOUT_UPDATE", r#"{"layout":[{"i":"w"}]}"#)).await;
    witness.until_type("ACK").await;
    let state = async || {
        let mut client = connect().await;
        client.send_text(&frame("SYNC_REQUEST", "{}")).await;
        client.until_type("SYNC_RESPONSE").await["payload"].clone()
    };
    let before = state().await;
    let mut wrong = all(
        Told,
        &[
            r#"{"type":"WIDGET_UPDATE","payload":{"widgetId":"w","data":{"a":2}}}"#,
            r#"{"type":"WIDGET_UPDATE","userId":"bob","payload":{"widgetId":"w","data":{"a":2}}}"#,
            r#"{"type":"WIDGET_UPDATE","userId":["ann"],"payload":{"widgetId":"w","data":{"a":2}}}"#,
            r#"{"type":"PING","userId":"ann","id":{"a":1}}"#,
        ],
    );
    let huge = format!("\"{}\"", "x".repeat(200));
    for (kind, payload) in [
        ("WIDGET_UPDATE", "{}"),
        ("WIDGET_UPDATE", "[]"),
        ("WIDGET_UPDATE", r#"{"widgetId":7,"data":{"a":2}}"#),
        ("WIDGET_UPDATE", r#"{"widgetId":"","data":{"a":2}}"#),
        ("WIDGET_UPDATE", r#"{"widgetId":"w","data":[1]}"#),
        ("WIDGET_UPDATE", r#"{"widgetId":"w","data":{"a":"\ud800"}}"#),
        ("WIDGET_UPDATE", r#"{"widgetId":"w","data":{"a":2},"baseVersion":-1}"#),
        ("WIDGET_UPDATE", r#"{"widgetId":"w","data":{"a":2},"baseVersion":1e999}"#),
        ("WIDGET_UPDATE", &format!(r#"{{"widgetId":"w","data":{{"a":{}}}}}"#, nested(120))),
        ("WIDGET_UPDATE", &format!(r#"{{"widgetId":{huge},"data":{{"a":2}}}}"#)),
        ("WIDGET_DELETE", r#"{"widgetId":"unknown"}"#),
        ("WIDGET_DELETE", r#"{"widgetId":null}"#),
        ("WIDGET_BATCH", r#"{"operations":"x"}"#),
        (
            "WIDGET_BATCH",
            r#"{"operations":[{"type":"WIDGET_UPDATE","payload":{"widgetId":"w","data":{"a":2}}},{"type":"NOTHING"}]}"#,
        ),
        ("SYNC_UPDATE", r#"{"operations":[{"type":"WIDGET_UPDATE","payload":{"widgetId":"w","data":{"a":2}}}]}"#),
        ("SYNC_REQUEST", r#"{"since":"x"}"#),
        ("SYNC_REQUEST", r#"{"since":-1}"#),
        ("LAYOUT_UPDATE", r#"{"layout":7}"#),
        ("LAYOUT_RESTORE", r#"{"version":999}"#),
        ("LAYOUT_RESTORE", r#"{"version":"1"}"#),
        ("CONFLICT_RESOLVED", r#"{"conflictId":"conflict-1","resolution":"client"}"#),
        ("CONFLICT_RESOLVED", r#"{"conflictId":"conflict-1","resolution":"mine"}"#),
        ("widget_update", r#"{"widgetId":"w","data":{"a":2}}"#),
        ("", "{}"),
    ] {
        wrong.push((frame(kind, payload), Told));
    }
    wrong.push((format!(r#"{{"type":"PING","userId":"ann","id":{huge}}}"#), Told));
    let widgets = Abuse {
        bad: texts(
            &[
                r#"{"type":"WIDGET_UPDATE","userId":"ann","id":"f","payload":{"widgetId":"w","data":{"a":3}}}"#,
                r#"{"type":"WIDGET_DELETE","userId":"ann","payload":{"widgetId":"w"}}"#,
                r#"{"type":"PING","userId":"ann","payload":{}}"#,
            ],
            Told,
            wrong,
        ),
        question: Message::text(r#"{"type":"PING","userId":"ann","payload":{}}"#),
        is_reply: |message| has_type(message, &["PONG"]),
        is_error: |message| {
            let payload = &json_of(message)["payload"];
            has_type(message, &["NACK"]) && payload["code"].is_string() && payload["message"].is_string()
        },
        is_noise: |message| has_type(message, &["PING"]),
    };

    abuse(&broker, &widgets, &mut witness, connect).await;

    assert_eq!(state().await, before);
}

/// Event `error`, for everything.
#[tokio::test]
async fn tenant_events() {
    let broker = setup("events").start();
    let connect = async || {
        let mut client = broker.connect_with("/ws?tenant_id=acme&user_id=ann", &ann("admin")).await;
        client.until(|event| event["eventType"] == "connection").await;
        client
    };
    let mut witness = connect().await;
    witness.send(json!({ "type": "custom_event", "data": { "a": 1 } })).await;
    witness.until(|event| event["eventType"] == "custom_event").await;
    let state = async || {
        let bearer = format!("Bearer {}", ann("admin"));
        let headers = [("authorization", bearer.as_str()), ("x-tenant-id", "acme"), ("x-user-id", "ann")];
        let mut all = Vec::new();
        for channel in ["tenant:acme", "ideas:acme"] {
            let url = broker.http(&format!("/api/websocket/history?channel={channel}"));
            all.push(http::get(&url, &headers).await.json());
        }
        all
    };
    let before = state().await;
    assert_eq!(before[0]["events"].as_array().map(Vec::len), Some(1), "{before:?}");
    let mut wrong = all(
        Told,
        &[
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channel":7}"#,
            r#"{"type":"subscribe","channel":""}"#,
            r#"{"type":"subscribe","channel":"ideas:rival"}"#,
            r#"{"type":"subscribe","channel":"tenant:rival"}"#,
            r#"{"type":"subscribe","channel":"ideas","eventTypes":"x"}"#,
            r#"{"type":"subscribe","channel":"ideas","replay":-1}"#,
            r#"{"type":"subscribe","channel":"ideas","replay":1e999}"#,
            r#"{"type":"unsubscribe"}"#,
            r#"{"type":"unsubscribe","channel":"ideas:rival"}"#,
            r#"{"type":"filters"}"#,
            r#"{"type":"filters","filters":[]}"#,
            r#"{"type":"filters","filters":{"eventTypes":"x"}}"#,
            r#"{"type":"filters","filters":{"priority":["urgent"]}}"#,
            r#"{"type":"filters","filters":{"users":[7]}}"#,
            r#"{"type":"","data":{}}"#,
            r#"{"type":"connection","data":{}}"#,
            r#"{"type":"error","data":{}}"#,
            r#"{"type":"x","source":"system"}"#,
            r#"{"type":"x","source":7}"#,
            r#"{"type":"x","priority":"urgent"}"#,
            r#"{"type":"x","channel":"tenant:rival"}"#,
            r#"{"type":"x","data":"\ud800"}"#,
            r#"{"type":"x\u0000y","data":1}"#,
        ],
    );
    wrong.push((format!(r#"{{"type":"x","data":{}}}"#, nested(120)), Told));
    wrong.push((format!(r#"{{"type":"{}"}}"#, "x".repeat(129)), Told));
    wrong.push((format!(r#"{{"type":"filters","filters":{{"sources":[{}"x"]}}}}"#, "\"x\",".repeat(64)), Told));
    let events = Abuse {
        bad: texts(
            &[
                r#"{"type":"custom_event","data":{"a":2},"channel":"ideas","source":"s","priority":"low"}"#,
                r#"{"type":"filters","filters":{"eventTypes":["x"]}}"#,
                r#"{"type":"subscribe","channel":"ideas","replay":3}"#,
            ],
            Told,
            wrong,
        ),
        question: Message::text(r#"{"type":"filters","filters":{}}"#),
        is_reply: |message| has_type(message, &["filters_updated"]),
        is_error: |message| {
            let data = &json_of(message)["data"];
            has_type(message, &["error"]) && data["code"].is_string() && data["message"].is_string()
        },
        is_noise: |_| false,
    };

    abuse(&broker, &events, &mut witness, connect).await;

    assert_eq!(state().await, before);
}

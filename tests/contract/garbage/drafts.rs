//! Bad input of system 5, in JSON and in the binary protocol of y-websocket.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Abuse, Silence, Told, abuse, all, ann, has_type, json_of, nested, one, setup, texts};
use crate::support::broker::Broker;
use crate::support::client::Client;

/// An update (v1) of client 9 that writes `hello`: number of clients, blocks, client, clock, string, in the root type `t`.
const HELLO: [u8; 15] = [1, 1, 9, 0, 4, 1, 1, b't', 5, b'h', b'e', b'l', b'l', b'o', 0];

/// A JSON client of the draft, and the document as it got it.
async fn draft(broker: &Broker) -> (Client, Value) {
    let mut client = broker.connect_with("/ws?draftId=d1", &ann("editor")).await;
    let state = client.until_type("yjs-state-response").await["data"].clone();
    (client, state)
}

async fn written(broker: &Broker) -> (Client, Value) {
    let (mut client, _) = draft(broker).await;
    client.send(json!({ "type": "yjs-update", "data": HELLO })).await;
    client.send(json!({ "type": "ping" })).await;
    client.until_type("pong").await;
    let (_, state) = draft(broker).await;
    (client, state)
}

/// Items 9 and 10: `error`, and silence for what is of an unknown type.
#[tokio::test]
async fn drafts_in_json() {
    let broker = setup("drafts").start();
    let (mut witness, before) = written(&broker).await;
    let mut wrong = all(
        Told,
        &[
            r#"{"type":"yjs-update"}"#,
            r#"{"type":"yjs-update","data":null}"#,
            r#"{"type":"yjs-update","data":"AAA"}"#,
            r#"{"type":"yjs-update","data":{"0":1}}"#,
            r#"{"type":"yjs-update","data":[]}"#,
            r#"{"type":"yjs-update","data":[256]}"#,
            r#"{"type":"yjs-update","data":[-1]}"#,
            r#"{"type":"yjs-update","data":[1.5]}"#,
            r#"{"type":"yjs-update","data":[1e999]}"#,
            r#"{"type":"yjs-update","data":["1"]}"#,
            r#"{"type":"yjs-update","data":[[0,0]]}"#,
            r#"{"type":"yjs-update","data":[255,255,255,255,255,255,255,255,255,255,255,255]}"#,
        ],
    );
    wrong.extend((1..HELLO.len()).map(|end| (json!({ "type": "yjs-update", "data": HELLO[..end] }).to_string(), Told)));
    wrong.push((format!(r#"{{"type":"yjs-update","data":{}}}"#, nested(120)), Told));
    wrong.extend(all(
        Silence,
        &[
            r#"{"type":"Yjs-Update","data":[0,0]}"#,
            r#"{"type":"","data":[0,0]}"#,
            r#"{"type":"error","error":"x"}"#,
            r#"{"type":"yjs-state-response","data":[0,0]}"#,
            r#"{"type":"pong"}"#,
        ],
    ));
    let json = Abuse {
        bad: texts(
            &[r#"{"type":"yjs-update","data":[0,0]}"#, r#"{"type":"yjs-state-request"}"#, r#"{"type":"ping"}"#],
            Told,
            wrong,
        ),
        question: Message::text(r#"{"type":"ping"}"#),
        is_reply: |message| has_type(message, &["pong"]),
        is_error: |message| has_type(message, &["error"]) && json_of(message)["error"].is_string(),
        is_noise: |_| false,
    };

    abuse(&broker, &json, &mut witness, async || draft(&broker).await.0).await;

    assert_eq!(draft(&broker).await.1, before);
}

/// Item 32: what y-websocket shows as a refusal, and silence for kinds of frames that a server has nothing to do with.
#[tokio::test]
async fn drafts_in_binary() {
    const STEP_1: [u8; 4] = [0, 0, 1, 0];
    let broker = setup("drafts").start();
    let (mut witness, before) = written(&broker).await;
    let connect = async || {
        let mut client = broker.connect_with("/yjs/d1", &ann("editor")).await;
        // The server asks first, with its state vector.
        assert!(matches!(client.next().await, Message::Binary(first) if first.starts_with(&[0, 0])));
        client
    };
    let bad = |rng: &mut StdRng| {
        let cut = |rng: &mut StdRng| HELLO[..rng.random_range(0..HELLO.len())].to_vec();
        let framed = |kind: &[u8], inner: &[u8]| [kind, &[inner.len() as u8], inner].concat();
        let bytes = match rng.random_range(0..9) {
            0 => framed(&[0, one_of(rng, &[1, 2])], &cut(rng)),
            // A length that is not there.
            1 => [&[0, one_of(rng, &[0, 1, 2]), 200][..], &HELLO].concat(),
            2 => vec![0, rng.random_range(3..0x80), 1, 0],
            3 => framed(&[0, 0], &[5, 1]),
            4 => framed(&[1], &[1, 9, 1, 3, b'{', b'x', b'}']),
            5 => framed(&[1], &[3, 9, 1]),
            6 => one_of(
                rng,
                &[vec![], vec![0], vec![1], vec![0x80; 12], vec![0, 0x80], vec![0, 2, 0xff, 0xff, 0xff, 0xff, 0x7f]],
            ),
            7 => return (Message::text(one(rng, &["", "{}", "hello", r#"{"type":"ping"}"#])), Told),
            _ => {
                let mut bytes = vec![0; rng.random_range(1..60)];
                rng.fill(&mut bytes[..]);
                bytes[0] = one_of(rng, &[2, 4, 77, 0x7f]);
                return (Message::binary(bytes), Silence);
            }
        };
        (Message::binary(bytes), Told)
    };
    let binary = Abuse {
        bad: Box::new(bad),
        question: Message::binary(STEP_1.to_vec()),
        is_reply: |message| matches!(message, Message::Binary(bytes) if bytes.starts_with(&[0, 1])),
        // Auth (2), permission denied (0) and the reason; a text frame is answered as text.
        is_error: |message| match message {
            Message::Binary(bytes) => bytes.starts_with(&[2, 0]) && bytes.len() > 4,
            _ => has_type(message, &["error"]),
        },
        is_noise: |_| false,
    };
    let mut editor = connect().await;

    abuse(&broker, &binary, &mut editor, connect).await;

    witness.nothing_before(json!({ "type": "ping" }), |answer| answer["type"] == "pong").await;
    assert_eq!(draft(&broker).await.1, before);
}

fn one_of<T: Clone>(rng: &mut StdRng, from: &[T]) -> T {
    from.choose(rng).expect("one of them").clone()
}

//! The JSON frames, one test for each rule, and updates by application servers.

use hotbay_sdk::harness::Outcome;
use hotbay_sdk::{Event, Level, Payload, Plugin, Refusal, RefusalCode, Sender};
use serde_json::json;

use super::{
    Editor, JSON_ENDPOINT, Room, data, frames, identity, join, join_json, only, read, room, send, send_update, stored,
    viewer,
};
use crate::settings::BINARY_ENDPOINT;
use crate::{YjsRelay, json};

/// Checks that nothing happened but one `error` to the sender.
#[track_caller]
fn assert_refused(outcome: &Outcome, id: u64, why: &str) {
    assert_eq!(only(outcome, id), json!({"type": "error", "error": why}));
    assert_eq!((outcome.received.len(), outcome.closed.len(), outcome.refusals.len()), (1, 0, 1));
}

#[test]
fn the_whole_document_comes_on_joining_and_on_request() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, joined) = join(&mut room, identity("ann", JSON_ENDPOINT));
    assert_eq!(only(&joined, ann), json!({"type": "yjs-state-response", "data": [0, 0]}));
    send_update(&mut room, ann, &editor.types("hello"));

    let asked = send(&mut room, ann, &json!({"type": "yjs-state-request"}));

    assert_eq!(data(&only(&asked, ann), "yjs-state-response"), editor.all());
    let (bob, joined) = join(&mut room, identity("bob", JSON_ENDPOINT));
    assert_eq!(data(&only(&joined, bob), "yjs-state-response"), editor.all());
    assert_eq!(frames(&joined, ann).len(), 0, "nobody else is told");
}

#[test]
fn an_update_goes_to_all_others_as_it_came_and_is_stored_first() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, bob, cleo) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"), join_json(&mut room, "ann"));
    let update = editor.types("hello");

    let sent = send_update(&mut room, ann, &update);

    assert_eq!(frames(&sent, ann).len(), 0, "no echo");
    for other in [bob, cleo] {
        assert_eq!(only(&sent, other), json!({"type": "yjs-update", "data": update}));
    }
    assert_eq!(room.log(), [(1, update)]);
    assert_eq!(read(&mut room).text(), "hello");
}

#[test]
fn what_says_nothing_new_goes_no_further() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, _bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    let update = editor.types("hello");
    send_update(&mut room, ann, &update);
    let before = stored(&room);

    for again in [update, editor.all(), vec![0, 0]] {
        let sent = send_update(&mut room, ann, &again);
        assert_eq!((sent.received.len(), sent.refusals.len()), (0, 0));
    }

    assert_eq!(stored(&room), before);
}

#[test]
fn drafts_do_not_hear_of_each_other() {
    let (mut one, mut two) = (Room::new("draft:d1"), Room::new("draft:d2"));
    let (ann, _bob) = (join_json(&mut one, "ann"), join_json(&mut two, "bob"));

    send_update(&mut one, ann, &Editor::new(5).types("hello"));

    assert_eq!((read(&mut one).text(), read(&mut two).text()), ("hello".to_owned(), String::new()));
}

#[test]
fn a_ping_gets_a_pong_and_what_is_unknown_is_ignored_with_a_warning() {
    let mut room = room();
    let ann = join_json(&mut room, "ann");

    assert_eq!(only(&send(&mut room, ann, &json!({"type": "ping", "data": {"x": [1]}})), ann), json!({"type": "pong"}));
    for quiet in ["pong", "yjs-state-response", "error", "x y\n\"z\""] {
        let outcome = send(&mut room, ann, &json!({"type": quiet, "more": 1}));
        assert_eq!((outcome.received.len(), outcome.refusals.len()), (0, 0), "{quiet}");
    }

    let lines = room.lines();
    let warnings: Vec<&str> =
        lines.iter().filter(|(level, _)| *level == Level::Warn).map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        warnings,
        ["ws.unknown type=yjs-state-response", "ws.unknown type=error", "ws.unknown type=\"x y\\n\\\"z\\\"\""]
    );
}

#[test]
fn a_bad_frame_gets_an_error_and_the_connection_stays() {
    const DATA: &str = "`data` must be an array of the update's bytes, whole numbers from 0 to 255";
    const FRAME: &str = "a frame is a JSON object {type, data?}";
    let mut room = room();
    let (ann, _bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    let before = stored(&room);
    let cases = [
        ("", FRAME),
        ("[]", FRAME),
        (r#"["yjs-update",[0,0]]"#, FRAME),
        ("{\"type\":\"ping\"", FRAME),
        (r#"{"data":[0,0]}"#, FRAME),
        (r#"{"type":7}"#, FRAME),
        (r#"{"type":"yjs-update"}"#, "`yjs-update` lacks `data`"),
        (r#"{"type":"yjs-update","data":null}"#, "`yjs-update` lacks `data`"),
        (r#"{"type":"yjs-update","data":"AAA="}"#, DATA),
        (r#"{"type":"yjs-update","data":{"0":1}}"#, DATA),
        (r#"{"type":"yjs-update","data":[0,256]}"#, DATA),
        (r#"{"type":"yjs-update","data":[0,-1]}"#, DATA),
        (r#"{"type":"yjs-update","data":[0,1.5]}"#, DATA),
        (r#"{"type":"yjs-update","data":[0,[0]]}"#, DATA),
        (r#"{"type":"yjs-update","data":[]}"#, "the update is malformed: it ends too early"),
        (r#"{"type":"yjs-update","data":[1]}"#, "the update is malformed: it ends too early"),
        (r#"{"type":"yjs-update","data":[0,0,0]}"#, "the update is malformed: there is more after its end"),
    ];

    for (frame, why) in cases {
        let outcome = room.message(ann, frame);
        assert_refused(&outcome, ann, why);
    }

    assert_eq!(stored(&room), before);
    let errors = room.lines().into_iter().filter(|(level, _)| *level == Level::Error).count();
    assert_eq!(errors, cases.len());
    assert!(room.lines().iter().any(|(_, line)| line.starts_with("ws.error error=\"the update is malformed")));
}

#[test]
fn json_may_come_as_a_binary_message_and_with_spaces() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    let list: Vec<String> = editor.types("hi").iter().map(u8::to_string).collect();
    let text = format!(" {{ \"data\" : [ {} ] , \"type\" : \"yjs-up\\u0064ate\" }} ", list.join(" ,\n "));

    let sent = room.message(ann, text.into_bytes());

    assert_eq!(data(&only(&sent, bob), "yjs-update"), editor.all());
    let refused = room.message(ann, b"{\"type\":".to_vec());
    assert_refused(&refused, ann, "a frame is a JSON object {type, data?}");
}

#[test]
fn a_viewer_reads_but_does_not_write() {
    let (mut room, editor) = (room(), Editor::new(5));
    let ann = join_json(&mut room, "ann");
    send_update(&mut room, ann, &editor.types("hello"));
    let (vera, joined) = join(&mut room, viewer("vera", JSON_ENDPOINT));
    assert_eq!(data(&only(&joined, vera), "yjs-state-response"), editor.all());
    let before = stored(&room);

    for update in [editor.types("no"), vec![0, 0], vec![9]] {
        let refused = send_update(&mut room, vera, &update);
        assert_refused(&refused, vera, "you may read this draft, but not change it");
    }

    assert_eq!(stored(&room), before);
    let sent = send_update(&mut room, ann, &editor.all());
    assert_eq!(frames(&sent, vera).len(), 1, "a viewer hears of updates");
    assert_eq!(frames(&send(&mut room, vera, &json!({"type": "yjs-state-request"})), vera).len(), 1);
}

#[test]
fn a_server_publishes_updates_and_nothing_else() {
    let (mut room, editor) = (room(), Editor::new(5));
    let ann = join_json(&mut room, "ann");
    let update = editor.types("from the server");

    let published = room.publish(json!({"type": "yjs-update", "data": update}).to_string());

    assert_eq!(data(&only(&published, ann), "yjs-update"), update);
    assert_eq!(read(&mut room).text(), "from the server");
    let before = stored(&room);
    for other in [r#"{"type":"ping"}"#, r#"{"type":"yjs-update"}"#, r#"{"type":"yjs-update","data":[7]}"#, "x", "[]"] {
        let outcome = room.publish(other);
        assert_eq!((outcome.refusals.len(), outcome.received.len()), (1, 0), "{other}");
    }
    assert_eq!(stored(&room), before);
    assert_eq!(room.publish(vec![0, 2, 2, 0, 0]).refusals.len(), 1, "not in the words of y-websocket");
}

/// Goal: who joins gets the document before any update that follows.
#[test]
fn who_joins_in_a_batch_gets_the_document_first() {
    let (mut room, editor) = (room(), Editor::new(5));
    let ann = join_json(&mut room, "ann");
    send_update(&mut room, ann, &editor.types("a"));
    let bob = room.connect_as(identity("bob", JSON_ENDPOINT));
    let frame = json!({"type": "yjs-update", "data": editor.types("b")}).to_string();

    let outcome = room.batch(vec![room.joined(bob, None), room.sent(ann, frame)]);

    let received = frames(&outcome, bob);
    assert_eq!(
        received.iter().map(|frame| frame["type"].clone()).collect::<Vec<_>>(),
        ["yjs-state-response", "yjs-update"]
    );
    let reader = Editor::new(6);
    for frame in received {
        reader.apply(&serde_json::from_value::<Vec<u8>>(frame["data"].clone()).unwrap());
    }
    assert_eq!(reader.text(), "ab");
}

/// Goal: a thousand who join at once cost one encoding.
#[test]
fn who_wants_the_same_shares_a_frame() {
    let mut room = room();
    let ann = join_json(&mut room, "ann");
    send_update(&mut room, ann, &Editor::new(5).types("hello"));
    let joining: Vec<u64> =
        (0..200).map(|number| room.connect_as(identity(&format!("user{number}"), JSON_ENDPOINT))).collect();
    let events: Vec<Event> = joining.iter().map(|id| room.joined(*id, None)).collect();

    let outcome = room.batch(events);

    assert_eq!((outcome.effects.len(), outcome.received.len()), (1, 200));
    let requests = vec![room.sent(ann, r#"{"type":"yjs-state-request"}"#); 50];
    assert_eq!(room.batch(requests).received.len(), 1, "however often somebody asks");
}

#[test]
fn lines_say_who_came_wrote_and_went() {
    let mut room = room();
    let ann = join_json(&mut room, "ann smith");
    let update = Editor::new(5).types("hello");
    send_update(&mut room, ann, &update);
    room.disconnect(ann);

    let lines = room.lines();
    let connection = lines[0].1.rsplit_once("connectionId=").unwrap().1.to_owned();
    let (head, random) = connection.rsplit_once('_').unwrap();
    assert_eq!((head, random.len()), ("ws_1700000000000", 9));
    assert_eq!(
        lines,
        [
            (Level::Info, format!("ws.connect userId=\"ann smith\" firmId=f1 draftId=d1 connectionId={connection}")),
            (
                Level::Debug,
                format!("yjs.update draftId=d1 fromUserId=\"ann smith\" clientCount=1 updateSize={}", update.len())
            ),
            (Level::Info, format!("ws.disconnect userId=\"ann smith\" connectionId={connection} reason=disconnected")),
        ]
    );
}

/// Goal: what is written as numbers is what is read, for every byte.
#[test]
fn bytes_are_written_as_json_reads_them() {
    let bytes: Vec<u8> = (0..=255).chain([0, 9, 10, 99, 100, 255]).collect();
    let frame = json::data("yjs-update", &bytes);

    let read: serde_json::Value = serde_json::from_str(&frame).unwrap();
    assert_eq!(read, json!({"type": "yjs-update", "data": bytes}));
    assert!(frame.len() <= json::len_max(bytes.len()));
    assert_eq!(json::Frame::parse(&Payload::from(frame)).unwrap().data().unwrap(), bytes);
}

/// Goal: what the host refuses is told in the protocol of who sent it, and a close needs no words.
#[test]
fn refusals_of_the_host_are_told_in_the_words_of_each_protocol() {
    let to = |endpoint: &str| Sender { now_ms: 0, identity: identity("ann", endpoint) };
    let (text, bytes, object) = (Payload::from("{}"), Payload::from(vec![0, 2]), Payload::from(b" {}".to_vec()));
    let json_error = |why: &str| Some(Payload::from(json!({"type": "error", "error": why}).to_string()));
    let denied = |why: &str| Some(Payload::from(crate::binary::denied(why)));
    let refused = |endpoint: &str, frame: Option<&Payload>, code| {
        YjsRelay::refused(&to(endpoint), frame, &Refusal::new(code, "why"))
    };

    for code in [RefusalCode::RateLimited, RefusalCode::TooLarge, RefusalCode::Fault, RefusalCode::BadRequest] {
        assert_eq!(refused("/ws", Some(&text), code), json_error("why"));
        assert_eq!(refused("/ws", Some(&object), code), json_error("why"));
        assert_eq!(refused(BINARY_ENDPOINT, Some(&bytes), code), denied("why"));
        assert_eq!(refused("/ws", None, code), json_error("why"));
        assert_eq!(refused(BINARY_ENDPOINT, None, code), None);
    }
    for endpoint in ["/ws", BINARY_ENDPOINT] {
        assert_eq!(refused(endpoint, Some(&text), RefusalCode::Closing), None);
        for code in [RefusalCode::Closing, RefusalCode::Forbidden, RefusalCode::Unavailable] {
            assert_eq!(refused(endpoint, None, code), None, "{code:?}");
        }
    }
    assert_eq!(refused("/ws", None, RefusalCode::Lost), json_error("why"));
    assert_eq!(refused("/ws", Some(&text), RefusalCode::Forbidden), json_error("why"));
    assert_eq!(refused(BINARY_ENDPOINT, Some(&bytes), RefusalCode::Forbidden), None);
}

//! Conflicts: how they are found, and what solves them.

use serde_json::{Value, json};

use super::{ask, join, message, setup};
use crate::support::client::Client;

/// Item 11: an update against an old version changes nothing and asks; each way of solving it does what it says.
#[tokio::test]
async fn conflicts_are_detected_and_solved() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    let value = async |client: &mut Client, name: &str, widget: &str| {
        ask(client, name, "SYNC_REQUEST", json!({})).await["payload"]["widgets"][widget].clone()
    };
    for (resolution, data, expected) in [
        ("client", None, json!({ "v": "bob" })),
        ("server", None, json!({ "v": "ann" })),
        ("merge", Some(json!({ "v": "both" })), json!({ "v": "both" })),
    ] {
        let widget = format!("w-{resolution}");
        let update = |v: &str, base: Option<u64>| {
            let mut payload = json!({ "widgetId": widget, "data": { "v": v } });
            if let Some(base) = base {
                payload["baseVersion"] = json!(base);
            }
            payload
        };
        ask(&mut ann, "ann", "WIDGET_UPDATE", update("first", None)).await;
        ask(&mut ann, "ann", "WIDGET_UPDATE", update("ann", Some(1))).await;

        let conflict = ask(&mut bob, "bob", "WIDGET_UPDATE", update("bob", Some(1))).await;

        assert_eq!(conflict["type"], "CONFLICT_DETECTED", "{conflict}");
        let payload = &conflict["payload"];
        assert_eq!((&payload["widgetId"], &payload["serverVersion"]), (&json!(widget), &json!(2)));
        assert_eq!((&payload["serverData"]["v"], &payload["clientData"]["v"]), (&json!("ann"), &json!("bob")));
        assert_eq!(value(&mut ann, "ann", &widget).await["data"]["v"], "ann", "nothing was applied");

        let mut solved = json!({ "conflictId": payload["conflictId"], "resolution": resolution });
        if let Some(data) = data {
            solved["data"] = data;
        }
        let answer = ask(&mut bob, "bob", "CONFLICT_RESOLVED", solved.clone()).await;
        assert_eq!(answer["type"], "ACK", "{answer}");
        assert_eq!(value(&mut ann, "ann", &widget).await["data"], expected, "{resolution}");
        let again = ask(&mut bob, "bob", "CONFLICT_RESOLVED", solved).await;
        assert_eq!(again["type"], "NACK", "a conflict is solved once: {again}");
    }
}

/// Items 10 and 11: deletions and layouts conflict like updates, and each way of solving it does what it says.
#[tokio::test]
async fn conflicts_of_deletions_and_layouts_are_solved() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    for (resolution, data, expected) in [
        ("client", None, Value::Null),
        ("server", None, json!({ "v": "ann" })),
        ("merge", Some(json!({ "w": "bob" })), json!({ "v": "ann", "w": "bob" })),
    ] {
        let widget = format!("w-{resolution}");
        for v in ["first", "ann"] {
            ask(&mut ann, "ann", "WIDGET_UPDATE", json!({ "widgetId": widget, "data": { "v": v } })).await;
        }
        let conflict = ask(&mut bob, "bob", "WIDGET_DELETE", json!({ "widgetId": widget, "baseVersion": 1 })).await;
        assert_eq!(conflict["type"], "CONFLICT_DETECTED", "{conflict}");
        let payload = &conflict["payload"];
        assert_eq!((&payload["widgetId"], &payload["serverVersion"]), (&json!(widget), &json!(2)), "{conflict}");
        assert_eq!((&payload["serverData"]["v"], &payload["clientData"]), (&json!("ann"), &Value::Null), "{conflict}");

        let mut solved = json!({ "conflictId": payload["conflictId"], "resolution": resolution });
        solved.as_object_mut().expect("an object").extend(data.map(|data| ("data".to_owned(), data)));
        let answer = ask(&mut bob, "bob", "CONFLICT_RESOLVED", solved).await;

        assert_eq!(answer["type"], "ACK", "{resolution}: {answer}");
        let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
        assert_eq!(sync["payload"]["widgets"][&widget]["data"], expected, "{resolution}: {sync}");
    }
    for (number, resolution, data, expected) in [
        (1, "client", None, json!(["bob"])),
        (2, "server", None, json!(["ann"])),
        (3, "merge", Some(json!(["ann", "bob"])), json!(["ann", "bob"])),
    ] {
        ask(&mut ann, "ann", "LAYOUT_UPDATE", json!({ "layout": [number] })).await;
        let ack = ask(&mut ann, "ann", "LAYOUT_UPDATE", json!({ "layout": ["ann"] })).await;
        let version = ack["payload"]["version"].as_u64().expect("a version");
        let stale = json!({ "layout": ["bob"], "baseVersion": version - 1 });
        let conflict = ask(&mut bob, "bob", "LAYOUT_UPDATE", stale).await;
        assert_eq!(conflict["type"], "CONFLICT_DETECTED", "{conflict}");
        let payload = &conflict["payload"];
        assert_eq!((&payload["widgetId"], &payload["target"]), (&Value::Null, &json!("layout")), "{conflict}");
        assert_eq!((&payload["serverVersion"], &payload["serverData"]), (&json!(version), &json!(["ann"])));
        assert_eq!(payload["clientData"], json!(["bob"]));

        let mut solved = json!({ "conflictId": payload["conflictId"], "resolution": resolution });
        if resolution == "merge" {
            let answer = ask(&mut bob, "bob", "CONFLICT_RESOLVED", solved.clone()).await;
            assert_eq!(answer["payload"]["code"], "bad_request", "only the client can merge a layout: {answer}");
        }
        solved.as_object_mut().expect("an object").extend(data.map(|data| ("data".to_owned(), data)));
        let answer = ask(&mut bob, "bob", "CONFLICT_RESOLVED", solved).await;

        assert_eq!(answer["type"], "ACK", "{resolution}: {answer}");
        let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
        assert_eq!(sync["payload"]["layout"], expected, "{resolution}: {sync}");
    }
}

/// Items 11 and 26: a conflict that nobody solves ends in time, says so, and changes nothing.
#[tokio::test]
async fn a_conflict_that_is_not_solved_in_time_ends() {
    let broker = setup().set("mount.widgets.settings.operationTimeoutMs", 100).start();
    let mut ann = join(&broker, "ann").await;
    for v in [1, 2] {
        ask(&mut ann, "ann", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "v": v } })).await;
    }
    let outdated = json!({ "widgetId": "w", "data": { "v": 0 }, "baseVersion": 1 });
    ann.send(message("ann", "late", "WIDGET_UPDATE", outdated)).await;
    let conflict = ann.until_type("CONFLICT_DETECTED").await;
    assert_eq!(conflict["correlationId"], "late");

    let nack = ann.until_type("NACK").await;

    assert_eq!((&nack["correlationId"], &nack["payload"]["code"]), (&json!("late"), &json!("conflict")), "{nack}");
    let decision = json!({ "conflictId": conflict["payload"]["conflictId"], "resolution": "client" });
    let answer = ask(&mut ann, "ann", "CONFLICT_RESOLVED", decision).await;
    assert_eq!((&answer["type"], &answer["payload"]["code"]), (&json!("NACK"), &json!("not_found")), "{answer}");
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
    assert_eq!(sync["payload"]["widgets"]["w"], json!({ "version": 2, "data": { "v": 2 } }));
}

/// `enableConflictDetection = false`: the last writer wins, whatever it was based on.
#[tokio::test]
async fn without_detection_the_last_writer_wins() {
    let broker = setup().set("mount.widgets.settings.enableConflictDetection", false).start();
    let mut ann = join(&broker, "ann").await;
    for (v, version) in [("one", 1), ("two", 2)] {
        let payload = json!({ "widgetId": "w", "data": { "v": v }, "baseVersion": 0 });
        let ack = ask(&mut ann, "ann", "WIDGET_UPDATE", payload).await;
        assert_eq!((&ack["type"], &ack["payload"]["version"]), (&json!("ACK"), &json!(version)), "{ack}");
    }
}

//! What application servers publish.

use hotbay_sdk::{Event, Publication, RefusalCode, Source};
use serde_json::{Value, json};

use super::{answer, audience, body as with_body, bus_with, only, page, request, subscribe};

#[test]
fn a_server_publishes_events_in_the_name_of_a_user_or_nobody() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    subscribe(&mut bus, bob, "ideas");
    for body in [
        json!({"event": "idea_created", "payload": {"a": 1}, "channel": "ideas", "source": "idea_service", "priority": "low", "userId": "zoe"}),
        json!({"type": "idea_created", "data": {"a": 1}, "channel": "ideas:acme", "source": "idea_service", "priority": "low", "userId": "zoe"}),
    ] {
        let outcome = bus.publish(body.to_string());
        let event = only(&outcome, bob);
        assert_eq!(audience(&outcome, &bus, "idea_created"), [bob]);
        let fields = [&event["data"], &event["source"], &event["priority"], &event["userId"], &event["tenantId"]];
        let expected = [json!({"a": 1}), json!("idea_service"), json!("low"), json!("zoe"), json!("acme")];
        assert_eq!(fields, [&expected[0], &expected[1], &expected[2], &expected[3], &expected[4]]);
    }
    let event = only(&bus.publish(r#"{"event":"x"}"#), ann);
    assert_eq!((&event["source"], &event["userId"], &event["data"]), (&json!("api"), &Value::Null, &Value::Null));
    assert_eq!(page(&mut bus, &[("channel", "ideas")]).0.len(), 2);
}

#[test]
fn the_other_names_of_fields_mean_nothing_beside_the_first() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for (body, kind, data) in [
        (json!({"event": "x", "type": "SERVER_EVENT", "payload": 1, "data": 2}), "x", json!(1)),
        (json!({"event": "x", "type": {"any": "thing"}, "data": 2}), "x", json!(2)),
        (json!({"type": "y", "event": null, "payload": null, "data": 2}), "y", json!(2)),
        (json!({"type": "y"}), "y", json!(null)),
    ] {
        let event = only(&bus.publish(body.to_string()), ann);
        assert_eq!((&event["eventType"], &event["data"]), (&json!(kind), &data), "{body}");
        let (status, posted) = answer(&mut bus, with_body(request("POST", "/", "ann", ""), &body));
        assert_eq!(status, 200, "{posted}");
    }
}

#[test]
fn another_channel_of_the_tenant_may_publish_too() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let publication = Publication { source: Source::Channel("tenant:x".to_owned()), payload: r#"{"type":"x"}"#.into() };
    assert_eq!(only(&bus.batch(vec![Event::Publish(publication)]), ann)["eventType"], "x");
}

#[test]
fn wrong_publications_are_rejected() {
    let (mut bus, [_ann]) = bus_with(["ann"]);
    for (body, code) in [
        ("", RefusalCode::BadRequest),
        ("[]", RefusalCode::BadRequest),
        ("{}", RefusalCode::BadRequest),
        (r#"["x"]"#, RefusalCode::BadRequest),
        (r#"{"event":""}"#, RefusalCode::BadRequest),
        (r#"{"event":"subscribed"}"#, RefusalCode::BadRequest),
        (r#"{"event":"x","source":"system"}"#, RefusalCode::BadRequest),
        (r#"{"event":"x","userId":1}"#, RefusalCode::BadRequest),
        (r#"{"event":"x","userId":""}"#, RefusalCode::BadRequest),
        (r#"{"event":1,"type":"x"}"#, RefusalCode::BadRequest),
        (r#"{"event":"x","channel":"ideas:other"}"#, RefusalCode::Forbidden),
    ] {
        let outcome = bus.publish(body);
        assert!(outcome.faults.is_empty() && outcome.effects.len() == 1 && outcome.received.is_empty(), "{body}");
        assert_eq!(outcome.refusals[0].code, code, "{body}");
    }
    assert_eq!(bus.publish(b"{}".to_vec()).refusals[0].code, RefusalCode::BadRequest);
    assert!(bus.kv().is_empty());
}

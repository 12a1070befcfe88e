//! What application servers publish.

use hotbay_sdk::harness::Effect;
use hotbay_sdk::{Audience, Delivery, Payload, RefusalCode};
use serde_json::json;

use super::{desk, frames, join};

#[test]
fn a_publication_goes_to_every_connection_at_once_as_it_came() {
    let (mut desk, _) = desk();
    let ids = [(); 3].map(|()| join(&mut desk, "ann").0);
    for body in [
        r#"{"type":"booking_updated","data":{"bookingId":"b1","status":"confirmed","timestamp":17}}"#,
        r#"{ "type": "payout", "data": [1, "zwei", null], "timestamp": 5, "x": {"y": 1.0} }"#,
        r#"{"type":"note"}"#,
        r#"{"type":"pong","data":null}"#,
    ] {
        let outcome = desk.publish(body);
        assert_eq!(outcome.refusals, []);
        for id in ids {
            assert_eq!(outcome.texts(id), [body]);
        }
        let [Effect::Frame { to, how, .. }] = &outcome.effects[..] else { panic!("{:?}", outcome.effects) };
        assert_eq!((to, how), (&Audience::All, &Delivery::HIGH), "never dropped silently");
    }
    assert!(desk.log().is_empty() && desk.kv().is_empty(), "what all have got is not kept");
}

#[test]
fn booking_updated_gets_a_timestamp_in_its_data_if_it_has_none() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    let now = desk.now_ms();
    for (body, expected) in [
        (
            r#"{"type":"booking_updated","data":{"bookingId":"b1","status":"confirmed"}}"#,
            format!(
                r#"{{"type":"booking_updated","data":{{"bookingId":"b1","status":"confirmed","timestamp":{now}}}}}"#
            ),
        ),
        (
            // The timestamp beside the data is not the one in it; what is there twice in other places confuses nothing.
            r#"{"x":{"bookingId":7},"data" : {"bookingId":7} ,"timestamp":3,"type":"booking_updated"}"#,
            format!(
                r#"{{"x":{{"bookingId":7}},"data" : {{"bookingId":7,"timestamp":{now}}} ,"timestamp":3,"type":"booking_updated"}}"#
            ),
        ),
        (
            r#"{"type":"booking_updated","data":{ }}"#,
            format!(r#"{{"type":"booking_updated","data":{{ "timestamp":{now}}}}}"#),
        ),
        (
            r#"{"type":"booking_updated","data":{"é😀":"}","deep":{"timestamp":1}}}"#,
            format!(r#"{{"type":"booking_updated","data":{{"é😀":"}}","deep":{{"timestamp":1}},"timestamp":{now}}}}}"#),
        ),
    ] {
        let outcome = desk.publish(body);
        assert_eq!(outcome.texts(ann), [expected]);
        assert_eq!(frames(&outcome, ann)[0]["data"]["timestamp"], json!(now));
    }
}

#[test]
fn wrong_publications_are_refused_with_a_sentence_and_change_nothing() {
    let (mut desk, _) = desk();
    let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(33));
    let deep = format!(r#"{{"type":"x","data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let cases: [(&str, &str); 19] = [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (r#"{"type":"x"} x"#, "not valid JSON"),
        (r#"{"type":"x","data":"\ud800"}"#, "not valid JSON"),
        (r#"{"type":"x","data":1e999}"#, "not valid JSON"),
        (r#"{"type":"x","data":NaN}"#, "not valid JSON"),
        (&deep, "not valid JSON"),
        ("[]", "JSON object"),
        (r#"["x",1,{}]"#, "JSON object"),
        ("{}", "JSON object"),
        (r#"{"type":7}"#, "JSON object"),
        (r#"{"type":"x","type":"y"}"#, "JSON object"),
        (r#"{"type":""}"#, "1 to 64 bytes"),
        (&long, "1 to 64 bytes"),
        (r#"{"type":"metrics_update","data":{}}"#, "broker's own"),
        (r#"{"type":"connection_\u0065stablished"}"#, "broker's own"),
        (r#"{"type":"booking_updated"}"#, "booking_updated takes"),
        (r#"{"type":"booking_updated","data":[1]}"#, "booking_updated takes"),
        (r#"{"type":"booking_updated","data":null}"#, "booking_updated takes"),
    ];
    // With and without a connection: what is kept must be as good as what is sent.
    for present in [false, true] {
        if present {
            join(&mut desk, "ann");
        }
        for (body, sentence) in cases {
            let outcome = desk.publish(body);
            assert!(outcome.received.is_empty() && outcome.faults.is_empty(), "{body}");
            assert_eq!(outcome.refusals[0].code, RefusalCode::BadRequest, "{body}");
            assert!(outcome.refusals[0].message.contains(sentence), "{body}: {}", outcome.refusals[0].message);
        }
        let outcome = desk.publish(Payload::Binary(br#"{"type":"x"}"#.to_vec()));
        assert!(outcome.refusals[0].message.contains("not binary"));
        assert!(desk.log().is_empty() && desk.kv().is_empty());
    }
}

#[test]
fn a_publication_has_at_most_64_kib() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    let sized = |bytes: usize| {
        let frame = r#"{"type":"x","data":""}"#;
        frame.replace(r#""""#, &format!("\"{}\"", "x".repeat(bytes - frame.len())))
    };
    assert_eq!(desk.publish(sized(65_536)).texts(ann).len(), 1);
    let outcome = desk.publish(sized(65_537));
    assert_eq!((outcome.refusals[0].code, outcome.received.len()), (RefusalCode::TooLarge, 0));
}

/// A publish shows at once; the figures follow with the next tick, not with a query of its own.
#[test]
fn a_publication_asks_no_database() {
    let (mut desk, database) = desk();
    join(&mut desk, "ann");
    database.asked();
    desk.publish(r#"{"type":"booking_updated","data":{}}"#);
    assert_eq!(database.asked(), 0);
}

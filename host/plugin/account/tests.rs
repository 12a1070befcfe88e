//! Accounts: nothing of an effect is lost, and whatever differs is told.

use bytes::Bytes;

use super::*;
use crate::limits::MountLimits;
use crate::plugin::effects::Timer;
use crate::protocol::event::{Batch, Event, HttpResponse, Source};
use crate::protocol::frame::{Delivery, Payload};
use crate::protocol::identity::Identity;
use crate::protocol::refusal::Refusal;

fn frame(event: u32, text: &str) -> Entry {
    Entry::Frame {
        event,
        to: Audience::All,
        priority: Priority::Normal,
        conflate: None,
        payload: Payload::text(text).into(),
    }
}

/// One effect of each kind.
fn all_kinds() -> Effects {
    let limits = MountLimits::default();
    let mut effects = Effects::default();
    let how = |priority, conflate: Option<&str>| Delivery { priority, conflate: conflate.map(Into::into) };
    let audiences = [
        Audience::All,
        Audience::Except(MemberId(1)),
        Audience::Only((0..10).map(MemberId).collect()),
        Audience::User("ann".into()),
    ];
    for (to, event) in audiences.into_iter().zip(0..) {
        let payload =
            if event == 2 { Payload::Binary(vec![0xFF, 0].into()) } else { Payload::text(format!("{event}")) };
        let how = if event == 1 { how(Priority::Low, Some("k")) } else { how(Priority::High, None) };
        effects.send(event, &payload, to, how, &limits).unwrap();
    }
    effects.rejects.push((1, Refusal::new(RefusalCode::Forbidden, "no")));
    let headers = vec![("etag".to_owned(), "1".to_owned())];
    effects.responses.push((RequestId(7), HttpResponse { status: 200, headers, body: "ok".into() }));
    effects.closes.push((MemberId(1), 4000, "bye".into()));
    effects.publishes.push(("room:2".into(), Payload::text("hi")));
    effects.timers.insert("t".into(), Some(Timer { due_ms: 5, durable: true }));
    effects.timers.insert("u".into(), None);
    effects.state.insert("a".into(), Some("1".into()));
    effects.state.insert("b".into(), None);
    effects.appends.push("entry".into());
    effects.replaces.insert(3, "other".into());
    effects.trim_before = Some(2);
    effects
}

/// Law: a recorded channel replays bit for bit, so an account has all that a batch did, in its order, and survives being written.
#[test]
fn an_account_has_everything_in_order_and_survives_being_written() {
    let account = account(&all_kinds());

    let lines: Vec<_> = account.iter().map(ToString::to_string).collect();
    let written = serde_json::to_string(&account).unwrap();

    assert_eq!(
        lines,
        [
            "broadcast to all, high priority: \"0\"",
            "broadcast to all but member 1, low priority, replacing \"k\": \"1\"",
            "broadcast to member 0, 1, 2, 3, 4, 5, 6, 7 and 2 more, high priority: base64 /wA=",
            "broadcast to user ann, high priority: \"3\"",
            "reject as forbidden: \"no\"",
            "respond to request 7 with 200, etag: 1: \"ok\"",
            "close member 1 with 4000 \"bye\"",
            "publish to room:2: \"hi\"",
            "set durable timer \"t\" to 5",
            "cancel timer \"u\"",
            "put \"a\": \"1\"",
            "delete \"b\"",
            "append to the log: \"entry\"",
            "replace log entry 3: \"other\"",
            "trim the log before 2",
        ]
    );
    assert_eq!(serde_json::from_str::<Vec<Entry>>(&written).unwrap(), account, "{written}");
    assert_eq!(account.iter().map(|entry| entry.clone().shortened(0)).collect::<Vec<_>>(), account);
}

/// Goal: whatever is changed in one effect, however small, is a difference that names both.
#[test]
fn every_change_is_a_difference() {
    let old = account(&all_kinds());
    assert_eq!(differences(&old, &old), []);
    let change: [fn(&mut Effects); 8] = [
        |effects| effects.rejects[0].1.code = RefusalCode::Conflict,
        |effects| effects.responses[0].1.headers.clear(),
        |effects| effects.closes[0].1 = 4001,
        |effects| effects.publishes[0].1 = Payload::Binary("hi".into()),
        |effects| effects.timers.extend([("t".into(), Some(Timer { due_ms: 5, durable: false }))]),
        |effects| drop(effects.state.insert("b".into(), Some("".into()))),
        |effects| effects.appends[0] = "entrY".into(),
        |effects| effects.trim_before = None,
    ];
    for (change, index) in change.into_iter().zip(0..) {
        let mut effects = all_kinds();
        change(&mut effects);
        let new = account(&effects);

        let found = differences(&old, &new);

        assert_eq!(found.len(), 1, "change {index}: {found:?}");
        assert!(found[0].old.is_some() && (index == 7 || found[0].new.is_some()), "change {index}: {found:?}");
        assert_ne!(differences(&new, &old), [], "change {index}");
    }
}

#[test]
fn what_is_missing_extra_or_changed_is_told_with_its_event() {
    let old = [frame(0, "a"), frame(1, "b"), frame(1, "same"), frame(2, "c")];
    let new = [frame(0, "a"), frame(1, "same"), frame(2, "d"), frame(3, "e")];

    let told: Vec<_> = differences(&old, &new).iter().map(ToString::to_string).collect();

    assert_eq!(
        told,
        [
            "event 1: missing: broadcast to all: \"b\"",
            "event 2: broadcast to all: old \"c\", new \"d\"",
            "event 3: extra: broadcast to all: \"e\"",
        ]
    );
}

/// Goal: with the batch at hand, people read whose event it was; also of effects that only name a request, or stand alone.
#[test]
fn the_batch_says_what_the_event_was() {
    let identity = Identity::anonymous("acme");
    let message = Event::Message { member: MemberId(1), identity, payload: Payload::text("x") };
    let publish = Event::Publish {
        source: Source::Api("key".into()),
        payload: Payload::text("x"),
        request: Some(RequestId(7)),
        idempotency_key: None,
        hops: 0,
    };
    let respond = |status| Entry::Respond {
        request: RequestId(7),
        status,
        headers: Vec::new(),
        body: Content::Binary(Bytes::new()),
    };
    let told = |events: Vec<Event>, old: Entry, new: Entry| {
        let batch = Batch { now_ms: 1, seed: 1, events };
        differences(&[old], &[new]).remove(0).placed(&batch).told(Some(&batch))
    };
    let put = |value: &'static str| Entry::Put { key: "k".into(), value: Content::Binary(value.into()) };

    assert_eq!(
        told(vec![publish, message.clone()], respond(200), respond(500)),
        "event 0 (publish by key key): old: respond to request 7 with 200: \"\"; new: respond to request 7 with 500: \"\""
    );
    assert_eq!(
        told(vec![message.clone()], put("1"), put("2")),
        "event 0 (message from anonymous): put \"k\": old \"1\", new \"2\""
    );
    assert_eq!(told(vec![message.clone(), message], put("1"), put("2")), "put \"k\": old \"1\", new \"2\"");
}

/// Law: bit for bit. Another order of the same frames is a difference, in small accounts and in those too large for a table.
#[test]
fn another_order_is_a_difference() {
    for count in [2, 3, 1_000, 3_000] {
        let old: Vec<_> = (0..count).map(|event| frame(event, "x")).collect();
        let mut new = old.clone();
        new.reverse();
        assert_ne!(differences(&old, &new), [], "{count}");
        let mut new = old.clone();
        new.rotate_left(1);
        assert_ne!(differences(&old, &new), [], "{count}");
    }
}

/// Goal: a plugin cannot make the comparison expensive: large accounts without anything in common, with long beginnings in common.
#[test]
fn large_accounts_are_compared_in_no_time() {
    let long = |begin: u32, count: u32| -> Vec<Entry> {
        (begin..begin + count).map(|end| frame(0, &format!("{}{end:05}", "x".repeat(5_000)))).collect()
    };
    let (old, new) = (long(0, 1_000), long(10_000, 1_000));
    assert_eq!(differences(&old, &new).len(), 1_000);
    let (old, new) = (long(0, 5_000), long(10_000, 4_000));
    assert_eq!(differences(&old, &new).len(), 5_000);
    let mut mixed = old.clone();
    mixed.truncate(1_000);
    let more: Vec<_> = mixed.iter().flat_map(|entry| [entry.clone(), frame(1, "more")]).take(1_000).collect();
    assert!(differences(&mixed, &more).len() >= 500);
}

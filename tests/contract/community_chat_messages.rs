//! Items 19, 20, 21, 32, 33: messages, their ids, edits and deletions, and what is kept of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::community_chat::{PATH, contents, error_of, id, join, join_with, nothing_waits, say, send, subscribe};
use crate::support::broker::Setup;
use crate::support::client::Client;

/// Subscribes with `since` and returns the payload.
async fn catch_up(client: &mut Client, channel: &str, since: Value) -> Value {
    client.send(json!({"type": "SUBSCRIBE", "channel": channel, "payload": {"since": since}})).await;
    client.until_type("SUBSCRIBED").await["payload"].clone()
}

/// Item 21, decided: a message goes to all, the sender too, with `id, userId, content, clientId, createdAt`; only the sender's
/// copy carries the `correlationId`.
#[tokio::test]
async fn item_21_a_message_reaches_all_with_its_sender() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    alice.until_type("USER_JOINED").await;

    let payload = json!({"content": "hi <b>\"\n🙂", "clientId": "c-1"});
    alice.send(json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": payload, "id": "m-1"})).await;
    let (own, other) = (alice.json().await, bob.json().await);

    assert_eq!((&own["correlationId"], &other["correlationId"]), (&json!("m-1"), &Value::Null));
    assert_eq!(own["payload"], other["payload"]);
    let message = own["payload"].as_object().expect("an object");
    let fields: BTreeSet<&str> = message.keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["id", "userId", "content", "clientId", "createdAt"]));
    assert_eq!(message["content"], "hi <b>\"\n🙂");
    assert_eq!((&message["userId"], &message["clientId"]), (&json!("alice"), &json!("c-1")));
    assert_eq!(message["createdAt"], own["timestamp"]);
}

/// Decided: content has 1 to 4,000 characters, counted as characters and not as bytes.
#[tokio::test]
async fn decided_content_has_one_to_four_thousand_characters() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let chat = |content: String| json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": content}});

    for fits in ["x".to_owned(), "x".repeat(4_000), "🙂".repeat(4_000)] {
        assert_eq!(say(&mut alice, "room:1", &fits).await["payload"]["content"], fits);
    }
    for (bad, code) in
        [(String::new(), "bad_request"), ("x".repeat(4_001), "too_large"), ("🙂".repeat(4_001), "too_large")]
    {
        assert_eq!(error_of(&mut alice, chat(bad)).await["code"], code);
    }
    let mut bob = broker.connect(PATH, "bob").await;
    assert_eq!(subscribe(&mut bob, "room:1").await["payload"]["recent"].as_array().map(Vec::len), Some(3));
}

/// Decided: `id` is unique and ordered in its channel, also when many write at once, and everybody sees the same order.
#[tokio::test]
async fn decided_ids_are_unique_and_everybody_sees_their_order() {
    const WRITERS: usize = 5;
    const EACH: usize = 20;
    let broker = Setup::example().start();
    let mut watcher = join(&broker, "watcher", "room:1").await;
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(join(&broker, &format!("user-{number}"), "room:1").await);
    }
    for number in 0..EACH {
        for writer in &mut writers {
            send(writer, "CHAT_MESSAGE", "room:1", json!({"content": number.to_string()})).await;
        }
    }

    let mut seen: Vec<(u64, String, u64)> = Vec::new();
    while seen.len() < WRITERS * EACH {
        let message = watcher.until_type("CHAT_MESSAGE").await;
        let payload = &message["payload"];
        let number = payload["content"].as_str().and_then(|text| text.parse().ok()).expect("a number");
        seen.push((id(&message), payload["userId"].as_str().expect("a user").to_owned(), number));
    }

    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "ids are not ascending: {seen:?}");
    for writer in 0..WRITERS {
        let user = format!("user-{writer}");
        let own: Vec<u64> = seen.iter().filter(|(_, by, _)| *by == user).map(|(_, _, number)| *number).collect();
        assert!(own.is_sorted_by(|a, b| a < b), "{user}'s messages are out of order: {own:?}");
        assert_eq!(own.len(), EACH);
    }
    let mut late = broker.connect(PATH, "late").await;
    let missed = catch_up(&mut late, "room:1", json!(0)).await;
    let stored: Vec<u64> = missed["missed"].as_array().expect("missed").iter().map(id).collect();
    assert_eq!(stored, seen.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
}

/// Decided (`clientId`): a retry of a message is not stored again; its sender gets the first one, and the others nothing.
#[tokio::test]
async fn decided_a_retry_with_the_same_client_id_is_stored_once() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    alice.until_type("USER_JOINED").await;
    let chat = |id: &str| {
        let payload = json!({"content": "once", "clientId": "c-1"});
        json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": payload, "id": id})
    };

    alice.send(chat("first")).await;
    let first = alice.json().await;
    alice.send(chat("second")).await;
    let second = alice.json().await;
    // The same word of another user is another message.
    bob.send(chat("third")).await;
    let third = bob.until(|message| message["correlationId"] == "third").await;

    assert_eq!(first["payload"], second["payload"]);
    assert_eq!(second["correlationId"], "second");
    assert!(id(&third) > id(&first));
    let mut carol = broker.connect(PATH, "carol").await;
    assert_eq!(subscribe(&mut carol, "room:1").await["payload"]["recent"].as_array().map(Vec::len), Some(2));
}

/// Item 20, decided: messages survive a restart, here the hardest one, with their ids, and ids go on from there.
#[tokio::test]
async fn item_20_messages_survive_kill_and_restart() {
    let mut broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let first = say(&mut alice, "room:1", "before").await;
    let edited = say(&mut alice, "room:1", "draft").await;
    let deleted = say(&mut alice, "room:1", "regretted").await;
    send(&mut alice, "MESSAGE_EDIT", "room:1", json!({"id": edited["payload"]["id"], "content": "final"})).await;
    send(&mut alice, "MESSAGE_DELETE", "room:1", json!({"id": deleted["payload"]["id"]})).await;
    alice.until_type("MESSAGE_DELETE").await;

    broker.kill();
    broker.start();

    let mut alice = broker.connect(PATH, "alice").await;
    let subscribed = subscribe(&mut alice, "room:1").await;
    let recent = &subscribed["payload"]["recent"];
    assert_eq!(contents(recent), ["before", "final"]);
    assert_eq!(recent[0], first["payload"]);
    assert_eq!(subscribed["payload"]["online"], json!(["alice"]), "a ghost of before the crash");
    let next = say(&mut alice, "room:1", "after").await;
    assert!(id(&next) > id(&deleted), "an id was used again");
}

/// Item 32, decided: what a user missed while offline comes with `since`, oldest first, without what was deleted meanwhile.
#[tokio::test]
async fn item_32_missed_messages_come_with_since() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let bob = join(&broker, "bob", "room:1").await;
    let last_seen = say(&mut alice, "room:1", "seen").await;
    bob.close().await;
    for number in 0..3 {
        say(&mut alice, "room:1", &format!("m{number}")).await;
    }
    let deleted = say(&mut alice, "room:1", "gone").await;
    send(&mut alice, "MESSAGE_DELETE", "room:1", json!({"id": deleted["payload"]["id"]})).await;
    alice.until_type("MESSAGE_DELETE").await;

    let mut bob = broker.connect(PATH, "bob").await;
    let text_since = catch_up(&mut bob, "room:1", last_seen["payload"]["id"].clone()).await;
    let number_since = catch_up(&mut bob, "room:1", json!(id(&last_seen))).await;
    let nothing_missed = catch_up(&mut bob, "room:1", deleted["payload"]["id"].clone()).await;

    assert_eq!(contents(&text_since["missed"]), ["m0", "m1", "m2"]);
    assert_eq!(text_since["missed"], number_since["missed"]);
    assert_eq!(nothing_missed["missed"], json!([]));
    assert!(text_since["more"].is_null() && text_since["gap"].is_null(), "{text_since}");
}

/// Item 32: more than fits into one answer is said to be more, and following `next` gives every message once.
#[tokio::test]
async fn item_32_a_long_absence_is_caught_up_in_steps_without_gaps() {
    const MESSAGES: usize = 1_100;
    let rate = "{ per_second = 100000, burst = 100000 }";
    let broker = Setup::example().set("mount.community.limits.rate_per_connection", rate).start();
    let mut alice = join(&broker, "alice", "room:1").await;
    for number in 0..MESSAGES {
        send(&mut alice, "CHAT_MESSAGE", "room:1", json!({"content": number.to_string()})).await;
        if number % 100 == 99 {
            alice.until(|message| message["payload"]["content"] == *number.to_string()).await;
        }
    }

    let mut bob = broker.connect(PATH, "bob").await;
    let (mut since, mut caught) = (json!(0), Vec::new());
    loop {
        let answer = catch_up(&mut bob, "room:1", since).await;
        caught.extend(contents(&answer["missed"]).into_iter().map(|text| text.parse::<usize>().expect("a number")));
        if answer["more"] != true {
            break;
        }
        since = answer["next"].clone();
    }

    assert_eq!(caught, (0..MESSAGES).collect::<Vec<_>>());
}

/// Item 32: what was missed and is no longer kept is said to be a gap, and never passed over in silence.
#[tokio::test]
async fn item_32_what_is_no_longer_kept_is_said_to_be_a_gap() {
    let broker = Setup::example().set("mount.community.limits.log_entries_max", 20).start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let first = say(&mut alice, "room:1", "m0").await;
    for number in 1..30 {
        say(&mut alice, "room:1", &format!("m{number}")).await;
    }

    let mut bob = broker.connect(PATH, "bob").await;
    let with_gap = catch_up(&mut bob, "room:1", first["payload"]["id"].clone()).await;
    let oldest_kept = with_gap["missed"][0]["id"].clone();
    let without = catch_up(&mut bob, "room:1", oldest_kept).await;

    assert_eq!(with_gap["gap"], true, "{with_gap}");
    assert_eq!(contents(&with_gap["missed"]), (10..30).map(|number| format!("m{number}")).collect::<Vec<_>>());
    assert!(without["gap"].is_null(), "{without}");
    assert_eq!(contents(&without["missed"]).len(), 19);
}

/// Items 19 and 33, decided: the author edits; all see `{id, userId, content, editedAt}`, and `recent` shows the new text.
#[tokio::test]
async fn item_19_an_edit_is_broadcast_and_shown_in_recent() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    let message = say(&mut alice, "room:1", "helo").await;
    bob.until_type("CHAT_MESSAGE").await;

    send(&mut alice, "MESSAGE_EDIT", "room:1", json!({"id": message["payload"]["id"], "content": "hello"})).await;
    let edit = bob.json().await;

    assert_eq!(edit["type"], "MESSAGE_EDIT");
    let payload = edit["payload"].as_object().expect("an object");
    let fields: BTreeSet<&str> = payload.keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["id", "userId", "content", "editedAt"]));
    assert_eq!(payload["id"], message["payload"]["id"]);
    assert_eq!((&payload["userId"], &payload["content"]), (&json!("alice"), &json!("hello")));
    assert!(payload["editedAt"].as_u64() >= message["payload"]["createdAt"].as_u64());
    assert_eq!(alice.until_type("MESSAGE_EDIT").await["payload"], edit["payload"]);
    let mut carol = broker.connect(PATH, "carol").await;
    assert_eq!(contents(&subscribe(&mut carol, "room:1").await["payload"]["recent"]), ["hello"]);
}

/// Items 19 and 33, decided: the author deletes; all see `{id, userId, deletedAt}`, and `recent` omits it. What is deleted
/// cannot be edited or deleted again.
#[tokio::test]
async fn item_19_a_deletion_is_broadcast_and_final() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    say(&mut alice, "room:1", "kept").await;
    let message = say(&mut alice, "room:1", "regretted").await;
    bob.until(|frame| frame["payload"]["content"] == "regretted").await;

    send(&mut alice, "MESSAGE_DELETE", "room:1", json!({"id": message["payload"]["id"]})).await;
    let deletion = bob.json().await;

    assert_eq!(deletion["type"], "MESSAGE_DELETE");
    let payload = deletion["payload"].as_object().expect("an object");
    let fields: BTreeSet<&str> = payload.keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["id", "userId", "deletedAt"]));
    assert_eq!((&payload["id"], &payload["userId"]), (&message["payload"]["id"], &json!("alice")));
    for frame in [
        json!({"type": "MESSAGE_EDIT", "channel": "room:1", "payload": {"id": payload["id"], "content": "x"}}),
        json!({"type": "MESSAGE_DELETE", "channel": "room:1", "payload": {"id": payload["id"]}}),
    ] {
        assert_eq!(error_of(&mut alice, frame).await["code"], "not_found");
    }
    let mut carol = broker.connect(PATH, "carol").await;
    assert_eq!(contents(&subscribe(&mut carol, "room:1").await["payload"]["recent"]), ["kept"]);
}

/// Item 19, decided: only the author and the roles `moderator` and `admin` may change a message; nobody else, whatever the
/// claim looks like, and a refusal changes nothing.
#[tokio::test]
async fn item_19_only_author_moderator_and_admin_change_a_message() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let message = say(&mut alice, "room:1", "mine").await;
    let id = message["payload"]["id"].clone();
    let edit =
        |content: &str| json!({"type": "MESSAGE_EDIT", "channel": "room:1", "payload": {"id": id, "content": content}});
    let delete = json!({"type": "MESSAGE_DELETE", "channel": "room:1", "payload": {"id": id}});

    for role in [json!("user"), json!("Admin"), json!("administrator"), json!(["admin"]), json!("")] {
        let mut other = join_with(&broker, "mallory", json!({"role": role, "roles": ["admin"]}), "room:1").await;
        assert_eq!(error_of(&mut other, edit("theirs")).await["code"], "forbidden", "{role}");
        assert_eq!(error_of(&mut other, delete.clone()).await["code"], "forbidden", "{role}");
    }
    let mut moderator = join_with(&broker, "mod", json!({"role": "moderator"}), "room:1").await;
    moderator.send(edit("moderated")).await;
    let edited = moderator.until_type("MESSAGE_EDIT").await;
    let mut admin = join_with(&broker, "root", json!({"role": "admin"}), "room:1").await;
    admin.send(delete.clone()).await;
    let deleted = admin.until_type("MESSAGE_DELETE").await;

    assert_eq!(edited["payload"]["content"], "moderated");
    assert_eq!(edited["payload"]["userId"], "alice", "the author stays the author");
    assert_eq!(edited["userId"], "mod", "the envelope says who did it");
    assert_eq!((&deleted["payload"]["userId"], &deleted["userId"]), (&json!("alice"), &json!("root")));
}

/// Decided: edits and deletions work for any stored message, not only recent ones, also after the channel was restarted.
#[tokio::test]
async fn decided_old_messages_can_be_edited_and_deleted() {
    let mut broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let old = say(&mut alice, "room:1", "old").await;
    let older = say(&mut alice, "room:1", "to be deleted").await;
    for number in 0..60 {
        say(&mut alice, "room:1", &number.to_string()).await;
    }
    broker.kill();
    broker.start();
    let mut alice = join(&broker, "alice", "room:1").await;

    send(&mut alice, "MESSAGE_EDIT", "room:1", json!({"id": old["payload"]["id"], "content": "old, edited"})).await;
    alice.until_type("MESSAGE_EDIT").await;
    send(&mut alice, "MESSAGE_DELETE", "room:1", json!({"id": older["payload"]["id"]})).await;
    alice.until_type("MESSAGE_DELETE").await;

    let mut bob = broker.connect(PATH, "bob").await;
    let missed = catch_up(&mut bob, "room:1", json!(0)).await;
    assert_eq!(contents(&missed["missed"])[..2], ["old, edited", "0"]);
}

/// Items 10 and 19: somebody who is not in the channel changes nothing in it, and ids of one channel say nothing in another.
#[tokio::test]
async fn item_19_a_message_is_changed_in_its_own_channel_only() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let message = say(&mut alice, "room:1", "here").await;
    let mut elsewhere = join_with(&broker, "mod", json!({"role": "admin"}), "room:2").await;
    let id = &message["payload"]["id"];

    let not_in = json!({"type": "MESSAGE_DELETE", "channel": "room:1", "payload": {"id": id}});
    let not_there = json!({"type": "MESSAGE_DELETE", "channel": "room:2", "payload": {"id": id}});

    assert_eq!(error_of(&mut elsewhere, not_in).await["code"], "not_subscribed");
    assert_eq!(error_of(&mut elsewhere, not_there).await["code"], "not_found");
    nothing_waits(&mut alice, "room:1").await;
}

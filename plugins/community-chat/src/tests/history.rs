//! What a newcomer and a returning member are shown.

use serde_json::{Value, json};

use super::{Room, frames, only, recent, room_with, say, send};
use crate::saved;

fn contents(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["content"].as_str().unwrap()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn missed(room: &mut Room, id: u64, since: &Value) -> Value {
    let outcome = send(room, id, json!({"type": "SUBSCRIBE", "payload": {"since": since}}));
    only(&outcome, id)["payload"].clone()
}

#[test]
fn recent_is_the_last_50_as_they_stand_now() {
    for upset in [|_: &mut Room| {}, Room::sleep, Room::crash] {
        let (mut room, [ann]) = room_with(["ann"]);
        for number in 0..120 {
            say(&mut room, ann, &number.to_string());
        }
        upset(&mut room);
        assert_eq!(contents(&recent(&mut room, ann)), numbers(70..120));
        send(&mut room, ann, json!({"type": "MESSAGE_EDIT", "payload": {"id": 101, "content": "edited"}}));
        for id in [111, 115, 3] {
            send(&mut room, ann, json!({"type": "MESSAGE_DELETE", "payload": {"id": id}}));
        }
        upset(&mut room);
        let shown = recent(&mut room, ann);
        let mut expected = numbers(68..120);
        expected[100 - 68] = "edited".to_owned();
        expected.retain(|content| content != "110" && content != "114");
        assert_eq!(contents(&shown), expected);
        assert_eq!(shown[32]["editedAt"], room.now_ms());
        assert_eq!(shown[32]["id"], "101");
    }
}

#[test]
fn recent_is_found_behind_many_deleted_messages() {
    let (mut room, [ann]) = room_with(["ann"]);
    for number in 0..400 {
        say(&mut room, ann, &number.to_string());
    }
    for id in 101..=400 {
        send(&mut room, ann, json!({"type": "MESSAGE_DELETE", "payload": {"id": id}}));
    }
    assert_eq!(contents(&recent(&mut room, ann)), numbers(50..100));
    room.crash();
    assert_eq!(contents(&recent(&mut room, ann)), numbers(50..100));
}

#[test]
fn recent_and_missed_have_a_bound_in_bytes() {
    let (mut room, [ann]) = room_with(["ann"]);
    let long = "\u{1F600}".repeat(4_000);
    for _ in 0..60 {
        say(&mut room, ann, &long);
    }
    let warm = recent(&mut room, ann).len();
    room.crash();
    assert_eq!(recent(&mut room, ann).len(), warm);
    assert_eq!(warm, (256 << 10) / (16_000 + 53));
    let mut since = json!(0);
    let mut seen = 0;
    loop {
        let answer = missed(&mut room, ann, &since);
        seen += answer["missed"].as_array().unwrap().len();
        assert!(answer.to_string().len() < (600 << 10));
        match answer.get("next") {
            Some(next) => since = next.clone(),
            None => break,
        }
    }
    assert_eq!(seen, 60);
}

#[test]
fn missed_has_everything_since_without_deleted_messages() {
    let (mut room, [ann]) = room_with(["ann"]);
    for number in 1..=10 {
        say(&mut room, ann, &number.to_string());
    }
    send(&mut room, ann, json!({"type": "MESSAGE_EDIT", "payload": {"id": 8, "content": "8!"}}));
    send(&mut room, ann, json!({"type": "MESSAGE_DELETE", "payload": {"id": 9}}));
    for since in [json!(6), json!("6")] {
        let answer = missed(&mut room, ann, &since);
        assert_eq!(contents(answer["missed"].as_array().unwrap()), ["7", "8!", "10"]);
        assert_eq!((answer.get("more"), answer.get("gap")), (None, None));
    }
    for since in [json!(10), json!(11), json!(u64::MAX)] {
        assert_eq!(missed(&mut room, ann, &since)["missed"], json!([]));
    }
    assert_eq!(missed(&mut room, ann, &json!(null)).get("missed"), None);
}

#[test]
fn missed_goes_on_page_by_page_past_any_number_of_deleted_messages() {
    let (mut room, [ann]) = room_with(["ann"]);
    for number in 1..=3_300 {
        say(&mut room, ann, &number.to_string());
    }
    for id in 601..=3_100 {
        send(&mut room, ann, json!({"type": "MESSAGE_DELETE", "payload": {"id": id}}));
    }
    let mut since = json!(0);
    let mut pages = Vec::new();
    let mut seen = Vec::new();
    while pages.len() < 10 {
        let answer = missed(&mut room, ann, &since);
        let page = answer["missed"].as_array().unwrap();
        pages.push(page.len());
        seen.extend(page.iter().map(|message| message["id"].as_str().unwrap().parse::<u64>().unwrap()));
        if answer.get("more").is_none() {
            break;
        }
        since = answer["next"].clone();
    }
    assert_eq!(pages, [500, 100, 200]);
    assert_eq!(seen, (1..=600).chain(3_101..=3_300).collect::<Vec<u64>>());
}

#[test]
fn sleep_and_crash_change_nothing_that_anybody_sees() {
    let mut transcripts = Vec::new();
    for upset in [|_: &mut Room| {}, Room::sleep, Room::crash] {
        let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
        let mut transcript = Vec::new();
        for turn in 0..300_u64 {
            let who = if turn % 3 == 0 { ann } else { bob };
            let payload = match turn % 7 {
                0 => json!({"type": "MESSAGE_EDIT", "payload": {"id": turn / 3, "content": "e"}}),
                1 => json!({"type": "MESSAGE_DELETE", "payload": {"id": turn / 2}}),
                2 => json!({"type": "SUBSCRIBE", "payload": {"since": turn / 4}}),
                _ => {
                    json!({"type": "CHAT_MESSAGE", "id": turn, "payload": {"content": turn.to_string(), "clientId": (turn / 5).to_string()}})
                }
            };
            let outcome = send(&mut room, who, payload);
            let mut seen: Vec<Value> = frames(&outcome, ann);
            seen.extend(frames(&outcome, bob));
            // After a crash a second SUBSCRIBE cannot be told from a first one.
            seen.retain(|frame| frame["type"] != "USER_JOINED");
            transcript.push(seen);
            if turn % 11 == 0 {
                upset(&mut room);
            }
        }
        transcripts.push((transcript, room.log()));
    }
    assert_eq!(transcripts[0], transcripts[1]);
    assert_eq!(transcripts[0], transcripts[2]);
}

#[test]
fn corrupt_saved_memory_is_ignored() {
    let (mut room, [ann]) = room_with(["ann"]);
    send(&mut room, ann, json!({"type": "CHAT_MESSAGE", "payload": {"content": "x", "clientId": "c"}}));
    send(&mut room, ann, json!({"type": "TYPING", "payload": {"isTyping": true}}));
    room.sleep();
    let whole = room.saved().unwrap().to_vec();
    assert!(saved::read(&whole).is_some());
    for length in 0..whole.len() {
        assert_eq!(saved::read(&whole[..length]), None, "cut at {length}");
    }
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0xFF;
        // Must not panic, whatever it makes of it.
        _ = saved::read(&bent);
    }
}

//! The harness keeps the rules of the broker.

use super::{EFFECTS_MAX, Effect, Harness};
use crate::{
    Audience, Channel, ChannelInfo, Delivery, Event, HttpRequest, HttpResponse, Identity, Joined, LeaveReason, Left,
    Message, Order, Payload, Plugin, Publication, Refusal, RefusalCode, Routing, Sender, TimerKeep,
};

/// A plugin whose messages say what to do.
struct Puppet {
    heard: u32,
    saved: Option<String>,
    before: Vec<(u64, String)>,
}

impl Plugin for Puppet {
    fn open(_: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        if channel.kv().get("broken").is_some() {
            return Err("broken".to_owned());
        }
        let saved = saved.map(|saved| String::from_utf8_lossy(saved).into_owned());
        Ok(Self { heard: 0, saved, before: Vec::new() })
    }

    fn on_start(&mut self, channel: &mut Channel) {
        self.before = channel.members_before_batch();
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        channel.broadcast(format!("+{}", joined.identity.user));
        Ok(())
    }

    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        channel.broadcast(format!("-{}", left.user));
        channel.send(left.member, "bye");
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        self.heard += 1;
        let text = message.payload.text().unwrap_or_default().to_owned();
        let (command, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match command {
            "put" => {
                channel.kv().put("key", rest.as_bytes());
                channel.log().append(rest.as_bytes());
                channel.broadcast("put");
            }
            "get" => {
                let value = channel.kv().get("key").unwrap_or_default();
                channel.broadcast(format!("got {} {}", String::from_utf8_lossy(&value), channel.log().bounds().next));
            }
            "mix" => {
                let log = channel.log();
                log.append(b"three");
                log.replace(1, b"ONE");
                log.trim(2);
                channel.kv().delete("key");
                channel.cancel_timer("old");
                channel.set_timer("new", 1, TimerKeep::Durable);
                assert!(rest.is_empty(), "mixed and failed");
            }
            "panic" => panic!("told to"),
            "refuse" => return Err(Refusal::forbidden("no")),
            "heard" => channel.broadcast(format!("heard {} {:?}", self.heard, self.saved)),
            "before" => channel.broadcast(format!("{:?}", self.before)),
            "long-key" => channel.kv().put(&"k".repeat(513), b""),
            "flood" => (0..=EFFECTS_MAX).for_each(|_| channel.broadcast("")),
            "timer" => channel.set_timer(rest, 1_000, TimerKeep::Durable),
            "volatile" => channel.set_timer(rest, 1_000, TimerKeep::Volatile),
            "close" => channel.close(message.member, 4000, "told to"),
            "now" => channel.broadcast(format!("{}", channel.now_ms())),
            "audiences" => {
                channel.emit(&Audience::All, "all", &Delivery::NORMAL);
                channel.emit(&Audience::Except(message.member), "except", &Delivery::NORMAL);
                channel.emit(&Audience::Only(vec![message.member, 99]), "only", &Delivery::NORMAL);
                channel.to_user("bob", "user");
                channel.forward(&Audience::All, &Delivery::HIGH);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_timer(&mut self, channel: &mut Channel, name: &str) {
        channel.broadcast(format!("timer {name} {}", channel.now_ms() % 100_000));
    }

    fn on_publish(&mut self, channel: &mut Channel, _: Publication) -> Result<(), Refusal> {
        channel.publish("other", "on");
        Err(Refusal::conflict("old"))
    }

    fn on_request(&mut self, _: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        (request.path != "/late").then(|| HttpResponse::json(200, request.path))
    }

    fn save(&mut self) -> Vec<u8> {
        self.heard.to_string().into()
    }

    fn route(_: &Sender, frame: Payload) -> Routing {
        match frame.text() {
            Some("join") => Routing::Join("room:1".to_owned()),
            Some("leave") => Routing::Leave("room:1".to_owned()),
            Some("reply") => Routing::Reply("hello".into()),
            Some("elsewhere") => Routing::Join("room:2".to_owned()),
            Some("refuse") => Routing::Refuse(Refusal::bad_request("no")),
            _ => Routing::Deliver("room:1".to_owned()),
        }
    }

    fn refused(to: &Sender, _: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        Some(format!("{} refused {}", to.identity.user, format!("{:?}", why.code).replace("RefusalCode::", "")).into())
    }
}

fn room() -> Harness<Puppet> {
    Harness::new("room:1")
}

#[test]
fn later_events_of_a_batch_see_its_writes() {
    let mut room = room();
    let ann = room.join("ann");
    let batch = vec![room.sent(ann, "put x"), room.sent(ann, "get")];

    assert_eq!(room.batch(batch).texts(ann), ["put", "got x 2"]);
}

#[test]
fn a_panic_leaves_no_trace_and_only_the_event_at_fault_is_refused() {
    let mut room = room();
    let ann = room.join("ann");
    let batch = vec![room.sent(ann, "put a"), room.sent(ann, "panic"), room.sent(ann, "get"), room.sent(ann, "heard")];

    let outcome = room.batch(batch);

    // The instance that failed is gone, so the one after it has heard two messages only.
    assert_eq!(outcome.texts(ann), ["put", "ann refused Fault", "got a 2", "heard 2 None"]);
    assert_eq!(outcome.faults, ["told to", "told to"]);
    assert_eq!(room.log(), [(1, b"a".to_vec())]);
}

#[test]
fn a_panic_undoes_every_kind_of_write() {
    let mut room = room();
    let ann = room.join("ann");
    for text in ["put one", "put two", "timer old"] {
        room.message(ann, text);
    }
    let before = (room.log(), room.kv(), room.timers());

    let failed = room.message(ann, "mix fail");

    assert_eq!(failed.refusals.len(), 1);
    assert_eq!((room.log(), room.kv(), room.timers()), before);
    assert!(room.message(ann, "mix").faults.is_empty());
    assert_eq!(room.log(), [(2, b"two".to_vec()), (3, b"three".to_vec())]);
    assert!(room.kv().is_empty());
    assert_eq!(room.timers().len(), 1);
}

#[test]
fn breaking_a_limit_of_the_host_traps() {
    let mut room = room();
    let ann = room.join("ann");
    for text in ["long-key", "flood"] {
        let outcome = room.message(ann, text);
        assert_eq!(outcome.texts(ann), ["ann refused Fault"], "{text}");
        assert_eq!(outcome.faults.len(), 1, "{text}");
    }
}

#[test]
fn frames_go_to_those_present_at_the_event_that_caused_them() {
    let mut room = room();
    let ann = room.join("ann");
    let bob = room.connect("bob");
    let batch = vec![
        room.sent(ann, "now"),
        room.joined(bob, None),
        room.sent(bob, "audiences"),
        room.left(ann, LeaveReason::Disconnected, None),
        room.sent(bob, "now"),
    ];

    let outcome = room.batch(batch);

    let now = room.now_ms().to_string();
    assert_eq!(outcome.texts(ann), [&now, "+bob", "all", "except", "audiences", "bye"]);
    assert_eq!(outcome.texts(bob), ["+bob", "all", "only", "user", "audiences", "-ann", &now]);
}

#[test]
fn members_before_the_batch_are_those_without_its_joins_and_with_its_leaves() {
    let mut room = room();
    let (ann, bob) = (room.join("ann"), room.join("bob"));
    let cleo = room.connect("cleo");
    room.crash();
    let batch =
        vec![room.joined(cleo, None), room.left(ann, LeaveReason::Disconnected, None), room.sent(bob, "before")];

    let outcome = room.batch(batch);

    assert_eq!(outcome.texts(bob).last().map(String::as_str), Some(r#"[(1, "ann"), (2, "bob")]"#));
}

#[test]
fn sleep_hands_memory_over_and_a_crash_does_not() {
    let mut room = room();
    let ann = room.join("ann");
    room.message(ann, "heard");
    room.sleep();
    assert_eq!(room.saved(), Some(&b"1"[..]));
    assert_eq!(room.message(ann, "heard").texts(ann), [r#"heard 1 Some("1")"#]);
    room.sleep();
    room.crash();
    assert_eq!(room.message(ann, "heard").texts(ann), ["heard 1 None"]);
}

#[test]
fn timers_fire_at_their_time_and_a_restart_forgets_volatile_ones() {
    let mut room = room();
    let ann = room.join("ann");
    room.message(ann, "timer a");
    room.message(ann, "volatile b");
    assert_eq!(room.advance_ms(999).texts(ann), [""; 0]);
    assert_eq!(room.advance_ms(5_000).texts(ann), ["timer a 1000", "timer b 1000"]);

    room.message(ann, "timer a");
    room.message(ann, "volatile b");
    room.crash();
    assert_eq!(room.advance_ms(1_000).texts(ann).len(), 2);

    room.message(ann, "timer a");
    room.message(ann, "volatile b");
    room.restart();
    let fired = room.advance_ms(1_000).effects;
    assert_eq!(fired.len(), 1, "{fired:?}");
}

#[test]
fn a_closed_member_leaves_by_an_event() {
    let mut room = room();
    let (ann, bob) = (room.join("ann"), room.join("bob"));
    let outcome = room.message(bob, "close");
    assert_eq!(outcome.closed, [(bob, 4000, "told to".to_owned())]);
    assert_eq!(outcome.texts(ann), ["-bob"]);
    assert_eq!(room.members(), [ann]);
}

#[test]
fn routing_joins_leaves_replies_and_refuses() {
    let mut room = room();
    let ann = room.connect("ann");
    assert_eq!(room.frame(ann, "get").texts(ann), ["ann refused NotJoined"]);
    assert_eq!(room.frame(ann, "reply").texts(ann), ["hello"]);
    assert_eq!(room.frame(ann, "refuse").texts(ann), ["ann refused BadRequest"]);
    assert_eq!(room.frame(ann, "elsewhere").routed_elsewhere.as_deref(), Some("room:2"));
    assert_eq!(room.frame(ann, "join").texts(ann), ["+ann"]);
    assert_eq!(room.frame(ann, "note").refusals, []);
    assert_eq!(room.frame(ann, "leave").texts(ann), ["bye"]);
    assert!(room.members().is_empty());
}

#[test]
fn publications_and_requests_are_answered() {
    let mut room = room();
    let outcome = room.publish("x");
    assert_eq!(outcome.refusals.first().map(|why| why.code), Some(RefusalCode::Conflict));
    assert!(outcome.effects.contains(&Effect::Publish { channel: "other".to_owned(), what: "on".into() }));
    assert_eq!(room.request("GET", "/x").responses().len(), 1);
    assert_eq!(room.request("GET", "/late").responses().len(), 0);
}

#[test]
fn statements_are_answered_as_the_test_says() {
    use crate::host::Host;
    use crate::{Rows, SqlError, SqlValue};
    let mut room = room();
    assert_eq!(room.host.query("owners", &[]), Err(SqlError::NotGranted));
    room.set_database(|statement, parameters| {
        assert_eq!((statement, parameters), ("owners", &[SqlValue::Integer(1)][..]));
        Ok(Rows { columns: vec!["id".to_owned()], rows: vec![vec![SqlValue::Null]] })
    });
    let rows = room.host.query("owners", &[SqlValue::Integer(1)]);
    assert_eq!(rows.map(|rows| rows.rows), Ok(vec![vec![SqlValue::Null]]));
}

#[test]
fn an_error_from_open_refuses_the_events() {
    let mut room = room();
    let ann = room.join("ann");
    room.batch(vec![Event::Timer("x".to_owned())]);
    room.host.0.borrow_mut().kv.insert("broken".to_owned(), Vec::new());
    room.crash();
    let outcome = room.message(ann, "now");
    assert_eq!(outcome.texts(ann), ["ann refused Fault"]);
    assert_eq!(outcome.faults, ["open: broken"]);
}

#[test]
fn a_scan_is_ordered_and_bounded() {
    use crate::host::Host;
    let room = room();
    for key in ["b/1", "a/2", "a/1", "a/10"] {
        room.host.kv_put(key, b"");
    }
    let keys = |order, limit| room.host.kv_scan("a/", order, limit).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(Order::Ascending, 10), ["a/1", "a/10", "a/2"]);
    assert_eq!(keys(Order::Descending, 2), ["a/2", "a/10"]);
}

#[test]
fn identities_reach_the_plugin_as_given() {
    let mut room = room();
    let admin = Identity { role: "admin".to_owned(), ..Identity::of("root") };
    let root = room.connect_as(admin.clone());
    room.join_connection(root);
    assert_eq!(room.host.0.borrow().members.get(&root), Some(&admin));
}

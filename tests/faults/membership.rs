//! How memberships begin and end: a join that is refused, one that faults, one that makes no event; and that nobody is ever half
//! a member.

use futures_util::FutureExt;

use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};

/// A mount on which frames say which channel they are for, with these limits.
fn routed(limits: &str) -> Setup {
    Setup::fixture_mount(&format!("route = true\nchannels = [\"fixture:*\"]\n[mount.fixture.limits]\n{limits}"))
}

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// A member of `fixture:a` on a routed mount.
async fn member(broker: &Broker, user: &str) -> Client {
    let mut client = broker.connect("/ws", user).await;
    client.send_text("@join fixture:a x").await;
    assert_eq!(ask(&mut client, "@deliver fixture:a echo joined").await, "joined");
    client
}

/// Asks for the members until they are as expected.
async fn until_members(client: &mut Client, command: &str, fits: impl Fn(&str) -> bool) -> String {
    let watch = async {
        loop {
            let members = ask(client, command).await;
            assert!(members.starts_with("members "), "{members}");
            if fits(&members) {
                return members;
            }
        }
    };
    tokio::time::timeout(DEADLINE, watch).await.expect("the members in time")
}

/// Law: a plugin may reject a join and close that very member in one batch: it is told why, and then closed with the plugin's
/// code.
#[tokio::test]
async fn a_rejected_join_may_be_closed_as_well() {
    let broker = Setup::fixture("").start();
    let mut hated = broker.connect("/ws?channel=a", "hated").await;

    assert_eq!(hated.text().await, "refused forbidden: not you");
    let close = hated.next_or_close().await.expect_err("a close").expect("with a code");

    assert_eq!((u16::from(close.code), close.reason.as_str()), (4000, "and never come back"));
}

/// Law: a member whose joins fault three times in a row is closed with 1011 like any other, though each refusal ends what it has
/// of a membership.
#[tokio::test]
async fn three_faulting_joins_in_a_row_close_the_connection() {
    let broker = routed("").start();
    let mut ann = member(&broker, "ann").await;
    let mut bad = broker.connect("/ws", "trapping").await;

    for turn in 1..=3 {
        let told = ask(&mut bad, "@join fixture:a x").await;
        assert!(told.starts_with("refused fault:"), "join {turn}: {told}");
    }

    assert_eq!(bad.close_code().await, Some(1011));
    assert_eq!(ask(&mut ann, "@deliver fixture:a echo on").await, "on");
    assert_eq!(broker.metric("hotbay_channel_quarantines_total").await, 0.0);
}

/// Law: a join that is sent right behind one that is rejected is refused, too, whether it waits with that one or behind it. Then
/// the connection is what it was: no member, which may become one.
#[tokio::test]
async fn a_join_behind_a_rejected_one_makes_no_half_member() {
    for batch_events_max in [256, 1] {
        let broker = routed(&format!("cpu_ms_max = 2000\nbatch_events_max = {batch_events_max}")).start();
        let mut ann = member(&broker, "ann").await;
        let mut fickle = broker.connect("/ws", "fickle").await;
        // While the plugin is busy, both joins gather in the mailbox.
        ann.send_text("@deliver fixture:a loop").await;
        assert_eq!(ask(&mut ann, "@reply busy").await, "ann busy");
        for _ in 0..2 {
            fickle.send_text("@join fixture:a x").await;
        }
        assert_eq!(ask(&mut fickle, "@reply sent").await, "fickle sent");
        assert!(ann.next().now_or_never().is_none(), "the plugin was not busy for as long as that");

        assert!(ann.text().await.starts_with("refused fault:"));
        assert_eq!(fickle.text().await, "refused forbidden: not you");
        let second = fickle.text().await;
        assert_eq!(second, "refused unavailable: an earlier join was refused; join again", "{batch_events_max}");
        assert_eq!(ask(&mut ann, "@deliver fixture:a hello").await, "@deliver fixture:a hello");
        let no_member = ask(&mut fickle, "@deliver fixture:a echo lost").await;
        assert!(no_member.starts_with("refused not-joined:"), "{no_member}");

        fickle.send_text("@join fixture:a x").await;
        assert_eq!(ask(&mut fickle, "@deliver fixture:a echo joined").await, "joined");
        assert_eq!(ask(&mut ann, "@deliver fixture:a hello").await, "@deliver fixture:a hello");
        assert_eq!(fickle.text().await, "@deliver fixture:a hello");
        fickle.close().await;
        until_members(&mut ann, "@deliver fixture:a members", |members| !members.contains("fickle#")).await;
    }
}

/// Law: a client that joins, leaves and joins again in one breath is a member in the end, for the host as for the plugin.
#[tokio::test]
async fn a_join_behind_a_leave_holds() {
    let broker = routed("cpu_ms_max = 2000").start();
    let mut ann = member(&broker, "ann").await;
    let mut bob = broker.connect("/ws", "bob").await;
    // While the plugin is busy, all of it gathers in the mailbox.
    ann.send_text("@deliver fixture:a loop").await;
    assert_eq!(ask(&mut ann, "@reply busy").await, "ann busy");
    for frame in ["@join fixture:a x", "@leave fixture:a x", "@join fixture:a x"] {
        bob.send_text(frame).await;
    }
    assert_eq!(ask(&mut bob, "@reply sent").await, "bob sent");
    assert!(ann.next().now_or_never().is_none(), "the plugin was not busy for as long as that");

    assert!(ann.text().await.starts_with("refused fault:"));
    assert_eq!(ask(&mut bob, "@deliver fixture:a echo joined").await, "joined");
    assert_eq!(ask(&mut ann, "@deliver fixture:a hello").await, "@deliver fixture:a hello");
    assert_eq!(bob.text().await, "@deliver fixture:a hello");
    bob.close().await;
    until_members(&mut ann, "@deliver fixture:a members", |members| !members.contains("bob#")).await;
}

/// Law: whoever joins quietly is in the member list of a channel that is awake, and out of it again, without an event.
#[tokio::test]
async fn quiet_members_come_and_go_without_an_event() {
    let lines = "channel = \"fixture:{query.channel}\"\nauto_join = [\"fixture:lobby\"]\nchannels = [\"fixture:*\"]";
    let broker = Setup::fixture_mount(lines).start();
    let mut ann = broker.connect("/ws?channel=lobby", "ann").await;
    assert_eq!(ask(&mut ann, "verbose").await, "ok");

    let mut bob = broker.connect("/ws?channel=other", "bob").await;
    until_members(&mut ann, "members", |members| members.contains("bob#")).await;
    assert_eq!(ask(&mut ann, "hello").await, "hello");
    assert_eq!(bob.text().await, "hello");
    bob.close().await;
    until_members(&mut ann, "members", |members| !members.contains("bob#")).await;

    // Events were: each message, ann's join, and bob's join and leave elsewhere.
    let count: u32 = ask(&mut ann, "count").await.strip_prefix("count ").and_then(|n| n.parse().ok()).expect("a count");
    broker.until_metric_is("hotbay_batch_events_sum", f64::from(count) + 3.0).await;
}

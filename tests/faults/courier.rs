//! Publications from channel to channel: in order, none lost, also when the broker is told to end.

use futures_util::future::join_all;

use crate::support::broker::Setup;
use crate::support::client::Client;

const SENDERS: usize = 3;
const EACH: usize = 300;

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// Law: what channels published, and were told so, is delivered in the order of each sender and committed, also if the broker is
/// told to end right then and the channel they published to takes only a few at a time.
#[tokio::test]
async fn publications_arrive_in_order_and_before_the_end() {
    let limits = "[mount.fixture.limits]\nmailbox_events_max = 8\nbatch_events_max = 8";
    let mut broker = Setup::fixture(&format!("channels = [\"fixture:*\"]\n{limits}")).start();
    let mut senders = Vec::new();
    for number in 0..SENDERS {
        let mut sender = broker.connect(&format!("/ws?channel=s{number}"), "ann").await;
        assert_eq!(ask(&mut sender, "echo joined").await, "joined");
        senders.push(sender);
    }

    let command = format!("publish-many fixture:log {EACH}");
    let published = join_all(senders.iter_mut().map(|sender| ask(sender, &command))).await;
    assert_eq!(broker.terminate().await, Some(0), "{}", broker.log());

    assert!(published.iter().all(|answer| *answer == format!("published {EACH}")), "{published:?}");
    broker.start();
    let mut reader = broker.connect("/ws?channel=log", "reader").await;
    let entries = ask(&mut reader, "read 1 1000").await;
    let entries: Vec<&str> = entries.split(' ').filter_map(|entry| Some(entry.split_once('=')?.1)).collect();
    assert_eq!(entries.len(), SENDERS * EACH);
    for number in 0..SENDERS {
        let name = format!("fixture:s{number}/");
        let turns: Vec<usize> = entries.iter().filter_map(|entry| entry.strip_prefix(&name)?.parse().ok()).collect();
        assert_eq!(turns, (0..EACH).collect::<Vec<_>>(), "from {name}");
    }
}

//! The last word before the host closes a connection is the plugin's: it comes before the close frame, whatever the reason is.

use crate::support::broker::{Setup, token};
use crate::support::client::Client;
use serde_json::json;

/// What the fixture says to this user, and then the code.
async fn farewell(client: &mut Client) -> (String, Option<u16>) {
    let word = client.text().await;
    (word, client.close_code().await)
}

#[tokio::test]
async fn the_plugin_has_the_last_word() {
    let lines = "on_excess = \"evict\"\n[mount.fixture.limits]\nconnections_per_user_max = 1\nrate_per_connection = { per_second = 1, burst = 1 }\nrate_excess_per_minute_max = 0";
    let mut broker = Setup::fixture(lines).start();

    let mut first = broker.connect("/ws?channel=a", "farewell").await;
    let mut second = broker.connect("/ws?channel=a", "farewell").await;
    let said = |reason: &str| format!("refused closing: {reason}");
    assert_eq!(farewell(&mut first).await, (said("replaced by a newer connection"), Some(4501)));

    second.send_text("echo 1").await;
    assert_eq!(second.text().await, "1");
    second.send_text("echo 2").await;
    assert_eq!(farewell(&mut second).await, (said("Rate limit exceeded"), Some(1008)));

    let short = token("farewell", json!({}), -4); // Within the leeway, for a second.
    let mut third = broker.connect_with("/ws?channel=a", &short).await;
    assert_eq!(farewell(&mut third).await, (said("token expired"), Some(4401)));

    let mut fourth = broker.connect("/ws?channel=a", "farewell").await;
    fourth.send_text("echo 3").await;
    assert_eq!(fourth.text().await, "3");
    let stop = tokio::spawn(async move { broker.terminate().await });
    assert_eq!(farewell(&mut fourth).await, (said("shutting down, reconnect"), Some(1012)));
    fourth.close().await;
    assert_eq!(stop.await.expect("an end"), Some(0));
}

/// Law (FAULTS 14): a token that has expired ends its connection, also while the channel takes nothing and the client waits for room.
#[tokio::test]
async fn an_expired_token_ends_a_connection_that_waits_for_its_channel() {
    let lines = "[mount.fixture.limits]\nmailbox_events_max = 1\nbatch_events_max = 1\ncpu_ms_max = 15000";
    let broker = Setup::fixture(lines).start();
    let mut busy = broker.connect("/ws?channel=a", "bob").await;
    let short = token("ann", json!({}), -3); // Within the leeway, for two seconds.
    let mut ann = broker.connect_with("/ws?channel=a", &short).await;
    ann.send_text("echo 1").await;
    assert_eq!(ann.text().await, "1");

    busy.send_text("loop").await;
    broker.until_metric("hotbay_channels_awake", 1.0).await;
    for _ in 0..5 {
        ann.send_text("echo 2").await;
    }

    assert_eq!(ann.close_code().await, Some(4401));
    assert!(broker.metric("hotbay_plugin_faults_total").await < 0.5, "the loop goes on, so the channel took nothing");
}

/// Law (FAULTS 6): garbage in valid frames is answered, and after so much of it the connection is closed; others are not.
#[tokio::test]
async fn too_many_bad_messages_close_their_connection() {
    let broker = Setup::fixture("[mount.fixture.limits]\nbad_messages_per_minute_max = 3").start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    let mut bob = broker.connect("/ws?channel=a", "bob").await;
    for _ in 0..3 {
        ann.send_text("timer a soon").await;
        assert!(ann.text().await.starts_with("refused"), "an answer");
    }
    ann.send_text("echo 1").await;
    assert_eq!(ann.text().await, "1");

    // Another minute may have begun meanwhile, so several.
    ann.flood_text("timer a soon", 8).await;

    assert_eq!(ann.closed().await, Some((1008, "too many bad messages".to_owned())));
    bob.send_text("echo 2").await;
    assert_eq!(bob.text().await, "2");
}

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

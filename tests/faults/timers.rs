//! Timers of sleeping channels: each is woken in time, whatever else is due.

use crate::store::{database, execute};
use crate::support::broker::Setup;

/// Law: timers of channels that no mount serves any more, more than are read at once, and a channel whose name is damaged keep
/// nobody else asleep. They are told once.
#[tokio::test]
async fn timers_that_nobody_serves_hide_no_others() {
    let mut broker = Setup::fixture("").start();
    let mut client = broker.connect("/ws?channel=a", "ann").await;
    client.send_text("append-on-timer late 86400000").await;
    assert_eq!(client.text().await, "ok");
    broker.kill();
    let mut other = database(&broker).await;
    for sql in [
        "UPDATE timer SET due_ms = 2",
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500) \
         INSERT INTO channel (tenant, name, epoch, owner, acquired_ms) SELECT 'default', 'removed:' || n, 1, 'test', 0 FROM n",
        "INSERT INTO timer (channel, name, due_ms) SELECT id, 'timer', 1 FROM channel WHERE name LIKE 'removed:%'",
        "UPDATE channel SET name = 'not a name' WHERE name = 'removed:7'",
    ] {
        execute(&mut other, sql).await;
    }

    broker.start();
    broker.until_metric("hotbay_batches_total", 1.0).await;

    let mut client = broker.connect("/ws?channel=a", "ann").await;
    client.send_text("read 1 10").await;
    let entries = client.text().await;
    assert!(entries.contains("1=") && entries.contains("late"), "{entries}");
    broker.until_metric("hotbay_timers_skipped_total", 2.0).await;
    let log = broker.until_log("names in the database are damaged").await;
    assert_eq!(log.matches("that no mount serves").count(), 1, "{log}");
    assert_eq!(log.matches("names in the database are damaged").count(), 1, "{log}");
}

/// Law: a volatile timer outlives an instance that traps: a channel whose members only listen goes on by itself.
#[tokio::test]
async fn a_volatile_timer_outlives_a_trap() {
    let broker = Setup::fixture("").start();
    let mut client = broker.connect("/ws?channel=a", "ann").await;
    client.send_text("timer-volatile tick 1500").await;
    assert_eq!(client.text().await, "ok");
    client.send_text("trap").await;
    assert!(client.text().await.starts_with("refused fault"));

    assert_eq!(client.text().await, "timer tick");
}

//! What a plugin reads while its writes are on their way to the disk: all of it up to a bound, and never something with a hole.

use crate::store::{database, execute};
use crate::support::broker::Setup;
use crate::support::client::Client;

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// Law: an answer that ends early, because it may have so many bytes, does not go on with what was just written behind its
/// end, whether that is in the batch under way, on its way to the disk, or committed.
#[tokio::test]
async fn a_read_that_ends_early_has_no_holes() {
    let broker = Setup::fixture("").start();
    let mut client = broker.connect("/ws?channel=a", "ann").await;
    for (command, answer) in [
        ("put-big k:1 700000", "ok"),
        ("put-big k:2 700000", "ok"),
        ("append-big 700000", "offset 1"),
        ("append-big 700000", "offset 2"),
    ] {
        assert_eq!(ask(&mut client, command).await, answer);
    }
    let mut other = database(&broker).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;

    // Nothing is answered before the lock is gone; what is not in a batch with its question is on its way meanwhile.
    let questions = ["put k:3 x", "append x", "scan k:", "read 1 100", "delete k:1", "scan k:", "read 2 100"];
    for command in questions {
        client.send_text(command).await;
    }
    broker.until_metric("hotbay_store_errors_total", 2.0).await;
    execute(&mut other, "ROLLBACK").await;

    let mut answers = Vec::new();
    for _ in questions {
        let answer = client.text().await;
        answers.push(answer.replace('x', ""));
    }
    let expected = ["ok", "offset 3", "keys k:1", "entries 1=", "ok", "keys k:2 k:3", "entries 2= 3="];
    assert_eq!(answers, expected);
    assert_eq!(ask(&mut client, "scan k:").await, "keys k:2 k:3");
    assert_eq!(ask(&mut client, "read 1 100").await.replace('x', ""), "entries 1=");
}

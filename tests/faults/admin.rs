//! The admin API when a client goes away in the midst of a request, or the store fails: what was begun is done to its end.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::store::{database, execute};
use crate::support::admin::{Admin, VETTED};
use crate::support::broker::Setup;
use crate::support::rebuilt;

/// Law: what is written down holds, also if the client that asked for it hung up between the one and the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_nothing_half_done() {
    const ROUNDS: u64 = 50;
    let broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    operator.cli(&["tenant", "set", "acme", "--limits", "{}"]).words();
    let mut written = 0;
    for round in 1..=ROUNDS {
        let body = json!({ "limits": { "connections_max": round } }).to_string();
        let request = format!(
            "PUT /v1/admin/tenants/acme HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            operator.key(),
            body.len()
        );
        let mut socket = TcpStream::connect(broker.address()).expect("a connection");
        socket.write_all(request.as_bytes()).expect("room");
        drop(socket);
        // Nobody is connected any more but whoever asks for this, and what the request began has ended.
        broker.until_metric_is("hotbay_tasks{name=\"http\"}", 1.0).await;
        broker.until_metric_is("hotbay_tasks{name=\"admin\"}", 0.0).await;

        let said = operator.get("/tenants/acme").await.json()["limits"].clone();
        let holds = operator.get("/tenants/acme/usage").await.json()["limits"].clone();
        assert_eq!(said, holds, "round {round}");
        written += u64::from(said["connections_max"] == round);
    }
    assert!(written > 0, "this proves nothing: no request got that far");
}

/// Law: a version that could not be vetted because the store failed is vetted when it works again, by itself.
#[tokio::test(flavor = "multi_thread")]
async fn vetting_goes_on_when_the_store_works_again() {
    let broker = Setup::fixture("").with_nothing_compiled().start();
    let operator = Admin::operator(&broker);
    let folder = tempfile::TempDir::new().expect("a folder");
    let component = rebuilt("fixture", "later", folder.path());
    let mut other = database(&broker).await;
    operator.push(&component, "fixture", "2.0.0", &[]).words();

    // It is being compiled, which takes longer than this.
    execute(&mut other, "BEGIN IMMEDIATE").await;
    broker.until_log("a version is vetted once more").await;
    execute(&mut other, "ROLLBACK").await;

    let wait = async {
        while operator.get("/plugins/fixture@2.0.0").await.json()["status"] != "vetted" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(VETTED, wait).await.expect("a verdict in time");
}

//! Bounds that plugins meet beside those of one call: timers, calls of pure functions, start code.

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::support::broker::Setup;
use crate::support::client::Client;
use crate::support::component;

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

async fn asserts_fault(client: &mut Client, command: &str) {
    let answer = ask(client, command).await;
    assert!(answer.starts_with("refused fault:"), "{command}: {answer}");
}

/// Law: a channel may set its 1,000 timers again as often as it likes; what counts is how many there are. A batch that would
/// make it one more is refused whole.
#[tokio::test]
async fn timers_that_are_set_again_count_once() {
    let broker = Setup::fixture("limits.cpu_ms_max = 10_000").start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    for _ in 0..3 {
        assert_eq!(ask(&mut ann, "timers 1000").await, "ok");
    }
    for command in ["timers 1001", "timer one-more 60000", "timer-volatile one-more 60000"] {
        asserts_fault(&mut ann, command).await;
        assert_eq!(ask(&mut ann, "timers 1000").await, "ok", "after {command}");
    }
    assert_eq!(ask(&mut ann, "cancel many 7").await, "ok");
    assert_eq!(ask(&mut ann, "timer one-more 60000").await, "ok");
    asserts_fault(&mut ann, "timer many 60000").await;
}

/// Law: calls of pure functions are so many at once; all others wait their turn, and each is answered.
#[tokio::test]
async fn calls_of_route_wait_for_their_turn_and_are_all_answered() {
    // More at once than there are instances: one channel and the spare ones.
    const CLIENTS: usize = 320;
    let lines = "route = true\nchannels = [\"fixture:*\"]\n[mount.fixture.limits]\ncpu_ms_max = 20_000";
    let broker = Setup::fixture_mount(lines).set("limits.channels_awake_max", 1).start();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(broker.connect("/ws", &format!("user-{number}")).await);
    }

    // Each takes some milliseconds, and they come all at once.
    let answers = join_all(clients.iter_mut().map(|client| ask(client, "@busy 25000000"))).await;

    let refused: Vec<&String> = answers.iter().filter(|answer| *answer != "done").collect();
    assert!(refused.is_empty(), "{} of {CLIENTS} were refused: {:?}", refused.len(), refused[0]);
}

/// Law: no exemptions for the configuration's plugins. A component whose start code traps does not pass vetting, so the broker does not
/// start with it, and says why. (FAULTS 38, what crashes only later: `a_crash_on_every_open_is_a_quarantine_that_ends_with_its_cause`.)
#[test]
fn a_component_that_traps_when_it_starts_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("trap.wasm");
    let functions = ["open", "handle", "save", "route", "refused"].map(|name| format!("(export \"{name}\" (func $f))"));
    let text = format!(
        r#"(component
            (core module $m (func $start unreachable) (func (export "f")) (start $start))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $h {})
            (export "hotbay:channel/handler@0.1.0" (instance $h)))"#,
        functions.concat()
    );
    std::fs::write(&file, wat::parse_str(text).expect("WAT")).expect("a file");
    let good = component("fixture").display().to_string();
    let output = Setup::fixture("").replace(&good, &file.display().to_string()).fail_to_start();

    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(words.contains("did not pass vetting: conformance: in `open`"), "{words}");
    assert!(words.contains("unreachable"), "the cause is not told: {words}");
}

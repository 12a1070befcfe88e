//! Channels that an operator puts to sleep, or follows.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::admin::Admin;
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::http;

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

fn begin(extra: &str) -> (Broker, Admin) {
    let broker = Setup::fixture(extra).start();
    let operator = Admin::operator(&broker);
    (broker, operator)
}

async fn is_awake(operator: &Admin) -> Value {
    operator.get("/channels/default/fixture:a").await.json()["awake"].clone()
}

/// Goal: a channel that is put to sleep loses its instance and nothing else: members, state, timers of the store and what its plugin had
/// in memory are there when the next event wakes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_put_to_sleep_and_wakes_as_it_was() {
    let (broker, operator) = begin("");
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    let mut bob = broker.connect("/ws?channel=a", "bob").await;
    assert_eq!(ask(&mut bob, "echo joined").await, "joined");
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    assert_eq!(ask(&mut ann, "timer tea 3600000").await, "ok");
    assert_eq!(ask(&mut ann, "count").await, "count 4");
    assert_eq!(is_awake(&operator).await, true);

    let slept = operator.cli(&["channel", "sleep", "fixture:a", "--reason", "to see"]).words();
    assert!(slept.contains("default/fixture:a sleeps"), "{slept}");

    let asleep = operator.get("/channels/default/fixture:a").await.json();
    assert_eq!((&asleep["awake"], &asleep["members"]), (&json!(false), &json!(2)));
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    let again = operator.post("/channels/default/fixture:a/sleep", &json!({})).await;
    assert_eq!(again.status, 204, "one that sleeps stays so: {}", again.text);
    assert_eq!(is_awake(&operator).await, false);
    assert_eq!(ask(&mut bob, "count").await, "count 5", "its memory was saved");
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    assert!(ask(&mut bob, "members").await.contains("ann"));
    assert_eq!(is_awake(&operator).await, true);
    let audit = operator.cli(&["audit", "--subject", "fixture:a", "--json"]).json();
    assert_eq!(
        (&audit["items"][1]["action"], &audit["items"][1]["reason"]),
        (&json!("channel.slept"), &json!("to see"))
    );
}

/// Goal: what would be lost keeps a channel awake, and whoever wanted it to sleep is told what that is.
#[tokio::test(flavor = "multi_thread")]
async fn what_must_stay_awake_says_why() {
    let (broker, operator) = begin("[[mount.fixture.http]]\npath = \"/late\"\nchannel = \"fixture:a\"\n");
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    assert_eq!(ask(&mut ann, "timer-volatile egg 3600000").await, "ok");
    let timer = operator.cli(&["channel", "sleep", "fixture:a"]);
    assert!(timer.code == Some(1) && timer.err.contains("the volatile timer \"egg\""), "{timer:?}");
    assert_eq!(operator.post("/channels/default/fixture:a/sleep", &json!({})).await.status, 409);
    assert_eq!(ask(&mut ann, "count").await, "count 2", "it was not opened anew");
    assert_eq!(ask(&mut ann, "cancel egg").await, "ok");

    // It is answered by the message after it.
    let url = broker.http(&format!("/ws/late?token={}", broker.token("bob", json!({}))));
    let waiting = tokio::spawn(async move { http::get(&url, &[]).await });
    let refused = async {
        loop {
            let answer = operator.post("/channels/default/fixture:a/sleep", &json!({})).await;
            if answer.status == 409 {
                return answer.text;
            }
        }
    };
    let refused = tokio::time::timeout(DEADLINE, refused).await.expect("a refusal");
    assert!(refused.contains("1 HTTP requests wait for its plugin's answer"), "{refused}");
    assert_eq!(ask(&mut ann, "echo here").await, "here");
    assert_eq!(waiting.await.expect("an answer").text, "\"late\"");

    // Three faults in a row of a channel quarantine it.
    let mut faulty = Vec::new();
    for user in ["cleo", "dan", "eve"] {
        faulty.push(broker.connect("/ws?channel=q", user).await);
        assert_eq!(ask(faulty.last_mut().expect("a client"), "echo joined").await, "joined");
    }
    for client in &mut faulty {
        ask(client, "trap").await;
    }
    let quarantined = operator.cli(&["channel", "sleep", "fixture:q"]);
    assert!(quarantined.code == Some(1) && quarantined.err.contains("faulted again and again"), "{quarantined:?}");

    let none = operator.cli(&["channel", "sleep", "fixture:none"]);
    assert!(none.code == Some(1) && none.err.contains("there is no channel default/fixture:none"), "{none:?}");
    let own = Admin::tenant(&broker, "default").cli(&["channel", "sleep", "fixture:a"]);
    assert!(own.code == Some(1) && own.err.contains("is not an operator's"), "{own:?}");
    operator.cli(&["channel", "sleep", "fixture:a"]).words();
    assert_eq!(is_awake(&operator).await, false);
}

/// `hotbay channel tail`. Killed when dropped.
struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Tail {
    /// Begins to follow, and waits until it does: that is in the audit log.
    async fn start(operator: &Admin, channel: &str, more: &[&str]) -> Self {
        let tailed = async || {
            let entries = operator.get(&format!("/audit?subject={channel}&limit=1000")).await.json()["items"].clone();
            let entries = entries.as_array().expect("entries");
            entries.iter().filter(|entry| entry["action"] == "channel.tailed").count()
        };
        let before = tailed().await;
        let mut command = operator.command(&[&["channel", "tail", channel][..], more].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a process");
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        let (told, lines) = sync_channel(64);
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        let wait = async {
            while tailed().await == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("it follows");
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }
}

/// Goal: whoever follows a channel sees each batch: where it stands, what came, from whom, and what went out.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_a_channel_is_followed() {
    let (mut broker, operator) = begin("");
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    assert_eq!(ask(&mut ann, "echo joined").await, "joined");
    let mut other = broker.connect("/ws?channel=b", "bob").await;
    assert_eq!(ask(&mut other, "echo joined").await, "joined");
    let mut tail = Tail::start(&operator, "fixture:a", &["--json"]).await;
    let mut words = Tail::start(&operator, "fixture:a", &[]).await;
    assert_eq!(ask(&mut other, "say elsewhere").await, "elsewhere");

    assert_eq!(ask(&mut ann, "say hello").await, "hello");
    let said = tail.json();
    let member = said["events"][0]["member"].clone();
    assert_eq!(
        said["events"],
        json!([{ "kind": "message", "member": member, "user": "ann", "bytes": 9, "text": "say hello" }])
    );
    assert_eq!(
        said["effects"],
        json!([
            { "kind": "frame", "event": 0, "to": "all", "bytes": 5, "text": "hello" },
            { "kind": "append", "bytes": 5, "text": "hello" },
        ])
    );
    let kept = operator.get("/channels/default/fixture:a").await.json()["kept"].clone();
    assert_eq!((&said["epoch"], &said["seq"], &said["digest"]), (&kept["epoch"], &kept["seq"], &kept["digest"]));
    assert!(said["wrote"] == true && said["at_ms"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{said}");
    assert_eq!(ask(&mut ann, "echo twice").await, "twice");
    let echoed = tail.json();
    assert_eq!((&echoed["wrote"], &echoed["seq"]), (&json!(false), &said["seq"]));
    assert_eq!(echoed["effects"][0]["to"], json!({ "members": [member] }));
    // What a faulty batch wanted is nobody's.
    ann.send_text("put-then-trap k v").await;
    ann.text().await;
    operator.cli(&["channel", "sleep", "fixture:a"]).words();
    assert_eq!(ask(&mut ann, "get k").await, "none");
    assert_eq!(tail.json()["events"][0]["text"], "get k", "sleep ends nothing");

    let shown = [words.line(), words.line(), words.line(), words.line()];
    assert!(shown[0].ends_with(&format!("Z {}.{}", said["epoch"], said["seq"])), "{shown:?}");
    assert_eq!(shown[1], format!("  message member={member} user=ann: \"say hello\""));
    assert_eq!(shown[2..], ["    frame event=0 to=all: \"hello\"", "    append: \"hello\""]);
    // A broker that stops lets nobody wait.
    assert_eq!(broker.terminate().await, Some(0));
    assert_eq!(tail.json(), json!({ "reason": "the broker is shutting down" }));
    assert_eq!(tail.lines.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    assert!(tail.child.wait().expect("an end").success());
}

/// Goal: payloads are for those alone who may inspect channels, of channels there are, and by few at a time.
#[tokio::test(flavor = "multi_thread")]
async fn following_is_for_operators_and_bounded() {
    let (broker, operator) = begin("");
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    assert_eq!(ask(&mut ann, "echo joined").await, "joined");
    let own = Admin::tenant(&broker, "default").get("/channels/default/fixture:a/tail").await;
    assert_eq!((own.status, own.json()["error"]["code"].as_str()), (403, Some("forbidden")));
    assert_eq!(Admin::with(&broker, None).get("/channels/default/fixture:a/tail").await.status, 401);
    let none = operator.cli(&["channel", "tail", "fixture:none"]);
    assert!(none.code == Some(1) && none.err.contains("there is no channel default/fixture:none"), "{none:?}");
    let mut tails = Vec::new();
    for _ in 0..6 {
        tails.push(Tail::start(&operator, "fixture:a", &["--json"]).await);
    }
    let one_more = operator.cli(&["channel", "tail", "fixture:a"]);
    assert!(one_more.code == Some(1) && one_more.err.contains("as many follow channels as may"), "{one_more:?}");
    // Each has it, and who goes makes room.
    assert_eq!(ask(&mut ann, "echo hello").await, "hello");
    for tail in &mut tails {
        assert_eq!(tail.json()["events"][0]["text"], "echo hello");
    }
    drop(tails.pop());
    let again = async { while follow(&broker, &operator).await.0 != 200 {} };
    tokio::time::timeout(DEADLINE, again).await.expect("room");
}

/// Follows `fixture:a` by hand, through a small buffer: the status of the answer, and what comes after it.
async fn follow(broker: &Broker, operator: &Admin) -> (u16, tokio::io::BufReader<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    let stream = socket.connect(broker.address().parse().expect("an address")).await.expect("a connection");
    let mut stream = tokio::io::BufReader::new(stream);
    let request = format!(
        "GET /v1/admin/channels/default/fixture:a/tail HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        operator.key()
    );
    stream.write_all(request.as_bytes()).await.expect("room");
    let status = line(&mut stream).await;
    (status.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), stream)
}

async fn line(stream: &mut tokio::io::BufReader<TcpStream>) -> String {
    let mut line = String::new();
    tokio::time::timeout(DEADLINE, stream.read_line(&mut line)).await.expect("a line in time").expect("a line");
    line
}

/// Law: nobody waits for who is slow; and nothing is lost silently: what did not fit is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_follower_delays_nobody_and_is_told_what_it_missed() {
    const BATCHES: u64 = 1_500;
    let (broker, operator) = begin("");
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    assert_eq!(ask(&mut ann, "echo joined").await, "joined");
    let (status, mut slow) = follow(&broker, &operator).await;
    assert_eq!(status, 200);
    while line(&mut slow).await != ":\n" {}

    // Each takes twelve kilobytes and more as JSON.
    let payload = "\u{1}".repeat(1 << 10);
    for _ in 0..BATCHES {
        assert_eq!(ask(&mut ann, &payload).await, payload);
    }
    let (mut told, mut missed) = (0, 0);
    let read = async {
        while told + missed < BATCHES {
            let line = line(&mut slow).await;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let data: Value = serde_json::from_str(data).expect("JSON");
            match data["batches"].as_u64() {
                Some(batches) => missed += batches,
                None => told += 1,
            }
        }
    };
    // What comes when nothing happens must not go on for ever.
    tokio::time::timeout(DEADLINE, read).await.expect("all that was told or missed");
    assert_eq!(told + missed, BATCHES);
    assert!(missed > 0 && told >= 85, "{told} told, {missed} missed");
}

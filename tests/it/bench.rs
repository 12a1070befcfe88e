//! `hotbay bench` against a real broker with `examples/bench.toml`: every scenario for about a second, and that what it
//! counts adds up; and what it says when it cannot measure.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup};
use crate::support::component;

/// The example, with its plugins where they are.
fn setup() -> Setup {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench.toml");
    let mut config = std::fs::read_to_string(file).expect("examples/bench.toml");
    for name in ["relay", "echo", "community_chat"] {
        let example = format!("../target/plugins/wasm32-wasip2/release/{name}.wasm");
        assert!(config.contains(&example), "the example has another place for {name}");
        config = config.replace(&example, &component(name).display().to_string());
    }
    Setup::config(&config)
}

/// Runs the program against a URL.
fn bench(scenario: &str, url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    command.args(["bench", scenario, "--url", url]).args(args).env_clear().output().expect("an end")
}

/// Runs a scenario shortly, with small numbers; returns its JSON.
fn measure(broker: &Broker, scenario: &str, path: &str, args: &[&str]) -> Value {
    let folder = TempDir::new().expect("a folder");
    let (json, svg) = (folder.path().join("result.json"), folder.path().join("result.svg"));
    let (json_text, svg_text, pid) = (json.display().to_string(), svg.display().to_string(), broker.pid().to_string());
    let times = ["--seconds", "0.7", "--warm-up-seconds", "0.1", "--settle-seconds", "0.1", "--drain-seconds", "20"];
    let files = ["--json", &json_text, "--svg", &svg_text, "--pid", &pid];
    let url = format!("ws://{}{path}", broker.address());

    let output = bench(scenario, &url, &[&times[..], &files[..], args].concat());

    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {err}\n{}", broker.log());
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.starts_with(scenario) && out.contains("until joined"), "{out}");
    let picture = std::fs::read_to_string(svg).expect("the plot");
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"), "{picture}");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(json).expect("the result")).expect("JSON");
    for loss in ["missing", "stray", "refusals", "closed"] {
        assert_eq!(result["losses"][loss], 0, "{scenario}: {}", result["losses"]);
    }
    assert!(result["handshakes"]["per_second"].as_f64() > Some(0.0), "{result}");
    assert!(result["server"]["cpu_us_per_handshake"].as_f64() > Some(0.0), "{result}");
    result
}

/// Checks that as much was received as was published, as far as a measurement that begins and ends under load can tell.
fn adds_up(result: &Value, members: u64, under_way: u64) {
    let count = |name: &str| result["load"][name].as_u64().expect("a count");
    let (published, finished, deliveries) = (count("published"), count("finished"), count("deliveries"));
    assert!(finished > 0, "{result}");
    assert!(
        published.abs_diff(finished) <= under_way,
        "{published} published, {finished} finished, {under_way} at once"
    );
    let unfinished = deliveries.abs_diff(finished * members);
    assert!(unfinished <= under_way * members, "{deliveries} deliveries, {finished} finished in rooms of {members}");
    // All that was due within the measurement was awaited, so as many have a time as were published then.
    let timed = result["load"]["finish"]["count"].as_u64().expect("a count");
    assert!(published.abs_diff(timed) <= under_way, "{published} published, {timed} with a time");
    assert!(result["server"]["cpu_us_per_delivery"].as_f64() > Some(0.0), "{result}");
}

#[test]
fn every_scenario_counts_what_it_sent() {
    let broker = setup().start();
    let relay = "/";

    let fan_out = measure(&broker, "fan-out", relay, &["--members", "20", "--publishers", "3", "--window", "4"]);
    adds_up(&fan_out, 20, 4);
    assert_eq!(fan_out["conditions"]["connections"], 20);

    let open = measure(&broker, "fan-out", relay, &["--members", "5", "--rate", "200", "--bytes", "5000"]);
    let published = open["load"]["published"].as_u64().expect("a count");
    // All that is due until the end of the measurement, warm-up included; fewer if the machine is busy.
    assert!((1..=161).contains(&published), "{published} published in 0.8 s at 200/s");
    // How many are under way depends on the machine, and has no bound but what was published before and in it.
    adds_up(&open, 5, 160);

    adds_up(&measure(&broker, "rooms", relay, &["--rooms", "10", "--members", "3"]), 3, 10);
    adds_up(&measure(&broker, "echo", "/echo", &["--connections", "10", "--window", "2"]), 1, 20);
    adds_up(&measure(&broker, "echo", "/echo?conn={conn}", &["--connections", "10"]), 1, 10);

    let idle = measure(&broker, "idle", relay, &["--connections", "40", "--rooms", "4"]);
    assert_eq!((&idle["load"], &idle["handshakes"]["count"]), (&Value::Null, &40.into()));
    assert!(idle["server"]["rss_joined_bytes"].as_u64() > Some(1 << 20));

    let connect = measure(&broker, "connect", relay, &["--connections", "30", "--rate", "100", "--connecting", "5"]);
    let seconds = connect["handshakes"]["seconds"].as_f64().expect("a time");
    assert!(seconds >= 0.29, "30 handshakes at 100/s took {seconds} s");

    adds_up(&measure(&broker, "durable", "", &["--protocol", "chat", "--rooms", "5", "--members", "2"]), 2, 5);
    adds_up(&measure(&broker, "echo", "", &["--protocol", "chat", "--connections", "3"]), 1, 3);
    let words = [
        "--protocol=custom",
        r#"--hello={"type":"SUBSCRIBE","channel":"room:{room}"}"#,
        "--await=SUBSCRIBED",
        r#"--publish={"type":"CHAT_MESSAGE","channel":"room:{room}","payload":{"content":"{ts}{pad}","clientId":"{seq}"}}"#,
        "--header=X-Conn: {conn}",
    ];
    let custom = measure(&broker, "rooms", "/api/community/ws", &[&words[..], &["--rooms=2", "--members=3"]].concat());
    adds_up(&custom, 3, 2);
}

/// Every error names its cause and what to do; 2 is the exit code for what the caller got wrong, 1 for what failed.
#[test]
fn what_cannot_be_measured_is_said() {
    let broker = Setup::fixture("").start();
    let url = format!("ws://{}", broker.address());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("ws://{}", free.local_addr().expect("its address"));
    drop(free);
    for (scenario, url, args, code, words) in [
        ("fanout", url.as_str(), &[][..], 2, &["fanout", "fan-out", "durable"][..]),
        ("echo", "ws://192.0.2.1:80", &[], 2, &["192.0.2.1", "--remote"]),
        ("echo", "http://127.0.0.1", &[], 2, &["ws://"]),
        ("echo", &url, &["--connections", "0"], 2, &["--connections = 0", "1 to"]),
        ("echo", &url, &["--pid", "4294967295"], 2, &["--pid 4294967295"]),
        ("echo", &url, &["--cpu", "1000"], 2, &["--cpu 1000", "may use"]),
        ("durable", &url, &[], 2, &["--protocol chat"]),
        ("echo", &nobody, &[], 1, &["cannot connect", "refused", "running"]),
        ("echo", &url, &[], 1, &["HTTP 404", "--url"]),
        ("echo", &format!("{url}/ws?channel=a"), &[], 1, &["HTTP 401", "--token"]),
        ("echo", &format!("{url}/ws?channel=a"), &["--token", "no.jwt.token"], 1, &["HTTP 401"]),
    ] {
        let output = bench(scenario, url, args);

        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{scenario} {url} {args:?}: {err}");
        for word in words {
            assert!(err.contains(word), "{scenario} {url} {args:?}: {word:?} is missing: {err}");
        }
        assert!(!err.contains("no.jwt.token"), "a token is shown: {err}");
    }
}

/// A token in the header or in the query opens the door; one in a file belongs to a user each.
#[test]
fn tokens_are_carried() {
    let broker = Setup::fixture("").start();
    let token = broker.token("ann", serde_json::json!({}));
    let path = "/ws?channel=a";
    measure(&broker, "connect", path, &["--connections", "3", "--token", &token, "--token-in", "query"]);

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tokens");
    let tokens: Vec<String> = ["ann", "bob"].map(|user| broker.token(user, serde_json::json!({}))).to_vec();
    std::fs::write(&file, tokens.join("\n")).expect("a file");
    let file = file.display().to_string();
    measure(&broker, "connect", path, &["--connections", "4", "--tokens", &file, "--token-in", "query"]);
}

/// A server that ends, as soon as it has answered the first request, is reported with what was lost; the exit code is 1.
#[test]
fn a_server_that_ends_is_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("its address"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let mut request = [0; 4_096];
        assert!(stream.read(&mut request).expect("a request") > 0);
        stream.write_all(answer.as_bytes()).expect("an answer");
        assert!(stream.read(&mut request).expect("a message") > 0);
        // 1013, and a frame cut in two after that.
        stream.write_all(b"\x88\x0c\x03\xf5overloaded\x81\x05he").expect("a close");
    });

    let times = ["--seconds", "0.5", "--warm-up-seconds", "0", "--settle-seconds", "0", "--drain-seconds", "0.1"];
    let output = bench("echo", &url, &[&times[..], &["--connections", "1"]].concat());

    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    for word in ["1 deliveries are missing", "1 connections ended", "close code 1013 overloaded"] {
        assert!(err.contains(word), "{word:?} is missing: {err}");
    }
    server.join().expect("the server");
}

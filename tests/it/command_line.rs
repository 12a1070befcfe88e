//! The command line: configuration errors, keys and tokens. Results on stdout, errors on stderr; exit code 2 for what the
//! caller got wrong, 1 for what failed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::support::admin::Admin;
use crate::support::broker::{SECRET, Setup};
use crate::support::client::Client;
use crate::support::{component, nobody};

/// Runs the program without any environment but this.
fn hotbay(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    command.args(args).env_clear().envs(environment.iter().copied()).output().expect("an end")
}

/// The exit code, and what it wrote to stdout and stderr.
fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A folder with a configuration.
fn configuration(text: &str) -> (TempDir, String) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("hotbay.toml");
    std::fs::write(&file, text).expect("a file");
    (folder, file.display().to_string())
}

const GOOD: &str = r#"listen = "127.0.0.1:0"
[key.default]
algorithm = "HS256"
[plugin.echo]
path = "echo.wasm"
[mount.echo]
path = "/ws"
plugin = "echo"
channel = "echo:{user}"
"#;

#[test]
fn the_example_is_valid_and_says_what_it_amounts_to() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hotbay.toml");

    let (code, out, err) =
        words(&hotbay(&["check-config", "--config", &example.display().to_string()], &[("JWT_SECRET", SECRET)]));

    assert_eq!((code, err.as_str()), (Some(0), ""));
    for part in ["ok", "listen 127.0.0.1:3000", "mount community: /api/community/ws -> community-chat"] {
        assert!(out.contains(part), "{part:?} is missing: {out}");
    }
    assert!(!out.contains(SECRET), "the secret is shown");
}

/// Every error names the key, the value and the line, and the exit code is 2; nothing is written.
#[test]
fn what_is_wrong_is_named_with_key_value_and_line() {
    for (wrong, line, names) in [
        (GOOD.replace("\"127.0.0.1:0\"", "\"somewhere\""), 1, vec!["listen", "somewhere"]),
        (GOOD.replace("HS256", "none"), 3, vec!["key.default.algorithm", "none", "HS256"]),
        (GOOD.replace("plugin = \"echo\"", "plugin = \"ecko\""), 8, vec!["mount.echo.plugin", "ecko", "echo"]),
        (GOOD.replace("channel =", "chanel ="), 9, vec!["chanel", "did you mean", "channel"]),
        (GOOD.replace("{user}", "{usr}"), 9, vec!["mount.echo.channel", "usr"]),
        (GOOD.replace("path = \"/ws\"", "path = \"ws\""), 7, vec!["mount.echo.path", "\"ws\""]),
        (format!("{GOOD}limits.idle_ms = -1\n"), 10, vec!["mount.echo.limits.idle_ms", "-1"]),
        (format!("{GOOD}limits.idle_ms = 0\n"), 10, vec!["mount.echo.limits.idle_ms", "0"]),
        (format!("{GOOD}limits.outbox_bytes_max = 10\n"), 10, vec!["outbox_bytes_max", "message_bytes_max"]),
        (
            format!("{GOOD}heartbeat = {{ interval_ms = 9, timeout_ms = 9 }}\n"),
            10,
            vec!["timeout_ms", "interval_ms", "9"],
        ),
        (format!("{GOOD}durability = \"maybe\"\n"), 10, vec!["mount.echo.durability", "maybe", "fsync"]),
        (
            format!("{GOOD}auth = {{ mode = \"none\" }}\n").replace("127.0.0.1", "0.0.0.0"),
            10,
            vec!["mount.echo.auth.mode", "none"],
        ),
        (format!("{GOOD}[mount.echo]\n"), 10, vec!["duplicate"]),
        (format!("{GOOD}x = [1,\n"), 10, vec!["TOML"]),
    ] {
        let (folder, file) = configuration(&wrong);
        let arguments = ["check-config", "--config", &file];

        let (code, out, err) = words(&hotbay(&arguments, &[("JWT_SECRET", SECRET)]));

        assert_eq!((code, out.as_str()), (Some(2), ""), "{wrong}\n{err}");
        assert!(err.contains(&format!("hotbay.toml:{line}: ")), "line {line} is not named: {err}\n{wrong}");
        for name in names {
            assert!(err.contains(name), "{name:?} is not named: {err}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "something was written");
    }
}

/// Errors in flags and variables name the flag and the variable; all errors come at once.
#[test]
fn overrides_are_checked_and_all_errors_come_at_once() {
    let (_folder, file) = configuration(GOOD);
    let environment =
        [("JWT_SECRET", SECRET), ("HOTBAY_LIMITS__CONNECTIONS_MAX", "many"), ("HOTBAY_LIMITS__DRAIN", "1")];

    let set = ["--set", "limits.channels_max=0", "--set", "nonsense", "--listen", "nowhere"];
    let arguments = [&["check-config", "--config", &file][..], &set[..]].concat();
    let (code, _, err) = words(&hotbay(&arguments, &environment));

    assert_eq!(code, Some(2), "{err}");
    for part in [
        "HOTBAY_LIMITS__CONNECTIONS_MAX",
        "many",
        "HOTBAY_LIMITS__DRAIN",
        "limits.channels_max",
        "nonsense",
        "--listen",
        "nowhere",
    ] {
        assert!(err.contains(part), "{part:?} is not named: {err}");
    }
    assert!(err.lines().count() >= 5, "not all at once: {err}");
}

/// A missing secret is an error that names the variable; `serve` says the same as `check-config` and does not start.
#[test]
fn without_a_secret_nothing_starts() {
    let (_folder, file) = configuration(GOOD);
    for subcommand in ["check-config", "serve"] {
        let (code, out, err) = words(&hotbay(&[subcommand, "--config", &file], &[]));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{subcommand}: {err}");
        assert!(err.contains("JWT_SECRET") && err.contains("key.default"), "{subcommand}: {err}");
    }
    let (code, _, err) = words(&hotbay(&["check-config", "--config", "/nowhere/hotbay.toml"], &[]));
    assert_eq!(code, Some(2));
    assert!(err.contains("/nowhere/hotbay.toml") && err.contains("--config"), "{err}");
}

/// What fails at the start is named: the plugin's file, the address that is taken.
#[tokio::test]
async fn what_fails_at_the_start_is_named() {
    let (folder, file) = configuration(GOOD);
    let data = folder.path().join("data").display().to_string();

    let (code, _, err) = words(&hotbay(&["serve", "--config", &file, "--data-dir", &data], &[("JWT_SECRET", SECRET)]));
    let broker = Setup::fixture("").start();
    let mut other = Setup::fixture("").start();
    other.kill();
    let taken = other.command(&["serve", "--listen", broker.address()]).output().expect("an end");
    let (taken_code, _, taken_err) = words(&taken);

    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("plugin \"echo\"") && err.contains("echo.wasm"), "{err}");
    assert_eq!(taken_code, Some(1), "{taken_err}");
    assert!(taken_err.contains(broker.address()), "{taken_err}");
}

/// A key is shown once, stored as a hash, listed without itself, works at once, and ends when it is revoked, at once.
#[tokio::test]
async fn a_key_is_made_listed_and_revoked() {
    let broker = Setup::example().start();
    let key = broker.api_key("shop");
    let other = broker.run(&["key", "create", "--name", "shop", "--tenant", "acme"]);
    let notice = json!({"type": "NOTICE", "payload": {}});

    let list = broker.run(&["key", "list"]);
    let works = broker.publish(&key, "room:1", &notice).await.status;
    broker.run(&["key", "revoke", "--name", "shop"]);
    let revoked = broker.publish(&key, "room:1", &notice).await.status;
    let again = words(&broker.command(&["key", "revoke", "--name", "shop"]).output().expect("an end"));

    assert!(list.lines().any(|line| line.starts_with("default\tshop\tcreated 2")), "{list}");
    assert!(list.lines().any(|line| line.starts_with("acme\tshop\t")), "{list}");
    assert!(!list.contains(&key) && !list.contains(other.trim()), "the list shows keys: {list}");
    assert_eq!((works, revoked), (200, 401));
    assert_eq!(again.0, Some(1));
    assert!(again.2.contains("shop"), "{}", again.2);
    assert!(!broker.run(&["key", "list"]).contains("default\tshop"));
    for file in
        std::fs::read_dir(broker.data()).expect("the data folder").flatten().filter(|file| file.path().is_file())
    {
        let bytes = std::fs::read(file.path()).expect("a file");
        let holds = bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!holds, "{} holds the key itself", file.path().display());
    }
}

/// Goal: whoever makes a key or a token for another folder than the broker's learns of it at once, and again when the broker refuses it.
#[tokio::test]
async fn a_key_of_another_folder_is_told_apart() {
    let broker = Setup::fixture("").start();
    let (_folder, file) = configuration(&format!("development = true\n{GOOD}"));
    let elsewhere = TempDir::new().expect("a folder");
    let data = elsewhere.path().join("data");
    let flags = ["--config", &file, "--data-dir", &data.display().to_string()].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();

    let made = words(&hotbay(&[&["key", "create", "--operator", "--name", "me"][..], &flags].concat(), &[]));
    assert_eq!(made.0, Some(0), "{made:?}");
    assert!(made.2.contains(&data.join("hotbay.db").display().to_string()), "{made:?}");
    assert!(made.2.contains("does not know this key: name its configuration with --config"), "{made:?}");
    let another = words(&hotbay(&[&["key", "create", "--name", "other"][..], &flags].concat(), &[]));
    assert_eq!((another.0, another.2.as_str()), (Some(0), ""), "it is known by now");
    for told in [data.join("jwt-secret").display().to_string(), String::new()] {
        let signed = words(&hotbay(&[&["token", "--user", "ann"][..], &flags].concat(), &[]));
        assert_eq!((signed.0, signed.2.is_empty()), (Some(0), told.is_empty()), "{signed:?}");
        assert!(signed.2.contains(&told), "{signed:?}");
    }

    let refused = Admin::with(&broker, Some(made.1.trim())).cli(&["plugin", "list"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("not known") && refused.err.contains("--data-dir"), "{refused:?}");
    let nobody_there = hotbay(&["plugin", "list", "--broker", "http://127.0.0.1:1"], &[("HOTBAY_ADMIN_KEY", "hb_x")]);
    let (code, _, err) = words(&nobody_there);
    assert!(code == Some(1) && err.contains("http://127.0.0.1:1 cannot be reached: nothing listens there; "), "{err}");
}

/// Goal: what the greeting says makes another token does, as it stands there.
#[tokio::test]
async fn the_greeting_says_how_to_make_a_token_for_this_broker() {
    let (folder, file) = configuration(&format!("development = true\n{}", GOOD.replace("key.default", "key.own")));
    let echo = component("echo").display().to_string();
    let text = std::fs::read_to_string(&file).expect("a file").replace("echo.wasm", &echo);
    let text = text
        .replace("plugin = \"echo\"\n", "plugin = \"echo\"\nauth = { keys = [\"own\"], tokens = [\"query:token\"] }\n");
    std::fs::write(&file, text).expect("a file");
    let data = folder.path().join("my data").display().to_string();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    let mut serve = serve
        .args(["serve", "--config", &file, "--data-dir", &data, "--listen", "127.0.0.1:0"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a broker");
    let mut lines = BufReader::new(serve.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let first = lines.next().expect("where it listens");
    let hint = lines.find(|line| line.contains("`hotbay token")).expect("a hint");
    let flags = hint.split('`').nth(1).expect("a command").replace("hotbay token", "").replace("NAME", "ann");

    let script = format!("{} token{flags}", env!("CARGO_BIN_EXE_hotbay"));
    let made = Command::new("sh").args(["-c", &script]).env_clear().output().expect("an end");

    let (code, token, err) = words(&made);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{script}");
    let address = first.split("http://").nth(1).expect("an address").trim().to_owned();
    let mut ann = Client::connect(&format!("ws://{address}/ws?token={}", token.trim())).await;
    ann.send_text("hello").await;
    assert_eq!(ann.text().await, "hello");
    serve.kill().expect("it runs");
    serve.wait().expect("an end");
}

/// A name that is taken or malformed is refused.
#[tokio::test]
async fn a_key_needs_a_fresh_and_plain_name() {
    let broker = Setup::example().start();
    broker.api_key("shop");

    let taken = words(&broker.command(&["key", "create", "--name", "shop"]).output().expect("an end"));
    assert_eq!((taken.0, taken.1.as_str()), (Some(1), ""), "{}", taken.2);
    assert!(taken.2.contains("shop"), "{}", taken.2);
    for bad in ["", "a:b", "a b"] {
        let (code, out, err) = words(&broker.command(&["key", "create", "--name", bad]).output().expect("an end"));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{bad:?}");
        assert!(err.contains("--name"), "{bad:?}: {err}");
    }
}

/// A token made on the command line opens what its claims allow.
#[tokio::test]
async fn a_token_of_the_command_line_is_accepted() {
    let broker = Setup::example().start();
    let claims = ["--role", "moderator", "--tenant", "acme", "--claim", "groups=[\"g1\"]", "--ttl", "5m"];
    let made = broker.run(&[&["token", "--user", "alice", "--key", "chat"][..], &claims[..]].concat());

    let mut client = broker.connect_with("/api/community/ws", made.trim()).await;
    client.send(json!({"type": "SUBSCRIBE", "channel": "group:g1"})).await;

    assert_eq!(client.until_type("SUBSCRIBED").await["payload"]["online"], json!(["alice"]));
}

/// What cannot make a token is refused with exit code 2; an expired one opens nothing.
#[tokio::test]
async fn a_token_needs_sensible_arguments() {
    let broker = Setup::example().start();
    for (arguments, name) in [
        (&["token", "--user", "a", "--ttl", "soon"][..], "--ttl"),
        (&["token", "--user", "a", "--ttl", "999d"], "--ttl"),
        (&["token", "--user", "a", "--claim", "x"], "--claim"),
        (&["token", "--user", "a", "--key", "nobody"], "nobody"),
        (&["token"], "--user"),
    ] {
        let (code, out, err) = words(&broker.command(arguments).output().expect("an end"));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.contains(name), "{arguments:?}: {err}");
    }
    let past = broker.run(&["token", "--user", "alice", "--key", "chat", "--claim", "exp=1"]);
    let url = format!("ws://{}/api/community/ws?token={}", broker.address(), past.trim());
    assert_eq!(Client::refused_status(&url, &[]).await, 401);
}

/// Words the program does not know are refused with exit code 2, and help is there.
#[test]
fn the_command_line_explains_itself() {
    for wrong in [&["fly"][..], &["serve", "--fast"], &[]] {
        assert_eq!(hotbay(wrong, &[]).status.code(), Some(2), "{wrong:?}");
    }
    let (code, out, _) = words(&hotbay(&["--help"], &[]));
    assert_eq!(code, Some(0));
    for subcommand in ["serve", "check-config", "token", "key", "plugin"] {
        assert!(out.contains(subcommand), "{subcommand} is not explained: {out}");
    }
    assert!(!out.contains("compile-worker"), "not for people: {out}");
}

/// Law: whoever stops reading what a command prints, as `head` does, makes it neither fail nor complain; and a broker goes on.
#[tokio::test]
async fn output_that_nobody_reads_is_no_failure() {
    let mut broker = Setup::fixture("").start();
    let operator = Admin::operator(&broker);
    let mut ended = Vec::new();
    for command in
        [&["check-config"][..], &["token", "--user", "ann"], &["key", "list"], &["key", "create", "--name", "k"]]
    {
        ended.push((command, broker.command(command).stdout(nobody()).output().expect("an end")));
    }
    for command in [&["tenant", "usage"][..], &["plugin", "status", "--json"], &["audit"], &["plugin", "list"]] {
        ended.push((command, operator.command(command).stdout(nobody()).output().expect("an end")));
    }
    for (command, output) in ended {
        assert_eq!(words(&output), (Some(0), String::new(), String::new()), "{command:?}");
    }
    let failed = operator.command(&["plugin", "show", "nothing@1.0.0"]).stdout(nobody()).stderr(nobody()).status();
    assert_eq!(failed.expect("an end").code(), Some(1), "a failure is one, also where nobody reads of it");
    // A full disk is one, too.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let output = operator.command(&["tenant", "usage"]).stdout(full).output().expect("an end");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the output cannot be written"), "{output:?}");

    broker.terminate().await;
    let mut serve = broker.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut serve = serve.stdout(nobody()).stderr(Stdio::piped()).spawn().expect("a broker");
    let mut log = BufReader::new(serve.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("plugin loaded")), "it starts");
    let process = rustix::process::Pid::from_child(&serve);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it runs");
    // It serves, and so it has printed where, before it looks for signals.
    assert!(log.any(|line| line.contains("draining")), "it goes on until it is told to stop");
    assert_eq!(serve.wait().expect("an end").code(), Some(0));
}

/// Law: a data folder is one broker's. Two would take channels from each other, and members would miss what comes in at the other.
#[tokio::test]
async fn a_second_broker_on_a_folder_does_not_start() {
    let mut broker = Setup::fixture("").start();

    let second = broker.command(&["serve", "--listen", "127.0.0.1:0"]).output().expect("an end");

    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{words}");
    assert!(words.contains(&format!("another hotbay (process {})", broker.pid())), "{words}");
    broker.kill();
    broker.start();
}

#[tokio::test]
async fn check_config_names_what_a_plugin_was_not_granted() {
    let broker = Setup::fixture("").start();

    let check = broker.command(&["check-config", "--set", "plugin.fixture.grants=[\"kv\"]"]).output().expect("an end");

    let words = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(1), "{words}");
    assert!(words.contains("needs log, logging, sql, stats: add that to its grants"), "{words}");
    assert!(broker.command(&["check-config"]).output().expect("an end").status.success());
}

/// Law: a word that is no level is told, not taken for a module of which nothing is known.
#[test]
fn a_log_filter_of_a_word_that_is_no_level_is_refused() {
    let output = Setup::fixture("").env("HOTBAY_LOG", "loud").fail_to_start();

    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("\"loud\" is no level; there are off, error, warn, info, debug, trace"), "{words}");
}

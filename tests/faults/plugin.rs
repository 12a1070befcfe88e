//! Plugins that misbehave, played by `plugins/fixture`: each is stopped at its bound, its sender is told, and nobody else
//! notices. Commands are described in the fixture's documentation.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};

const MIB: u64 = 1 << 20;

fn limits(lines: &str) -> Setup {
    Setup::fixture(&format!("[mount.fixture.limits]\n{lines}"))
}

async fn join(broker: &Broker, channel: &str, user: &str) -> Client {
    let mut client = broker.connect(&format!("/ws?channel={channel}"), user).await;
    // Its join is settled when it is answered.
    client.send_text("echo joined").await;
    assert_eq!(client.text().await, "joined");
    client
}

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

async fn asserts_fault(client: &mut Client, command: &str) {
    let answer = ask(client, command).await;
    assert!(answer.starts_with("refused fault:"), "{command}: {answer}");
}

/// Asks until the answer fits; every other answer must be a refusal.
async fn until_answer(client: &mut Client, command: &str, fits: impl Fn(&str) -> bool) -> String {
    let retry = async {
        loop {
            let answer = ask(client, command).await;
            if fits(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, retry).await.unwrap_or_else(|_| panic!("{command} is never answered as expected"))
}

fn status_bytes(broker: &Broker, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("/proc");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1_024
}

/// Law: a plugin that never returns is stopped at its budget; meanwhile the other channels are served.
#[tokio::test]
async fn an_endless_loop_ends_at_its_budget_and_holds_nobody_up() {
    let broker = limits("cpu_ms_max = 3000").start();
    let mut looping = join(&broker, "loop", "ann").await;
    let mut other = join(&broker, "other", "bob").await;

    for command in ["loop", "loop-hostcalls"] {
        looping.send_text(command).await;
        for number in 0..200 {
            let content = format!("echo {number}");
            assert_eq!(ask(&mut other, &content).await, number.to_string());
        }
        assert!(looping.next().now_or_never().is_none(), "{command}: 200 round trips took longer than the budget");
        let answer = looping.text().await;
        assert!(answer.starts_with("refused fault:"), "{command}: {answer}");
    }

    assert_eq!(ask(&mut looping, "echo on").await, "on");
    assert_eq!(broker.metric("hotbay_plugin_faults_total").await, 2.0);
}

/// Law: the same in a timer, in `open` and in `save`.
#[tokio::test]
async fn a_loop_in_a_timer_in_open_and_in_save_ends_too() {
    let broker = limits("cpu_ms_max = 50\nidle_ms = 50").start();
    let mut ann = join(&broker, "timer", "ann").await;
    assert_eq!(ask(&mut ann, "loop-on-timer t 1").await, "ok");
    broker.until_metric("hotbay_plugin_faults_total", 1.0).await;
    assert_eq!(ask(&mut ann, "echo on").await, "on");

    let mut bob = join(&broker, "save", "bob").await;
    assert_eq!(ask(&mut bob, "loop-on-save").await, "ok");
    broker.until_metric("hotbay_plugin_faults_total", 2.0).await;
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    assert_eq!(ask(&mut bob, "count").await, "count 1", "what was not saved is gone");

    let mut eve = join(&broker, "open", "eve").await;
    assert_eq!(ask(&mut eve, "loop-on-open").await, "ok");
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    assert!(ask(&mut eve, "echo lost").await.starts_with("refused unavailable:"));
    assert_eq!(ask(&mut ann, "echo still").await, "still");
}

/// Law: a timer that faults does so once, not for ever, also if nothing else happens in its channel.
#[tokio::test]
async fn a_timer_that_faults_is_forgotten() {
    let mut broker = limits("idle_ms = 30").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "trap-on-timer t 1").await, "ok");
    broker.until_metric("hotbay_plugin_faults_total", 1.0).await;
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    // The clock of sleeping channels looks twice a second: long enough to see the timer come back.
    assert_eq!(ask(&mut ann, "timer later 1200").await, "ok");
    assert_eq!(ann.text().await, "timer later");
    assert_eq!(broker.metric("hotbay_plugin_faults_total").await, 1.0);

    broker.kill();
    broker.start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "timer later 1200").await, "ok");
    assert_eq!(ann.text().await, "timer later");
    assert_eq!(broker.metric("hotbay_plugin_faults_total").await, 0.0, "it came back after a restart");
}

/// Law: memory ends at its bound, which the plugin sees, and comes back when the instance is gone.
#[tokio::test]
async fn a_memory_bomb_meets_its_bound() {
    let broker = limits("memory_bytes_max = 67_108_864\ncpu_ms_max = 5000").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "grow 32").await, "grown 32");
    let before = status_bytes(&broker, "VmRSS");

    for _ in 0..2 {
        asserts_fault(&mut ann, "grow 2000").await;
        assert_eq!(ask(&mut ann, "keep 20").await, "grown 20");
        assert_eq!(ask(&mut ann, "keep 20").await, "grown 20");
        asserts_fault(&mut ann, "keep 40").await;
    }

    assert_eq!(ask(&mut ann, "grow 32").await, "grown 32", "memory of a spent instance is free again");
    let after = status_bytes(&broker, "VmRSS");
    assert!(after < before + 64 * MIB, "from {before} to {after} bytes");
}

/// Law: a stack overflow, an abort, a panic and an `exit` are traps like any other.
#[tokio::test]
async fn ways_to_die_are_traps() {
    let broker = limits("cpu_ms_max = 2000").start();
    let mut ann = join(&broker, "a", "ann").await;
    for command in
        ["stack", "trap", "panic what a day", "exit 0", "exit 1", "forward-other 77", "reject-other 99", "sleep x y"]
    {
        let answer = ask(&mut ann, command).await;
        let expected = if command.starts_with("sleep") { "refused bad-request" } else { "refused fault:" };
        assert!(answer.starts_with(expected), "{command}: {answer}");
        assert_eq!(ask(&mut ann, "echo on").await, "on", "after {command}");
    }
}

/// Law: only the event at fault has no effect; its batch mates, before and after it, from anybody, do.
#[tokio::test]
async fn a_trap_takes_only_its_own_effects_along() {
    let broker = limits("cpu_ms_max = 5000").start();
    let mut ann = join(&broker, "a", "ann").await;
    let mut bob = join(&broker, "a", "bob").await;
    assert_eq!(ask(&mut ann, "put k 1").await, "ok");

    // While the first keeps the plugin busy, the others gather to a batch.
    ann.send_text("hostcalls 100000").await;
    for command in ["put a 1", "hello", "put-then-trap k 2", "append x", "world"] {
        ann.send_text(command).await;
    }
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ann.text().await);
    }

    // A refusal waits for no commit, so it may come before answers to what was sent earlier.
    let (faults, answers): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.starts_with("refused fault:"));
    assert_eq!(faults.len(), 1, "{answers:?}");
    assert_eq!(answers, ["done", "ok", "hello", "offset 1", "world"]);
    assert_eq!([bob.text().await, bob.text().await], ["hello", "world"], "bob saw something of the trap");
    assert_eq!(ask(&mut ann, "get k").await, "value 1");
    assert_eq!(ask(&mut ann, "get a").await, "value 1");
    assert_eq!(ask(&mut ann, "read 1 10").await, "entries 1=x");
}

/// Law: three faults in a row close their member, and only it.
#[tokio::test]
async fn three_faults_in_a_row_close_their_member_alone() {
    let broker = Setup::fixture("").start();
    let mut good = join(&broker, "a", "good").await;
    let mut bad = join(&broker, "a", "bad").await;
    asserts_fault(&mut bad, "trap").await;
    asserts_fault(&mut bad, "trap").await;
    assert_eq!(ask(&mut bad, "echo sorry").await, "sorry");
    asserts_fault(&mut bad, "trap").await;
    asserts_fault(&mut bad, "trap").await;
    asserts_fault(&mut bad, "trap").await;

    assert_eq!(bad.close_code().await, Some(1011));
    assert_eq!(ask(&mut good, "echo on").await, "on");
    until_answer(&mut good, "members", |members| members.contains("good#") && !members.contains("bad#")).await;
    assert_eq!(broker.metric("hotbay_channel_quarantines_total").await, 0.0);
}

/// Law: too many or too large effects refuse the whole batch, which leaves no trace.
#[tokio::test]
async fn floods_of_effects_are_refused_whole() {
    let broker = limits("cpu_ms_max = 10_000").start();
    let mut ann = join(&broker, "a", "ann").await;
    let mut bob = join(&broker, "a", "bob").await;
    for command in ["flood 20000", "big-user 20 1000000", "timers 2000", "put-big k 2000000", "append-big 2000000"] {
        asserts_fault(&mut ann, command).await;
        assert_eq!(ask(&mut ann, "echo sorry").await, "sorry");
    }
    bob.nothing_before(json!("hi"), |answer| answer == "hi").await;
    assert_eq!(ann.text().await, "\"hi\"");
    assert_eq!(ask(&mut ann, "get k").await, "none");
    assert_eq!(ask(&mut ann, "append x").await, "offset 1");
    assert_eq!(ask(&mut ann, "timers 900").await, "ok", "the refused timers were counted");
}

/// Law: what one call into the host may carry is bounded, before the host copies it.
#[tokio::test]
async fn an_argument_of_128_mib_is_refused_without_being_copied() {
    let broker = limits("memory_bytes_max = 402_653_184\ncpu_ms_max = 10_000").start();
    let mut ann = join(&broker, "a", "ann").await;
    let before = status_bytes(&broker, "VmHWM");

    asserts_fault(&mut ann, "big 134217728").await;

    let peak = status_bytes(&broker, "VmHWM");
    assert!(peak < before + (128 + 48) * MIB, "the peak went from {before} to {peak} bytes: the host copied it");
    assert_eq!(ask(&mut ann, "echo on").await, "on");
}

/// Law: log lines are bounded by number and length, and what is dropped is counted.
#[tokio::test]
async fn a_flood_of_log_lines_is_sampled_and_counted() {
    let broker = limits("cpu_ms_max = 10_000").start();
    let mut ann = join(&broker, "a", "ann").await;
    ann.send_text("log 10000").await;
    ann.send_text("log-big 1000000").await;
    assert_eq!(ask(&mut ann, "echo on").await, "on");

    let dropped = broker.metric("hotbay_plugin_log_lines_dropped_total").await;
    let log = broker.log();
    let lines = log.lines().filter(|line| line.contains("line ")).count();
    assert!(dropped >= 9_000.0, "{dropped} dropped");
    assert!((1..1_000).contains(&lines), "{lines} lines");
    assert!(log.lines().all(|line| line.len() < 10_000), "a line is not cut");
}

/// Law: standard output and error go to the log, under the channel's name.
#[tokio::test]
async fn standard_output_goes_to_the_log() {
    let broker = Setup::fixture("").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "stdout a word out").await, "stdout true");
    assert_eq!(ask(&mut ann, "stderr a word err").await, "stderr true");
    assert_eq!(ask(&mut ann, "stdin").await, "stdin 0");
    let said = |text: &str| broker.log().lines().any(|line| line.contains(text) && line.contains("fixture:a"));
    assert!(said("a word out") && said("a word err"), "{}", broker.log());
}

/// Law: handles are bounded; calls without end meet the CPU budget.
#[tokio::test]
async fn handles_and_host_calls_without_end_are_stopped() {
    let broker = limits("cpu_ms_max = 1000").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "handles 100").await, "handles 100");
    asserts_fault(&mut ann, "handles 100000").await;
    asserts_fault(&mut ann, "hostcalls 1000000000").await;
    assert_eq!(ask(&mut ann, "echo on").await, "on");
}

/// Law: a plugin that cannot open is quarantined: no hot loop, whatever its members send; and when the cause is gone it goes
/// on with all its members.
#[tokio::test]
async fn a_crash_on_every_open_is_a_quarantine_that_ends_with_its_cause() {
    let broker = Setup::fixture("").start();
    let mut ann = join(&broker, "a", "ann").await;
    let mut bob = join(&broker, "a", "bob").await;
    assert_eq!(ask(&mut ann, "trap-on-open").await, "ok");
    asserts_fault(&mut ann, "trap").await;

    for _ in 0..100 {
        let answer = ask(&mut ann, "echo x").await;
        assert!(answer.starts_with("refused unavailable:"), "{answer}");
    }
    let starts = broker.metric("hotbay_channel_start_failures_total").await;
    // The trap and two failed starts are three faults in a row.
    assert!((2.0..=6.0).contains(&starts), "{starts} starts for 100 messages");
    assert!(broker.metric("hotbay_channel_quarantines_total").await >= 1.0);
    let mut other = join(&broker, "other", "eve").await;
    assert_eq!(ask(&mut other, "echo on").await, "on");

    let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut database = options.connect().await.expect("the database");
    let deleted =
        sqlx::query("DELETE FROM state WHERE key = CAST('fixture/open' AS BLOB)").execute(&mut database).await;
    assert_eq!(deleted.expect("a deletion").rows_affected(), 1);

    until_answer(&mut ann, "echo back", |answer| answer == "back").await;
    assert_eq!(ask(&mut ann, "hello").await, "hello");
    assert_eq!(bob.text().await, "hello", "bob was forgotten while the channel was away");
}

/// Law: WASI is inert: no environment, no files, the batch's clock, no waiting.
#[tokio::test]
async fn wasi_reaches_nothing() {
    let broker = Setup::fixture("").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "env").await, "env 0 args 0");
    let files = ask(&mut ann, "fs").await;
    assert_eq!(files.matches("Err(").count(), 3, "{files}");
    assert!(!std::path::Path::new("/tmp/hotbay-fixture").exists());
    assert_eq!(ask(&mut ann, "sleep 100000000").await, "slept");
    // The three commands are one batch or three; within a batch all clocks agree.
    let clock = ask(&mut ann, "clock").await;
    let clock: Vec<u64> = clock.split(' ').skip(1).map(|number| number.parse().expect("a number")).collect();
    let now: u64 = ask(&mut ann, "now").await.strip_prefix("now ").and_then(|now| now.parse().ok()).expect("a number");
    assert_eq!(clock[1], 0, "the monotonic clock moved within a batch");
    assert!(clock[0] <= now && now - clock[0] < 20_000, "{} and {now}", clock[0]);
}

/// Law: a chain of publishes from channel to channel ends after eight.
#[tokio::test]
async fn a_chain_of_publishes_is_cut() {
    let broker = Setup::fixture("channels = [\"fixture:*\"]").start();
    let mut ann = join(&broker, "a", "ann").await;
    let mut bob = join(&broker, "b", "bob").await;
    ann.send_text("ping-pong fixture:b").await;
    broker.until_metric("hotbay_publishes_dropped_total", 1.0).await;
    assert_eq!(ask(&mut ann, "echo on").await, "on");
    assert_eq!(ask(&mut bob, "echo on").await, "on");
    assert_eq!(broker.metric("hotbay_publishes_dropped_total").await, 1.0);
    let log = broker.log();
    assert_eq!(log.lines().filter(|line| line.contains("chain of publishes")).count(), 1, "{log}");
}

/// Law: `route` and `refused` may fail like everything else; the connection goes on.
#[tokio::test]
async fn a_fault_in_route_refuses_the_frame_alone() {
    let lines = "route = true\nchannels = [\"fixture:*\"]\n[mount.fixture.limits]\ncpu_ms_max = 100";
    let broker = Setup::fixture_mount(lines).start();
    let mut ann = broker.connect("/ws", "ann").await;
    for command in ["@trap x", "@loop x", "@host x"] {
        asserts_fault(&mut ann, command).await;
    }
    assert_eq!(ask(&mut ann, "@reply pong").await, "ann pong");
    ann.send_text("@join fixture:a x").await;
    assert_eq!(ask(&mut ann, "@deliver fixture:a echo on").await, "on");
    asserts_fault(&mut ann, "@deliver fixture:a trap").await;
    assert_eq!(ask(&mut ann, "@deliver fixture:a echo on").await, "on");
    assert!(ask(&mut ann, "@deliver fixture:b echo no").await.starts_with("refused not-joined"));
}

/// Law: whose join is rejected, or faults, is no member: it gets nothing that is sent to all, and what it sent before it learned
/// of that reaches nobody.
#[tokio::test]
async fn a_refused_join_makes_no_member() {
    let broker = Setup::fixture("").start();
    let mut ann = join(&broker, "a", "ann").await;
    for (user, refusal) in [("unwanted-1", "refused forbidden: not you"), ("trapping-1", "refused fault:")] {
        let mut stranger = broker.connect("/ws?channel=a", user).await;
        for number in 0..50 {
            stranger.send_text(&format!("{user} says {number}")).await;
        }
        while !stranger.text().await.starts_with(refusal) {} // What was sent after it may be refused before it is told.

        // A message to all reaches ann and not the stranger, who is only answered what it sends itself.
        assert_eq!(
            ask(&mut ann, "good morning").await,
            "good morning",
            "{user}: a message of the stranger came before"
        );
        let answer = ask(&mut stranger, "is anybody there").await;
        assert!(answer.starts_with("refused not-joined:"), "{user}: {answer}");
    }
    assert_eq!(ask(&mut ann, "echo still here").await, "still here");
}

/// Law: durable timers outlive the process; volatile ones do not.
#[tokio::test]
async fn durable_timers_survive_kill_9() {
    let mut broker = Setup::fixture("").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "append-on-timer due 300").await, "ok");
    assert_eq!(ask(&mut ann, "append-on-timer later 600000").await, "ok");
    assert_eq!(ask(&mut ann, "timer-volatile gone 600000").await, "ok");
    broker.kill();
    broker.start();

    // Nobody wakes the channel but its timer.
    let mut database = {
        let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db")).read_only(true);
        options.connect().await.expect("the database")
    };
    let watch = async {
        loop {
            let timers: Vec<String> = sqlx::query_scalar("SELECT name FROM timer ORDER BY name")
                .fetch_all(&mut database)
                .await
                .expect("timers");
            if timers == ["append:later"] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, watch).await.expect("the timer fires");
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "read 1 10").await, "entries 1=due");
}

/// Law: a sleeping channel wakes for its timer, with its memory and its members.
#[tokio::test]
async fn timers_and_memory_survive_sleep() {
    let mut broker = limits("idle_ms = 30").start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "append-on-timer due 700").await, "ok");
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    assert_eq!(ann.text().await, "timer append:due");
    assert_eq!(ask(&mut ann, "count").await, "count 3");
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    assert_eq!(ask(&mut ann, "count").await, "count 4", "what was saved is handed over");

    asserts_fault(&mut ann, "trap").await;
    assert_eq!(ask(&mut ann, "count").await, "count 1", "after a trap memory is gone");
    assert_eq!(ask(&mut ann, "save-corrupt").await, "ok");
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    until_answer(&mut ann, "echo on", |answer| answer == "on").await;

    broker.kill();
    broker.start();
    let mut ann = join(&broker, "a", "ann").await;
    assert_eq!(ask(&mut ann, "count").await, "count 2", "after a crash memory is gone");
    assert_eq!(ask(&mut ann, "read 1 10").await, "entries 1=due");
}

/// Law: a slow reader gets the newest of what is conflated, never a backlog, and holds nobody up.
#[tokio::test]
async fn a_slow_reader_gets_the_newest_of_what_is_conflated() {
    let broker = limits("cpu_ms_max = 5000\noutbox_bytes_max = 1_048_576").start();
    let mut slow = join(&broker, "a", "slow").await;
    let mut fast = join(&broker, "a", "fast").await;
    let rounds = 20;
    for _ in 0..rounds {
        fast.send_text("conflate-big 100 60000").await;
        fast.send_text("echo next").await;
        while fast.text().await != "next" {}
    }
    fast.send_text("conflate 1").await;
    fast.send_text("last").await;

    let mut conflated = Vec::new();
    loop {
        let text = slow.text().await;
        if text == "last" {
            break;
        }
        conflated.push(text.split(' ').nth(1).and_then(|turn| turn.parse::<u32>().ok()).expect("a turn"));
    }
    assert_eq!(conflated.last(), Some(&0), "the newest came last");
    assert!(conflated.len() < rounds * 100, "{} frames: nothing was conflated", conflated.len());
}

/// Law: a slow reader loses low priority first, and is told how much when it has caught up, to the frame: also of a burst of
/// several frames that was partly on the wire.
#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost() {
    let broker = limits("cpu_ms_max = 5000\noutbox_bytes_max = 1_048_576").start();
    let mut slow = join(&broker, "a", "slow").await;
    let mut fast = join(&broker, "a", "fast").await;
    for _ in 0..60 {
        slow.send_text("big-user 7 100000").await;
        assert_eq!(ask(&mut fast, "echo on").await, "on");
    }
    broker.until_metric("hotbay_outbox_shed_total", 1.0).await;

    // The last messages may still be on their way when reading begins, so it may be told more than once.
    let (mut received, mut lost) = (0, 0);
    while received + lost < 420 {
        let text = slow.text().await;
        match text.strip_prefix("refused lost: ").and_then(|told| told.split(' ').next()) {
            Some(told) => lost += told.parse::<u32>().expect("a number"),
            None => received += 1,
        }
    }
    assert!(lost > 0 && received + lost == 420, "{received} received, {lost} lost of 420");
    assert_eq!(ask(&mut slow, "echo on").await, "on", "it is told of more than there was");
    assert_eq!(ask(&mut fast, "echo on").await, "on");
}

/// Law: whether a refusal has words is the plugin's to say (`refused` in `wit/handler.wit`). Where it has none, nothing comes in their
/// place; the refusal is counted all the same, and who faults again and again is closed.
#[tokio::test]
async fn a_refusal_without_words_is_silent_and_counted() {
    let broker = Setup::fixture("").start();
    let mut ann = join(&broker, "a", "ann").await;
    ann.send_text("trap refuse-silently").await;
    assert_eq!(ask(&mut ann, "echo next").await, "next", "nothing comes before it");
    assert!(broker.metric("hotbay_refusals_total").await >= 1.0);
    for _ in 0..3 {
        ann.send_text("trap refuse-silently").await;
    }
    assert_eq!(ann.close_code().await, Some(1011));
}

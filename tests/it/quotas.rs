//! What a tenant may use: each limit from outside, set while the tenant is being served, beside another tenant that feels nothing of it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::admin::{Admin, fixture};
use crate::support::broker::{Broker, Setup};
use crate::support::client::Client;
use crate::support::http;

/// A broker whose members say their tenant, an operator, and the two tenants' keys.
struct Site {
    broker: Broker,
    operator: Admin,
}

impl Site {
    fn start(setup: Setup) -> Self {
        let broker = setup.start();
        let operator = Admin::operator(&broker);
        Self { broker, operator }
    }

    async fn restart(&mut self) {
        self.broker.terminate().await;
        self.broker.start();
        // It listens on another port.
        self.operator = Admin::with(&self.broker, Some(self.operator.key()));
    }

    fn limit(&self, tenant: &str, limits: &Value) {
        let set = self.operator.cli(&["tenant", "set", tenant, "--limits", &limits.to_string(), "--json"]).json();
        assert_eq!(set["limits"], *limits);
    }

    fn url(&self, tenant: &str, user: &str, channel: &str) -> String {
        let token = self.broker.token(user, json!({ "tenant": tenant }));
        format!("ws://{}/ws?channel={channel}&token={token}", self.broker.address())
    }

    async fn join(&self, tenant: &str, user: &str, channel: &str) -> Client {
        Client::connect(&self.url(tenant, user, channel)).await
    }

    async fn usage(&self, tenant: &str) -> Value {
        self.operator.get(&format!("/tenants/{tenant}/usage")).await.json()
    }
}

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_make_no_sense_are_refused_and_say_which() {
    let site = Site::start(Setup::fixture(""));
    for (limits, words) in [
        (r#"{"conections_max":1}"#, "unknown field `conections_max`"),
        (r#"{"messages_per_second":0}"#, "messages_per_second is 0"),
        (r#"{"state_bytes_max":-1}"#, "state_bytes_max: invalid value"),
    ] {
        let ended = site.operator.cli(&["tenant", "set", "acme", "--limits", limits]);
        assert!(ended.code == Some(1) && ended.err.contains(words), "{limits}: {ended:?}");
    }
    assert_eq!(site.operator.get("/tenants/acme").await.status, 404, "nothing of it stayed");
}

/// Law: a limit holds from the moment it is set, whoever is there stays, and another tenant never feels it; also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_while_people_are_connected() {
    let mut site = Site::start(Setup::fixture(""));
    let mut early = [site.join("acme", "ann", "a").await, site.join("acme", "bob", "a").await];
    site.limit("acme", &json!({ "connections_max": 1 }));
    assert_eq!(Client::refused_status(&site.url("acme", "cat", "a"), &[]).await, 429);
    for client in &mut early {
        assert_eq!(ask(client, "echo still here").await, "still here");
    }
    let mut other = site.join("globex", "ann", "a").await;
    assert_eq!(ask(&mut other, "members").await.matches('#').count(), 1);
    let usage = site.usage("acme").await;
    assert_eq!((&usage["connections"], &usage["refusals"]), (&json!(2), &json!(1)));
    assert_eq!(usage["limits"], json!({ "connections_max": 1 }));
    drop((early, other));

    site.restart().await;
    let mut one = site.join("acme", "ann", "a").await;
    assert_eq!(Client::refused_status(&site.url("acme", "bob", "a"), &[]).await, 429, "after a restart");
    assert_eq!(site.operator.cli(&["tenant", "delete", "acme"]).code, Some(0));
    let mut two = site.join("acme", "bob", "a").await;
    assert_eq!((ask(&mut one, "echo 1").await, ask(&mut two, "echo 2").await), ("1".to_owned(), "2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_limited_and_may_be_had_again_when_one_is_empty() {
    let site = Site::start(Setup::fixture("limits = { idle_ms = 100 }"));
    site.limit("acme", &json!({ "channels_max": 1 }));
    let mut first = site.join("acme", "ann", "a").await;
    assert_eq!(ask(&mut first, "echo joined").await, "joined");
    let (code, reason) = site.join("acme", "bob", "b").await.closed().await.expect("a close frame");
    assert!(code == 1013 && reason.contains("try again later"), "{code} {reason}");
    let key = site.broker.run(&["key", "create", "--tenant", "acme", "--name", "k"]);
    let refused = site.broker.publish(key.trim(), "fixture:b", &json!("echo")).await;
    assert!(refused.status == 503 && refused.text.contains("channels_max"), "{refused:?}");
    let mut other = site.join("globex", "ann", "b").await;
    assert_eq!(ask(&mut other, "echo joined").await, "joined");

    first.close().await;
    site.broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    let mut second = site.join("acme", "bob", "b").await;
    assert_eq!(ask(&mut second, "echo joined").await, "joined");
}

/// Law: what comes too fast waits, and nothing of it is lost; what can be told to come again is told when.
#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_and_requests_are_told_to() {
    // Whoever is not read is not taken for dead, either.
    let site = Site::start(Setup::fixture("heartbeat = { interval_ms = 200, timeout_ms = 600 }"));
    site.limit("acme", &json!({ "messages_per_second": 40 }));
    let mut ann = site.join("acme", "ann", "a").await;
    for number in 0..120 {
        ann.send_text(&format!("echo {number}")).await;
    }
    let mut other = site.join("globex", "ann", "a").await;
    for number in 0..200 {
        assert_eq!(ask(&mut other, &format!("echo {number}")).await, number.to_string());
    }
    for number in 0..120 {
        assert_eq!(ann.text().await, number.to_string(), "all of them, in order");
    }
    let [acme, globex] = [site.usage("acme").await, site.usage("globex").await];
    assert!(acme["waits"].as_u64() > Some(0) && globex["waits"] == json!(0), "{acme} {globex}");
    assert_eq!((&acme["messages"], &globex["messages"]), (&json!(120), &json!(200)));

    let [acme, globex] =
        ["acme", "globex"].map(|tenant| site.broker.run(&["key", "create", "--tenant", tenant, "--name", "k"]));
    let publish = async |key: &str| site.broker.publish(key.trim(), "fixture:a", &json!("echo")).await;
    let refused = loop {
        let answer = publish(&acme).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert!(refused.status == 429 && refused.text.contains("messages_per_second"), "{refused:?}");
    assert!(refused.header("retry-after").and_then(|wait| wait.parse::<u32>().ok()) > Some(0), "{refused:?}");
    assert_eq!(publish(&globex).await.status, 200);
}

/// Law: over any time, no more is handled than the limit and the burst of a second, however much lies in the socket when it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_not_handled_at_once() {
    const PER_SECOND: u32 = 20;
    let site = Site::start(Setup::fixture("heartbeat = { interval_ms = 200, timeout_ms = 600 }"));
    site.limit("acme", &json!({ "messages_per_second": PER_SECOND }));
    let mut ann = site.join("acme", "ann", "a").await;
    assert_eq!(ask(&mut ann, "echo joined").await, "joined");
    let began = Instant::now();
    for number in 0..80 {
        ann.send_text(&format!("echo {number}")).await;
        if number == 20 {
            // It is held now, and all others are there when it is not any more.
            while site.usage("acme").await["waits"] == json!(0) {
                tokio::task::yield_now().await;
            }
        }
    }
    for number in 0..80 {
        assert_eq!(ann.text().await, number.to_string(), "all of them, in order");
        // The broker counts whole milliseconds.
        let earliest = Duration::from_secs(number).saturating_sub(Duration::from_secs(PER_SECOND.into())) / PER_SECOND;
        let came = began.elapsed() + Duration::from_millis(2);
        assert!(came >= earliest, "message {number} was handled after {came:?}");
    }
}

/// Law: what a member brings beyond its own rate is not on its tenant's account, or one could use up what is for all.
#[tokio::test(flavor = "multi_thread")]
async fn who_floods_does_not_hold_up_the_others_of_the_tenant() {
    let rate = "limits = { rate_per_connection = { per_second = 1, burst = 10 } }";
    let site = Site::start(Setup::fixture(rate));
    site.limit("acme", &json!({ "messages_per_second": 20 }));
    let mut flood = site.join("acme", "ann", "a").await;
    for number in 0..500 {
        flood.send_text(&format!("echo {number}")).await;
    }
    let mut served = 0;
    for _ in 0..500 {
        served += u32::from(!flood.text().await.starts_with("refused rate-limited"));
    }
    assert!((10..20).contains(&served), "{served}");
    let mut calm = site.join("acme", "bob", "b").await;
    assert_eq!(ask(&mut calm, "echo hello").await, "hello");
    let usage = site.usage("acme").await;
    assert!(usage["messages"].as_u64() < Some(20) && usage["waits"] == json!(0), "{usage}");
}

/// Law: at a limit of what is kept, what adds is refused with the limit's name and leaves no trace, what replaces or deletes is not, and
/// none of it is forgotten by a restart.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_keeps_is_limited() {
    let mut site = Site::start(Setup::fixture("limits = { idle_ms = 100 }"));
    site.limit("acme", &json!({ "state_bytes_max": 2_000, "log_bytes_max": 2_000 }));
    let mut ann = site.join("acme", "ann", "a").await;
    assert_eq!(ask(&mut ann, "put-big one 900").await, "ok");
    let mut bob = site.join("acme", "bob", "b").await;
    assert_eq!(ask(&mut bob, "put-big two 900").await, "ok");
    let refused = ask(&mut bob, "put-big three 900").await;
    assert!(refused.contains("state_bytes_max") && refused.contains("unavailable"), "{refused}");
    assert_eq!(ask(&mut bob, "get three").await, "none");
    assert_eq!(ask(&mut bob, "put-big two 900").await, "ok", "what replaces adds nothing");
    // Sent at once, they are one batch; those that fit are not refused for the others.
    bob.send_text("put-big large 5000").await;
    bob.send_text("put small 1").await;
    assert!(bob.text().await.contains("state_bytes_max"));
    assert_eq!(bob.text().await, "ok");
    assert_eq!(ask(&mut bob, "append-big 1500").await, "offset 1");
    let refused = ask(&mut ann, "append-big 600").await;
    assert!(refused.contains("log_bytes_max"), "{refused}");
    let mut other = site.join("globex", "ann", "a").await;
    assert_eq!(ask(&mut other, "put-big one 9000").await, "ok");

    let before = site.usage("acme").await;
    assert_eq!((&before["state_bytes"], &before["log_bytes"]), (&json!(903 + 903 + 6), &json!(1_500)));
    drop((ann, bob, other));
    site.restart().await;
    let mut ann = site.join("acme", "ann", "a").await;
    assert!(ask(&mut ann, "put-big three 900").await.contains("state_bytes_max"), "after a restart");
    let after = site.usage("acme").await;
    assert_eq!((&after["state_bytes"], &after["log_bytes"]), (&before["state_bytes"], &before["log_bytes"]));

    assert_eq!(ask(&mut ann, "delete one").await, "ok");
    assert_eq!(ask(&mut ann, "put-big three 900").await, "ok", "there is room again");
    let reset = site.operator.cli(&["channel", "reset", "acme/fixture:b", "--confirm", "fixture:b"]);
    assert_eq!(reset.code, Some(0), "{reset:?}");
    let reset = site.usage("acme").await;
    assert_eq!((&reset["state_bytes"], &reset["log_bytes"]), (&json!(905), &json!(0)));
}

/// Goal: with more channels than may be awake, each has its turn.
#[tokio::test(flavor = "multi_thread")]
async fn channels_take_turns_at_being_awake() {
    let site = Site::start(Setup::fixture("limits = { idle_ms = 600000 }"));
    site.limit("acme", &json!({ "channels_awake_max": 1 }));
    let mut other = site.join("globex", "ann", "a").await;
    assert_eq!(ask(&mut other, "echo joined").await, "joined");
    let mut members = Vec::new();
    for channel in ["a", "b", "c"] {
        let mut member = site.join("acme", "ann", channel).await;
        assert_eq!(ask(&mut member, &format!("echo {channel}")).await, channel);
        members.push(member);
    }
    // A volatile timer keeps the last one awake, however long the question takes.
    assert_eq!(ask(&mut members[2], "timer-volatile tick 600000").await, "ok");
    assert_eq!(site.usage("acme").await["channels_awake"], json!(1));
    assert_eq!(ask(&mut members[2], "cancel tick").await, "ok");
    assert_eq!(ask(&mut members[0], "echo again").await, "again");
    assert_eq!(site.usage("globex").await["channels_awake"], json!(1), "no other tenant's sleeps for that");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_a_tenants_plugins_is_limited() {
    let site = Site::start(Setup::fixture("limits = { memory_bytes_max = 67108864 }"));
    let mut ann = site.join("acme", "ann", "a").await;
    assert_eq!(ask(&mut ann, "keep 8").await, "grown 8");
    let used = site.usage("acme").await["plugin_memory_bytes"].as_u64().expect("bytes");
    assert!(used > 8 << 20, "{used}");
    site.limit("acme", &json!({ "plugin_memory_bytes_max": used + (4 << 20) }));
    let refused = ask(&mut ann, "keep 16").await;
    assert!(refused.contains("plugin_memory_bytes_max"), "{refused}");
    assert!(site.broker.metric("hotbay_channel_quarantines_total").await < 1.0);
    for _ in 0..4 {
        ask(&mut ann, "keep 16").await;
    }
    assert_eq!(ask(&mut ann, "echo still").await, "still", "a limit of the tenant is no fault of a member");
    let mut other = site.join("globex", "ann", "a").await;
    assert_eq!(ask(&mut other, "keep 16").await, "grown 16");

    site.limit("acme", &json!({ "plugin_memory_bytes_max": 1 << 16 }));
    let mut bob = site.join("acme", "bob", "b").await;
    let refused = ask(&mut bob, "echo hello").await;
    assert!(refused.contains("plugin_memory_bytes_max"), "{refused}");
    site.limit("acme", &json!({}));
    let mut bob = site.join("acme", "bob", "b").await;
    assert_eq!(ask(&mut bob, "echo hello").await, "hello");
}

/// Law: a tenant out of processor time waits, in turn and with nothing lost, and another one does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_out_of_processor_time_waits_and_others_do_not() {
    let site = Site::start(Setup::fixture("limits = { idle_ms = 600000 }"));
    site.limit("acme", &json!({ "plugin_cpu_ms_per_second": 50 }));
    let mut busy = Vec::new();
    for channel in ["a", "b", "c"] {
        busy.push(site.join("acme", "ann", channel).await);
    }
    let mut other = site.join("globex", "ann", "a").await;
    let asked = async {
        while site.usage("acme").await["waits"] == json!(0) {
            tokio::task::yield_now().await;
        }
        for number in 0..100 {
            assert_eq!(ask(&mut other, &format!("echo {number}")).await, number.to_string());
        }
        site.usage("globex").await
    };
    let worked = join_all(busy.iter_mut().map(async |member| {
        for _ in 0..20 {
            assert_eq!(ask(member, "work 50").await, "worked 50");
        }
    }));
    tokio::pin!(worked);
    let globex = tokio::select! {
        biased;
        globex = asked => globex,
        _ = &mut worked => panic!("those out of time were served before those who have some"),
    };
    assert_eq!(globex["waits"], json!(0));
    site.limit("acme", &json!({ "plugin_cpu_ms_per_second": 100_000 }));
    worked.await;
    let acme = site.usage("acme").await;
    assert!(acme["waits"].as_u64() > Some(0) && acme["plugin_cpu_us"].as_u64() > Some(100_000), "{acme}");
    let expensive = site.operator.get("/usage?limit=1").await.json();
    assert_eq!(expensive["tenants"][0]["tenant"], "acme");
    assert_eq!(expensive["plugins"][0]["plugin"], "fixture");
    let told = site.operator.cli(&["tenant", "usage"]).words();
    assert!(told.lines().nth(1).is_some_and(|line| line.starts_with("acme")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_a_day_are_limited() {
    let site = Site::start(Setup::fixture(""));
    site.limit("acme", &json!({ "uploads_per_day": 1 }));
    let [acme, globex] = ["acme", "globex"].map(|tenant| Admin::tenant(&site.broker, tenant));
    let push =
        |admin: &Admin, tenant: &str, version: &str| admin.push(&fixture(), "mine", version, &["--tenant", tenant]);
    let first = push(&acme, "acme", "1.0.0");
    assert_eq!(first.code, Some(0), "{first:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let another = crate::support::rebuilt("fixture", "another", folder.path());
    let refused = acme.push(&another, "mine", "1.0.1", &["--tenant", "acme"]);
    assert!(refused.code == Some(1) && refused.err.contains("uploads_per_day"), "{refused:?}");
    assert_eq!(push(&globex, "globex", "1.0.0").code, Some(0));
}

/// Law: tenants' names are for operators.
#[tokio::test(flavor = "multi_thread")]
async fn what_tenants_use_is_told_in_metrics_to_operators_only() {
    let site = Site::start(Setup::fixture(""));
    let mut ann = site.join("acme-corp", "ann", "a").await;
    assert_eq!(ask(&mut ann, "echo hello").await, "hello");
    let metrics = async |key: Option<&str>| {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        http::get(&site.broker.http("/metrics"), &headers).await
    };
    let open = metrics(None).await;
    assert!(open.status == 200 && open.text.contains("hotbay_connections 1") && !open.text.contains("acme-corp"));
    let told = metrics(Some(site.operator.key())).await;
    for line in [
        "hotbay_tenant_connections{tenant=\"acme-corp\"} 1",
        "hotbay_tenant_messages_in_total{tenant=\"acme-corp\"} 1",
        "hotbay_plugin_version_events_total{plugin=\"fixture\",digest=\"",
    ] {
        assert!(told.status == 200 && told.text.contains(line), "{line} is not in {}", told.text);
    }
    assert_eq!(metrics(Some(Admin::tenant(&site.broker, "acme-corp").key())).await.status, 403);
    assert_eq!(metrics(Some("hb_wrong")).await.status, 401);
}

//! Law: nothing crosses tenants. Two of them share a broker, a mount and a plugin that tries whatever it can think of, capability by
//! capability; both have the same channels, users, keys, timers and statements. What one has, the other can neither read nor name, and
//! what belongs to the other is to it as what does not exist. What it might infer besides is sought at random in
//! [`neighbours`](crate::neighbours).

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::{Client, DEADLINE};
use crate::support::http;

/// Tenants whose names are nearly the same.
pub(crate) const PAIRS: [(&str, &str); 3] = [("acme", "acme2"), ("acme-", "Acme-"), ("a.b", "a")];

/// A mount of both, whose plugin routes nothing.
fn setup() -> Setup {
    Setup::fixture_mount(
        "channel = \"fixture:{query.channel}\"\nchannels = [\"fixture:*\", \"else:*\"]\n\
         [mount.fixture.limits]\ncpu_ms_max = 10_000\nrequest_ms_max = 5_000\n\
         [[mount.fixture.http]]\npath = \"/*\"\nchannel = \"fixture:room\"",
    )
}

/// Somebody of a tenant in a channel, whose join is settled.
async fn join(broker: &Broker, tenant: &str, channel: &str, user: &str) -> Client {
    let token = token(user, json!({ "tenant": tenant }), 3_600);
    let mut client = broker.connect_with(&format!("/ws?channel={channel}"), &token).await;
    assert_eq!(ask(&mut client, "echo joined").await, "joined");
    client
}

async fn ask(client: &mut Client, command: &str) -> String {
    client.send_text(command).await;
    client.text().await
}

/// Sends a command that answers nothing by itself. Whatever it made the plugin send would come before the end.
async fn tell(client: &mut Client, command: &str) {
    client.send_text(command).await;
    assert_eq!(ask(client, "echo told").await, "told", "after {command}");
}

/// Asserts that nothing came that was not asked for.
async fn heard_nothing(client: &mut Client) {
    assert_eq!(ask(client, "echo nothing").await, "nothing");
}

/// `channel`: members of another tenant are not listed, found, written to or closed, whether by id, by user or all together; and their ids
/// are like ids that nobody has.
#[tokio::test]
async fn members_of_another_tenant_are_not_there() {
    let broker = setup().start();
    for (own, other) in PAIRS {
        let mut ann = join(&broker, own, "room", "ann").await;
        let mut foreign = join(&broker, other, "room", "ann").await;
        let mut bob = join(&broker, other, "room", "bob").await;
        let members = ask(&mut foreign, "members").await;
        let ids: Vec<&str> = members.split(['#', ' ']).filter(|word| word.parse::<u64>().is_ok()).collect();
        assert_eq!(ids.len(), 2, "{members}");

        assert_eq!(ask(&mut ann, "members").await.matches('#').count(), 1);
        for id in ids.into_iter().chain(["0", "1", "18446744073709551615"]) {
            assert_eq!(ask(&mut ann, &format!("member {id}")).await, "none", "{id}");
            assert_eq!(ask(&mut ann, &format!("send-member {id} secret")).await, "ok", "{id}");
            assert_eq!(ask(&mut ann, &format!("close-member {id}")).await, "ok", "{id}");
        }
        for command in ["to bob secret", "except secret", "flood 0"] {
            tell(&mut ann, command).await;
        }
        assert_eq!(ask(&mut ann, "to ann mine").await, "mine");
        assert_eq!(ask(&mut ann, "say all of us").await, "all of us");
        heard_nothing(&mut foreign).await;
        heard_nothing(&mut bob).await;
    }
}

/// `kv` and `log`: what another tenant keeps under the same names is not there; nor by keys and offsets made to leave the channel.
#[tokio::test]
async fn what_another_tenant_keeps_is_not_there() {
    let keys =
        ["k", "", "../k", "k\0", "k%", "_", "*", "ключ", "\u{10FFFF}", "'; DROP TABLE state; --", "fixture/room"];
    let mut broker = setup().start();
    for (own, other) in PAIRS {
        let mut foreign = join(&broker, other, "room", "ann").await;
        for key in keys.into_iter().filter(|key| !key.contains(' ')) {
            assert_eq!(ask(&mut foreign, &format!("put {key} secret")).await, "ok");
        }
        assert_eq!(ask(&mut foreign, "put-big large 100000").await, "ok");
        for number in 1..=3 {
            assert_eq!(ask(&mut foreign, "append secret").await, format!("offset {number}"));
        }
        let mut ann = join(&broker, own, "room", "ann").await;
        for key in keys {
            assert_eq!(ask(&mut ann, &format!("get {key}")).await, "none", "{key:?}");
            assert_eq!(ask(&mut ann, &format!("scan {key}")).await, "keys ", "{key:?}");
            assert_eq!(ask(&mut ann, &format!("delete {key}")).await, "ok", "{key:?}");
        }
        for offset in ["0", "1", "3", "9223372036854775807", "18446744073709551615"] {
            assert_eq!(ask(&mut ann, &format!("read {offset} 1000")).await, "entries ", "{offset}");
            assert_eq!(ask(&mut ann, &format!("replace {offset} forged")).await, "replaced false", "{offset}");
        }
        assert_eq!(ask(&mut ann, "trim 18446744073709551615").await, "bounds 1 1");
        assert_eq!(ask(&mut ann, "append mine").await, "offset 1");
    }

    broker.kill();
    broker.start();
    for (own, other) in PAIRS {
        let mut foreign = join(&broker, other, "room", "ann").await;
        assert_eq!(ask(&mut foreign, "read 1 1000").await, "entries 1=secret 2=secret 3=secret");
        assert_eq!(ask(&mut foreign, "get k").await, "value secret");
        let mut ann = join(&broker, own, "room", "ann").await;
        assert_eq!(ask(&mut ann, "read 1 1000").await, "entries 1=mine");
    }
}

/// `publish`: reaches channels of the same tenant and no others, whatever is made of the name; and a channel of another tenant is like one
/// that does not exist.
#[tokio::test]
async fn publications_stay_with_their_tenant() {
    let broker = setup().start();
    for (own, other) in PAIRS {
        let mut ann = join(&broker, own, "from", "ann").await;
        let mut sister = join(&broker, own, "room", "sister").await;
        let mut foreign = join(&broker, other, "room", "bob").await;
        let mut alone = join(&broker, other, "alone", "bob").await;

        tell(&mut ann, "publish fixture:room echo published").await;
        assert_eq!(sister.text().await, "published");
        // What is a name, but of no channel here; one that only the other tenant has; and what is none.
        let unserved = [format!("{other}:fixture:room"), format!("{other}.fixture:room"), "fixture:alone".to_owned()];
        let forged = [
            format!("{other}/fixture:room"),
            format!("../{other}/fixture:room"),
            format!("/{other}/fixture:room"),
            format!("{other}\0fixture:room"),
            "fixture:room\0".to_owned(),
            "fixture:rооm".to_owned(),
            "fixture:../room".to_owned(),
            "fixture::room".to_owned(),
            "fixture:*".to_owned(),
            "..".to_owned(),
            String::new(),
        ];
        for name in &unserved {
            tell(&mut ann, &format!("publish {name} echo secret")).await;
        }
        for name in &forged {
            let refused = ask(&mut ann, &format!("publish {name} echo secret")).await;
            let words = "refused fault: the channel's plugin failed on this message; nothing was changed";
            assert_eq!(refused, words, "{name:?}");
            heard_nothing(&mut ann).await;
        }
        // Couriers deliver in order: what was sent before this is there, or nowhere.
        tell(&mut ann, "publish fixture:room echo last").await;
        assert_eq!(sister.text().await, "last");
        for client in [&mut foreign, &mut alone, &mut sister] {
            heard_nothing(client).await;
        }
        assert_eq!(ask(&mut alone, "members").await.matches('#').count(), 1);
    }
}

/// `respond`: a request can be answered by the channel that it came to alone.
#[tokio::test]
async fn requests_of_another_tenant_cannot_be_answered() {
    let broker = setup().start();
    for (own, other) in PAIRS {
        let mut ann = join(&broker, own, "room", "ann").await;
        let mut foreign = join(&broker, other, "room", "bob").await;
        let url = broker.http(&format!("/ws/late?token={}", token("bob", json!({ "tenant": other }), 60)));
        let request = tokio::spawn(async move { http::get(&url, &[]).await });
        let waiting = async {
            loop {
                let late = ask(&mut foreign, "late").await;
                if late != "late 0" {
                    return late;
                }
            }
        };
        let late = tokio::time::timeout(DEADLINE, waiting).await.expect("the request in time");
        let id = late.strip_prefix("late ").expect("an id");

        assert_eq!(ask(&mut ann, &format!("respond {id} \"forged\"")).await, "ok");
        assert_eq!(ask(&mut ann, "respond 1 \"forged\"").await, "ok");
        heard_nothing(&mut foreign).await;
        let answer = request.await.expect("an answer");

        assert_eq!((answer.status, answer.text.as_str()), (200, "\"late\""));
    }
}

/// Timers: each fires in the channel that set it, and is cancelled there alone; also those of sleeping channels, after a restart.
#[tokio::test]
async fn timers_of_another_tenant_are_left_alone() {
    let mut broker = setup().start();
    for (own, other) in PAIRS {
        let mut ann = join(&broker, own, "room", "ann").await;
        let mut foreign = join(&broker, other, "room", "ann").await;
        assert_eq!(ask(&mut ann, "timer far 3600000").await, "ok");
        assert_eq!(ask(&mut foreign, "append-on-timer soon 500").await, "ok");
        assert_eq!(ask(&mut foreign, "timer-volatile soon 500").await, "ok");
        for name in ["append:soon", "soon"] {
            assert_eq!(ask(&mut ann, &format!("cancel {name}")).await, "ok");
        }
        let fired = [foreign.text().await, foreign.text().await];
        assert!(
            fired.contains(&"timer soon".to_owned()) && fired.contains(&"timer append:soon".to_owned()),
            "{fired:?}"
        );
        assert_eq!(ask(&mut foreign, "cancel far").await, "ok");
        heard_nothing(&mut ann).await;
    }
    for (_, other) in PAIRS {
        let mut foreign = join(&broker, other, "room", "ann").await;
        assert_eq!(ask(&mut foreign, "append-on-timer late 2000").await, "ok");
    }

    broker.kill();
    broker.start();
    broker.until_metric("hotbay_batches_total", PAIRS.len() as f64).await;
    for (own, other) in PAIRS {
        let mut foreign = join(&broker, other, "room", "ann").await;
        assert_eq!(ask(&mut foreign, "read 1 10").await, "entries 1=soon 2=late");
        let mut ann = join(&broker, own, "room", "ann").await;
        assert_eq!(ask(&mut ann, "read 1 10").await, "entries ");
    }
}

/// `sql`: the host says whose rows they are, whatever the plugin gives; also where the calls of both become one statement.
#[tokio::test]
async fn statements_answer_with_the_rows_of_the_tenant() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("shop.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut database = options.connect().await.expect("a database");
    let mut rows = vec!["CREATE TABLE stock (tenant TEXT, owner TEXT, item TEXT)".to_owned()];
    for (own, other) in PAIRS {
        rows.extend([own, other].map(|tenant| format!("INSERT INTO stock VALUES ('{tenant}', 'ann', 'of {tenant}')")));
    }
    let rows = sqlx::AssertSqlSafe(rows.join(";"));
    sqlx::raw_sql(rows).execute(&mut database).await.expect("rows");
    let statements = format!(
        "[datasource.shop]\nurl = \"sqlite:{}\"\n\
         [datasource.shop.statement.one]\nsql = \"SELECT item FROM stock WHERE tenant = $1 AND owner = $2\"\n\
         parameters = [\"tenant\", \"text\"]\n\
         [datasource.shop.statement.many]\n\
         sql = \"SELECT owner, item FROM stock WHERE owner IN ($1) AND tenant = $2\"\n\
         parameters = [\"text\", \"tenant\"]\nbatch_key = \"owner\"\nbatch_wait_ms = 50\n\
         [datasource.shop.statement.secret]\nsql = \"SELECT item FROM stock\"\n\
         [mount.fixture.statements]\none = \"shop.one\"\nmany = \"shop.many\"\n",
        path.display()
    );
    let broker = setup().and(&statements).start();
    for (own, other) in PAIRS {
        let mut ann = join(&broker, own, "room", "ann").await;
        let mut foreign = join(&broker, other, "room", "ann").await;
        let mine = format!("[[Value::Text(\"of {own}\")]]");
        assert_eq!(ask(&mut ann, "sql one ann").await, format!("rows [\"item\"] {mine}"));
        for command in [format!("sql one ann {other}"), format!("sql one {other} ann"), format!("sql many ann {other}")]
        {
            let refused = ask(&mut ann, &command).await;
            assert!(refused.starts_with("error Error::BadParameters"), "{command}: {refused}");
        }
        assert_eq!(ask(&mut ann, "sql one '||tenant||'").await, "rows [] []");
        assert_eq!(ask(&mut ann, "sql one ann'OR'1'='1").await, "rows [] []");
        let answers = join_all([ask(&mut ann, "sql many ann"), ask(&mut foreign, "sql many ann")]).await;
        for (answer, tenant) in answers.iter().zip([own, other]) {
            let expected = format!("rows [\"owner\", \"item\"] [[Value::Text(\"ann\"), Value::Text(\"of {tenant}\")]]");
            assert_eq!(*answer, expected, "of {tenant}");
        }
        // What there is and is not granted, and what there is not.
        let (secret, nothing) = (ask(&mut ann, "sql secret").await, ask(&mut ann, "sql nothing").await);
        assert_eq!((secret.as_str(), nothing.as_str()), ("error Error::NotGranted", "error Error::NotGranted"));
    }
}

/// A log of text without what the broker colours it with.
fn without_colours(log: &str) -> String {
    let mut parts = log.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((colour, rest)) if colour.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => plain.extend(["\u{1b}[", part]),
        }
    }
    plain
}

/// `logging`: a line has the tenant and the channel it comes from, whatever is in it, and the flood of one tenant takes no room of another.
#[tokio::test]
async fn log_lines_cannot_be_put_into_the_mouth_of_another_tenant() {
    for format in ["json", "text"] {
        let broker = setup().set("log.format", format).start();
        let channel_of = |tenant: &str| match format {
            "json" => format!("\"channel\":\"{tenant}/fixture:room\""),
            _ => format!(" channel=\"{tenant}/fixture:room\""),
        };
        for (own, other) in PAIRS {
            let mut ann = join(&broker, own, "room", "ann").await;
            let mut foreign = join(&broker, other, "room", "ann").await;
            for (breaks, command) in
                [("\n", "log-text"), ("\r", "log-text"), ("\u{1b}[1A", "log-text"), ("\n", "stdout")]
            {
                let forged = format!("x{breaks}2026-11-30T00:00:00.000000Z  INFO hotbay::plugin: said by nobody");
                ask(&mut ann, &format!("{command} {forged}")).await;
            }
            ann.send_text("log 5000").await;
            heard_nothing(&mut ann).await;
            let words = format!("said by {other} itself");
            assert_eq!(ask(&mut foreign, &format!("log-text {words}")).await, "ok");
            let log = without_colours(&broker.until_log(&words).await);
            let line = log.lines().find(|line| line.contains(&words)).expect("a line");
            assert!(line.contains(&channel_of(other)), "{line}");
        }
        let log = without_colours(&broker.log());
        let forged: Vec<&str> = log.lines().filter(|line| line.contains("said by nobody")).collect();
        assert_eq!(forged.len(), 4 * PAIRS.len(), "{forged:#?}");
        for line in forged {
            let owner = PAIRS.iter().find(|(own, _)| line.contains(&channel_of(own)));
            assert!(owner.is_some(), "of nobody: {line}");
            assert!(!line.contains(['\u{1b}', '\r']), "{line:?}");
        }
    }
}

/// Time and chance: what one tenant draws says nothing of what another draws.
#[tokio::test]
async fn tenants_draw_different_numbers() {
    let broker = setup().start();
    let mut drawn = std::collections::BTreeSet::new();
    let mut count = 0;
    for (own, other) in PAIRS {
        for tenant in [own, other] {
            let mut ann = join(&broker, tenant, "room", "ann").await;
            let opened = ask(&mut ann, "tenant").await;
            let (name, seed) = opened.strip_prefix("tenant ").and_then(|rest| rest.split_once(' ')).expect("a seed");
            assert_eq!(name, tenant);
            let random = ask(&mut ann, "random").await;
            let numbers = random.split(' ').skip(1).chain([seed]);
            for number in numbers {
                drawn.insert(number.parse::<u64>().expect("a number"));
                count += 1;
            }
        }
    }
    assert_eq!((drawn.len(), count), (18, 18));
}

/// Memory: what was in the instance of one tenant is not in that of another which gets its place, nor in the stack and the tables beside it.
#[tokio::test]
async fn memory_of_another_tenant_is_gone() {
    const AWAKE: usize = 4;
    let broker = setup().set("limits.channels_awake_max", AWAKE).set("mount.fixture.limits.idle_ms", 50).start();
    let secret = "a-secret-0123456789";
    let backwards: String = secret.chars().rev().collect();
    for (own, other) in PAIRS {
        for number in 0..2 * AWAKE {
            let mut foreign = join(&broker, other, &format!("room{number}"), "bob").await;
            assert_eq!(ask(&mut foreign, "keep 8").await, "grown 8");
            let much = secret.repeat(1_000);
            assert_eq!(ask(&mut foreign, &format!("echo {much}")).await, much);
            let found = ask(&mut foreign, &format!("search {backwards}")).await;
            assert_ne!(found, "found 0", "this proves nothing: the search finds nothing");
        }
        broker.until_metric_is("hotbay_channels_awake", 0.0).await;
        for number in 0..2 * AWAKE {
            let mut ann = join(&broker, own, &format!("room{number}"), "ann").await;
            assert_eq!(ask(&mut ann, &format!("search {backwards}")).await, "found 0", "{own} after {other}");
            assert_eq!(ask(&mut ann, &format!("search-grown {backwards} 16")).await, "found 0", "{own} after {other}");
        }
        broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    }
}

/// The pure functions run on instances that serve one call after another: what a plugin keeps in their memory, though it must not, no other
/// tenant meets, however many take turns.
#[tokio::test]
async fn what_route_keeps_is_not_told_to_another_tenant() {
    let mount =
        "route = true\nchannels = [\"fixture:*\"]\n[mount.fixture.limits]\nbad_messages_per_minute_max = 10_000";
    let broker = Setup::fixture_mount(mount).start();
    let connect =
        async |tenant: &str| broker.connect_with("/ws", &token("ann", json!({ "tenant": tenant }), 3_600)).await;
    let mut kept = 0;
    let tenants: Vec<String> = (0..20).map(|number| format!("acme{number}")).collect();
    let mut clients = Vec::new();
    for tenant in &tenants {
        clients.push((tenant, connect(tenant).await));
    }
    for round in 0..3 {
        for few in [3, tenants.len()] {
            for (tenant, client) in &mut clients[..few] {
                for command in ["@kept".to_owned(), format!("@keep of-{tenant} {round}")] {
                    let answer = ask(client, &command).await;
                    let of = answer.strip_prefix("kept ").expect("an answer");
                    assert!(of.is_empty() || of.starts_with(&format!("of-{tenant} ")), "{tenant} was told {of:?}");
                    kept += usize::from(!of.is_empty());
                }
            }
        }
    }
    assert!(kept > 0, "this proves nothing: nothing is ever kept");
}

/// `stats`: count the tenant's own.
#[tokio::test]
async fn numbers_about_the_mount_are_of_the_tenant() {
    let broker = setup().start();
    for (own, other) in PAIRS {
        let mut ann = join(&broker, own, "room", "ann").await;
        let before = ask(&mut ann, "stats").await;
        let mut foreign = Vec::new();
        for (channel, user) in [("room", "ann"), ("room", "bob"), ("other", "bob")] {
            foreign.push(join(&broker, other, channel, user).await);
        }
        assert_eq!(ask(&mut ann, "stats").await, before);
        assert_eq!(before, "stats 1 1 1");
        assert_eq!(ask(&mut foreign[0], "stats").await, "stats 3 2 2");
    }
}

/// Names: nobody gets into a tenant by a name that says two things, and what is refused is refused in the same words whoever is there.
#[tokio::test]
async fn forged_names_lead_nowhere() {
    let broker = setup().start();
    let (own, other) = PAIRS[0];
    let mut foreign = join(&broker, other, "room", "bob").await;
    let url = |channel: &str, tenant: &Value| {
        let token = token("ann", json!({ "tenant": tenant }), 3_600);
        format!("ws://{}/ws?channel={channel}&token={token}", broker.address())
    };
    let forged = [
        "..%2Froom",
        "%00room",
        "room%00",
        "a%3Ab",
        "a%2Froom",
        "r%D0%BE%D0%BEm",
        "",
        "%2A",
        "room%0A",
        "%F0%9F%98%80",
    ];
    for channel in forged {
        assert_eq!(Client::refused_status(&url(channel, &json!(own)), &[]).await, 400, "{channel}");
    }
    let tenants = [
        json!(""),
        json!(".."),
        json!("acme/x"),
        json!("acme:x"),
        json!("acme2\0"),
        json!("асme2"),
        json!(["acme2"]),
        json!({}),
        json!(true),
    ];
    for tenant in tenants {
        assert_eq!(Client::refused_status(&url("room", &tenant), &[]).await, 401, "{tenant}");
    }
    // Without the claim it is the mount's own tenant, and not everybody's.
    let mut nobodys = broker.connect("/ws?channel=room", "ann").await;
    assert!(ask(&mut nobodys, "tenant").await.starts_with("tenant default "));
    assert_eq!(ask(&mut nobodys, "say to all").await, "to all");
    heard_nothing(&mut foreign).await;
}

/// The publish API: a key publishes to its tenant; a channel that only another tenant has is like one that nobody has; and neither keys of
/// idempotency nor positions are shared.
#[tokio::test]
async fn api_keys_reach_their_tenant_alone() {
    let broker = setup().start();
    for (own, other) in PAIRS {
        let key = |tenant: &str| broker.run(&["key", "create", "--tenant", tenant, "--name", "ci"]).trim().to_owned();
        let (mine, theirs) = (key(own), key(other));
        let mut foreign = join(&broker, other, "room", "bob").await;
        for _ in 0..3 {
            assert_eq!(ask(&mut foreign, "append x").await.split(' ').next(), Some("offset"));
        }
        let publish = async |key: &str, channel: &str| {
            let url = broker.http(&format!("/v1/channels/{channel}/publish"));
            let authorization = format!("Bearer {key}");
            let headers = [("authorization", authorization.as_str()), ("idempotency-key", "once")];
            let answer = http::post(&url, &headers, "append published").await;
            (answer.status, answer.json())
        };

        let (status, answer) = publish(&mine, "fixture:room").await;
        assert_eq!((status, &answer["epoch"], &answer["seq"]), (200, &json!(1), &json!(1)), "{answer}");
        heard_nothing(&mut foreign).await;
        let (_, answer) = publish(&theirs, "fixture:room").await;
        assert_eq!((&answer["seq"], foreign.text().await.as_str()), (&json!(4), "offset 4"), "{answer}");
        assert_eq!(publish(&mine, "fixture:room").await.1["seq"], 1, "a retry gets the first answer");
        for name in
            [format!("{other}%2Ffixture:room"), format!("..%2F{other}%2Ffixture:room"), "fixture:room%00".to_owned()]
        {
            assert_eq!(publish(&mine, &name).await.0, 400, "{name}");
        }
        let unserved = publish(&mine, &format!("{other}:room")).await;
        assert_eq!(unserved.0, 404);
        assert_eq!(unserved.1, publish(&mine, "nothing:room").await.1);
        heard_nothing(&mut foreign).await;
    }
}

/// The id of the only member of a channel.
async fn id_of(client: &mut Client) -> u64 {
    let members = ask(client, "members").await;
    members.rsplit('#').next().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{members}"))
}

/// Ids of members and requests: a tenant that counts its own cannot tell how many others have.
#[tokio::test]
async fn ids_do_not_tell_how_much_goes_on_elsewhere() {
    const NEAR: u64 = 1 << 24;
    let broker = setup().start();
    let (own, other) = PAIRS[0];
    let (mut members, mut requests) = (Vec::new(), Vec::new());
    let ask_by_http = async |tenant: &str| {
        let token = token("ann", json!({ "tenant": tenant }), 60);
        http::get(&broker.http(&format!("/ws/id?token={token}")), &[]).await.text
    };
    for round in 0..10 {
        let mut ann = join(&broker, own, &format!("room{round}"), "ann").await;
        members.push(id_of(&mut ann).await);
        requests.push(ask_by_http(own).await.parse().unwrap_or_else(|e| panic!("{e}")));
        for _ in 0..round {
            join(&broker, other, "room", "bob").await;
            ask_by_http(other).await;
        }
    }
    for ids in [members, requests] {
        for (first, one) in ids.iter().enumerate() {
            let near = ids.iter().skip(first + 1).find(|other| one.abs_diff(**other) < NEAR);
            assert_eq!(near, None, "{one} is near another id of the tenant: {ids:?}");
        }
    }
}

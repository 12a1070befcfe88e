//! Law: a channel changes to another version of its plugin while people are connected: nobody is closed, nothing is lost, nothing comes
//! twice, and whatever fails on the way leaves the version before in charge.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hotbay::channel::{CANARY_PARTS, Deployed, Plan, Rollout, Rule, RuleKind, Tally, Version};
use hotbay::limits::MountLimits;
use hotbay::quota::TenantLimits;

use crate::inside::{Inside, ask};
use crate::support::client::{Client, DEADLINE};

/// A deployment to all channels, and what they do under it.
fn deploy(inside: &Inside, version: &Arc<Version>, id: i64) -> Arc<Tally> {
    let before = inside.logic().rollout.plan();
    let tally = Arc::new(Tally::default());
    let mut plan = Plan::all(Arc::clone(version));
    plan.base_deployed = Deployed { id, tally: Arc::clone(&tally) };
    plan.schemas.extend(before.schemas.clone());
    plan.earlier = vec![Arc::clone(&before.base)];
    inside.logic().rollout.set(plan);
    inside.directory.tell_of_versions();
    tally
}

/// A deployment beside what all channels have.
fn try_out(inside: &Inside, version: &Arc<Version>, kind: RuleKind) -> Arc<Tally> {
    let before = inside.logic().rollout.plan();
    let tally = Arc::new(Tally::default());
    let mut plan = Plan::all(Arc::clone(&before.base));
    plan.base_deployed = before.base_deployed.clone();
    plan.schemas.insert((Arc::clone(&version.owner), version.digest()), version.schema);
    plan.rules.push(Rule {
        tenant: None,
        pattern: None,
        version: Arc::clone(version),
        kind,
        deployed: Deployed { id: 7, tally: Arc::clone(&tally) },
    });
    inside.logic().rollout.set(plan);
    inside.directory.tell_of_versions();
    tally
}

/// Waits until a number is what it should be.
pub(crate) async fn until(what: &str, number: impl Fn() -> u64, expected: u64) {
    let reached = async {
        while number() != expected {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, reached).await;
    in_time.unwrap_or_else(|_| panic!("{what} is {} and not {expected}", number()));
}

async fn swapped(tally: &Tally) {
    until("channels swapped", || tally.swaps.load(Relaxed), 1).await;
}

async fn declined(tally: &Tally) {
    until("channels not swapped", || tally.swaps_failed.load(Relaxed), 1).await;
}

async fn count(client: &mut Client) -> u64 {
    let answer = ask(client, "count").await;
    answer.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn a_quiet_channel_is_swapped_and_keeps_sockets_memory_and_timers() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    assert_eq!(ask(&mut ann, "timer-volatile tick 150").await, "ok");
    let before = count(&mut ann).await;

    let second = inside.version("second", 1, &[]);
    let tally = deploy(&inside, &second, 2);
    swapped(&tally).await;

    assert_eq!(tally.channels.load(Relaxed), 1);
    assert_eq!(ann.text().await, "timer tick");
    assert_eq!(count(&mut ann).await, before + 1);
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    assert!(ask(&mut ann, "members").await.starts_with("members ann#"));
    inside.drain().await;
    assert_eq!(inside.pinned("a").await, Some(second.digest().0));
}

/// Goal: a message that waits while the instance is replaced is run once, by the new version; one whose commit is under way leaves first.
#[tokio::test]
async fn messages_around_a_swap_are_run_once_and_in_order() {
    const SWAPS: usize = 20;
    const MESSAGES: usize = 50 * SWAPS;
    let inside = Inside::with(MountLimits::default()).await;
    let mut sender = inside.connect("sender", "a", None).await;
    let mut reader = inside.connect("reader", "a", None).await;
    assert_eq!(ask(&mut reader, "echo joined").await, "joined");
    assert_eq!(ask(&mut sender, "echo joined").await, "joined");
    let versions = [inside.version("second", 1, &[]), inside.version("fixture", 1, &[])];

    for number in 0..MESSAGES {
        sender.send_text(&format!("number {number}")).await;
        if number % 50 == 25 {
            let turn = number / 50;
            let id = i64::try_from(turn).expect("a small number") + 10;
            let tally = deploy(&inside, &versions[turn % 2], id);
            for number in number + 1..number + 10 {
                sender.send_text(&format!("beside {number}")).await;
            }
            swapped(&tally).await;
        }
    }

    for number in 0..MESSAGES {
        let mut expected = vec![format!("number {number}")];
        if number % 50 == 25 {
            expected.extend((number + 1..number + 10).map(|number| format!("beside {number}")));
        }
        for expected in expected {
            assert_eq!(reader.text().await, expected);
            assert_eq!(sender.text().await, expected);
        }
    }
    assert_eq!(count(&mut sender).await as usize, MESSAGES + 9 * SWAPS + 3);
    inside.drain().await;
}

/// FAULTS 57: the new version fails to take over. The old one stays, with its memory; it is not tried again and again.
#[tokio::test]
async fn a_version_that_fails_to_open_does_not_take_over() {
    for (command, memory_stays) in
        [("trap-on-open", true), ("error-on-open", true), ("save-corrupt", true), ("trap-on-save", false)]
    {
        let inside = Inside::with(MountLimits::default()).await;
        let mut ann = inside.connect("ann", "a", None).await;
        assert_eq!(ask(&mut ann, "put k v").await, "ok");
        assert_eq!(ask(&mut ann, command).await, "ok", "{command}");
        let before = count(&mut ann).await;

        let tally = deploy(&inside, &inside.version("second", 1, &[]), 2);
        declined(&tally).await;

        if memory_stays {
            assert_eq!(count(&mut ann).await, before + 1, "{command}");
        }
        assert_eq!(ask(&mut ann, "get k").await, "value v", "{command}");
        assert_eq!(tally.channels.load(Relaxed), 0, "{command}");
        assert_eq!(tally.swaps_failed.load(Relaxed), 1, "{command}: tried again");
        inside.drain().await;
    }
}

/// Goal: the first batch fails on the new version, which no other may have noticed: the old one runs its events, as if nothing had been.
#[tokio::test]
async fn a_version_whose_first_batch_fails_gives_its_events_back() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "trap-on-takeover").await, "ok");
    let before = count(&mut ann).await;
    let second = inside.version("second", 1, &[]);
    inside.hold_commits();
    ann.send_text("put k 1").await;
    ann.send_text("put k 2").await;
    ann.send_text("count").await;
    let mut bob = inside.connect("bob", "a", None).await;

    let tally = deploy(&inside, &second, 2);
    inside.let_commit(1_000);

    assert_eq!(ann.text().await, "ok");
    assert_eq!(ann.text().await, "ok");
    assert_eq!(ann.text().await, format!("count {}", before + 3));
    assert_eq!(ask(&mut bob, "get k").await, "value 2");
    declined(&tally).await;
    assert_eq!(tally.traps.load(Relaxed), 1);
    assert_eq!(ask(&mut ann, "get k").await, "value 2");
    inside.drain().await;
}

/// A channel that slept when its version changed: it wakes with the new one and what the old one saved; or, if that fails, with the old.
#[tokio::test]
async fn a_sleeping_channel_gets_its_version_when_it_wakes() {
    for (fails, effects_max) in [("nothing", None), ("its `open`", Some(0)), ("its first batch", Some(1))] {
        let inside = Inside::with(MountLimits { idle_ms: 1, ..MountLimits::default() }).await;
        let mut ann = inside.connect("ann", "a", None).await;
        assert_eq!(ask(&mut ann, "put k v").await, "ok");
        let before = count(&mut ann).await;
        until("awake channels", || inside.directory.awake_count() as u64, 0).await;

        let second = match effects_max {
            None => inside.version("second", 1, &[]),
            Some(effects_max) => inside.failing_version(effects_max),
        };
        let tally = deploy(&inside, &second, 2);

        assert_eq!(count(&mut ann).await, before + 1, "{fails}: what was saved is taken over, by whom it may be");
        let works = effects_max.is_none();
        assert_eq!(tally.swaps.load(Relaxed), u64::from(works), "{fails}");
        assert_eq!(tally.swaps_failed.load(Relaxed), u64::from(!works), "{fails}");
        assert_eq!(ask(&mut ann, "get k").await, "value v", "{fails}");
        assert_eq!(ask(&mut ann, "put k w").await, "ok", "{fails}");
        inside.drain().await;
        assert_eq!(inside.pinned("a").await == Some(second.digest().0), works, "{fails}");
    }
}

/// Goal: state of a schema that a version does not take over is never given to it.
#[tokio::test]
async fn a_version_of_another_schema_does_not_take_over() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    let before = count(&mut ann).await;

    declined(&deploy(&inside, &inside.version("second", 2, &[]), 2)).await;
    assert_eq!(count(&mut ann).await, before + 1);

    swapped(&deploy(&inside, &inside.version("second", 2, &[1]), 3)).await;
    assert_eq!(count(&mut ann).await, before + 2);
    inside.drain().await;
}

/// Law: a channel goes back to versions of the platform and of its own tenant alone, and takes over what they saved, whatever another
/// tenant has of the same component. Which of two owners saved it is not written down: where they say different things, nobody's is taken.
#[tokio::test]
async fn what_another_tenant_has_of_a_component_is_not_taken_for_its_own() {
    let inside = Inside::with(MountLimits::default()).await;
    let platforms = inside.version("second", 1, &[]);
    let theirs = Version::with_schema(Arc::clone(&platforms.plugin), Arc::clone(&platforms.limits), 2, Vec::new());
    let theirs = Arc::new(theirs.owned_by("acme"));
    let base = Arc::clone(&inside.logic().rollout.plan().base);
    let rollout = |versions: &[&Arc<Version>]| {
        let mut plan = Plan::all(Arc::clone(&base));
        plan.schemas.extend(versions.iter().map(|one| ((Arc::clone(&one.owner), one.digest()), one.schema)));
        plan.earlier = versions.iter().copied().map(Arc::clone).collect();
        Rollout::new(plan)
    };
    let known = |rollout: &Rollout, tenant: &str| {
        let found = rollout.find(tenant, theirs.digest());
        (found.map(|found| found.version.owner.to_string()), rollout.schema_of(tenant, theirs.digest()))
    };

    let one = rollout(&[&theirs]);
    assert_eq!(known(&one, "acme"), (Some("acme".to_owned()), Some(2)));
    assert_eq!(known(&one, "globex"), (None, None));
    let both = rollout(&[&theirs, &platforms]);
    assert_eq!(known(&both, "globex"), (Some(String::new()), Some(1)));
    assert_eq!(known(&both, "acme"), (Some("acme".to_owned()), None));
    inside.drain().await;
}

/// Goal: a version that was withdrawn is left whatever it does: it cannot hold its channels by failing to save.
#[tokio::test]
async fn a_withdrawn_version_cannot_keep_its_channels() {
    for command in ["trap-on-save", "loop-on-save", "save-corrupt", "big-save 100000000"] {
        let inside = Inside::with(MountLimits { cpu_ms_max: 50, ..MountLimits::default() }).await;
        let mut ann = inside.connect("ann", "a", None).await;
        assert_eq!(ask(&mut ann, "put k v").await, "ok");
        assert_eq!(ask(&mut ann, command).await, "ok", "{command}");

        inside.logic().rollout.plan().base.withdraw(true);
        let tally = deploy(&inside, &inside.version("second", 1, &[]), 2);
        assert_eq!(ask(&mut ann, "get k").await, "value v", "{command}");
        until("channels of the new version", || tally.channels.load(Relaxed), 1).await;
        inside.drain().await;
    }
}

/// Goal: a channel whose only version was withdrawn serves nobody until there is another one, and then goes on.
#[tokio::test]
async fn a_withdrawn_version_runs_no_more() {
    let inside = Inside::with(MountLimits { commit_ms_max: 200, ..MountLimits::default() }).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    let plan = inside.logic().rollout.plan();

    plan.base.withdraw(true);
    let gone = deploy(&inside, &plan.base, 2);
    until("channels", || gone.channels.load(Relaxed) + plan.base_deployed.tally.channels.load(Relaxed), 0).await;
    ann.send_text("get k").await;
    assert_eq!(ann.close_code().await, Some(1013), "nothing of it runs, so it has no words to refuse with");

    deploy(&inside, &inside.version("second", 1, &[]), 3);
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    inside.drain().await;
}

/// Goal: another plugin altogether takes a channel over, if it says that it takes the schema, and gives it back.
#[tokio::test]
async fn a_channel_goes_to_another_plugin_and_back() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    let first = Arc::clone(&inside.logic().rollout.plan().base);

    swapped(&deploy(&inside, &inside.version("relay", 1, &[]), 2)).await;
    assert_eq!(ask(&mut ann, "get k").await, "get k", "it relays everything");

    // The relay saves nothing, so the first one begins as after a crash: with what is committed.
    swapped(&deploy(&inside, &first, 3)).await;
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    inside.drain().await;
}

/// Goal: the same version beside itself does the same, whatever it reads, draws or is told; nobody notices it.
#[tokio::test]
async fn a_shadow_of_the_same_version_never_differs() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    let before = count(&mut ann).await;

    let tally = try_out(&inside, &inside.version("second", 1, &[]), RuleKind::Shadow);
    let commands = [
        "count",
        "put k w",
        "get k",
        "get none",
        "append text",
        "read 1 10",
        "scan k",
        "random",
        "now",
        "members",
        "clock",
        "timers 3",
        "echo x",
        "stats",
        "flood 3",
        "batch",
    ];
    for command in commands {
        ann.send_text(command).await;
    }
    for _ in 0..commands.len() - 1 + 3 - 1 {
        ann.text().await;
    }
    ann.text().await;
    until("events compared", || tally.shadow_events.load(Relaxed), commands.len() as u64).await;

    let difference = tally.last_difference.lock().expect("no panic").clone();
    assert_eq!((tally.shadow_differences.load(Relaxed), difference), (0, None));
    assert_eq!((tally.traps.load(Relaxed), tally.shadow_skipped.load(Relaxed)), (0, 0));
    assert_eq!(tally.channels.load(Relaxed), 0, "it serves nobody");
    assert!(count(&mut ann).await > before);
    inside.drain().await;
}

/// Law: what is refused for want of its tenant's room leaves no trace, beside the channel either.
#[tokio::test]
async fn a_shadow_is_not_told_what_there_was_no_room_for() {
    let inside = Inside::with(MountLimits::default()).await;
    let mut ann = inside.connect("ann", "a", None).await;
    let limits = TenantLimits { state_bytes_max: Some(1_000), ..TenantLimits::default() };
    inside.directory.quotas().set("default", limits);
    count(&mut ann).await;
    let tally = try_out(&inside, &inside.version("second", 1, &[]), RuleKind::Shadow);
    let events = || tally.shadow_events.load(Relaxed);
    assert_eq!(ask(&mut ann, "put k v").await, "ok");
    until("events compared", events, 1).await;

    assert!(ask(&mut ann, "put-big k 2000").await.contains("state_bytes_max"));
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    until("events compared", events, 2).await;
    assert_eq!((events(), tally.shadow_differences.load(Relaxed)), (2, 0));
    inside.drain().await;
}

/// Goal: what a shadow does differently is counted and told, and never done; nor does its failure touch anybody.
#[tokio::test]
async fn a_shadow_that_differs_or_fails_is_seen_by_operators_alone() {
    let inside = Inside::with(MountLimits { cpu_ms_max: 50, ..MountLimits::default() }).await;
    inside.logic().rollout.set(Plan::all(inside.version("relay", 1, &[])));
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "hello").await, "hello");

    let tally = try_out(&inside, &inside.version("fixture", 1, &[]), RuleKind::Shadow);
    assert_eq!(ask(&mut ann, "echo one").await, "echo one");
    assert_eq!(ask(&mut ann, "put k v").await, "put k v");
    until("differences", || tally.shadow_differences.load(Relaxed), 2).await;
    let told = tally.last_difference.lock().expect("no panic").clone().expect("a difference");
    assert_eq!(ask(&mut ann, "loop").await, "loop");
    until("calls over their time", || tally.deadlines.load(Relaxed), 1).await;
    assert_eq!(ask(&mut ann, "trap").await, "trap");

    assert!(told.contains("ann") && told.contains("put"), "{told}");
    inside.drain().await;
    assert_eq!(inside.pinned("a").await, None, "nothing was ever written");
}

/// Law: a canary loses nothing. The first message it fails on is run by the version before, and the channel stays there.
#[tokio::test]
async fn a_channel_leaves_its_canary_at_the_first_fault() {
    for command in ["trap", "loop", "stack", "flood 20000", "panic x"] {
        let inside = Inside::with(MountLimits { cpu_ms_max: 50, ..MountLimits::default() }).await;
        inside.logic().rollout.set(Plan::all(inside.version("relay", 1, &[])));
        let mut ann = inside.connect("ann", "a", None).await;
        assert_eq!(ask(&mut ann, "hello").await, "hello");
        let tally = try_out(&inside, &inside.version("fixture", 1, &[]), RuleKind::Canary(CANARY_PARTS));
        swapped(&tally).await;
        assert_eq!(ask(&mut ann, "echo canary").await, "canary");
        assert_eq!(ask(&mut ann, "put k v").await, "ok");

        assert_eq!(ask(&mut ann, command).await, command, "run by the version before");

        assert_eq!(ask(&mut ann, "echo on").await, "echo on", "{command}: it stays there");
        assert_eq!(tally.channels.load(Relaxed), 0, "{command}");
        assert_eq!(
            tally.traps.load(Relaxed) + tally.deadlines.load(Relaxed) + tally.refusals.load(Relaxed),
            1,
            "{command}"
        );
        inside.drain().await;
    }
}

/// Events, and faults, that a version is told to have had.
fn effort(inside: &Inside, version: &Version) -> (u64, u64) {
    let quotas = inside.directory.quotas();
    quotas.list("", version.plugin.name(), version.digest().0, version.plugin.effort());
    let digest = version.digest().to_string();
    let all = quotas.plugin_usage();
    let usage = all.iter().find(|usage| *usage.digest == *digest).expect("it is listed");
    (usage.events, usage.faults)
}

/// Law: what a version did is counted for it, and for no version beside it: a shadow, a canary and what each of them runs beside; and what
/// is no version's fault is counted for none.
#[tokio::test]
async fn what_a_version_did_is_counted_for_it_alone() {
    let limits = MountLimits { read_ms_max: 50, ..MountLimits::default() };
    let inside = Inside::with(limits).await;
    let relay = inside.version("relay", 1, &[]);
    inside.logic().rollout.set(Plan::all(Arc::clone(&relay)));
    let mut ann = inside.connect("ann", "a", None).await;
    assert_eq!(ask(&mut ann, "hello").await, "hello");
    assert_eq!(effort(&inside, &relay), (2, 0), "a join and a message");

    let shadow = inside.version("fixture", 1, &[]);
    let tally = try_out(&inside, &shadow, RuleKind::Shadow);
    for command in ["echo one", "trap"] {
        assert_eq!(ask(&mut ann, command).await, command);
    }
    until("traps of the shadow", || tally.traps.load(Relaxed), 1).await;
    assert_eq!((effort(&inside, &relay), effort(&inside, &shadow)), ((4, 0), (2, 1)));

    let canary = inside.version("second", 1, &[]);
    let tally = try_out(&inside, &canary, RuleKind::Canary(CANARY_PARTS));
    swapped(&tally).await;
    assert_eq!(ask(&mut ann, "echo canary").await, "canary");
    // No call fails, but what came of one is refused.
    assert_eq!(ask(&mut ann, "timers 2000").await, "timers 2000", "run by the version before");
    assert_eq!((effort(&inside, &relay), effort(&inside, &canary)), ((5, 0), (2, 1)));
    assert_eq!(effort(&inside, &shadow), (2, 1));
    assert_eq!(tally.refusals.load(Relaxed), 1);

    deploy(&inside, &shadow, 8);
    let mut bob = inside.connect("bob", "b", None).await;
    assert_eq!(ask(&mut bob, "echo hi").await, "hi");
    let before = effort(&inside, &shadow).1;
    inside.delay_reads(1_000);
    assert!(ask(&mut bob, "get k").await.starts_with("refused unavailable"), "the store's fault");
    assert_eq!(effort(&inside, &shadow).1, before);
    inside.drain().await;
}

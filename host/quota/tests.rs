//! The accounts of tenants.

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

fn limited(limits: TenantLimits) -> (Arc<Quotas>, Arc<Quota>) {
    let quotas = Quotas::new(3);
    quotas.set("acme", limits);
    let quota = quotas.of("acme");
    (quotas, quota)
}

/// Law: a limit holds as soon as it is set, in both directions; what is over it stays.
#[test]
fn limits_are_changed_while_they_are_used() {
    let (quotas, quota) = limited(TenantLimits::default());
    let slots: Vec<Slot> = (0..3).map(|_| quota.connect().unwrap()).collect();
    assert_eq!(quota.connect().unwrap_err(), Over { limit: Limit::Connections, max: 3 }, "the node's");
    quotas.set("acme", TenantLimits { connections_max: Some(5), ..TenantLimits::default() });
    let more = [quota.connect().unwrap(), quota.connect().unwrap()];
    assert_eq!(quota.connect().unwrap_err().max, 5, "its own takes the place of the node's");
    quotas.set("acme", TenantLimits { connections_max: Some(1), ..TenantLimits::default() });
    drop(more);
    assert_eq!((quota.connect().unwrap_err().max, quota.usage().connections), (1, 3));
    drop(slots);
    let _one = quota.connect().unwrap();
    assert_eq!(quotas.limits("acme").and_then(|limits| limits.connections_max), Some(1));

    quotas.unset("acme");
    assert_eq!(quotas.limits("acme"), None);
    assert!(quota.connect().is_ok());
    assert!(quotas.usage_of("globex").is_none());
}

/// Law: one tenant's account is not another's.
#[test]
fn accounts_are_apart() {
    let (quotas, acme) = limited(TenantLimits { channels_max: Some(1), ..TenantLimits::default() });
    let globex = quotas.of("globex");
    acme.add_channel().unwrap();
    assert!(acme.add_channel().is_err());
    assert!((0..100).all(|_| globex.add_channel().is_ok()));
    acme.forget_channel();
    assert!(acme.add_channel().is_ok());
    assert_eq!((acme.usage().channels, acme.usage().refusals, globex.usage().refusals), (1, 1, 0));
}

/// Law: everything has a bound, also the number of accounts. Those that nobody uses go first; then tenants share one.
#[test]
fn accounts_that_say_nothing_are_forgotten() {
    let quotas = Quotas::new(1);
    quotas.set("limited", TenantLimits::default());
    quotas.of("keeps").keeps_at_start(Kept { state: 1, log: 0 });
    let used = quotas.of("used");
    for number in 0..QUOTA_TENANTS_MAX {
        quotas.of(&format!("t{number}")).charge_cpu(1, 0);
    }
    let known = quotas.all().len();
    assert!(known < 10 + 1, "{known}");
    assert!(quotas.limits("limited").is_some() && quotas.usage_of("keeps").is_some());
    assert!(Arc::ptr_eq(&used, &quotas.of("used")));
    let cpu = "hotbay_tenant_plugin_cpu_microseconds_total";
    let told = quotas.expose();
    let told = told.lines().filter_map(|line| line.strip_prefix(cpu)?.rsplit(' ').next()?.parse::<usize>().ok());
    assert_eq!(told.sum::<usize>(), QUOTA_TENANTS_MAX, "what forgotten ones used is not");

    let held: Vec<_> = (0..QUOTA_TENANTS_MAX).map(|number| quotas.of(&format!("u{number}"))).collect();
    let (one, other) = (quotas.of("late"), quotas.of("later"));
    assert!(Arc::ptr_eq(&one, &other) && one.tenant().is_empty());
    quotas.set("late", TenantLimits { channels_max: Some(0), ..TenantLimits::default() });
    assert!(quotas.of("late").add_channel().is_err(), "whoever has limits has an account");
    drop(held);
}

/// Law: together, channels never pass a limit on what is kept, whatever is on the way; and what makes it less is let through.
#[test]
fn room_is_taken_before_the_commit() {
    let (quotas, quota) =
        limited(TenantLimits { state_bytes_max: Some(100), log_bytes_max: Some(50), ..TenantLimits::default() });
    let one = quota.make_room(Kept { state: 60, log: 10 }).unwrap();
    assert_eq!(quota.make_room(Kept { state: 50, log: 0 }).unwrap_err().limit, Limit::StateBytes);
    assert_eq!(quota.make_room(Kept { state: 40, log: 41 }).unwrap_err().limit, Limit::LogBytes);
    let other = quota.make_room(Kept { state: 40, log: 40 }).unwrap();
    quota.takes_over(7, (1, 0), Kept::default());
    quota.keeps(7, (1, 1), Kept { state: 30, log: 10 });
    drop(one);
    drop(other);
    assert_eq!((quota.usage().state_bytes, quota.usage().log_bytes), (30, 10));
    drop(quota.make_room(Kept { state: 70, log: 40 }).unwrap());

    quotas.set("acme", TenantLimits { state_bytes_max: Some(10), ..TenantLimits::default() });
    assert!(quota.make_room(Kept { state: 1, log: 1 }).is_err(), "over a limit that was lowered");
    assert!(quota.make_room(Kept { state: 0, log: 1_000 }).is_ok());
}

/// Law: an account is what its channels keep, whoever says so in whatever order: the commits of who has a channel, who takes it over, and
/// who takes away what it keeps while a commit is under way.
#[test]
fn a_channel_is_counted_with_what_it_keeps() {
    let (_quotas, quota) = limited(TenantLimits::default());
    let kept = |state, log| Kept { state, log };
    let counted = || (quota.usage().state_bytes, quota.usage().log_bytes);
    quota.keeps_at_start(kept(100, 10));
    quota.takes_over(7, (4, 0), kept(40, 10));
    assert_eq!(counted(), (100, 10), "it was among them");
    quota.keeps(7, (4, 1), kept(50, 5));
    assert_eq!(counted(), (110, 5));
    // Reset; then the answer to a commit that was written before.
    quota.stays_known(7);
    quota.will_change(7, (4, 1), kept(50, 5));
    quota.is_changed(7, (5, 0), kept(0, 0));
    assert_eq!(counted(), (60, 0));
    quota.keeps(7, (4, 2), kept(60, 0));
    assert_eq!(counted(), (60, 0));
    // Taken over by the time somebody takes it off the account.
    quota.takes_over(7, (6, 0), kept(0, 0));
    quota.keeps(7, (6, 1), kept(3, 3));
    quota.is_changed(7, (6, 0), kept(0, 0));
    assert_eq!(counted(), (63, 3));
    // Given up, and then reset while nobody has it.
    quota.gives_up(7);
    quota.stays_known(7);
    quota.will_change(7, (6, 1), kept(3, 3));
    quota.is_changed(7, (7, 0), kept(0, 0));
    assert_eq!(counted(), (60, 0));
    // Nobody knows whether its last commit took hold, until it is taken over again: it did.
    quota.takes_over(8, (1, 0), kept(0, 0));
    quota.takes_over(8, (2, 0), kept(5, 0));
    assert_eq!(counted(), (65, 0));
}

/// Law: a channel that nobody had when it was reset is counted with what it keeps, whoever takes it over meanwhile, or late.
#[test]
fn a_channel_that_slept_is_counted_with_nothing_after_its_reset() {
    let kept = |state| Kept { state, log: 0 };
    let slept = || {
        let (quotas, quota) = limited(TenantLimits::default());
        quota.keeps_at_start(kept(60 + 5));
        (quotas, quota)
    };
    // It wakes after the reset was written and before anybody says so, and perhaps sleeps again.
    for sleeps in [false, true] {
        let (_quotas, quota) = slept();
        quota.stays_known(7);
        quota.will_change(7, (5, 0), kept(60));
        quota.takes_over(7, (7, 0), kept(0));
        if sleeps {
            quota.gives_up(7);
        }
        quota.is_changed(7, (7, 0), kept(0));
        assert_eq!(quota.usage().state_bytes, 5, "sleeps: {sleeps}");
        quota.takes_over(7, (8, 0), kept(0));
        quota.keeps(7, (8, 1), kept(3));
        assert_eq!(quota.usage().state_bytes, 5 + 3, "sleeps: {sleeps}");
    }
    // It was taken over before, and whoever did that comes late: what he commits is fenced out.
    for is_unsure in [false, true] {
        let (_quotas, quota) = slept();
        quota.stays_known(7);
        quota.will_change(7, (5, 0), kept(60));
        quota.is_changed(7, (6, 0), kept(0));
        assert_eq!(quota.usage().state_bytes, 5);
        quota.takes_over(7, (5, 0), kept(60));
        if !is_unsure {
            quota.gives_up(7);
        }
        quota.takes_over(7, (7, 0), kept(0));
        assert_eq!(quota.usage().state_bytes, 5, "unsure: {is_unsure}");
    }
    // It was in use, and slept, while it was read what it keeps.
    let (_quotas, quota) = slept();
    quota.takes_over(7, (4, 0), kept(60));
    quota.stays_known(7);
    quota.keeps(7, (4, 1), kept(70));
    quota.gives_up(7);
    quota.will_change(7, (4, 0), kept(60));
    quota.is_changed(7, (5, 0), kept(0));
    assert_eq!(quota.usage().state_bytes, 5);
    // Its log goes after the reset, piece by piece, and of the same commit.
    let (_quotas, quota) = slept();
    quota.stays_known(7);
    quota.will_change(7, (5, 0), kept(60));
    quota.is_changed(7, (6, 0), kept(20));
    quota.is_changed(7, (6, 0), kept(0));
    assert_eq!(quota.usage().state_bytes, 5);
}

/// Law: a connection that brings too much is held for as long as it takes, or until the limit is lifted; others are not.
#[tokio::test(start_paused = true)]
async fn a_connection_is_held_for_as_long_as_it_takes() {
    let (quotas, quota) = limited(TenantLimits {
        messages_per_second: Some(10),
        bytes_per_second: Some(1_000),
        ..TenantLimits::default()
    });
    let began = tokio::time::Instant::now();
    assert!(quota.receive(10, 500, NOW_MS).is_none());
    let hold = quota.receive(10, 600, NOW_MS).expect("too many messages");
    assert!(quotas.of("globex").receive(1_000, 1 << 20, NOW_MS).is_none());
    hold.await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(quota.receive(0, 3_900, NOW_MS).is_some(), "too many bytes");
    assert!(
        matches!(quota.admit(NOW_MS), Err((Over { limit: Limit::Bytes, max: 1_000 }, wait)) if wait.as_secs() == 4)
    );

    let holds = [quota.receive(3_600, 0, NOW_MS).expect("held"), quota.receive(1, 0, NOW_MS).expect("held")];
    let earlier = quota.receive(1, 0, NOW_MS).expect("held");
    let before = tokio::time::Instant::now();
    tokio::join!(futures_util::future::join_all(holds), async {
        tokio::task::yield_now().await;
        quotas.set("acme", TenantLimits { messages_per_second: Some(20), ..TenantLimits::default() });
    });
    earlier.await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!((quota.usage().messages, quota.usage().bytes_in, quota.usage().waits), (3_622, 5_000, 5));
    assert!((0..20).all(|_| quota.admit(NOW_MS).is_ok()));
    assert!(
        matches!(quota.admit(NOW_MS), Err((Over { limit: Limit::Messages, max: 20 }, wait)) if wait.as_millis() == 50)
    );
}

/// Law: whatever comes, however it comes, over any time no more is handed over than the limit and the burst of a second, from all
/// connections together; and all of it is, in turn.
#[tokio::test(start_paused = true)]
async fn over_any_time_no_more_is_handed_over_than_the_limit() {
    for limits in [
        TenantLimits { messages_per_second: Some(5), ..TenantLimits::default() },
        TenantLimits { bytes_per_second: Some(500), ..TenantLimits::default() },
    ] {
        let (_quotas, quota) = limited(limits);
        let began = tokio::time::Instant::now();
        let handed_over_ms = std::sync::Mutex::new(Vec::new());
        // 50 a second each for two seconds, as they lie in a socket: those that came while it was not read are there at once.
        let connections = (0..3).map(|_| async {
            for number in 0..100 {
                tokio::time::sleep_until(began + Duration::from_millis(20) * number).await;
                let now_ms = NOW_MS + began.elapsed().as_millis() as u64;
                if let Some(hold) = quota.receive_in_turn(100, now_ms) {
                    hold.await;
                }
                handed_over_ms.lock().unwrap().push(began.elapsed().as_millis() as u64);
            }
        });
        futures_util::future::join_all(connections).await;

        let handed_over_ms = handed_over_ms.into_inner().unwrap();
        assert_eq!(handed_over_ms.len(), 300);
        for (first, from_ms) in handed_over_ms.iter().enumerate() {
            for (last, to_ms) in handed_over_ms.iter().enumerate().skip(first) {
                let max = 5 + (to_ms - from_ms) * 5 / 1_000 + 1;
                assert!(last - first < max as usize, "{} in {} ms", last - first + 1, to_ms - from_ms);
            }
        }
        assert_eq!(handed_over_ms.last(), Some(&59_000), "and no slower");
    }
}

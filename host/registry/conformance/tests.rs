//! Real components, compiled here.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::plugin::compile::Digest;
use crate::plugin::trial;
use crate::protocol::capability::Capability;

/// A component built by `make plugins`.
fn load(name: &str, limits: &MountLimits) -> Arc<Plugin> {
    let file = format!("target/plugins/wasm32-wasip2/release/{name}.wasm");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let component = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run `make plugins`", path.display()));
    let grants: BTreeSet<Capability> = Capability::ALL.into_iter().collect();
    let code = trial::compile(&component).unwrap();
    Arc::new(trial::load(name, Digest::of(&component), &code, &grants, limits).unwrap())
}

fn conditions(settings: &str, seed: u64) -> Conditions {
    let channels =
        ["room:conformance", "tenant:conformance", "owner:conformance", "dashboard:conformance", "draft:conformance"];
    Conditions {
        channels: channels.map(|name| ChannelName::new("default", name).unwrap()).into(),
        settings: settings.to_owned(),
        limits: Arc::default(),
        seed,
    }
}

/// Law: no exemptions for built-in plugins.
#[tokio::test]
async fn our_own_plugins_pass_and_the_same_seed_gives_the_same_run() {
    let names = [
        "echo",
        "relay",
        "fixture",
        "community_chat",
        "hangarshare_metrics",
        "widget_sync",
        "tenant_events",
        "yjs_relay",
    ];
    let seed = rand::random();
    for name in names {
        let plugin = load(name, &MountLimits::default());
        for seed in [1, 2, seed] {
            let findings = run(&plugin, &conditions("{}", seed)).await;
            assert_eq!(findings.failure, None, "{name}, seed {seed}");
            assert_eq!(
                (findings.messages, findings.takeovers >= TURNS),
                (CONFORMANCE_MESSAGES, true),
                "{name}, seed {seed}"
            );
        }
        let again = [run(&plugin, &conditions("{}", 1)).await, run(&plugin, &conditions("{}", 1)).await];
        assert_eq!(again[0].profile.effects, again[1].profile.effects, "{name}");
    }
}

/// Law: what would misbehave on a live channel does not get there (FAULTS 24 to 33, 38, 39).
#[tokio::test]
async fn each_misbehaviour_is_found_and_named() {
    let limits = MountLimits { cpu_ms_max: 30, memory_bytes_max: 32 << 20, ..MountLimits::default() };
    let plugin = load("fixture", &limits);
    for (how, call, words) in [
        ("trap-on-open", "open", "trapped"),
        ("error-on-open", "open", "told to fail"),
        ("loop-on-open", "open", "longer than 30 ms"),
        ("trap-on-message", "handle", "trapped"),
        ("loop-on-message", "handle", "cpu_ms_max"),
        ("flood-on-message", "handle", "effects_max"),
        ("grow-on-message", "handle", "trapped"),
        ("trap-on-timer", "handle", "timer misbehave"),
        ("loop-on-timer", "handle", "timer misbehave"),
        ("trap-on-request", "handle", "request "),
        ("trap-on-save", "save", "trapped"),
        ("loop-on-save", "save", "cpu_ms_max"),
        ("save-much", "save", "save"),
        ("save-corrupt", "open", "what `save` had returned"),
        ("save-loses", "", "took over what `save` returned"),
        ("save-changes", "", "after `save`"),
        ("hash-order", "", "order of a hash map"),
    ] {
        let settings = format!("{{\"misbehave\":\"{how}\"}}");
        let findings = run(&plugin, &Conditions { limits: Arc::new(limits.clone()), ..conditions(&settings, 7) }).await;
        let failure = findings.failure.unwrap_or_else(|| panic!("{how} was not found"));
        let told = failure.to_string();
        assert!(told.contains(words) && told.len() < 6_000, "{how}: {told}");
        match &failure {
            Failure::Fault { call: found, .. } => assert_eq!(*found, call, "{how}: {told}"),
            _ => assert_eq!(call, "", "{how}: {told}"),
        }
        println!("{how}: {told}");
    }
}

/// Goal: an author finds the one message that brings the plugin down, not only its batch.
#[tokio::test]
async fn the_event_at_fault_is_told() {
    let plugin = load("fixture", &MountLimits::default());
    let findings = run(&plugin, &conditions("{\"misbehave\":\"trap-on-request\"}", 7)).await;
    let Some(Failure::Fault { given, .. }) = findings.failure else { panic!("{findings:?}") };
    assert!(matches!(&given[..], [one] if one.starts_with("request ")), "{given:?}");
}

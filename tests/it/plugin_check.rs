//! `hotbay plugin check`: accepts what is good, and says of anything else what is wrong with it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::broker::Setup;
use crate::support::component;

fn check(file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    command.args(["plugin", "check"]).arg(file).args(more).env_clear().output().expect("an end")
}

/// Checks bytes that must be refused with exit code 1; returns the words.
fn refusal(bytes: &[u8], more: &[&str]) -> String {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, bytes).expect("a file");
    let output = check(&file, more);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    let steps = String::from_utf8_lossy(&output.stdout);
    let last = steps.lines().last().unwrap_or_default();
    assert!(last.starts_with('✗') && !steps.contains(": ok"), "refused, but: {steps}");
    assert!(words.contains("plugin.wasm: refused: "), "{words}");
    words
}

/// A component that exports this handler, with these imports.
fn made(imports: &str, handler: &str) -> Vec<u8> {
    let export =
        if handler.is_empty() { String::new() } else { format!("(instance $h) (export \"{handler}\" (instance $h))") };
    wat::parse_str(format!("(component {imports} {export})")).expect("WAT")
}

#[test]
fn a_good_component_is_accepted_with_what_it_needs() {
    for (name, needs) in [
        ("community_chat", "log, stats"),
        ("hangarshare_metrics", "kv, log, logging, sql"),
        ("widget_sync", "kv, log, stats"),
        ("tenant_events", "kv, stats"),
        ("yjs_relay", "kv, log, logging, sql, stats"),
        ("echo", "nothing"),
        ("relay", "nothing"),
        ("fixture", "kv, log, logging, sql, stats"),
    ] {
        let output = check(&component(name), &[]);
        let words = String::from_utf8_lossy(&output.stdout);

        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(words.contains(": ok\n") && words.contains("contract  hotbay:channel@0.1.0"), "{name}: {words}");
        let passed: Vec<_> = words.lines().filter_map(|line| line.strip_prefix("✓ ")?.split(' ').next()).collect();
        assert_eq!(passed, ["size", "validate", "imports", "memory", "compile", "conformance"], "{name}: {words}");
        let line = words.lines().find_map(|line| line.strip_prefix("needs ")).expect("what it needs");
        assert_eq!(line.trim(), needs, "{name}");
        let digest = words.lines().find_map(|line| line.strip_prefix("digest    ")).expect("a digest");
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    }
}

/// The example is what others copy: it must grant what the plugins need, and nothing else.
#[test]
fn the_example_grants_what_its_plugins_need() {
    let example: toml::Table = include_str!("../../examples/hotbay.toml").parse().expect("TOML");
    let plugins = example["plugin"].as_table().expect("plugins");
    assert_eq!(plugins.len(), 5);
    for (name, plugin) in plugins {
        let output = check(&component(&name.replace('-', "_")), &[]);
        let words = String::from_utf8_lossy(&output.stdout);
        let needs = words.lines().find_map(|line| line.strip_prefix("needs ")).expect("what it needs");
        let grants: Vec<_> =
            plugin["grants"].as_array().expect("a list").iter().filter_map(|grant| grant.as_str()).collect();

        assert_eq!(needs.trim(), grants.join(", "), "{name}");
    }
}

#[test]
fn random_bytes_are_refused() {
    let seed = crate::support::seed();
    let mut bytes = seed.to_le_bytes().to_vec();
    for at in 0..10_000_usize {
        bytes.push((bytes[at] ^ bytes[at + 3]).wrapping_mul(31).wrapping_add(7));
    }
    assert!(refusal(&bytes, &[]).contains("not WebAssembly"));
    assert!(refusal(b"", &[]).contains("not WebAssembly"));
}

#[test]
fn a_core_module_is_refused() {
    let module = wat::parse_str("(module (func (export \"handle\")))").expect("WAT");
    let words = refusal(&module, &[]);
    assert!(words.contains("core WebAssembly module") && words.contains("wasm32-wasip2"), "{words}");
}

/// Code that was compiled by the broker's own worker: running it would be running machine code of a stranger.
#[test]
fn precompiled_code_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("echo.cwasm");
    let worker = Command::new(env!("CARGO_BIN_EXE_hotbay"))
        .args(["compile-worker", "--memory-bytes", "2147483648", "--cpu-s", "60", "--out"])
        .arg(&out)
        .stdin(Stdio::from(std::fs::File::open(component("echo")).expect("the component")))
        .output()
        .expect("an end");
    assert!(worker.status.success(), "{}", String::from_utf8_lossy(&worker.stderr));

    let words = refusal(&std::fs::read(&out).expect("compiled code"), &[]);

    assert!(words.contains("precompiled"), "{words}");
}

/// An import that was not granted is refused and named; what nobody can be granted, too.
#[test]
fn an_import_that_was_not_granted_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("plugin.wasm");
    std::fs::copy(component("fixture"), &file).expect("a copy");

    let words = refusal(&std::fs::read(&file).expect("the component"), &["--grants", "log,logging,stats"]);
    let sockets = made("(import \"wasi:sockets/tcp@0.2.0\" (instance))", "hotbay:channel/handler@0.1.0");
    let http = made("(import \"wasi:http/outgoing-handler@0.2.0\" (instance))", "hotbay:channel/handler@0.1.0");
    let own = made("(import \"acme:secrets/vault@1.0.0\" (instance))", "hotbay:channel/handler@0.1.0");
    let unknown = made("(import \"hotbay:channel/root@0.1.0\" (instance))", "hotbay:channel/handler@0.1.0");
    let bare = made("(import \"f\" (func))", "hotbay:channel/handler@0.1.0");

    assert!(words.contains("hotbay:channel/kv@0.1.0") && words.contains("not granted"), "{words}");
    for (bytes, import) in [
        (sockets, "wasi:sockets/tcp"),
        (http, "wasi:http/outgoing-handler"),
        (own, "acme:secrets/vault"),
        (unknown, "hotbay:channel/root"),
        (bare, "imports f"),
    ] {
        let words = refusal(&bytes, &[]);
        assert!(words.contains(import), "{import}: {words}");
    }
}

/// Another version of the contract is refused with both versions named; so is another contract, and none at all.
#[test]
fn another_contract_is_refused() {
    for version in ["0.2.0", "1.0.0", "0.0.9"] {
        let words = refusal(&made("", &format!("hotbay:channel/handler@{version}")), &[]);
        assert!(words.contains(version) && words.contains("0.1.0"), "{words}");
    }
    let other = refusal(&made("", "acme:other/handler@0.1.0"), &[]);
    assert!(other.contains("acme:other/handler") && other.contains("hotbay:channel/handler"), "{other}");
    let none = refusal(&made("", ""), &[]);
    assert!(none.contains("hotbay:channel/handler"), "{none}");
    let mixed = made("(import \"hotbay:channel/kv@0.2.0\" (instance))", "hotbay:channel/handler@0.1.0");
    assert!(refusal(&mixed, &[]).contains("0.2.0"));
}

/// The right names with the wrong content are refused: names prove nothing.
#[test]
fn a_handler_without_functions_is_refused() {
    let words = refusal(&made("", "hotbay:channel/handler@0.1.0"), &[]);
    assert!(words.contains("does not fit the contract"), "{words}");
}

/// A good component that was cut or altered anywhere never passes as something else, and never brings the program down.
#[test]
fn a_damaged_component_is_refused() {
    let good = std::fs::read(component("echo")).expect("the component");
    for cut in [1, 4, 8, 100, good.len() / 2, good.len() - 1] {
        refusal(&good[..cut], &[]);
    }
    refusal(&[&good[..], b"and more"].concat(), &[]);
}

/// Wrong arguments are the caller's: exit code 2, and what was wrong.
#[test]
fn wrong_arguments_are_told_from_bad_components() {
    let missing = check(Path::new("/nowhere/plugin.wasm"), &[]);
    let unknown = check(&component("echo"), &["--grants", "root"]);

    assert_eq!((missing.status.code(), unknown.status.code()), (Some(2), Some(2)));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/plugin.wasm"));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("\"root\""));
}

/// What `check` refuses, the broker does not start with, for the same reason.
#[test]
fn a_broker_does_not_start_with_a_bad_plugin() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("bad.wasm");
    std::fs::write(&file, made("", "hotbay:channel/handler@0.2.0")).expect("a file");
    let good = component("fixture").display().to_string();
    let setup = Setup::fixture("").replace(&good, &file.display().to_string());

    let output = setup.fail_to_start();

    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("fixture") && words.contains("0.2.0") && words.contains("0.1.0"), "{words}");
}

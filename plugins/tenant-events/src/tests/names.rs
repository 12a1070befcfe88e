//! Which channels a client can mean.

use hotbay_sdk::RefusalCode;
use serde_json::json;

use super::{assert_refused, bus_with};
use crate::names::resolve;

#[test]
fn short_and_full_names_mean_the_same_channel() {
    assert_eq!(resolve("ideas", "acme"), Ok("ideas"));
    assert_eq!(resolve("ideas:acme", "acme"), Ok("ideas"));
    assert_eq!(resolve("ïdées/42 x", "acme"), Ok("ïdées/42 x"));
    assert_eq!(resolve("acme", "acme"), Ok("acme"));
    assert_eq!(resolve("tenant:a:b", "a:b"), Ok("tenant"));
}

#[test]
fn names_of_other_tenants_are_forbidden_and_malformed_ones_refused() {
    let code = |name: &'static str| resolve(name, "acme").map_err(|why| why.code);
    for name in ["ideas:other", "tenant:acm", "tenant:acmee", "tenant:ACME", "ideas:*"] {
        assert_eq!(code(name), Err(RefusalCode::Forbidden), "{name}");
    }
    for name in ["", ":", ":acme", "ideas:", "ideas::acme", "a:b:acme", "ideas:acme:", "a\u{0}:acme", "ideas:ac\nme"] {
        assert_eq!(code(name), Err(RefusalCode::BadRequest), "{name:?}");
    }
}

#[test]
fn no_frame_reaches_across_tenants() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for kind in ["subscribe", "unsubscribe", "custom_event"] {
        assert_refused(&mut bus, ann, json!({"type": kind, "channel": "tenant:other"}), "forbidden");
    }
}

//! Refusals in the words of this protocol: the event `error` from `system`. Knows no channel: it must depend on its arguments alone,
//! so the id is made of them, and the tenant is what the token says. Without a token (`insecure_query`) it is `null`: of a sender the
//! host tells neither its tenant nor its channel.

use hotbay_sdk::{Payload, Refusal, RefusalCode, Sender, hash, iso8601, mix};
use serde::Deserialize;
use serde_json::Value;

use crate::event::{Frame, Trouble};
use crate::filter::Priority;
use crate::id;
use crate::names::SYSTEM;

/// The claims that may name the tenant; the first that is there counts.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Claims {
    tenant_id: Value,
    tenant: Value,
}

/// What a client is told.
pub(crate) fn words(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
    if why.code == RefusalCode::Closing {
        return None; // The close code says it all.
    }
    let claims: Claims = serde_json::from_str(&to.identity.claims).unwrap_or_default();
    let tenant = if claims.tenant_id.is_null() { &claims.tenant } else { &claims.tenant_id };
    let tenant = match tenant {
        Value::String(tenant) => Some(tenant.clone()),
        Value::Number(tenant) => Some(tenant.to_string()),
        _ => None,
    };
    let parts = [to.identity.user.as_bytes(), frame.map_or(b"", Payload::bytes), why.message.as_bytes()];
    let seed = parts.into_iter().fold(mix(to.now_ms), |seed, part| mix(seed ^ hash(part.iter().copied())));
    let error = Frame {
        id: &id::encode(seed, mix(seed)),
        event_type: "error",
        data: Trouble { code: why.code.name(), message: &why.message },
        timestamp: &iso8601(to.now_ms),
        source: SYSTEM,
        priority: Priority::Normal,
        tenant_id: tenant.as_deref(),
        user_id: Some(&to.identity.user),
    };
    serde_json::to_string(&error).ok().map(Payload::from)
}

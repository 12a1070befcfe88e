//! Who a connection belongs to, as its verified token said. `auth` makes identities; nobody changes them.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// A verified identity. Cheap to clone, and small: every idle connection holds one, so the texts lie in one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    /// Tenant, user, role, endpoint and claims, one after the other.
    text: Box<str>,
    tenant_end: u32,
    user_end: u32,
    role_end: u32,
    endpoint_end: u32,
    expires_ms: Option<u64>,
}

impl Identity {
    /// An identity from parts that were checked.
    pub fn new(tenant: &str, user: &str, role: &str, claims: &str, expires_ms: Option<u64>) -> Self {
        Self::joined([tenant, user, role, "", claims], expires_ms)
    }

    /// The same identity, come by another of the mount's paths.
    #[must_use]
    pub fn by(&self, endpoint: &str) -> Self {
        if endpoint == self.endpoint() {
            return self.clone();
        }
        Self::joined([self.tenant(), self.user(), self.role(), endpoint, self.claims()], self.expires_ms())
    }

    fn joined([tenant, user, role, endpoint, claims]: [&str; 5], expires_ms: Option<u64>) -> Self {
        let text = [tenant, user, role, endpoint, claims].concat().into_boxed_str();
        let tenant_end = tenant.len() as u32;
        let user_end = tenant_end + user.len() as u32;
        let role_end = user_end + role.len() as u32;
        let endpoint_end = role_end + endpoint.len() as u32;
        Self(Arc::new(Inner { text, tenant_end, user_end, role_end, endpoint_end, expires_ms }))
    }

    /// The identity of everybody on mounts with `auth.mode = "none"`: user `anonymous`, no role, no claims.
    pub fn anonymous(tenant: &str) -> Self {
        Self::new(tenant, "anonymous", "", "{}", None)
    }

    /// Who owns the channels this identity may reach. A valid tenant name.
    pub fn tenant(&self) -> &str {
        &self.0.text[..self.0.tenant_end as usize]
    }

    /// The user's id within the tenant. Not empty, at most 128 bytes, no control characters.
    pub fn user(&self) -> &str {
        &self.0.text[self.0.tenant_end as usize..self.0.user_end as usize]
    }

    /// The role claim, or the empty string.
    pub fn role(&self) -> &str {
        &self.0.text[self.0.user_end as usize..self.0.role_end as usize]
    }

    /// The path of the mount it came by, as it is configured.
    pub fn endpoint(&self) -> &str {
        &self.0.text[self.0.role_end as usize..self.0.endpoint_end as usize]
    }

    /// All claims, as the text of a JSON object.
    pub fn claims(&self) -> &str {
        &self.0.text[self.0.endpoint_end as usize..]
    }

    /// A claim that is a string or a whole number, as text. Parses the claims: for joining, not for every message.
    pub fn claim(&self, name: &str) -> Option<String> {
        scalar(&serde_json::from_str(self.claims()).ok()?, name)
    }

    /// When the identity ends and its connections are closed with 4401, in milliseconds since the Unix epoch; the
    /// leeway is included. `None` for anonymous.
    pub fn expires_ms(&self) -> Option<u64> {
        self.0.expires_ms
    }
}

/// Shows tenant and user; claims may be private.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}/{})", self.tenant(), self.user())
    }
}

/// A claim that is a string or a whole number, as text.
pub fn scalar(claims: &Map<String, Value>, name: &str) -> Option<String> {
    match claims.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

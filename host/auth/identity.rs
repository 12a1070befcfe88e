//! Who a connection belongs to.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::AuthError;
use super::gate::Policy;
use crate::limits::NAME_PART_BYTES_MAX;
use crate::protocol::name::check_part;

/// A verified identity. Cheap to clone, and small: every idle connection holds one, so the texts lie in one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    /// Tenant, user, role and claims, one after the other.
    text: Box<str>,
    tenant_end: u32,
    user_end: u32,
    role_end: u32,
    expires_ms: Option<u64>,
}

impl Identity {
    /// An identity from parts that were checked.
    fn new(tenant: &str, user: &str, role: &str, claims: &str, expires_ms: Option<u64>) -> Self {
        let text = [tenant, user, role, claims].concat().into_boxed_str();
        let tenant_end = tenant.len() as u32;
        let user_end = tenant_end + user.len() as u32;
        let role_end = user_end + role.len() as u32;
        Self(Arc::new(Inner { text, tenant_end, user_end, role_end, expires_ms }))
    }

    /// The identity of everybody on mounts with `auth.mode = "none"`: user `anonymous`, no role, no claims.
    pub fn anonymous(tenant: &str) -> Self {
        Self::new(tenant, "anonymous", "", "{}", None)
    }

    /// The identity that verified claims name under a mount's policy.
    ///
    /// # Errors
    /// [`AuthError::Claim`] if there is no user, or a claim is not what it must be.
    pub(super) fn from_claims(
        claims: &Map<String, Value>,
        policy: &Policy,
        expires_ms: u64,
    ) -> Result<Self, AuthError> {
        let claim = |name: &str, problem| AuthError::Claim { name: name.to_owned(), problem };

        let present = |name: &&String| claims.get(*name).is_some_and(|value| !value.is_null());
        let Some(name) = policy.user_claims.iter().find(present) else {
            return Err(AuthError::Claim { name: policy.user_claims.join("\" or \""), problem: "is missing" });
        };
        let user = scalar(claims, name).ok_or_else(|| claim(name, "must be a string or a whole number"))?;
        check_text(&user).map_err(|problem| claim(name, problem))?;
        if user.is_empty() {
            return Err(claim(name, "is empty"));
        }

        let name = &policy.tenant_claim;
        let tenant = match claims.get(name) {
            None | Some(Value::Null) => policy.tenant.clone(),
            Some(_) => scalar(claims, name).ok_or_else(|| claim(name, "must be a string or a whole number"))?,
        };
        check_part("tenant", &tenant).map_err(|_| claim(name, "is not a tenant name"))?;

        let name = &policy.role_claim;
        let role = match claims.get(name) {
            Some(Value::String(role)) => role.as_str(),
            // Roles in another shape, such as a list, are the plugin's to read from the claims.
            _ => "",
        };
        check_text(role).map_err(|problem| claim(name, problem))?;

        // Written anew, so that host and plugins cannot read one text in two ways (a key that stands twice).
        let text = Value::Object(claims.clone()).to_string();
        Ok(Self::new(&tenant, &user, role, &text, Some(expires_ms)))
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

    /// All claims, as the text of a JSON object.
    pub fn claims(&self) -> &str {
        &self.0.text[self.0.role_end as usize..]
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

fn scalar(claims: &Map<String, Value>, name: &str) -> Option<String> {
    match claims.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.len() > NAME_PART_BYTES_MAX {
        return Err("is longer than 128 bytes");
    }
    if text.chars().any(char::is_control) { Err("has a control character") } else { Ok(()) }
}

//! From verified claims to the identity they name, under a mount's policy.

use serde_json::{Map, Value};

use super::AuthError;
use super::Stated;
use super::gate::Policy;
use crate::limits::NAME_PART_BYTES_MAX;
use crate::protocol::identity::{Identity, scalar};
use crate::protocol::name::check_part;

/// The identity that verified claims name under a mount's policy.
///
/// # Errors
/// [`AuthError::Claim`] if there is no user, or a claim is not what it must be.
pub(super) fn from_claims(
    claims: &Map<String, Value>,
    policy: &Policy,
    expires_ms: u64,
) -> Result<Identity, AuthError> {
    let claim = |name: &str, problem| AuthError::Claim { name: name.to_owned(), problem };
    let missing = |names: &[String]| claim(&names.join(" or "), "is missing");

    let present = |name: &&String| claims.get(*name).is_some_and(|value| !value.is_null());
    let Some(name) = policy.user_claims.iter().find(present) else {
        return Err(missing(&policy.user_claims));
    };
    let user = scalar(claims, name).ok_or_else(|| claim(name, "must be a string or a whole number"))?;
    check_text(&user).map_err(|problem| claim(name, problem))?;
    if user.is_empty() {
        return Err(claim(name, "is empty"));
    }

    let tenant = match policy.tenant_claims.iter().find(present) {
        // Who must say which tenant it is of must have it from its token, too.
        None if policy.must_state.contains(&Stated::Tenant) => {
            return Err(missing(&policy.tenant_claims));
        }
        None => policy.tenant.clone(),
        Some(name) => {
            let tenant = scalar(claims, name).ok_or_else(|| claim(name, "must be a string or a whole number"))?;
            check_part("tenant", &tenant).map_err(|_| claim(name, "is not a tenant name"))?;
            tenant
        }
    };

    let name = &policy.role_claim;
    let role = match claims.get(name) {
        Some(Value::String(role)) => role.as_str(),
        // Roles in another shape, such as a list, are the plugin's to read from the claims.
        _ => "",
    };
    check_text(role).map_err(|problem| claim(name, problem))?;

    // Written anew, so that host and plugins cannot read one text in two ways (a key that stands twice).
    let text = Value::Object(claims.clone()).to_string();
    Ok(Identity::new(&tenant, &user, role, &text, Some(expires_ms)))
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.len() > NAME_PART_BYTES_MAX {
        return Err("is longer than 128 bytes");
    }
    if text.chars().any(char::is_control) { Err("has a control character") } else { Ok(()) }
}

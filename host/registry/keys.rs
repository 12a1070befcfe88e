//! API keys: made, and taken back. Only the hash of a key is kept, so its secret is told once.

use rand::Rng as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::protocol::name::check_part;
use crate::registry::{Actor, RegistryError};
use crate::store::ApiKey;
use crate::store::catalog::{Catalog, Change};
use crate::telemetry::wall_ms;

/// How secrets begin, so that people and programs know what they have found.
pub const KEY_PREFIX: &str = "hb_";

/// A key that was just made.
pub struct NewKey {
    /// The key.
    pub key: ApiKey,
    /// What is sent as a bearer: 256 random bits. Nobody can tell it again.
    pub secret: String,
}

/// Makes a key of a tenant; with `operator`, one that may administer the broker.
///
/// # Errors
/// If the tenant has a key of this name already, or a name is none.
pub async fn create_key(
    catalog: &dyn Catalog,
    who: &Actor,
    tenant: &str,
    name: &str,
    operator: bool,
) -> Result<NewKey, RegistryError> {
    check_part("tenant", tenant).map_err(|e| RegistryError::Invalid(e.to_string()))?;
    check_part("key", name).map_err(|e| RegistryError::Invalid(e.to_string()))?;
    let mut random = [0_u8; 32];
    rand::rng().fill_bytes(&mut random);
    let secret = format!("{KEY_PREFIX}{}", hex::encode(random));
    let hash = Sha256::digest(secret.as_bytes()).into();
    let key = ApiKey { tenant: tenant.to_owned(), name: name.to_owned(), hash, created_ms: wall_ms(), operator };
    let audit = who.did("key.created", tenant, subject(name), &json!({ "operator": operator }));
    match catalog.change(vec![Change::InsertKey(key.clone())], Some(audit)).await? {
        Some(_) => Ok(NewKey { key, secret }),
        None => Err(RegistryError::Conflict(format!(
            "the tenant {tenant:?} has a key {name:?} already; revoke it first, or take another name"
        ))),
    }
}

/// Takes a key back: it counts no more, at once.
///
/// # Errors
/// If there is none.
pub async fn revoke_key(catalog: &dyn Catalog, who: &Actor, tenant: &str, name: &str) -> Result<(), RegistryError> {
    let revoke = Change::RevokeKey { tenant: tenant.to_owned(), name: name.to_owned() };
    let audit = who.did("key.revoked", tenant, subject(name), &json!({}));
    match catalog.change(vec![revoke], Some(audit)).await? {
        Some(_) => Ok(()),
        None => Err(RegistryError::NotFound { what: format!("key {name:?} of the tenant {tenant:?}") }),
    }
}

fn subject(name: &str) -> String {
    format!("key/{name}")
}

//! Who a connection belongs to, as its verified token said. `auth` makes identities; nobody changes them.

use std::fmt;
use std::sync::Arc;

/// A verified identity. One allocation is shared by a connection and all its memberships.
pub struct Identity {
    /// The tenant; a valid name part.
    pub tenant: Arc<str>,
    /// The user's id within the tenant; never empty.
    pub user: Box<str>,
    /// The `role` claim, or empty.
    pub role: Box<str>,
    /// All claims, as the text of a JSON object.
    pub claims: Box<str>,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

// Claims may be personal: they stay out of logs.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.user)
    }
}

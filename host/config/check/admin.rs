//! Checks of `[admin]`.

use super::Check;
use crate::auth::TokenSource;
use crate::config::AdminConfig;
use crate::config::tree::KeyPath;

impl Check<'_> {
    pub(super) fn admin(&mut self, admin: &AdminConfig) {
        let path = KeyPath::new(["admin"]);
        for (name, empty) in [("keys", admin.keys.is_empty()), ("tokens", admin.sources.is_empty())] {
            if empty {
                self.refuse(&path.key(name), "must not be empty");
            }
        }
        for (index, key) in admin.keys.iter().enumerate() {
            self.reference("key", key, &path.key("keys").index(index));
        }
        // Tokens without a role have an empty one.
        if admin.role.is_empty() {
            self.refuse(&path.key("role"), "must not be empty, or every token would administer");
        }
        for (index, source) in admin.sources.iter().enumerate() {
            let why = match source {
                TokenSource::Header | TokenSource::Query(_) => continue,
                TokenSource::Cookie(_) => {
                    "a cookie does not count here: every web page could administer for its visitor"
                }
                TokenSource::Subprotocol => "there are no sockets here: use \"header\"",
            };
            self.refuse(&path.key("tokens").index(index), why);
        }
    }
}

//! The gate of a mount: its policy together with the keys it names.

use std::collections::BTreeMap;

use http::request::Parts;
use serde::Deserialize;

use super::identity::from_claims;
use super::{AuthError, Key, Stated, StatedSource, TokenSource, Wish, request, token};
use crate::protocol::identity::Identity;

/// How a mount tells who connects (`auth` in its configuration).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// By token, or not at all.
    pub mode: AuthMode,
    /// Names of the keys whose signatures count.
    pub keys: Vec<String>,
    /// Where to look for a token; the first source that has one counts.
    #[serde(rename = "tokens")]
    pub sources: Vec<TokenSource>,
    /// The claims that may hold the user's id; the first that is there counts.
    pub user_claims: Vec<String>,
    /// The claims that may hold the tenant; the first that is there counts.
    pub tenant_claims: Vec<String>,
    /// The tenant of tokens without such a claim.
    pub tenant: String,
    /// The claim that holds the role.
    pub role_claim: String,
    /// Where a request may say which tenant it is of: all it says must agree with its token.
    pub stated_tenant: Vec<StatedSource>,
    /// The same for the user.
    pub stated_user: Vec<StatedSource>,
    /// What an upgrade must say, at one of these places at least.
    pub must_state: Vec<Stated>,
    /// Requests without a token are of the tenant and the user they say they are of.
    pub insecure_query: bool,
    /// Requests without a token are of the user they name at one of `user_id_sources`.
    pub insecure_user_id: bool,
    /// Where they may; the first that says something counts.
    pub user_id_sources: Vec<StatedSource>,
    /// With `mode = "none"`: listen on addresses other machines can reach all the same.
    pub insecure_public: bool,
}

/// Whether a mount asks who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By a signed token.
    Jwt,
    /// Everybody is `anonymous`, or, where a mount believes it, who they say they are.
    None,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: AuthMode::Jwt,
            keys: vec!["default".to_owned()],
            sources: vec![TokenSource::Header, TokenSource::Subprotocol],
            user_claims: vec!["sub".to_owned()],
            tenant_claims: vec!["tenant".to_owned()],
            tenant: "default".to_owned(),
            role_claim: "role".to_owned(),
            stated_tenant: Vec::new(),
            stated_user: Vec::new(),
            must_state: Vec::new(),
            insecure_query: false,
            insecure_user_id: false,
            user_id_sources: vec![
                StatedSource::Query("userId".to_owned()),
                StatedSource::Bearer,
                StatedSource::Cookie("userId".to_owned()),
            ],
            insecure_public: false,
        }
    }
}

/// All keys by name, ready to verify.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, Key>);

impl Keys {
    /// Keys by the names mounts use.
    pub fn new(keys: impl IntoIterator<Item = (String, Key)>) -> Self {
        token::install_backend();
        Self(keys.into_iter().collect())
    }

    /// The gate of a mount. Names that are not among the keys are passed over: the configuration was checked.
    pub fn gate(&self, policy: &Policy, origins: Option<&[String]>, subprotocols: &[String]) -> Gate {
        Gate {
            keys: policy.keys.iter().filter_map(|name| self.0.get(name)).cloned().collect(),
            anonymous: (policy.mode == AuthMode::None).then(|| Identity::anonymous(&policy.tenant)),
            policy: policy.clone(),
            origins: origins.map(<[_]>::to_vec),
            subprotocols: subprotocols.to_vec(),
        }
    }
}

/// Decides who a mount's requests come from. One per mount, shared by all its connections.
pub struct Gate {
    policy: Policy,
    keys: Vec<Key>,
    anonymous: Option<Identity>,
    origins: Option<Vec<String>>,
    subprotocols: Vec<String>,
}

impl Gate {
    /// Who the request comes from: checks the origin and the token of the first source that has one. For upgrades and
    /// plain HTTP alike.
    ///
    /// # Errors
    /// See [`AuthError`]; its message may be shown to the client.
    pub fn authenticate(&self, request: &Parts, wish: Wish, now_ms: u64) -> Result<Identity, AuthError> {
        if let Some(anonymous) = &self.anonymous {
            if let Some(believed) = self.believe(request, wish) {
                return believed;
            }
            self.check_origin(request, false)?;
            return Ok(anonymous.clone());
        }
        for source in &self.policy.sources {
            if let Some(token) = source.find(request)? {
                if self.takes_plain_bearer(source, &token) {
                    continue;
                }
                self.check_origin(request, matches!(source, TokenSource::Cookie(_)))?;
                return self.verify(&token, now_ms);
            }
        }
        if let Some(believed) = self.believe(request, wish) {
            return believed;
        }
        self.check_origin(request, false)?;
        Err(AuthError::Missing { sources: self.source_words() })
    }

    /// Checks only the origin, for requests that need no identity.
    ///
    /// # Errors
    /// [`AuthError::Origin`] if the mount has a list of origins and the request names another.
    pub fn authenticate_nobody(&self, request: &Parts) -> Result<(), AuthError> {
        self.check_origin(request, false)
    }

    /// Verifies a token that came by another way, such as a refresh within a connection.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Identity, AuthError> {
        let verified = token::verify(token, &self.keys, now_ms)?;
        from_claims(&verified.claims, &self.policy, verified.expires_ms)
    }

    /// The subprotocol to answer an upgrade with, if any: never one that carries a token.
    pub fn subprotocol<'r>(&self, request: &'r Parts) -> Option<&'r str> {
        request::subprotocol(&request.headers, &self.subprotocols)
    }

    /// The query parameters that may hold a token, to keep them out of what plugins and logs see.
    pub fn token_parameters(&self) -> impl Iterator<Item = &str> {
        self.policy.sources.iter().filter_map(|source| match source {
            TokenSource::Query(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Everybody, where nobody is asked.
    pub fn anonymous(&self) -> Option<&Identity> {
        self.anonymous.as_ref()
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn check_origin(&self, request: &Parts, cookie: bool) -> Result<(), AuthError> {
        let allowed = request::origin_allowed(&request.headers, self.origins.as_deref(), cookie);
        if allowed { Ok(()) } else { Err(AuthError::Origin) }
    }

    fn source_words(&self) -> String {
        let words = self.policy.sources.iter().map(|source| match source {
            TokenSource::Header => "\"Authorization: Bearer <JWT>\"".to_owned(),
            TokenSource::Query(name) => format!("?{name}=<JWT>"),
            TokenSource::Cookie(name) => format!("the cookie {name}"),
            TokenSource::Subprotocol => "the subprotocol \"bearer.<JWT>\"".to_owned(),
        });
        words.collect::<Vec<_>>().join(", or ")
    }
}

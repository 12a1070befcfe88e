//! Short ways to make the words of the contract. Adds no meaning to them.

use serde_json::Value;

use crate::{Delivery, HttpRequest, HttpResponse, Identity, Payload, Priority, Refusal, RefusalCode};

/// Longest `host` header that an address is made of, in bytes.
const HOST_BYTES_MAX: usize = 255;

impl Payload {
    /// The text of a text message.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The bytes of either kind.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

impl Delivery {
    /// Given up first when its receiver reads too slowly.
    pub const LOW: Self = Self { priority: Priority::Low, conflate: None };
    /// Given up after the low ones.
    pub const NORMAL: Self = Self { priority: Priority::Normal, conflate: None };
    /// Never given up: a member that cannot take it is closed.
    pub const HIGH: Self = Self { priority: Priority::High, conflate: None };

    /// Lets a newer frame with this key replace an older one that still waits.
    #[must_use]
    pub fn conflated(mut self, key: impl Into<String>) -> Self {
        self.conflate = Some(key.into());
        self
    }
}

impl Refusal {
    /// A refusal with a sentence for a developer.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The message is not what the protocol allows.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::BadRequest, message)
    }

    /// The sender may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Forbidden, message)
    }

    /// What the message names does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::NotFound, message)
    }

    /// The message, or what it would make, is over a size limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::TooLarge, message)
    }

    /// The message contradicts a newer state.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Conflict, message)
    }
}

impl RefusalCode {
    /// Its name as most protocols write it, such as `bad_request`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::NotJoined => "not_subscribed",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Fault => "internal",
            Self::Lost => "lost",
            Self::Closing => "closing",
        }
    }
}

impl Identity {
    /// An identity without role and claims, for tests.
    pub fn of(user: impl Into<String>) -> Self {
        Self { user: user.into(), role: String::new(), claims: "{}".to_owned(), endpoint: "/".to_owned() }
    }

    /// Whether a claim is a list with this id, as a text or a whole number.
    pub fn claim_lists(&self, claim: &str, id: &str) -> bool {
        let Ok(Value::Object(claims)) = serde_json::from_str(&self.claims) else { return false };
        let Some(Value::Array(list)) = claims.get(claim) else { return false };
        list.iter().any(|listed| match listed {
            Value::String(listed) => listed == id,
            Value::Number(listed) if !listed.is_f64() => listed.to_string() == id,
            _ => false,
        })
    }
}

impl HttpRequest {
    /// A request without query, headers, body and identity, for tests.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            id: 0,
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            identity: None,
        }
    }

    /// The first query parameter of this name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A header the mount lets through; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The address of a WebSocket path ([`Identity::endpoint`]) at the host this request came to, as seen from outside a proxy that ends TLS.
    /// The mount must let the headers `host` and `x-forwarded-proto` through. `None` if there is no host, or none that an address can have.
    pub fn websocket_url(&self, path: &str) -> Option<String> {
        let host = self.header("host").filter(|host| is_host(host))?;
        let outside = self.header("x-forwarded-proto").and_then(|all| all.split(',').next()).map(str::trim);
        let tls = outside.is_some_and(|proto| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss"));
        let scheme = if tls { "wss" } else { "ws" };
        Some(format!("{scheme}://{host}/{}", path.trim_start_matches('/')))
    }
}

/// Whether it can be the host of an address, so that no header smuggles a path or another user into it.
fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(allowed)
}

impl HttpResponse {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".to_owned(), "application/json".to_owned())], body: body.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lists_texts_and_whole_numbers() {
        let ann =
            Identity { claims: r#"{"groups":["a",7,7.5,-1,null,["b"]],"one":"a"}"#.to_owned(), ..Identity::of("ann") };
        for id in ["a", "7", "-1"] {
            assert!(ann.claim_lists("groups", id), "{id}");
        }
        for id in ["", "b", "7.5", "07", "null"] {
            assert!(!ann.claim_lists("groups", id), "{id}");
        }
        assert!(!ann.claim_lists("one", "a") && !ann.claim_lists("none", "a"));
        for claims in ["", "[]", "{", r#"["a"]"#] {
            let odd = Identity { claims: claims.to_owned(), ..Identity::of("ann") };
            assert!(!odd.claim_lists("groups", "a"), "{claims}");
        }
    }

    #[test]
    fn an_address_is_made_of_the_headers_and_of_nothing_that_is_no_host() {
        let url = |headers: &[(&str, &str)]| {
            let mut request = HttpRequest::new("GET", "/");
            request.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            request.websocket_url("/ws")
        };
        assert_eq!(url(&[("host", "h.example:80")]).as_deref(), Some("ws://h.example:80/ws"));
        for proto in ["https", "HTTPS", "wss", " https , http"] {
            assert_eq!(url(&[("host", "[::1]"), ("x-forwarded-proto", proto)]).as_deref(), Some("wss://[::1]/ws"));
        }
        assert_eq!(url(&[("host", "h"), ("x-forwarded-proto", "http, https")]).as_deref(), Some("ws://h/ws"));
        let long = "h".repeat(HOST_BYTES_MAX + 1);
        for host in ["", "a/b", "a b", "user@h", "h?x", "h#", "ä", &long] {
            assert_eq!(url(&[("host", host)]), None, "{host}");
        }
        assert_eq!(url(&[]), None);
    }
}

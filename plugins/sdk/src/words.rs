//! Short ways to make the words of the contract. Adds no meaning to them.

use crate::{Delivery, HttpRequest, HttpResponse, Identity, Payload, Priority, Refusal, RefusalCode};

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

impl Identity {
    /// An identity without role and claims, for tests.
    pub fn of(user: impl Into<String>) -> Self {
        Self { user: user.into(), role: String::new(), claims: "{}".to_owned(), endpoint: "/".to_owned() }
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

//! The opening handshake of RFC 6455 §4.2, on the server's side.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use crate::connection::extension::{Malformed, negotiate};

/// What a client's key decodes to (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;

/// What a request for an upgrade lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not `GET` over HTTP/1.1.
    #[error("a WebSocket handshake is a GET request over HTTP/1.1")]
    Request,
    /// Another version than 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// The key is missing or malformed.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// The offered extensions are malformed.
    #[error("Sec-WebSocket-Extensions must be a list of extensions with their parameters")]
    Extensions,
}

/// Whether a request asks for a WebSocket at all.
pub fn is_upgrade(request: &Parts) -> bool {
    has_token(&request.headers, &UPGRADE, "websocket") && has_token(&request.headers, &CONNECTION, "upgrade")
}

/// The answer that accepts the upgrade, with the subprotocol to speak, if one was chosen; with `Sec-WebSocket-Extensions` if it
/// may be compressed and the client offers that.
///
/// # Errors
/// If the request is not a valid handshake.
pub fn accept(request: &Parts, subprotocol: Option<&str>, compress: bool) -> Result<Response<()>, HandshakeError> {
    if request.method != Method::GET || request.version < Version::HTTP_11 {
        return Err(HandshakeError::Request);
    }
    if request.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeError::Version);
    }
    let key = request.headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    if !STANDARD.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
        return Err(HandshakeError::Key);
    }
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(|_| HandshakeError::Key)?);
    if let Some(Ok(subprotocol)) = subprotocol.map(HeaderValue::from_str) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if compress && let Some(agreed) = negotiate(&request.headers).map_err(|Malformed| HandshakeError::Extensions)? {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, agreed);
    }
    Ok(response)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

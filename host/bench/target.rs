//! Where the server is: its URL, and whether it may be loaded.

use std::net::{SocketAddr, ToSocketAddrs};

use http::Uri;

use super::BenchError;

/// A server, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// As it stands in the `Host` header.
    pub(super) host: String,
    /// `/` if the URL has none.
    pub(super) path: String,
    pub(super) query: Option<String>,
}

impl Target {
    /// Parses `ws://HOST:PORT/PATH?QUERY` and looks the host up. Only hosts on this machine, unless `remote`.
    pub(super) fn find(url: &str, remote: bool) -> Result<Self, BenchError> {
        let wrong = |reason: &str| BenchError::Url { url: url.to_owned(), reason: reason.to_owned() };
        // Placeholders may stand in a URL, but the parser takes no braces.
        let encoded = url.replace('{', "%7B").replace('}', "%7D");
        let uri: Uri = encoded.parse().map_err(|_| wrong("write it like ws://127.0.0.1:3000/path"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(wrong("TLS is not measured; take the port behind the proxy, with ws://")),
            _ => return Err(wrong("it must begin with ws://, like ws://127.0.0.1:3000/path")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let found = (name, uri.port_u16().unwrap_or(80)).to_socket_addrs();
        let found: Vec<SocketAddr> = found.map_err(|e| wrong(&format!("the host cannot be found: {e}")))?.collect();
        // A name may stand for IPv6 and IPv4; brokers listen on 127.0.0.1 by default.
        let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
        let address = *address.ok_or_else(|| wrong("the host has no address"))?;
        if !remote && !address.ip().is_loopback() {
            return Err(BenchError::Remote { address });
        }
        let decode = |text: &str| text.replace("%7B", "{").replace("%7D", "}");
        let path = if uri.path().is_empty() { "/".to_owned() } else { decode(uri.path()) };
        Ok(Self { address, host: authority.to_string(), path, query: uri.query().map(decode) })
    }

    /// The path with the URL's query and one more parameter.
    pub(super) fn with_query(&self, parameter: Option<&str>) -> String {
        let parameters: Vec<&str> = self.query.as_deref().into_iter().chain(parameter).collect();
        if parameters.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, parameters.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::find("ws://127.0.0.1:3000", false).unwrap();
        assert_eq!((target.address.to_string().as_str(), target.path.as_str()), ("127.0.0.1:3000", "/"));
        assert_eq!(target.with_query(Some("room={room}")), "/?room={room}");
        assert_eq!(target.with_query(None), "/");

        let target = Target::find("ws://[::1]:81/a/{room}?b=1", false).unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("[::1]:81", "/a/{room}"));
        assert_eq!(target.with_query(Some("c=2")), "/a/{room}?b=1&c=2");
        assert_eq!(Target::find("ws://127.0.0.1", false).unwrap().address.port(), 80);
    }

    #[test]
    fn what_is_not_on_this_machine_needs_consent() {
        for url in ["ws://192.0.2.1:80/", "ws://[2001:db8::1]:80"] {
            assert!(matches!(Target::find(url, false), Err(BenchError::Remote { .. })), "{url}");
            assert!(Target::find(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (url, word) in
            [("127.0.0.1:3000", "ws://"), ("http://127.0.0.1", "ws://"), ("wss://127.0.0.1", "TLS"), ("ws://", "ws://")]
        {
            let error = Target::find(url, false).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(url), "{error}");
        }
    }
}

//! Asks the admin API. Every failure says what to do next.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, AsSendBody, Body, SendBody};

use crate::cli::{Failure, output};
use crate::config::Environment;
use crate::limits::CATALOG_ROWS_MAX;

/// The broker of `hotbay serve` without a configuration of its own.
const BROKER: &str = "http://127.0.0.1:3000";
const PREFIX: &str = "/v1/admin";
/// Largest answer that is read as a whole, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_mins(1);

/// A broker's admin API.
pub(super) struct Api {
    agent: Agent,
    base: String,
    key: String,
}

impl Api {
    /// By flags, or else by variables.
    ///
    /// # Errors
    /// If there is no key, or the broker's address is none.
    pub(super) fn open(
        broker: Option<&str>,
        key_file: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let base = broker.or_else(|| environment.get("HOTBAY_BROKER")).unwrap_or(BROKER).trim_end_matches('/');
        let uri: Uri =
            base.parse().map_err(|e| Failure::usage(format!("--broker {base}: {e}; write it like {BROKER}")))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(Failure::usage(format!("--broker {base}: write it like {BROKER}, with http or https")));
        };
        let key = match key_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| Failure::usage(format!("--key-file {}: cannot be read: {e}", path.display())))?,
            None => environment.get("HOTBAY_ADMIN_KEY").unwrap_or_default().to_owned(),
        };
        let key = key.trim().to_owned();
        if key.is_empty() || key.contains(|c: char| c.is_control() || !c.is_ascii()) {
            return Err(Failure::usage(
                "no API key: set HOTBAY_ADMIN_KEY, or name a file with --key-file; `hotbay key create --operator --name NAME` makes one \
                 where the broker's data is",
            ));
        }
        let here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if scheme == "http" && !here {
            output::aside(format_args!("warning: {base} is not https: whoever is on the way can read the API key"));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Who sends the key elsewhere is not the broker.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("hotbay/", env!("CARGO_PKG_VERSION")));
        // A proxy does not know what this machine calls itself.
        let config = if here { config.proxy(None) } else { config };
        Ok(Self { agent: Agent::new_with_config(config.build()), base: base.to_owned(), key })
    }

    /// `GET`; parameters without a value are left out.
    pub(super) fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        self.ask(Method::GET, &with_query(path, query), &[], SendBody::none())
    }

    /// `POST` with a body of JSON.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, &JSON, body.to_string().as_body())
    }

    /// `PUT` with a body of JSON.
    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, &JSON, body.to_string().as_body())
    }

    /// `DELETE`; parameters without a value are left out.
    pub(super) fn delete(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        self.ask(Method::DELETE, &with_query(path, query), &[], SendBody::none())
    }

    /// A list up to so many rows, over as many pages as that takes; `next` says whether there are more.
    pub(super) fn list(&self, path: &str, query: &[(&str, Option<String>)], rows_max: u32) -> Result<Value, Failure> {
        let (mut items, mut next): (Vec<Value>, Option<String>) = (Vec::new(), None);
        loop {
            let left = (rows_max - items.len() as u32).min(CATALOG_ROWS_MAX);
            let paging = [("limit", Some(left.to_string())), ("after", next.clone())];
            let mut page = self.get(path, &[query, &paging].concat())?;
            let rows = page.get_mut("items").map(Value::take).unwrap_or_default();
            items.extend(rows.as_array().cloned().unwrap_or_default());
            next = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if next.is_none() || items.len() as u32 >= rows_max {
                let mut all = serde_json::json!({ "items": items });
                if let Some(next) = next {
                    all["next"] = next.into();
                }
                return Ok(all);
            }
        }
    }

    /// Sends a body as it is read.
    pub(super) fn send(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        headers: &[(&str, &str)],
        body: &mut dyn Read,
    ) -> Result<Value, Failure> {
        self.ask(Method::POST, &with_query(path, query), headers, SendBody::from_reader(body))
    }

    /// `GET` of something that is no JSON and may be long.
    pub(super) fn stream(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Response<Body>, Failure> {
        let response = self.run(Method::GET, &with_query(path, query), &[], SendBody::none())?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response)) }
    }

    fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: SendBody<'_>) -> Result<Value, Failure> {
        let response = self.run(method, path, headers, body)?;
        if !response.status().is_success() {
            return Err(self.refusal(response));
        }
        let text = self.text(response)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|e| Failure::other(format!("{}: the answer is no JSON: {e}; is it a broker?", self.base)))
    }

    fn run(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: SendBody<'_>,
    ) -> Result<Response<Body>, Failure> {
        let url = format!("{}{PREFIX}{path}", self.base);
        let mut request =
            Request::builder().method(method).uri(url).header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(Failure::other)?;
        self.agent.run(request).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let base = &self.base;
        let remedy = "is a broker running there? `hotbay serve` starts one; --broker or HOTBAY_BROKER names another";
        Failure::other(match error {
            ureq::Error::Timeout(_) => {
                format!("{base} does not answer in time ({error}); try again, or look at its log")
            }
            ureq::Error::HostNotFound => format!("{base}: there is no such host; {remedy}"),
            ureq::Error::Io(error) => format!("{base} cannot be reached: {}; {remedy}", said(error)),
            error => format!("{base} cannot be reached: {error}; {remedy}"),
        })
    }

    fn text(&self, response: Response<Body>) -> Result<String, Failure> {
        let text = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        text.map_err(|error| self.unreachable(&error))
    }

    /// What the broker says against it.
    fn refusal(&self, response: Response<Body>) -> Failure {
        let status = response.status();
        let text = self.text(response).unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let message = body["error"]["message"].as_str().or_else(|| body["error"].as_str());
        match message {
            Some(message) if status == StatusCode::UNAUTHORIZED => {
                let base = &self.base;
                Failure::other(format!(
                    "{}: {base} knows the keys in its own data folder; for another one, name its configuration with --config, or its folder \
                     with --data-dir",
                    super::show::plain(message)
                ))
            }
            Some(message) => {
                Failure { is_missing: status == StatusCode::NOT_FOUND, ..Failure::other(super::show::plain(message)) }
            }
            None => Failure::other(format!("{} answered {status}; is it a broker with an admin API?", self.base)),
        }
    }
}

/// What the operating system says, in words.
fn said(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no way leads there".to_owned(),
        _ => error.to_string(),
    }
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A name as a part of a path.
pub(super) fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let given = query.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", segment(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(segment("../a b?c#d/e%"), "%2E%2E%2Fa%20b%3Fc%23d%2Fe%25");
        assert_eq!(with_query("/a", &[("b", None)]), "/a");
        assert_eq!(
            with_query("/a", &[("b", Some("c&d=e".to_owned())), ("f", Some("1".to_owned()))]),
            "/a?b=c%26d%3De&f=1"
        );
    }

    #[test]
    fn what_is_no_broker_or_no_key_is_refused_with_the_remedy() {
        let open = |broker: &str, key: &str| {
            let environment: Environment = [("HOTBAY_ADMIN_KEY", key), ("HOTBAY_BROKER", broker)].into_iter().collect();
            Api::open(None, None, &environment).err().map(|failure| failure.message)
        };
        assert_eq!(open("https://broker.example:8443/", "hb_1"), None);
        for (broker, key, words) in [
            ("broker.example", "hb_1", "with http or https"),
            ("ftp://broker.example", "hb_1", "with http or https"),
            ("http://", "hb_1", "write it like"),
            ("http://127.0.0.1:1", "", "HOTBAY_ADMIN_KEY"),
            ("http://127.0.0.1:1", "hb_\u{e9}", "HOTBAY_ADMIN_KEY"),
        ] {
            let message = open(broker, key).unwrap();
            assert!(message.contains(words), "{broker}: {message}");
        }
    }
}

//! An HTTP client that takes every status for an answer.

use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers; names in lower case.
    pub headers: ureq::http::HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}: {}", self.status, self.text))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// `GET`.
pub async fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    send("GET", url, headers, String::new()).await
}

/// `POST` with a body.
pub async fn post(url: &str, headers: &[(&str, &str)], body: impl ToString) -> Answer {
    send("POST", url, headers, body.to_string()).await
}

/// Any request. Each has a connection of its own.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: String) -> Answer {
    send_bytes(method, url, headers, body.into_bytes()).await
}

/// The same with a body that need not be text.
pub async fn send_bytes(method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).expect("a request");
    let (method, url) = (method.to_owned(), url.to_owned());
    let exchange = move || {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        let agent = ureq::Agent::new_with_config(config);
        // A `GET` has no body, not even an empty one.
        let answer = if request.method() == "GET" { agent.run(request.map(|_| ())) } else { agent.run(request) };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        let text = answer.body_mut().read_to_string().unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    };
    tokio::task::spawn_blocking(exchange).await.expect("an answer")
}

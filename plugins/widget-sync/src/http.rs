//! The same over HTTP: whether the service is ready, operations for clients without a socket, and who is connected.
//!
//! Failures are `{"success":false,"error":"…"}`, as the host's own are.

use hotbay_sdk::{Channel, HttpRequest, HttpResponse, Identity, Refusal, RefusalCode, iso8601, json};

use crate::WidgetSync;
use crate::access;
use crate::batches::{Synced, is_success, write_results};
use crate::changes::Actor;
use crate::encode;
use crate::frame::Items;

/// Clients listed in `/stats`; `clientCount` counts all.
const CLIENTS_MAX: usize = 1_000;
/// About what a client takes in `/stats`, in bytes.
const CLIENT_BYTES: usize = 256;
const BUSY: &str = "too much happens on this dashboard at once; ask again";

impl WidgetSync {
    /// Answers a request.
    pub(crate) fn respond(&mut self, channel: &mut Channel, request: &HttpRequest) -> HttpResponse {
        let Some(identity) = &request.identity else { return failure(401, "a token is required") };
        if !access::may_use(&self.name, identity) {
            return failure(403, "Access denied");
        }
        let path = request.path.trim_end_matches('/');
        let response = match (path, request.method.as_str()) {
            ("", "GET" | "HEAD") => self.ready(channel, request, identity),
            ("", "POST") => match self.posted(channel, &request.body, identity) {
                Ok(response) => return response, // Its cost was taken before.
                Err(why) => failure(status(&why), &words(&why)),
            },
            ("/stats", "GET" | "HEAD") => self.stats(channel),
            ("", _) => failure(405, "use GET or POST").with_header("allow", "GET, HEAD, POST"),
            ("/stats", _) => failure(405, "use GET").with_header("allow", "GET, HEAD"),
            _ => failure(404, "nothing is served here"),
        };
        if !self.budget.has_room(response.body.len()) {
            return failure(503, BUSY);
        }
        self.budget.count(response.body.len());
        response
    }

    fn ready(&self, channel: &Channel, request: &HttpRequest, identity: &Identity) -> HttpResponse {
        let mut body = "{\"status\":\"ready\",\"wsUrl\":".to_owned();
        json::string(&mut body, &self.settings.ws_url.clone().unwrap_or_else(|| ws_url(request, identity)));
        body.push_str(",\"userId\":");
        json::string(&mut body, &identity.user);
        end(body, channel)
    }

    fn posted(&mut self, channel: &mut Channel, body: &[u8], identity: &Identity) -> Result<HttpResponse, Refusal> {
        let items = Items::posted(body)?;
        let actor = Actor { member: None, user: &identity.user, answers: None };
        let message = std::str::from_utf8(body).unwrap_or("null"); // It is: it was parsed.
        self.take_server_event(message, &actor)?;
        let Synced { verdicts, changed_widgets } = self.sync(channel, &actor, &items)?;
        if changed_widgets {
            self.tell_servers(channel, &actor, "widget:updated", Some(message));
        }
        let success = is_success(&verdicts);
        let mut body = format!("{{\"success\":{success},\"results\":");
        write_results(&mut body, &items, &verdicts);
        Ok(end(body, channel))
    }

    fn stats(&self, channel: &Channel) -> HttpResponse {
        if !self.budget.has_room(self.clients.len().min(CLIENTS_MAX) * CLIENT_BYTES) {
            return failure(503, BUSY); // Before the work, not after it.
        }
        let mut body = "{\"clientCount\":".to_owned();
        json::number(&mut body, self.clients.len() as u64);
        body.push_str(",\"clients\":");
        json::list(&mut body, self.clients.iter().take(CLIENTS_MAX), |json, (id, client)| {
            json.push_str("{\"id\":\"client-");
            json::number(json, id);
            json.push_str("\",\"userId\":");
            json::string(json, &client.user);
            json.push_str(",\"connectedAt\":\"");
            json.push_str(&iso8601(client.tally.connected_ms));
            json.push_str("\",\"messageCount\":");
            json::number(json, client.tally.messages);
            json.push_str(if client.tally.missed == 0 { ",\"isAlive\":true}" } else { ",\"isAlive\":false}" });
        });
        body.push_str(",\"uptime\":");
        json::number(&mut body, channel.stats().uptime_ms / 1_000);
        end(body, channel)
    }
}

/// Ends a body with the time.
fn end(mut body: String, channel: &Channel) -> HttpResponse {
    body.push_str(",\"timestamp\":\"");
    body.push_str(&iso8601(channel.now_ms()));
    body.push_str("\"}");
    HttpResponse::json(200, body)
}

fn failure(status: u16, error: &str) -> HttpResponse {
    let mut body = "{\"success\":false,\"error\":".to_owned();
    json::string(&mut body, error);
    body.push('}');
    HttpResponse::json(status, body)
}

/// The status of a body that was refused as a whole.
fn status(why: &Refusal) -> u16 {
    if why.code == RefusalCode::Unavailable { 503 } else { 400 }
}

/// What is wrong with a body. A client that sent too much at once can tell that by the code in front.
fn words(why: &Refusal) -> String {
    match encode::code(why) {
        code @ "too_many_pending" => format!("{code}: {}", why.message.trim_start_matches(encode::TOO_MANY_PENDING)),
        _ => why.message.clone(),
    }
}

/// The address of the WebSocket, by which the client came to this request.
fn ws_url(request: &HttpRequest, identity: &Identity) -> String {
    let told = request.websocket_url(&identity.endpoint);
    told.unwrap_or_else(|| format!("ws://localhost:3000{}", identity.endpoint))
}

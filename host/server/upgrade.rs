//! From an HTTP request to a connection: who it is, which channels it joins, and the raw socket behind it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::auth::Wish;
use crate::channel::Arrival;
use crate::config::{OnExcess, RefusalStyle};
use crate::connection::handshake::{self, HandshakeError};
use crate::connection::{self, Opened};
use crate::protocol::close::Close;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::template::TemplateError;
use crate::server::MountPoint;
use crate::server::Site;
use crate::server::accept::{ConnectionSlot, Socket, SocketSlot};
use crate::server::doors::Match;
use crate::telemetry::{self, wall_ms};

/// Accepts or refuses an upgrade. What follows runs in a task of its own, once the answer is sent.
pub(super) fn upgrade(site: &Arc<Site>, found: &Match<'_>, parts: &Parts) -> Response<Body> {
    let mount = found.mount;
    let compress = mount.endpoint.compression.is_some();
    let accepted = match handshake::accept(parts, mount.gate.subprotocol(parts), compress) {
        Ok(response) => response.map(|()| Body::empty()),
        Err(error) => return handshake_refusal(found, error),
    };
    let Some(on_upgrade) = parts.extensions.get::<OnUpgrade>().cloned() else {
        return found.refusal(StatusCode::BAD_REQUEST, "this connection cannot be upgraded");
    };
    let stated =
        |identity: &Identity| mount.gate.check_stated(parts, Wish::Socket, identity, &mount.config.auth.must_state);
    let identity = mount
        .gate
        .authenticate(parts, Wish::Socket, wall_ms())
        .and_then(|identity| stated(&identity).map(|()| identity));
    let identity = match identity {
        Ok(identity) => found.entered_by(&identity),
        Err(error) => {
            let why = (1008, error.to_string());
            return refuse(mount, found.auth_refusal(&error), accepted, on_upgrade, why);
        }
    };
    let channel = mount.config.channel.as_ref().map(|template| found.channel(template, Some(&identity))).transpose();
    let quiet: Result<Vec<_>, TemplateError> =
        mount.config.auto_join.iter().map(|template| found.channel(template, Some(&identity))).collect();
    let (channel, quiet) = match (channel, quiet) {
        (Ok(channel), Ok(quiet)) => (channel, quiet),
        (Err(error), _) | (_, Err(error)) => {
            let response = found.channel_refusal(&error);
            return refuse(mount, response, accepted, on_upgrade, (1008, error.to_string()));
        }
    };
    let slot = match site.hub.directory.quotas().of(identity.tenant()).connect() {
        Ok(slot) => ConnectionSlot::new(slot),
        Err(over) => {
            let response = found.refusal(StatusCode::TOO_MANY_REQUESTS, &over.to_string());
            return refuse(mount, response, accepted, on_upgrade, (Close::QUOTA.code, Close::QUOTA.reason.to_owned()));
        }
    };
    let logic = &mount.endpoint.logic;
    let user_max = match mount.config.on_excess {
        OnExcess::Refuse => logic.limits.connections_per_user_max,
        OnExcess::Evict => usize::MAX,
    };
    let Some(arrival) = logic.census.connect(&identity, user_max) else {
        return found.refusal(StatusCode::TOO_MANY_REQUESTS, "the user has as many connections as it may");
    };
    let compressed = accepted.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
    let (site, mount) = (Arc::clone(site), Arc::clone(mount));
    let opening = Opening { site, mount, compressed, identity, arrival, channel, quiet, slot };
    telemetry::spawn("upgrade", opening.run(on_upgrade));
    accepted
}

/// Another version is told which one to use (RFC 6455 §4.4).
fn handshake_refusal(found: &Match<'_>, error: HandshakeError) -> Response<Body> {
    if error != HandshakeError::Version {
        return found.refusal(StatusCode::BAD_REQUEST, &error.to_string());
    }
    let mut response = found.refusal(StatusCode::UPGRADE_REQUIRED, &error.to_string());
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

struct Opening {
    site: Arc<Site>,
    mount: Arc<MountPoint>,
    compressed: bool,
    identity: Identity,
    arrival: Arrival,
    channel: Option<ChannelName>,
    quiet: Vec<ChannelName>,
    slot: ConnectionSlot,
}

impl Opening {
    async fn run(self, on_upgrade: OnUpgrade) {
        let Self { site, mount, compressed, identity, arrival, channel, quiet, slot } = self;
        let endpoint = Arc::clone(&mount.endpoint);
        let hub = Arc::clone(&site.hub);
        drop((site, mount));
        let Some((stream, socket_slot, early)) = raw(on_upgrade).await else {
            return endpoint.logic.census.disconnect(&identity, None);
        };
        let quota = Arc::clone(slot.tenant.quota());
        let opened = Opened { stream, early, compressed, identity, quota, arrival, endpoint, channel, quiet };
        // A task of its own, so that nothing of this one stays for as long as the connection.
        telemetry::spawn("connection", connection::run(&hub, opened, (slot, socket_slot)));
    }
}

/// Refuses in the mount's style: by the response, or by a close frame after the upgrade.
fn refuse(
    mount: &MountPoint,
    response: Response<Body>,
    accepted: Response<Body>,
    on_upgrade: OnUpgrade,
    (code, reason): (u16, String),
) -> Response<Body> {
    match mount.config.refusal {
        RefusalStyle::Http => response,
        RefusalStyle::Close => {
            telemetry::spawn("refusal", async move {
                if let Some((stream, slot, _)) = raw(on_upgrade).await {
                    connection::refuse(stream, code, &reason).await;
                    drop(slot);
                }
            });
            accepted
        }
    }
}

/// The socket itself, and what the client sent right after its handshake.
async fn raw(on_upgrade: OnUpgrade) -> Option<(TcpStream, SocketSlot, bytes::Bytes)> {
    let upgraded: Upgraded = on_upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Socket>>().ok()?;
    let (stream, slot) = parts.io.into_inner().into_parts();
    // A copy, because even when empty `read_buf` keeps hyper's whole read buffer (8 KiB) alive.
    Some((stream, slot, bytes::Bytes::copy_from_slice(&parts.read_buf)))
}

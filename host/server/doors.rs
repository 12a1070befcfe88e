//! The ways into mounts: the paths on which a mount takes sockets, and the one below which it answers requests. Of several that fit
//! a request the closest counts.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::http::Method;
use axum::http::request::Parts;

use crate::channel::Logic;
use crate::config::HttpRoute;
use crate::connection::handshake;
use crate::protocol::identity::Identity;
use crate::protocol::path::{MountPath, PathValues};
use crate::protocol::query::Query;
use crate::server::MountPoint;

/// A way into a mount.
pub struct Door {
    mount: Arc<MountPoint>,
    path: MountPath,
    /// Where sockets come in.
    endpoint: String,
    /// Whether sockets come in here.
    sockets: bool,
    /// Whether requests do, for the mount's HTTP routes.
    requests: bool,
    /// Everybody who comes in here, where nobody is asked: one for all, for there may be many.
    anonymous: Option<Identity>,
}

impl Door {
    fn takes_sockets_at(&self, rest: &str) -> bool {
        self.sockets && rest == "/"
    }

    /// Whether a route answers there, for this method if one is named.
    fn has_route_at(&self, rest: &str, method: Option<&Method>) -> bool {
        let answers = |route: &HttpRoute| method.is_none_or(|method| route.answers(method));
        self.requests && self.mount.config.http.iter().any(|route| fits(route, rest) && answers(route))
    }

    /// What is behind it.
    pub(super) fn logic(&self) -> &Arc<Logic> {
        &self.mount.endpoint.logic
    }

    /// Whether it is at `/`.
    pub(super) fn is_root(&self) -> bool {
        self.path.matches("/").is_some()
    }
}

/// All doors, in the order in which they are tried, the closest first: those with more literal segments, then those with fewer
/// placeholders, then those with more required parameters.
pub fn doors(mounts: &[Arc<MountPoint>]) -> Vec<Door> {
    let mut doors = Vec::new();
    for mount in mounts {
        let config = &mount.config;
        let door = |path: &MountPath, endpoint: &MountPath, sockets, requests| {
            let endpoint = endpoint.to_string();
            let anonymous = mount.gate.anonymous().map(|anonymous| anonymous.by(&endpoint));
            Door { mount: Arc::clone(mount), path: path.clone(), endpoint, sockets, requests, anonymous }
        };
        doors.extend(config.paths.iter().map(|path| door(path, path, true, config.http_path.is_none())));
        // Who asks there where to connect is told the mount's first path.
        let separate = config.http_path.iter().zip(config.paths.iter().next());
        doors.extend(separate.map(|(path, endpoint)| door(path, endpoint, false, true)));
    }
    doors.sort_by_key(|door| {
        let required = if door.sockets { door.mount.config.required_query.count() } else { 0 };
        (Reverse(door.path.literals()), door.path.values(), Reverse(required))
    });
    doors
}

/// A request that fits a mount.
pub(super) struct Match<'a> {
    pub(super) door: &'a Door,
    pub(super) mount: &'a Arc<MountPoint>,
    pub(super) path: PathValues,
    /// Below the door's path; begins with `/`.
    pub(super) rest: &'a str,
    pub(super) query: Query,
}

/// The first door that fits: for an upgrade one where sockets come in, for other requests one with a route for their method, or at
/// least for another one; and if there is none, any.
pub(super) fn find<'a>(doors: &'a [Door], parts: &'a Parts) -> Option<Match<'a>> {
    let query = Query::of(&parts.uri);
    let fitting = |wanted: &dyn Fn(&Door, &str) -> bool| {
        doors.iter().find_map(|door| {
            let (path, rest) = door.path.matches_start(parts.uri.path())?;
            let query_fits = !door.sockets || door.mount.config.required_query.matches(&query);
            (query_fits && wanted(door, rest)).then(|| Match {
                door,
                mount: &door.mount,
                path,
                rest,
                query: query.clone(),
            })
        })
    };
    let socket = || fitting(&|door, rest| door.takes_sockets_at(rest));
    let route = || {
        let exact = fitting(&|door, rest| door.has_route_at(rest, Some(&parts.method)));
        exact.or_else(|| fitting(&|door, rest| door.has_route_at(rest, None)))
    };
    if handshake::is_upgrade(parts) { socket().or_else(route) } else { route().or_else(socket) }
}

impl<'a> Match<'a> {
    /// Whether this is where sockets come in.
    pub(super) fn is_endpoint(&self) -> bool {
        self.door.takes_sockets_at(self.rest)
    }

    /// The route for a request, and all methods the path answers.
    pub(super) fn routes(&self) -> impl Iterator<Item = &'a HttpRoute> {
        let rest = self.rest;
        let routes = if self.door.requests { self.mount.config.http.as_slice() } else { &[] };
        routes.iter().filter(move |route| fits(route, rest))
    }

    /// The identity, as it came in here.
    pub(super) fn entered_by(&self, identity: &Identity) -> Identity {
        match &self.door.anonymous {
            Some(anonymous) if anonymous.user() == identity.user() => anonymous.clone(),
            _ => identity.by(&self.door.endpoint),
        }
    }
}

/// Whether a route answers a path below its mount: exactly, or, if it ends with `/*`, all paths below it.
fn fits(route: &HttpRoute, rest: &str) -> bool {
    match route.path.strip_suffix("/*") {
        Some(above) => rest.strip_prefix(above).is_some_and(|below| below.len() > 1 && below.starts_with('/')),
        None => route.path == rest || (rest.len() > 1 && rest.strip_suffix('/') == Some(&route.path)),
    }
}

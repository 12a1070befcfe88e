//! The ways into mounts: the paths on which a mount takes sockets, and the one below which it answers requests. Of several that fit
//! a request the closest counts.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::http::request::Parts;

use crate::config::HttpRoute;
use crate::protocol::identity::Identity;
use crate::protocol::path::{MountPath, PathValues};
use crate::protocol::query::Query;
use crate::server::MountPoint;

/// A way into a mount.
pub struct Door {
    mount: Arc<MountPoint>,
    path: MountPath,
    endpoint: String,
    /// Whether sockets come in here.
    sockets: bool,
    /// Whether requests do, for the mount's HTTP routes.
    requests: bool,
    /// Everybody who comes in here, where nobody is asked: one for all, for there may be many.
    anonymous: Option<Identity>,
}

impl Door {
    /// Whether it is at `/`.
    pub(super) fn is_root(&self) -> bool {
        self.path.matches("/").is_some()
    }
}

/// All doors, in the order in which they are tried: literal paths before placeholders, more required parameters before fewer.
pub fn doors(mounts: &[Arc<MountPoint>]) -> Vec<Door> {
    let mut doors = Vec::new();
    for mount in mounts {
        let config = &mount.config;
        let door = |path: &MountPath, sockets, requests| {
            let endpoint = path.to_string();
            let anonymous = mount.gate.anonymous().map(|anonymous| anonymous.by(&endpoint));
            Door { mount: Arc::clone(mount), path: path.clone(), endpoint, sockets, requests, anonymous }
        };
        doors.extend(config.paths.iter().map(|path| door(path, true, config.http_path.is_none())));
        doors.extend(config.http_path.iter().map(|path| door(path, false, true)));
    }
    doors.sort_by_key(|door| {
        let required = &door.mount.config.required_query;
        let required = if door.sockets { required.all.len() + usize::from(!required.any.is_empty()) } else { 0 };
        (door.path.values(), Reverse(required))
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

/// The first door that fits; below its path it does if one of the mount's routes does.
pub(super) fn find<'a>(doors: &'a [Door], parts: &'a Parts) -> Option<Match<'a>> {
    let query = Query::of(&parts.uri);
    doors.iter().find_map(|door| {
        let (path, rest) = door.path.matches_start(parts.uri.path())?;
        let config = &door.mount.config;
        let routed = door.requests && config.http.iter().any(|route| fits(route, rest));
        let query_fits = !door.sockets || config.required_query.matches(&query);
        let here = query_fits && (routed || (door.sockets && rest == "/"));
        here.then(|| Match { door, mount: &door.mount, path, rest, query: query.clone() })
    })
}

impl<'a> Match<'a> {
    /// Whether this is where sockets come in.
    pub(super) fn is_endpoint(&self) -> bool {
        self.door.sockets && self.rest == "/"
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
            Some(anonymous) => anonymous.clone(),
            None => identity.by(&self.door.endpoint),
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

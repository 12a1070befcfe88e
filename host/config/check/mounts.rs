//! Checks of mounts, one by one and against each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::{HeaderName, Uri};

use super::Check;
use super::limits::DURATION_MS_MAX;
use crate::auth::{AuthMode, Policy, Stated, StatedSource, TokenSource};
use crate::config::mount::{HttpRoute, Mount, MountSettings, RouteAuth};
use crate::config::tree::KeyPath;
use crate::protocol::name::{ChannelPattern, check_part};
use crate::protocol::path::{MountPath, MountPaths};
use crate::protocol::template::{Source, Template};

/// Request headers that hold secrets, which plugins never see.
const SECRET_HEADERS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "sec-websocket-protocol"];

/// Which of a template's sources a request has.
#[derive(Clone, Copy)]
struct Available<'m> {
    path: &'m MountPaths,
    user: bool,
    claims: bool,
}

impl Check<'_> {
    pub(super) fn mounts(&mut self, settings: BTreeMap<String, MountSettings>, listen: SocketAddr) -> Vec<Mount> {
        self.duplicates(&settings);
        let mut mounts: Vec<(Mount, Vec<String>)> = Vec::with_capacity(settings.len());
        for (name, mount) in settings {
            let path = KeyPath::new(["mount", &name]);
            self.auth(&mount, &path.key("auth"), listen);
            self.heartbeat(&mount, &path.key("heartbeat"));
            self.mount_limits(&mount.limits, &path.key("limits"));
            self.words(&mount, &path);
            self.routes(&mount, &path);
            self.granted_statements(&mount, &path);
            self.reference("plugin", &mount.plugin, &path.key("plugin"));
            let texts = self.channels(&mount, &path);
            for (other, others) in &mounts {
                if other.plugin != mount.plugin
                    && let Some((ours, theirs)) = overlap(&texts, others)
                {
                    let reason = format!(
                        "{ours:?} names channels that {theirs:?} of mount.{} names too, and that mount has another plugin; a channel has one",
                        other.name
                    );
                    let key = if mount.channels.is_some() { path.key("channels") } else { path.clone() };
                    self.refuse(&key, reason);
                }
            }
            let channels = texts.iter().filter_map(|text| ChannelPattern::parse(text).ok()).collect();
            mounts.push((finish(name, mount, channels), texts));
        }
        mounts.into_iter().map(|(mount, _)| mount).collect()
    }

    /// Two mounts that no request could tell apart.
    fn duplicates(&mut self, settings: &BTreeMap<String, MountSettings>) {
        for (index, (name, mount)) in settings.iter().enumerate() {
            for (twin, other) in settings.iter().take(index) {
                let told_apart = mount.required_query.differs(&other.required_query);
                if meet(&mount.path, &other.path) && !told_apart {
                    let reason = format!(
                        "mount.{twin} has the same path; two mounts may share it only with different required_query"
                    );
                    self.refuse(&KeyPath::new(["mount", name, "path"]), reason);
                    continue;
                }
                // Where no sockets come in, the query tells nobody apart.
                let told_apart = told_apart && mount.http_path.is_none() && other.http_path.is_none();
                let same = |route: &&HttpRoute| {
                    let method = |method| route.methods.contains(method);
                    other.http.iter().any(|theirs| theirs.overlaps(route) && theirs.methods.iter().any(method))
                };
                if !told_apart
                    && meet(&mount.http_paths(), &other.http_paths())
                    && let Some(route) = mount.http.iter().find(same)
                {
                    let key = if mount.http_path.is_some() { "http_path" } else { "path" };
                    let reason = format!(
                        "mount.{twin} answers HTTP requests at the same place, with a route for {:?} too",
                        route.path
                    );
                    self.refuse(&KeyPath::new(["mount", name, key]), reason);
                }
            }
        }
    }

    pub(super) fn reference(&mut self, table: &str, name: &str, path: &KeyPath) {
        let known = self.known(table);
        let implied = table == "key" && name == "default";
        if !implied && !known.iter().any(|known| known == name) {
            let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.refuse(path, format!("there is no [{table}.{name}]; there are: {there}"));
        }
    }

    fn auth(&mut self, mount: &MountSettings, path: &KeyPath, listen: SocketAddr) {
        let Policy {
            mode, keys, sources, user_claims, tenant_claims: _, tenant, role_claim: _, insecure_public, ..
        } = &mount.auth;
        self.stated(mount, path);
        if let Err(error) = check_part("tenant", tenant) {
            self.refuse(&path.key("tenant"), error.to_string());
        }
        if *mode == AuthMode::None {
            if listen.ip().is_loopback() {
                return;
            }
            if *insecure_public {
                self.warnings
                    .push(format!("{path}.mode = \"none\": everybody who reaches {listen} can use {}", mount.path));
            } else {
                let reason = format!(
                    "listen = {listen} can be reached by other machines, and this mount would let everybody in: listen on \
                     127.0.0.1, or use mode = \"jwt\", or set insecure_public = true"
                );
                self.refuse(&path.key("mode"), reason);
            }
            return;
        }
        for (name, empty) in
            [("keys", keys.is_empty()), ("tokens", sources.is_empty()), ("user_claims", user_claims.is_empty())]
        {
            if empty {
                self.refuse(&path.key(name), "must not be empty");
            }
        }
        for (index, key) in keys.iter().enumerate() {
            self.reference("key", key, &path.key("keys").index(index));
        }
        let is_cookie = |source: &StatedSource| matches!(source, StatedSource::Cookie(_));
        let believed = (mount.auth.insecure_user_id && mount.auth.user_id_sources.iter().any(is_cookie))
            || (mount.auth.insecure_query
                && [&mount.auth.stated_tenant, &mount.auth.stated_user].into_iter().flatten().any(is_cookie));
        let cookie = believed || sources.iter().any(|source| matches!(source, TokenSource::Cookie(_)));
        if cookie && mount.origins.as_ref().is_some_and(|origins| origins.iter().any(|origin| origin == "*")) {
            let reason = "with tokens or ids from a cookie, \"*\" would let every web page act for its visitor: list the origins";
            self.refuse(&KeyPath(path.parent().0).key("origins"), reason);
        }
    }

    /// What requests say of themselves.
    fn stated(&mut self, mount: &MountSettings, path: &KeyPath) {
        let policy = &mount.auth;
        let places = |stated: Stated| match stated {
            Stated::Tenant => (policy.stated_tenant.is_empty(), "stated_tenant"),
            Stated::User => (policy.stated_user.is_empty(), "stated_user"),
        };
        let parent = KeyPath(path.parent().0);
        let routes = mount.http.iter().enumerate();
        let routes =
            routes.map(|(index, route)| (parent.key("http").index(index).key("must_state"), &route.must_state));
        for (key, must) in routes.chain([(path.key("must_state"), &policy.must_state)]) {
            for stated in must {
                if let (true, places) = places(*stated) {
                    self.refuse(&key, format!("needs {path}.{places}: where a request may say it"));
                }
            }
        }
        if policy.insecure_query {
            for stated in [Stated::Tenant, Stated::User] {
                if let (true, places) = places(stated) {
                    self.refuse(&path.key("insecure_query"), format!("needs {path}.{places}: where a request says it"));
                }
            }
        }
        let (name, believed) = match (policy.insecure_query, policy.insecure_user_id) {
            (true, true) => {
                return self.refuse(&path.key("insecure_query"), "stands beside insecure_user_id: use one of them");
            }
            (true, false) => ("insecure_query", "tenant and user"),
            (false, true) => ("insecure_user_id", "user"),
            (false, false) => return,
        };
        self.warnings.push(format!(
            "{path}.{name} = true: a request without a token is believed which {believed} it is of; everybody who reaches {} can be anybody",
            mount.path
        ));
    }

    fn heartbeat(&mut self, mount: &MountSettings, path: &KeyPath) {
        let heartbeat = mount.heartbeat;
        if heartbeat.interval_ms == 0 {
            self.refuse(&path.key("interval_ms"), "must be at least 1");
        }
        if heartbeat.timeout_ms > DURATION_MS_MAX {
            self.refuse(&path.key("timeout_ms"), format!("must be at most {DURATION_MS_MAX}, a year"));
        }
        if heartbeat.timeout_ms <= heartbeat.interval_ms {
            let culprit = if self.tree.get(&path.key("timeout_ms")).is_some() { "timeout_ms" } else { "interval_ms" };
            let reason = format!(
                "timeout_ms ({}) must be more than interval_ms ({})",
                heartbeat.timeout_ms, heartbeat.interval_ms
            );
            self.refuse(&path.key(culprit), reason);
        }
    }

    /// Origins, subprotocols and query keys.
    fn words(&mut self, mount: &MountSettings, path: &KeyPath) {
        for (index, origin) in mount.origins.iter().flatten().enumerate() {
            let exact = origin.parse::<Uri>().is_ok_and(|uri| {
                let bare = uri.path() == "/" && uri.query().is_none() && !origin.ends_with('/');
                bare && uri.scheme().is_some()
                    && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            });
            if origin != "*" && !exact {
                let reason = "must be an origin like https://app.example.com, without a path, or \"*\"";
                self.refuse(&path.key("origins").index(index), reason);
            }
        }
        for (index, name) in mount.subprotocols.iter().enumerate() {
            if name.starts_with("bearer.") || http::Method::from_bytes(name.as_bytes()).is_err() {
                let reason = "must be a token of RFC 9110 section 5.6.2 that does not begin with \"bearer.\"";
                self.refuse(&path.key("subprotocols").index(index), reason);
            }
        }
        for (list, names) in [("all", &mount.required_query.all), ("any", &mount.required_query.any)] {
            for (index, name) in names.iter().enumerate() {
                if name.is_empty() {
                    self.refuse(&path.key("required_query").key(list).index(index), "must not be empty");
                }
            }
        }
    }

    fn routes(&mut self, mount: &MountSettings, path: &KeyPath) {
        for (index, route) in mount.http.iter().enumerate() {
            let key = path.key("http").index(index);
            let written = route.path.strip_suffix("/*").unwrap_or(&route.path);
            if !matches!(written, "" | "/")
                && let Err(error) = MountPath::parse(written)
            {
                self.refuse(&key.key("path"), error.to_string());
            } else if route.path.contains('{') {
                self.refuse(&key.key("path"), "must not have placeholders; the mount's own path may");
            }
            if route.methods.is_empty() {
                self.refuse(&key.key("methods"), "must not be empty");
            }
            if route.auth == RouteAuth::None && !route.must_state.is_empty() {
                self.refuse(&key.key("must_state"), "needs auth: with auth = \"none\" there is nobody to compare with");
            }
            for (at, method) in route.methods.iter().enumerate() {
                let before = |other: &HttpRoute| other.path == route.path && other.methods.contains(method);
                if mount.http[..index].iter().any(before) {
                    let reason = format!("another route has {} {} already", method.as_str(), route.path);
                    self.refuse(&key.key("methods").index(at), reason);
                }
            }
            for (at, header) in route.headers.iter().enumerate() {
                let key = key.key("headers").index(at);
                if SECRET_HEADERS.contains(&header.to_ascii_lowercase().as_str()) {
                    self.refuse(&key, "holds a secret, which plugins never see");
                } else if header.parse::<HeaderName>().is_err() {
                    self.refuse(&key, "is no header name");
                }
            }
        }
    }

    /// Checks templates and patterns; answers the patterns as text.
    fn channels(&mut self, mount: &MountSettings, path: &KeyPath) -> Vec<String> {
        let jwt = mount.auth.mode == AuthMode::Jwt;
        let socket = Available { path: &mount.path, user: true, claims: jwt };
        let base = mount.http_paths();
        let mut templates: Vec<(KeyPath, &Template, Available<'_>)> = Vec::new();
        templates.extend(mount.channel.iter().map(|template| (path.key("channel"), template, socket)));
        let auto = mount.auto_join.iter().enumerate();
        templates.extend(auto.map(|(index, template)| (path.key("auto_join").index(index), template, socket)));
        for (index, route) in mount.http.iter().enumerate() {
            let known = route.auth == RouteAuth::Required;
            let request = Available { path: &base, user: known, claims: known && jwt };
            templates.push((path.key("http").index(index).key("channel"), &route.channel, request));
        }

        for (key, template, available) in &templates {
            for source in template.sources() {
                if let Some(reason) = unavailable(source, *available) {
                    self.refuse(key, reason);
                }
            }
        }
        if mount.channel.is_none() && !mount.route && mount.http.is_empty() {
            self.refuse(
                path,
                "messages would have nowhere to go: set channel, or route = true, or add [[…http]] routes",
            );
        }

        let mut texts = Vec::new();
        let Some(written) = &mount.channels else {
            if mount.route {
                self.refuse(path, "route = true needs channels: the patterns of the channels that frames may name");
            }
            for (_, template, _) in &templates {
                texts.push(template.pattern_text());
            }
            texts.sort();
            texts.dedup();
            return texts;
        };
        if written.is_empty() {
            self.refuse(&path.key("channels"), "must not be empty");
        }
        for (index, text) in written.iter().enumerate() {
            match ChannelPattern::parse(text) {
                Ok(_) => texts.push(text.clone()),
                Err(error) => self.refuse(&path.key("channels").index(index), error.to_string()),
            }
        }
        if texts.len() == written.len() {
            for (key, template, _) in &templates {
                let example = example(&template.pattern_text());
                let covered =
                    texts.iter().any(|text| ChannelPattern::parse(text).is_ok_and(|pattern| pattern.matches(&example)));
                if !covered {
                    self.refuse(key, format!("channels does not cover it: add {:?} there", template.pattern_text()));
                }
            }
        }
        texts
    }
}

fn unavailable(source: &Source, available: Available<'_>) -> Option<String> {
    match source {
        Source::User if !available.user => Some("{user} is not known here: the route has auth = \"none\"".to_owned()),
        Source::Claim(name) if !available.claims => {
            Some(format!("{{claim.{name}}} is not known here: without a token there are no claims"))
        }
        Source::Path(name) if !available.path.has_value(name) => {
            Some(format!("{{path.{name}}} is not known here: the mount's path {} has no {{{name}}}", available.path))
        }
        _ => None,
    }
}

/// A name that a pattern matches, as far from others as a name can be.
fn example(pattern: &str) -> String {
    match pattern.strip_suffix('*') {
        Some(prefix) => format!("{prefix}~~"),
        None => pattern.to_owned(),
    }
}

/// The first two patterns that have names in common.
fn overlap<'p>(ours: &'p [String], theirs: &'p [String]) -> Option<(&'p str, &'p str)> {
    let matches = |pattern: &str, other: &str| {
        ChannelPattern::parse(pattern).is_ok_and(|pattern| pattern.matches(&example(other)))
    };
    let pairs = ours.iter().flat_map(|a| theirs.iter().map(move |b| (a.as_str(), b.as_str())));
    pairs.into_iter().find(|(a, b)| matches(a, b) || matches(b, a))
}

fn finish(name: String, settings: MountSettings, channels: Vec<ChannelPattern>) -> Mount {
    let mut http = settings.http;
    for route in &mut http {
        route.headers.iter_mut().for_each(|header| header.make_ascii_lowercase());
    }
    Mount {
        name,
        paths: settings.path,
        http_path: settings.http_path,
        errors: settings.errors,
        required_query: settings.required_query,
        plugin: settings.plugin,
        channel: settings.channel,
        auto_join: settings.auto_join,
        channels,
        route: settings.route,
        auth: settings.auth,
        refusal: settings.refusal,
        origins: settings.origins,
        subprotocols: settings.subprotocols,
        heartbeat: settings.heartbeat,
        compression: settings.compression,
        limits: settings.limits,
        on_excess: settings.on_excess,
        durability: settings.durability,
        statements: settings.statements,
        settings: serde_json::Value::Object(settings.settings),
        http,
    }
}

/// Whether a request can be at a path of both.
fn meet(paths: &MountPaths, others: &MountPaths) -> bool {
    paths.iter().any(|path| others.iter().any(|other| other.same_shape(path)))
}

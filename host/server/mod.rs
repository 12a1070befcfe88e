//! HTTP: accepts sockets, serves the broker's own endpoints, and turns requests on mounts into connections or events.
//! Only this module knows `axum` and `hyper`.

mod accept;
mod admin;
mod answer;
mod body;
mod cors;
mod demo;
mod doors;
mod health;
mod keys;
mod mount;
mod publish;
mod respond;
mod shares;
mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::channel::Publisher;
use crate::connection::Hub;
use crate::datasource::Datasource;
use crate::limits::NodeLimits;
use crate::registry::Registry;
use crate::store::Store;

pub use crate::server::accept::{Census, serve};
pub use crate::server::admin::{Followers, Operators, Uploads};
pub use crate::server::answer::Answers;
pub use crate::server::body::Bodies;
pub use crate::server::demo::DemoTokens;
pub use crate::server::doors::{Door, doors};
pub use crate::server::health::Readiness;
pub use crate::server::keys::ApiKeys;
pub use crate::server::mount::MountPoint;

/// What requests need.
pub struct Site {
    /// Connections and channels.
    pub hub: Arc<Hub>,
    /// The publish API.
    pub publisher: Publisher,
    /// Closed at the end.
    pub store: Arc<dyn Store>,
    /// Which versions of plugins there are, and where they run.
    pub registry: Arc<Registry>,
    /// Who may publish.
    pub api_keys: ApiKeys,
    /// Whose tokens may administer.
    pub operators: Operators,
    /// Versions that are being uploaded.
    pub uploads: Uploads,
    /// Who follows what plugins log.
    pub followers: Followers,
    /// Whether the store takes writes.
    pub readiness: Readiness,
    /// What bodies of requests may take.
    pub bodies: Bodies,
    /// Databases of which plugins read.
    pub datasources: Vec<Arc<Datasource>>,
    /// The ways into the mounts, in the order in which they are tried.
    pub doors: Vec<Door>,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    /// Bounds of the process.
    pub limits: NodeLimits,
    /// Connections by tenant.
    pub census: Arc<Census>,
    /// Whether the demo pages are served.
    pub development: bool,
    /// Signs tokens for them; in development on a loopback address.
    pub demo_tokens: Option<DemoTokens>,
}

/// All endpoints.
pub fn router(site: Arc<Site>) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/v1/channels/{channel}/publish", post(publish::publish))
        .nest(admin::PREFIX, admin::router(&site));
    if site.development {
        if !site.doors.iter().any(Door::is_root) {
            router = router.route("/", get(demo::index));
        }
        router = router
            .route("/demo", get(demo::index))
            .route("/demo/", get(demo::page))
            .route("/demo/{page}", get(demo::page))
            .route("/demo/assets/{file}", get(demo::asset))
            .route("/demo/token", get(demo::token));
    }
    router.fallback(mount::handle).with_state(site)
}

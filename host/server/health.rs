//! Whether the broker is alive, whether it can serve, and its metrics.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::datasource::Datasource;
use crate::server::respond::json_response;
use crate::server::{Site, admin};
use crate::telemetry;

/// A store that takes longer to answer is not ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// How old an answer about the store may be. Everybody may ask, so asking must not be work.
const FRESH: Duration = Duration::from_secs(1);

/// Whether the store takes writes, as of a moment ago; those who ask at the same time share one look.
#[derive(Default)]
pub struct Readiness {
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Readiness {
    async fn ask(&self, check: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < FRESH
        {
            return result.clone();
        }
        let result = check.await;
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

async fn check(site: Arc<Site>) -> Result<(), String> {
    let check = async {
        match tokio::time::timeout(CHECK_TIMEOUT, site.store.check()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the store does not answer within {CHECK_TIMEOUT:?}")),
        }
    };
    site.readiness.ask(check).await
}

/// The broker can take traffic: it is not shutting down and the store accepts writes. Without a datasource, or a version for
/// a mount, it is `degraded`, and ready.
pub(super) async fn ready(State(site): State<Arc<Site>>) -> Response<Body> {
    // In a task of its own: a client that hangs up must not leave a look half done, for the next one to begin anew.
    let store = telemetry::spawn("readiness", check(Arc::clone(&site))).await.unwrap_or_else(|e| Err(e.to_string()));
    let stopping = site.hub.directory.is_stopping();
    // Everything else still works without it, so this node goes on taking traffic.
    let state = |source: &Arc<Datasource>| if source.outage().is_some() { "unavailable" } else { "ok" };
    let datasource = |source: &Arc<Datasource>| (source.name().to_owned(), state(source));
    let datasources: BTreeMap<String, &str> = site.datasources.iter().map(datasource).collect();
    let outages = datasources.values().filter(|state| **state != "ok").count();
    let logics = site.logics().into_iter();
    let mounts: BTreeMap<String, String> =
        logics.filter_map(|(name, logic)| Some((name, admin::unavailable(logic)?))).collect();
    let status = match (&store, stopping) {
        (Err(_), _) => "degraded",
        (Ok(()), true) => "stopping",
        (Ok(()), false) if outages > 0 || !mounts.is_empty() => "degraded",
        (Ok(()), false) => "ready",
    };
    let body = json!({
        "status": status,
        "store": match &store { Ok(()) => "ok", Err(error) => error.as_str() },
        "datasources": datasources,
        "mounts": mounts,
        "cluster": "disabled",
        "channelsAwake": site.hub.directory.awake_count(),
    });
    let code = if store.is_ok() && !stopping { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(code, &body)
}

/// Prometheus text format 0.0.4. What tenants and plugins use is told to operators alone: their names are in it.
pub(super) async fn metrics(State(site): State<Arc<Site>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    metrics_process::Collector::default().collect();
    let mut text = site.metrics.render();
    if parts.headers.contains_key(header::AUTHORIZATION) {
        if let Err(refusal) = admin::must_be_operator(&site, &parts).await {
            return refusal;
        }
        text.push_str(&site.hub.directory.quotas().expose());
    }
    let mut response = Response::new(Body::from(text));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Goal: however many ask, the store is looked at about once a second, and its answer is not kept for longer.
    #[tokio::test(start_paused = true)]
    async fn those_who_ask_share_a_look_that_is_fresh() {
        let readiness = Readiness::default();
        let looks = AtomicU32::new(0);
        let ask = async |result: Result<(), String>| {
            let look = async {
                looks.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(300)).await;
                result
            };
            readiness.ask(look).await
        };

        let together = futures_util::future::join_all((0..100).map(|_| ask(Ok(())))).await;
        assert!(together.iter().all(Result::is_ok));
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!((ask(Err("later".into())).await, looks.load(Ordering::Relaxed)), (Ok(()), 1));

        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((ask(Err("full".into())).await, looks.load(Ordering::Relaxed)), (Err("full".into()), 2));
        assert_eq!((ask(Ok(())).await, looks.load(Ordering::Relaxed)), (Err("full".into()), 2));
        tokio::time::advance(FRESH).await;
        assert_eq!((ask(Ok(())).await, looks.load(Ordering::Relaxed)), (Ok(()), 3));
    }
}

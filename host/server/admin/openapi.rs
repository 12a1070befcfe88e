//! The document of the admin API (OpenAPI 3.1), made from the handlers themselves.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Required};
use utoipa::{Modify, OpenApi};

use crate::server::Site;
use crate::server::admin::caller::Caller;
use crate::server::admin::{
    audit, channels, connections, deployments, keys, logs, mounts, plugins, tail, tapes, tenants, upload, usage,
};

/// What of the document is not said by a handler.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hotbay admin API",
        description = "Tenants, keys, plugins and where they run, channels, connections, tapes, and who did what. Times are milliseconds \
                       since the Unix epoch. Lists come in pages: `next` of one is `after` of the next."
    ),
    servers((url = "/v1/admin")),
    security(("bearer" = [])),
    modifiers(&Bearer, &OfTenants, &Ids),
    paths(
        document, upload::upload, plugins::list, plugins::show, plugins::approve, plugins::reject, plugins::revoke, mounts::list,
        deployments::list, deployments::list_of_mount, deployments::list_of_tenant, deployments::show, deployments::deploy,
        deployments::roll_back, deployments::stop, tenants::list, tenants::show, tenants::put, tenants::delete, usage::of_tenant, usage::of_all,
        keys::list, keys::create, keys::revoke, channels::list, channels::show, channels::members, tail::follow,
        channels::sleep, channels::reset, connections::list, connections::close, tapes::list, tapes::show, tapes::delete, tapes::file, tapes::recordings,
        tapes::record, tapes::stop, audit::list, logs::follow,
    )
)]
struct Described;

/// Who may ask.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let words = "An operator's API key (`hotbay key create --operator`), a token whose role is the operator's ([admin] in the \
                     configuration), or, for the plugins of a tenant, one of its API keys.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(words)).build();
        document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// What is there for the platform's plugins is there for each tenant's, too: the same handlers, at another path.
struct OfTenants;

impl Modify for OfTenants {
    fn modify(&self, document: &mut Document) {
        let is_of_platform = |path: &&String| *path == "/plugins" || path.starts_with("/plugins/");
        let paths: Vec<String> = document.paths.paths.keys().filter(is_of_platform).cloned().collect();
        for path in paths {
            let Some(mut item) = document.paths.paths.get(&path).cloned() else { continue };
            for (_, operation) in operations(&mut item) {
                operation.parameters.get_or_insert_default().insert(0, tenant().into());
            }
            document.paths.paths.insert(format!("/tenants/{{tenant}}{path}"), item);
        }
    }
}

/// Operations are named by method and path, so that no two have one name.
struct Ids;

impl Modify for Ids {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
            let words = words.collect::<Vec<_>>().join("_");
            for (method, operation) in operations(item) {
                operation.operation_id = Some(format!("{method}_{words}"));
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [("get", &mut item.get), ("post", &mut item.post), ("put", &mut item.put), ("delete", &mut item.delete)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn tenant() -> Parameter {
    let name = ParameterBuilder::new().name("tenant").parameter_in(ParameterIn::Path).required(Required::True);
    name.schema(Some(ObjectBuilder::new().schema_type(Type::String))).description(Some("Whose plugins")).build()
}

static DOCUMENT: LazyLock<serde_json::Value> = LazyLock::new(|| {
    // What the handlers say of themselves always serialises.
    serde_json::to_value(Described::openapi()).unwrap_or_default()
});

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "meta", responses((status = 200, body = Object)))]
pub(super) async fn document(_: State<Arc<Site>>, _: axum::Extension<Caller>) -> Json<&'static serde_json::Value> {
    Json(&DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: whatever the document refers to is in it.
    #[test]
    fn the_document_refers_to_nothing_that_is_not_there() {
        let text = DOCUMENT.to_string();
        let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
        for (at, found) in text.match_indices("#/components/schemas/") {
            let name = text[at + found.len()..].split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    /// Goal: what can be asked for is what is described. Which methods there are is compared by a test with a running broker.
    #[test]
    fn every_path_is_described_and_every_described_path_is_there() {
        let there: BTreeSet<String> = super::super::routes().into_iter().map(|(path, _)| path.to_owned()).collect();
        let described: BTreeSet<String> = Described::openapi().paths.paths.into_keys().collect();

        assert_eq!(there, described);
        assert_eq!(DOCUMENT["openapi"], "3.1.0");
        let operations =
            DOCUMENT["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
        let ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }
}

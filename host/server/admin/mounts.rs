//! Mounts, and which versions their channels get: what the configuration says, and the plan that follows from the deployments.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::channel::{CANARY_PARTS, Logic, Rule, RuleKind};
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked};
use crate::server::admin::page::{self, Page};
use crate::server::doors::Door;

/// A mount.
#[derive(Serialize, ToSchema)]
#[schema(as = Mount)]
pub(super) struct MountView {
    /// Its name in the configuration.
    name: String,
    /// Its plugin there.
    plugin: String,
    /// The names its channels may have.
    patterns: Vec<String>,
    /// Which version a channel gets: that of the first rule for it; shadows run beside it.
    rules: Vec<RuleView>,
    /// Why channels that no rule is for are unavailable, and what to do; absent if there is a rule for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
}

/// A rule of a mount's plan.
#[derive(Serialize, ToSchema)]
#[schema(as = Rule)]
struct RuleView {
    /// The deployment that says so.
    deployment: i64,
    /// The version.
    digest: String,
    /// Only for this tenant's channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Only for channels with such names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// `all`, `canary` or `shadow`.
    kind: &'static str,
    /// For a canary: of how many of a hundred channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
}

impl RuleView {
    fn of(rule: &Rule) -> Self {
        let (kind, percent) = match rule.kind {
            RuleKind::All => ("all", None),
            RuleKind::Canary(parts) => ("canary", Some(f64::from(parts) * 100.0 / f64::from(CANARY_PARTS))),
            RuleKind::Shadow => ("shadow", None),
        };
        Self {
            deployment: rule.deployed.id,
            digest: rule.version.digest().to_string(),
            tenant: rule.tenant.as_deref().map(str::to_owned),
            pattern: rule.pattern.as_ref().map(ToString::to_string),
            kind,
            percent,
        }
    }
}

impl MountView {
    fn of(logic: &Logic) -> Self {
        let plan = logic.rollout.plan();
        let unavailable = unavailable(logic);
        let base = unavailable.is_none().then(|| RuleView {
            deployment: plan.base_deployed.id,
            digest: plan.base.digest().to_string(),
            tenant: None,
            pattern: None,
            kind: "all",
            percent: None,
        });
        Self {
            name: logic.mount.clone(),
            plugin: logic.plugin.clone(),
            patterns: logic.patterns.iter().map(ToString::to_string).collect(),
            rules: plan.rules.iter().map(RuleView::of).chain(base).collect(),
            unavailable,
        }
    }
}

/// Why channels of a mount are unavailable, and what to do: all its versions were revoked or rolled back.
pub(in crate::server) fn unavailable(logic: &Logic) -> Option<String> {
    let mount = &logic.mount;
    let words = || format!("no version of it may run; deploy one: hotbay plugin deploy NAME@VERSION --mount {mount}");
    logic.rollout.plan().base.is_withdrawn().then(words)
}

/// A page of a list that is not the store's.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageAsked {
    /// Rows of a page, 1 to 1,000 [default: 100].
    pub(super) limit: Option<u32>,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

/// Lists the mounts, by name, with what their channels get
#[utoipa::path(
    get, path = "/mounts", tag = "deployments", params(PageAsked),
    responses((status = 200, body = Page<MountView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<PageAsked>,
) -> Answer<Page<MountView>> {
    let limit = page::limit(asked.limit)? as usize;
    let logics = site.logics();
    let after = asked.after.unwrap_or_default();
    let mut rest = logics.range(after.clone()..).filter(|(name, _)| **name != after || after.is_empty());
    let items: Vec<MountView> = rest.by_ref().take(limit).map(|(_, logic)| MountView::of(logic)).collect();
    let next = rest.next().and(items.last()).map(|last| last.name.clone());
    Ok(Json(Page { items, next }))
}

impl Site {
    /// What is behind each mount, by name.
    pub(in crate::server) fn logics(&self) -> BTreeMap<String, &Arc<Logic>> {
        self.doors.iter().map(Door::logic).map(|logic| (logic.mount.clone(), logic)).collect()
    }

    /// Refuses a mount that is not there.
    pub(super) fn check_mount(&self, mount: &str) -> Result<(), Failure> {
        let logics = self.logics();
        if logics.contains_key(mount) {
            return Ok(());
        }
        let known: Vec<&str> = logics.keys().map(String::as_str).collect();
        Err(Failure::not_found(format!("there is no mount {mount:?}; there are: {}", known.join(", "))))
    }
}

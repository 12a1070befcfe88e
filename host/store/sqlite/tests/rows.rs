//! Rows of the registry for tests, each as it may be.

use crate::store::ApiKey;
use crate::store::catalog::{Approval, AuditEntry, Deployment, DeploymentState, Status, Tape, Tenant, Version};

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant {
        name: name.to_owned(),
        policy: "review".to_owned(),
        grants: vec!["kv".to_owned(), "log".to_owned()],
        limits: r#"{"connections_max":10}"#.to_owned(),
        trusted_keys: vec!["RWQ".to_owned()],
        created_ms: 1_000,
        changed_ms: 1_000,
    }
}

/// The version `0.0.<digest>` of the plugin `chat`.
pub(super) fn version(tenant: &str, digest: u8) -> Version {
    Version {
        tenant: tenant.to_owned(),
        digest: [digest; 32],
        name: "chat".to_owned(),
        version: format!("0.0.{digest}"),
        contract: "0.1.0".to_owned(),
        manifest: "name = \"chat\"\r\n# é\n".to_owned(),
        schema: 3,
        accepts: vec![1, 2],
        capabilities: vec!["kv".to_owned()],
        bytes: 1 << 20,
        uploader: "ann".to_owned(),
        uploaded_ms: 1_000 + u64::from(digest),
        status: Status::Uploaded,
        reason: None,
    }
}

pub(super) fn deployment(mount: &str, owner: &str, digest: u8) -> Deployment {
    Deployment {
        id: 0,
        mount: mount.to_owned(),
        tenant: Some("acme".to_owned()),
        pattern: None,
        owner: owner.to_owned(),
        digest: [digest; 32],
        strategy: r#"{"all":{}}"#.to_owned(),
        state: DeploymentState::Active,
        reason: None,
        by: "ann".to_owned(),
        created_ms: 5_000,
        changed_ms: 5_000,
    }
}

pub(super) fn approval(digest: u8, at_ms: u64) -> Approval {
    Approval {
        id: 0,
        tenant: "acme".to_owned(),
        digest: [digest; 32],
        by: "ann".to_owned(),
        key_id: None,
        signature: None,
        at_ms,
        reason: Some("looks good".to_owned()),
    }
}

pub(super) fn tape(channel: &str) -> Tape {
    Tape {
        id: 0,
        tenant: "acme".to_owned(),
        channel: channel.to_owned(),
        mount: "chat".to_owned(),
        digest: [1; 32],
        started_ms: 1_000,
        ended_ms: None,
        batches: 0,
        bytes: 0,
        path: format!("tapes/{channel}"),
    }
}

pub(super) fn audit(at_ms: u64, action: &str) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: "ann".to_owned(),
        tenant: "acme".to_owned(),
        action: action.to_owned(),
        subject: "plugin/chat".to_owned(),
        reason: Some("because".to_owned()),
        detail: "{}".to_owned(),
    }
}

pub(super) fn key(tenant: &str, name: &str, hash: u8) -> ApiKey {
    let (tenant, name) = (tenant.to_owned(), name.to_owned());
    ApiKey { tenant, name, hash: [hash; 32], created_ms: 1_000, operator: hash % 2 == 1 }
}

//! The life of a version: it comes in, is vetted, approved or rejected, and perhaps revoked.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::plugin::PluginError;
use crate::plugin::compile::Digest;
use crate::registry::deploy::PAGE;
use crate::registry::manifest::Manifest;
use crate::registry::queue::SIGNATURE;
use crate::registry::signature;
use crate::registry::tenants::Terms;
use crate::registry::{Actor, DAY_MS, Registry, RegistryError};
use crate::store::catalog::{
    self, Approval, Change, Cursor, DeploymentFilter, DeploymentState, Status, Verdict, Vetting, VettingStep,
};
use crate::telemetry::wall_ms;

/// When it is looked whether a version was written down, if the store did not say so.
const UNSURE: Duration = Duration::from_secs(5);

/// What comes with a component.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// The text of `plugin.toml`.
    pub manifest: &'a str,
    /// A signature of it.
    pub signature: Option<&'a str>,
    /// Numbers of tapes that it is played when it is vetted; without any, the latest of its mount.
    pub tapes: &'a [i64],
}

/// A component on its way in: written to a file and hashed as it comes, never held in memory.
pub struct Incoming {
    file: tokio::fs::File,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
    bytes_max: u64,
    /// Set once the file has its name.
    kept: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// A component that came in whole, and is on the disk.
pub struct Whole(Incoming);

impl Incoming {
    /// Has all of it on the disk. That may take long, so nobody is to wait for it: nothing is locked yet.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub async fn end(self) -> Result<Whole, RegistryError> {
        self.file.sync_all().await.map_err(|e| folder(&self.path, &e))?;
        Ok(Whole(self))
    }

    /// The next piece.
    ///
    /// # Errors
    /// If that is more than a component may have, or the disk takes no more.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), RegistryError> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.bytes_max {
            let (bytes, bytes_max) = (self.bytes as usize, self.bytes_max as usize);
            return Err(RegistryError::TooMuch(PluginError::TooLarge { bytes, bytes_max }.to_string()));
        }
        self.hash.update(piece);
        self.file.write_all(piece).await.map_err(|e| folder(&self.path, &e))
    }
}

fn folder(path: &std::path::Path, error: &std::io::Error) -> RegistryError {
    RegistryError::Folder { path: path.display().to_string(), cause: error.to_string() }
}

impl Registry {
    /// Begins to take a component in.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub async fn receive(&self) -> Result<Incoming, RegistryError> {
        let path = self.folder.join(format!("incoming-{:016x}", rand::random::<u64>()));
        let open = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await;
        let file = open.map_err(|e| folder(&path, &e))?;
        let bytes_max = self.limits.plugin_bytes_max as u64;
        Ok(Incoming { file, path, hash: Sha256::new(), bytes: 0, bytes_max, kept: false })
    }

    /// Gives a component that came in whole its name.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub async fn keep(&self, Whole(mut incoming): Whole) -> Result<(Digest, u64), RegistryError> {
        let digest = Digest(std::mem::take(&mut incoming.hash).finalize().into());
        let to = self.component(digest);
        tokio::fs::rename(&incoming.path, &to).await.map_err(|e| folder(&to, &e))?;
        incoming.kept = true;
        Ok((digest, incoming.bytes))
    }

    /// Adds a version whose component was [kept](Self::keep). Nothing runs by that: it waits to be vetted.
    ///
    /// # Errors
    /// If the manifest names another component, a chosen tape is not there, or the tenant has the component or that version of the plugin already.
    pub async fn add(
        &self,
        who: &Actor,
        tenant: &str,
        upload: &Upload<'_>,
        (digest, bytes): (Digest, u64),
    ) -> Result<catalog::Version, RegistryError> {
        let Upload { manifest, signature, tapes } = *upload;
        let terms = self.terms(tenant).await?;
        terms.check_open(tenant)?;
        let parsed = Manifest::parse(manifest)?;
        let signed = signature.map(|signature| signed(manifest, signature, &terms, digest)).transpose()?;
        if let Some(named) = parsed.digest.filter(|named| *named != digest) {
            return Err(RegistryError::Invalid(format!(
                "plugin.toml names the component {named}, and this is {digest}: build it again, and let `hotbay plugin push` write the digest"
            )));
        }
        let chosen = self.choose(tenant, tapes).await?;
        let row = version_row(tenant, &parsed, manifest, digest, bytes, &who.name);
        let detail = json!({ "version": format!("{}@{}", row.name, row.version), "bytes": bytes, "capabilities": row.capabilities });
        let audit = who.did("plugin.uploaded", tenant, digest.to_string(), &detail);
        // Before it is written down, or it would wait for the next start.
        let place = self.queue.place(tenant)?;
        let since_ms = row.uploaded_ms.saturating_sub(DAY_MS);
        let few = terms.uploads_max.map(|max| {
            let count = max.saturating_sub(self.replaced_since(tenant, since_ms));
            Change::RequireUploadsBelow { tenant: row.tenant.clone(), since_ms, count }
        });
        let replaces = self.replaces(&row).await?;
        let is_replacing = replaces.is_some();
        let mut changes: Vec<Change> = few.into_iter().chain(replaces).collect();
        changes.extend([
            Change::InsertVersion(row.clone()),
            Change::PutVetting(Vetting {
                tenant: row.tenant.clone(),
                digest: row.digest,
                verdict: None,
                steps: signed.into_iter().chain(chosen).collect(),
                started_ms: row.uploaded_ms,
                ended_ms: None,
            }),
        ]);
        match self.catalog().change(changes, Some(audit)).await {
            Ok(Some(_)) => {
                if is_replacing && terms.uploads_max.is_some() {
                    let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
                    replaced.entry(tenant.to_owned()).or_default().push(row.uploaded_ms);
                }
                place.fill(digest);
            }
            Ok(None) => return Err(self.why_not_added(&row, &terms).await?),
            Err(error) => {
                if error.retryable() {
                    // It may be written down all the same, and would wait for the next start. If it is not, its turn does nothing.
                    place.fill_later(digest, UNSURE);
                }
                return Err(error.into());
            }
        }
        Ok(row)
    }

    async fn why_not_added(&self, row: &catalog::Version, terms: &Terms) -> Result<RegistryError, RegistryError> {
        self.check_uploads(&row.tenant, terms).await?;
        if let Some(known) = self.catalog().version(&row.tenant, &row.digest).await? {
            let remedy = match known.status {
                Status::Rejected if self.failed_vetting(row).await? => {
                    ": mend what it failed for, raise `version` in plugin.toml, and push it again"
                }
                Status::Rejected | Status::Revoked => ", and will not run: push another component",
                _ => "",
            };
            return Ok(RegistryError::Conflict(format!(
                "this component is there already, as {}@{}, and is {}{remedy}",
                known.name, known.version, known.status
            )));
        }
        Ok(RegistryError::Conflict(format!(
            "there is a {}@{} with another component already; a version never changes: raise `version` in plugin.toml",
            row.name, row.version
        )))
    }

    /// Approves a version that passed vetting: it may run.
    ///
    /// # Errors
    /// If it is not one that waits for that, or asks for more than its owner is granted now.
    pub async fn approve(
        &self,
        who: &Actor,
        row: &catalog::Version,
        signed: Option<(String, String)>,
    ) -> Result<(), RegistryError> {
        self.terms(&row.tenant).await?.check_grants(row)?;
        let (key_id, signature) = signed.unzip();
        let approval = Approval {
            id: 0,
            tenant: row.tenant.clone(),
            digest: row.digest,
            by: who.name.clone(),
            key_id: key_id.clone(),
            signature,
            at_ms: wall_ms(),
            reason: who.reason.clone(),
        };
        let changes = vec![
            Self::becomes(row, &[Status::Vetted], Status::Approved, who.reason.clone()),
            Change::InsertApproval(approval),
        ];
        self.decide(
            who,
            "plugin.approved",
            row,
            changes,
            &json!({ "key_id": key_id }),
            "versions that passed vetting and wait",
        )
        .await
    }

    /// Refuses a version: it will never run.
    ///
    /// # Errors
    /// If it was approved already, or refused.
    pub async fn reject(&self, who: &Actor, row: &catalog::Version) -> Result<(), RegistryError> {
        let from = [Status::Uploaded, Status::Vetting, Status::Vetted];
        let changes = vec![Self::becomes(row, &from, Status::Rejected, who.reason.clone())];
        self.decide(who, "plugin.rejected", row, changes, &json!({}), "versions that nobody decided about yet").await?;
        self.let_go(Digest(row.digest)).await;
        Ok(())
    }

    pub(super) fn becomes(row: &catalog::Version, from: &[Status], to: Status, reason: Option<String>) -> Change {
        Change::SetStatus { tenant: row.tenant.clone(), digest: row.digest, from: from.to_vec(), to, reason }
    }

    pub(super) async fn decide(
        &self,
        who: &Actor,
        action: &str,
        row: &catalog::Version,
        changes: Vec<Change>,
        detail: &serde_json::Value,
        wanted: &str,
    ) -> Result<(), RegistryError> {
        let audit = who.did(action, &row.tenant, hex::encode(row.digest), detail);
        if self.catalog().change(changes, Some(audit)).await?.is_some() {
            return Ok(());
        }
        let now = self.catalog().version(&row.tenant, &row.digest).await?;
        let status = now.map_or_else(|| "not there any more".to_owned(), |now| now.status.to_string());
        Err(RegistryError::Conflict(format!("{}@{} is {status}; this is for {wanted}", row.name, row.version)))
    }

    /// All deployments in force that the store knows.
    pub(super) async fn deployments_in_force(&self) -> Result<Vec<catalog::Deployment>, RegistryError> {
        let filter = DeploymentFilter { state: Some(DeploymentState::Active), ..DeploymentFilter::default() };
        let (mut rows, mut after): (Vec<_>, Option<Cursor>) = (Vec::new(), None);
        loop {
            let page = self.catalog().deployments(&filter, after.as_ref(), PAGE).await?;
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                return Ok(rows);
            }
        }
    }
}

/// The step that says whose signature came with an upload. One that does not fit, or that nobody trusts, is refused at once.
fn signed(manifest: &str, signature: &str, terms: &Terms, digest: Digest) -> Result<VettingStep, RegistryError> {
    let key_id = signature::verify(manifest.as_bytes(), signature, &terms.trusted, digest)
        .map_err(|e| RegistryError::Forbidden(format!("signature: {e}")))?;
    let evidence = json!({ "key_id": key_id.to_string(), "signature": signature });
    Ok(VettingStep { step: SIGNATURE.to_owned(), verdict: Verdict::Passed, ms: 0, evidence: evidence.to_string() })
}

/// The row of a version that just came in.
pub(super) fn version_row(
    tenant: &str,
    parsed: &Manifest,
    manifest: &str,
    digest: Digest,
    bytes: u64,
    uploader: &str,
) -> catalog::Version {
    catalog::Version {
        tenant: tenant.to_owned(),
        digest: digest.0,
        name: parsed.name.clone(),
        version: parsed.version.to_string(),
        contract: crate::plugin::inspect::CONTRACT_VERSION.to_owned(),
        manifest: manifest.to_owned(),
        schema: parsed.state.schema,
        accepts: parsed.state.accepts.iter().copied().collect(),
        capabilities: parsed.capabilities.iter().map(|one| one.as_str().to_owned()).collect(),
        bytes,
        uploader: uploader.to_owned(),
        uploaded_ms: wall_ms(),
        status: Status::Uploaded,
        reason: None,
    }
}

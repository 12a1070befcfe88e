//! The plugins of the configuration come in when the broker starts: through the same vetting as any other version, approved by whoever
//! wrote the configuration. A component that was not there before is deployed to its mounts; if it was, what was deployed later stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::channel::{Directory, Version};
use crate::limits::MountLimits;
use crate::plugin::compile::Digest;
use crate::plugin::{Plugin, PluginError};
use crate::protocol::capability::Capability;
use crate::registry::deploy::{Deploy, PAGE};
use crate::registry::manifest::{FILE_NAME, Manifest};
use crate::registry::queue::Trial;
use crate::registry::strategy::Strategy;
use crate::registry::versions::{Whole, version_row};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{self, Approval, Change, Cursor, DeploymentFilter, Status, VersionFilter};
use crate::telemetry::wall_ms;

/// Who does what the configuration says.
pub(super) const CONFIGURATION: &str = "configuration";
/// Bytes of a component that are copied at once.
const CHUNK: usize = 64 << 10;

/// A plugin of the configuration.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Its name there.
    pub name: String,
    /// Its component.
    pub path: PathBuf,
    /// Its manifest. Without one, the file `plugin.toml` beside the component, or none.
    pub manifest: Option<PathBuf>,
    /// What it is granted.
    pub grants: BTreeSet<Capability>,
    /// A mount that runs it.
    pub trial: Option<Trial>,
}

/// A plugin of the configuration that came in.
#[derive(Clone)]
pub struct Entered {
    /// Its version.
    pub row: catalog::Version,
    /// Ready to be instantiated.
    pub plugin: Arc<Plugin>,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Entered {
    /// The version as a mount with these bounds runs it.
    pub fn version(&self, limits: &MountLimits) -> Version {
        let accepts = self.manifest.state.accepts.iter().copied().collect();
        let limits = Arc::new(self.manifest.limits(limits));
        Version::with_schema(Arc::clone(&self.plugin), limits, self.manifest.state.schema, accepts)
    }
}

impl Registry {
    /// Takes a plugin of the configuration in.
    ///
    /// # Errors
    /// If it cannot be read, or does not pass.
    pub async fn enter(&self, configured: &Configured) -> Result<Entered, RegistryError> {
        let whole = self.copy(&configured.path).await?;
        // Until the version waits to be vetted nothing says that its component is needed.
        let taking = self.taking.lock().await;
        let kept = self.keep(whole).await?;
        let text = self.manifest_of(configured).await?;
        let manifest = Manifest::parse(&text)?;
        if let Some(missing) = manifest.capabilities.difference(&configured.grants).next() {
            return Err(RegistryError::Forbidden(format!(
                "plugin.toml asks for the capability {0:?}, which it is not granted; add it to `grants` of [plugin.{1}]",
                missing.as_str(),
                configured.name
            )));
        }
        let mut row = match self.catalog().version("", &kept.0.0).await? {
            Some(known) => known,
            None => self.add_configured(&manifest, &text, kept).await?,
        };
        if row.status == Status::Rejected {
            // Perhaps by an earlier version of the broker, or under other limits: whoever wrote the configuration wants it again.
            self.reconsider(&mut row).await?;
        }
        drop(taking);
        if matches!(row.status, Status::Uploaded | Status::Vetting | Status::Vetted) {
            self.approve_configured(&mut row, configured).await?;
        }
        // One that was revoked is loaded all the same: its mounts are there, and say so. It does not run.
        let loadable = catalog::Version { status: Status::Approved, ..row.clone() };
        let (plugin, manifest) = self.load(&loadable).await?;
        Ok(Entered { row, plugin, manifest })
    }

    /// Takes a plugin of the configuration in as it is now, while the broker runs, and deploys it to mounts that run it.
    ///
    /// # Errors
    /// If it cannot be read, does not pass, or does not take over what channels have. Then what ran before goes on.
    pub async fn renew(
        &self,
        configured: &Configured,
        mounts: &[String],
        strategy: &Strategy,
    ) -> Result<Entered, RegistryError> {
        let entered = self.enter(configured).await?;
        for mount in mounts {
            self.deploy_configured(mount, &entered, strategy.clone()).await?;
        }
        Ok(entered)
    }

    async fn deploy_configured(&self, mount: &str, entered: &Entered, strategy: Strategy) -> Result<(), RegistryError> {
        let deploy = Deploy {
            mount: mount.to_owned(),
            tenant: None,
            pattern: None,
            owner: String::new(),
            version: hex::encode(entered.row.digest),
            strategy,
        };
        self.deploy(&Actor::new(CONFIGURATION), deploy).await.map(drop)
    }

    async fn copy(&self, path: &Path) -> Result<Whole, RegistryError> {
        let unreadable = |e: std::io::Error| PluginError::File { path: path.to_owned(), cause: e.to_string() };
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let mut incoming = self.receive().await?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk).await.map_err(unreadable)? {
                0 => return incoming.end().await,
                read => incoming.write(&chunk[..read]).await?,
            }
        }
    }

    async fn manifest_of(&self, configured: &Configured) -> Result<String, RegistryError> {
        let beside = configured.path.with_file_name(FILE_NAME);
        let path = configured.manifest.as_ref().unwrap_or(&beside);
        match tokio::fs::read_to_string(path).await {
            Ok(text) => Ok(text),
            Err(e) if configured.manifest.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                Ok(Manifest::synthesized(&configured.name, &configured.grants).to_toml())
            }
            Err(e) => Err(PluginError::File { path: path.clone(), cause: e.to_string() }.into()),
        }
    }

    async fn add_configured(
        &self,
        manifest: &Manifest,
        text: &str,
        (digest, bytes): (Digest, u64),
    ) -> Result<catalog::Version, RegistryError> {
        let who = Actor::new(CONFIGURATION);
        let mut row = version_row("", manifest, text, digest, bytes, CONFIGURATION);
        if self.catalog().version_named("", &row.name, &row.version).await?.is_some() {
            // Built anew without a new version, as while it is developed: its digest tells it apart (semver, build metadata).
            row.version = format!("{}+{}", manifest.version, &digest.to_string()[..12]);
        }
        let detail = json!({ "version": format!("{}@{}", row.name, row.version), "bytes": bytes });
        let audit = who.did("plugin.uploaded", "", digest.to_string(), &detail);
        if self.catalog().change(vec![Change::InsertVersion(row.clone())], Some(audit)).await?.is_none() {
            return Err(RegistryError::Conflict(format!("{}@{} is there already", row.name, row.version)));
        }
        Ok(row)
    }

    async fn reconsider(&self, row: &mut catalog::Version) -> Result<(), RegistryError> {
        let change = Change::SetStatus {
            tenant: row.tenant.clone(),
            digest: row.digest,
            from: vec![Status::Rejected],
            to: Status::Uploaded,
            reason: None,
        };
        let audit = Actor::new(CONFIGURATION).did("plugin.reconsidered", "", hex::encode(row.digest), &json!({}));
        self.catalog().change(vec![change], Some(audit)).await?;
        row.status = Status::Uploaded;
        Ok(())
    }

    async fn approve_configured(
        &self,
        row: &mut catalog::Version,
        configured: &Configured,
    ) -> Result<(), RegistryError> {
        let who = Actor::new(CONFIGURATION);
        if row.status != Status::Vetted {
            let report = self.vet(row, &configured.grants, configured.trial.as_ref()).await?;
            if let Some(why) = report.failure() {
                return Err(RegistryError::Refused(why));
            }
        }
        let approval = Approval {
            id: 0,
            tenant: String::new(),
            digest: row.digest,
            by: CONFIGURATION.to_owned(),
            key_id: None,
            signature: None,
            at_ms: wall_ms(),
            reason: None,
        };
        let from = vec![Status::Vetted];
        let (tenant, digest) = (String::new(), row.digest);
        let status = Change::SetStatus { tenant, digest, from, to: Status::Approved, reason: None };
        let audit = who.did("plugin.approved", "", hex::encode(row.digest), &json!({}));
        self.catalog().change(vec![status, Change::InsertApproval(approval)], Some(audit)).await?;
        row.status = Status::Approved;
        Ok(())
    }

    /// Puts all deployments in force that the store knows, and those that the configuration adds. `configured` are the mounts with what
    /// the configuration says they run.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn restore(
        &self,
        directory: Arc<Directory>,
        configured: &[(String, Entered)],
    ) -> Result<(), RegistryError> {
        self.remove_left_behind().await?;
        self.learn_schemas().await?;
        self.end_tapes_left_behind().await?;
        let mut unrestored = BTreeSet::new();
        for row in self.deployments_in_force().await? {
            if self.mounts.logic(&row.mount).is_none() {
                tracing::warn!(
                    deployment = row.id,
                    mount = row.mount,
                    "a deployment is for a mount that is not configured any more"
                );
                continue;
            }
            match self.restore_one(&row).await {
                Ok(strategy) => self.mounts.put(row, strategy),
                Err(error) => {
                    tracing::error!(deployment = row.id, mount = row.mount, %error, "a deployment cannot be restored; its channels run what they would without it");
                    unrestored.insert(row.mount);
                }
            }
        }
        self.end_what_was_revoked().await?;
        for (mount, entered) in configured {
            let digest = Digest(entered.row.digest);
            let has_base = self.mounts.active().iter().any(|active| active.row.mount == *mount && active.is_base());
            if entered.row.status != Status::Approved {
                self.mounts.withdraw("", digest);
                if has_base {
                    tracing::warn!(mount, %digest, "the version that the configuration names was revoked: what was deployed since runs; name another component in the configuration");
                } else {
                    tracing::error!(mount, %digest, "the version that the configuration names was revoked, and no other one is deployed: the mount has none; deploy one");
                }
            } else if self.last_configured(mount).await? != Some(digest.0) {
                self.deploy_configured(mount, entered, Strategy::all()).await?;
            } else if !has_base && !unrestored.contains(mount) {
                // What was deployed last was revoked, and this one was taken back before: it is not to run because of a restart.
                self.mounts.withdraw_on(mount, "", digest);
                tracing::error!(
                    mount,
                    "no version of the mount may run: its channels are unavailable until one is deployed"
                );
            }
        }
        self.open_accounts(directory.quotas()).await?;
        // Whoever set it before is this very call.
        drop(self.directory.set(directory));
        self.apply();
        Ok(())
    }

    /// What sleeping channels saved may be of any version there ever was.
    async fn learn_schemas(&self) -> Result<(), RegistryError> {
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.catalog().versions(&VersionFilter::default(), after.as_ref(), PAGE).await?;
            page.rows.iter().for_each(|row| self.mounts.remember_schema(&row.tenant, Digest(row.digest), row.schema));
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn restore_one(&self, row: &catalog::Deployment) -> Result<Strategy, RegistryError> {
        let missing = || RegistryError::no_version(&row.owner, &hex::encode(row.digest));
        let version = self.catalog().version(&row.owner, &row.digest).await?.ok_or_else(missing)?;
        let strategy = Strategy::parse(&row.strategy)?;
        if version.status == Status::Revoked {
            // It is in force until that is written down, without a version.
            return Ok(strategy);
        }
        let (plugin, manifest) = self.load(&version).await?;
        self.mounts.version(&row.mount, &row.owner, &plugin, &manifest);
        Ok(strategy)
    }

    /// A revocation ends the deployments of its version. The broker may have ended before they did.
    async fn end_what_was_revoked(&self) -> Result<(), RegistryError> {
        let _turn = self.deploying.lock().await;
        for active in self.mounts.active() {
            let version = self.catalog().version(&active.row.owner, &active.row.digest).await?;
            if let Some(version) = version.filter(|version| version.status == Status::Revoked) {
                self.end_revoked(&Actor::new("startup"), &active, &version).await?;
            }
        }
        Ok(())
    }

    /// What the configuration said at the last start that changed it.
    async fn last_configured(&self, mount: &str) -> Result<Option<[u8; 32]>, RegistryError> {
        let filter = DeploymentFilter { mount: Some(mount.to_owned()), ..DeploymentFilter::default() };
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.catalog().deployments(&filter, after.as_ref(), PAGE).await?;
            if let Some(row) = page.rows.iter().find(|row| row.by == CONFIGURATION) {
                return Ok(Some(row.digest));
            }
            after = page.next;
            if after.is_none() {
                return Ok(None);
            }
        }
    }
}

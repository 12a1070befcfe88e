//! The queue of vetting: one version after the other, each step written down as it ends. What waits survives a restart.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::limits::{MountLimits, VET_TRIES_MAX};
use crate::plugin::compile::Digest;
use crate::protocol::capability::Capability;
use crate::protocol::name::{ChannelName, ChannelPattern};
use crate::registry::chosen::CHOSEN;
use crate::registry::deploy::PAGE;
use crate::registry::line::{Full, Waiting};
use crate::registry::manifest::Manifest;
use crate::registry::startup::CONFIGURATION;
use crate::registry::tenants::Policy;
use crate::registry::vet::{self, Report, Step, VetError};
use crate::registry::{Actor, Registry, RegistryError, signature};
use crate::store::catalog::{self, Change, Cursor, Status, Verdict, VersionFilter, Vetting, VettingStep};
use crate::telemetry::wall_ms;

/// The step that says whose signature came with an upload: the first one, judged when it came.
pub(super) const SIGNATURE: &str = "signature";
/// Steps that may wait to be written down.
const STEPS_MAX: usize = 64;

/// How long a version waits that could not be vetted because the store failed: first, and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_mins(1);
/// How often the store is asked for versions that had no place.
const LOOK: Duration = Duration::from_secs(10);

/// What became of the versions that could not be vetted.
#[derive(Default)]
struct Tries {
    /// How often each was tried in vain.
    starved: HashMap<Waiting, u32>,
    unwritten: HashMap<Waiting, u32>,
    /// Those that wait for the next start.
    given_up: HashSet<Waiting>,
}

impl Tries {
    /// When a version is tried again; `None` if trying does not help.
    fn again(&mut self, waiting: &Waiting, error: &RegistryError) -> Option<Duration> {
        let count = |tries: &mut HashMap<Waiting, u32>| {
            let tries = tries.entry(waiting.clone()).or_default();
            *tries += 1;
            *tries
        };
        match error {
            RegistryError::Vetting(VetError::Starved { .. }) => {
                (count(&mut self.starved) < VET_TRIES_MAX).then_some(Duration::ZERO)
            }
            RegistryError::Store(error) if error.retryable() => {
                let doubled = 2_u32.saturating_pow(count(&mut self.unwritten) - 1);
                Some(AGAIN.saturating_mul(doubled).min(AGAIN_MAX))
            }
            _ => None,
        }
    }

    fn forget(&mut self, waiting: &Waiting) {
        self.starved.remove(waiting);
        self.unwritten.remove(waiting);
    }
}

impl Registry {
    /// Vets what waits, until the broker stops.
    pub async fn run_vetting(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tries = Tries::default();
        // Whether versions may wait in the store that have no place here.
        let mut more = true;
        loop {
            if more {
                match self.requeue(&tries.given_up).await {
                    Ok(all) => more = !all,
                    Err(error) => {
                        tracing::warn!(%error, "versions that waited to be vetted cannot be read; trying again");
                    }
                }
            }
            let waiting = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                waiting = self.queue.next() => waiting,
                () = tokio::time::sleep(LOOK), if more => continue,
            };
            let vetting = self.vet_waiting(&waiting.0, waiting.1);
            let result = tokio::select! {
                biased;
                // It is vetted again at the next start.
                _ = stop.wait_for(|stop| *stop) => return,
                result = vetting => result,
            };
            match result {
                Ok(()) => {
                    tries.forget(&waiting);
                    self.queue.leave(&waiting.0);
                }
                Err(error) => self.put_back(waiting, &error, &mut tries),
            }
        }
    }

    /// A version could not be vetted: behind the others it is tried again, if that was for lack of processor time, or the store's doing.
    fn put_back(&self, waiting: Waiting, error: &RegistryError, tries: &mut Tries) {
        let (tenant, digest) = &waiting;
        if let Some(after) = tries.again(&waiting, error) {
            tracing::warn!(tenant, %digest, %error, "a version is vetted once more");
            self.queue.again(waiting, after);
        } else {
            tracing::error!(tenant, %digest, %error, "a version could not be vetted; it waits for the next start");
            self.queue.leave(tenant);
            tries.forget(&waiting);
            tries.given_up.insert(waiting);
        }
    }

    /// Gives places to what waits in the store, as when the broker before stopped. False if there was none for some.
    async fn requeue(&self, given_up: &HashSet<Waiting>) -> Result<bool, RegistryError> {
        let mut all = true;
        for status in [Status::Vetting, Status::Uploaded] {
            let filter = VersionFilter { status: Some(status), ..VersionFilter::default() };
            let mut after: Option<Cursor> = None;
            loop {
                let page = self.catalog().versions(&filter, after.as_ref(), PAGE).await?;
                for row in page.rows {
                    let waiting = (row.tenant, Digest(row.digest));
                    // What comes with the configuration is vetted by whoever takes it in.
                    if row.uploader == CONFIGURATION || given_up.contains(&waiting) || self.queue.has(&waiting) {
                        continue;
                    }
                    match self.queue.place(&waiting.0) {
                        Ok(place) => place.fill(waiting.1),
                        Err(Full::Tenant(_)) => all = false,
                        Err(Full::All) => return Ok(false),
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(all)
    }

    async fn vet_waiting(&self, tenant: &str, digest: Digest) -> Result<(), RegistryError> {
        let waits = |row: &catalog::Version| matches!(row.status, Status::Uploaded | Status::Vetting);
        // Somebody may refuse it while it waits, or while it is looked at: its component is gone then.
        let Some(row) = self.catalog().version(tenant, &digest.0).await?.filter(waits) else { return Ok(()) };
        let terms = self.terms(tenant).await?;
        let trial = self.mounts.trial_of(&row.name);
        let report = match self.vet(&row, &terms.grants, trial.as_ref()).await {
            Ok(report) => report,
            Err(error) => {
                let now = self.catalog().version(tenant, &digest.0).await?;
                return if now.is_some_and(|now| waits(&now)) { Err(error) } else { Ok(()) };
            }
        };
        if report.passed()
            && let Err(error) = self.approve_signed(&row).await
        {
            // It is vetted all the same, and an operator may approve it.
            tracing::warn!(tenant, %digest, %error, "a version passed vetting, and is not approved by its signature; an operator may");
        }
        Ok(())
    }

    /// Approves a version that passed vetting by the signature that came with it, if that is enough by what the tenant's policy and keys are
    /// now.
    async fn approve_signed(&self, row: &catalog::Version) -> Result<(), RegistryError> {
        let Some((_, signature)) = self.signature_of(row).await? else { return Ok(()) };
        let terms = self.terms(&row.tenant).await?;
        if terms.policy != Policy::Auto {
            return Ok(());
        }
        let key_id = signature::verify(row.manifest.as_bytes(), &signature, &terms.trusted, Digest(row.digest));
        let key_id = key_id.map_err(|e| RegistryError::Forbidden(format!("signature: {e}")))?.to_string();
        let who = Actor::new(format!("signature {key_id}")).because("policy auto: a trusted signature is enough");
        self.approve(&who, row, Some((key_id, signature))).await
    }

    /// The trusted signature that came with a version.
    async fn signature_of(&self, row: &catalog::Version) -> Result<Option<(String, String)>, RegistryError> {
        let vetting = self.catalog().vetting(&row.tenant, &row.digest).await?;
        let steps = vetting.map(|vetting| vetting.steps).unwrap_or_default();
        let signed = steps.iter().find(|step| step.step == SIGNATURE && step.verdict == Verdict::Passed);
        let evidence = signed.and_then(|step| serde_json::from_str::<serde_json::Value>(&step.evidence).ok());
        Ok(evidence.and_then(|evidence| {
            let text = |key: &str| evidence.get(key)?.as_str().map(str::to_owned);
            Some((text("key_id")?, text("signature")?))
        }))
    }

    /// Vets a version now, and writes down what came out of each step. Afterwards it is vetted or rejected.
    pub(super) async fn vet(
        &self,
        row: &catalog::Version,
        grants: &BTreeSet<Capability>,
        trial: Option<&Trial>,
    ) -> Result<Report, RegistryError> {
        let digest = Digest(row.digest);
        let manifest = Manifest::parse(&row.manifest)?;
        let before = self.catalog().vetting(&row.tenant, &row.digest).await?.map(|vetting| vetting.steps);
        let is_kept = |step: &VettingStep| step.step == SIGNATURE || step.step == CHOSEN;
        let kept: Vec<VettingStep> = before.unwrap_or_default().into_iter().filter(is_kept).collect();
        let first = kept.len() as u32;
        let chosen = self.chosen(&kept).await?;
        let begun = vec![
            Change::SetStatus {
                tenant: row.tenant.clone(),
                digest: row.digest,
                from: vec![Status::Uploaded, Status::Vetting],
                to: Status::Vetting,
                reason: None,
            },
            Change::PutVetting(Vetting {
                tenant: row.tenant.clone(),
                digest: row.digest,
                verdict: None,
                steps: kept,
                started_ms: wall_ms(),
                ended_ms: None,
            }),
        ];
        if self.catalog().change(begun, None).await?.is_none() {
            let why = format!("{}@{} is not one that waits to be vetted", row.name, row.version);
            return Err(RegistryError::Conflict(why));
        }
        // More than there are.
        let (steps, mut ended) = mpsc::channel::<Step>(STEPS_MAX);
        let report = async {
            let told = steps; // Ends with the vetting, and with it the loop below.
            self.vet_component((row, &manifest), grants, (trial, chosen), &told).await
        };
        let writes = async {
            let mut position = first;
            while let Some(step) = ended.recv().await {
                self.write_step(row, position, &step).await?;
                position += 1;
            }
            Ok::<u32, RegistryError>(position)
        };
        let (report, written) = tokio::join!(report, writes);
        let position = written?;
        if let Err(RegistryError::Vetting(error @ VetError::Starved { step, wall_s, .. })) = &report {
            // Whoever looks at it sees why it waits.
            let evidence = json!({ "error": error.to_string() });
            let step = Step { step: *step, verdict: vet::Verdict::Skipped, ms: wall_s * 1_000, evidence };
            self.write_step(row, position, &step).await?;
        }
        let report = report?;
        let passed = report.passed();
        let why = report.failure();
        let (verdict, to) =
            if passed { (Verdict::Passed, Status::Vetted) } else { (Verdict::Failed, Status::Rejected) };
        let tenant = || row.tenant.clone();
        let changes = vec![
            Change::EndVetting { tenant: tenant(), digest: row.digest, verdict, ended_ms: wall_ms() },
            Change::SetStatus {
                tenant: tenant(),
                digest: row.digest,
                from: vec![Status::Vetting],
                to,
                reason: why.clone(),
            },
        ];
        let who = Actor { name: "vetting".to_owned(), reason: why.clone() };
        let audit = who.did("plugin.vetted", &row.tenant, digest.to_string(), &json!({ "verdict": verdict }));
        if self.catalog().change(changes, Some(audit)).await?.is_none() {
            return Err(RegistryError::Conflict(format!("{}@{} was decided about meanwhile", row.name, row.version)));
        }
        if to == Status::Rejected {
            self.let_go(digest).await;
        }
        match why {
            None => tracing::info!(plugin = row.name, version = row.version, %digest, "vetted"),
            Some(why) => tracing::warn!(plugin = row.name, version = row.version, %digest, why, "refused by vetting"),
        }
        Ok(report)
    }

    /// Has the workers look at a component.
    async fn vet_component(
        &self,
        (row, manifest): (&catalog::Version, &Manifest),
        grants: &BTreeSet<Capability>,
        (trial, chosen): (Option<&Trial>, Vec<PathBuf>),
        told: &mpsc::Sender<Step>,
    ) -> Result<Report, RegistryError> {
        let file = self.component(Digest(row.digest));
        let mut vetting = vet::Vetting::new(&file, manifest, grants.clone());
        vetting.node = self.limits.clone();
        vetting.folder.clone_from(&self.folder);
        vetting.keep = Some(Arc::clone(&self.runtime));
        // Settings are the platform's: a tenant that uploads something is told what its plugin logs, and why it fails.
        vetting.settings_of_tapes = row.tenant.is_empty();
        if let Some(trial) = trial {
            vetting.limits = roomy(&trial.limits);
            if row.tenant.is_empty() {
                vetting.settings.clone_from(&trial.settings);
            }
            vetting.channels = trial.channels().chain(vetting.channels).collect();
        }
        let logic = trial.and_then(|trial| self.mounts.logic(&trial.mount));
        vetting.deployed = logic.map(|logic| logic.rollout.of_tenant(&row.tenant).version.digest());
        vetting.tapes = match trial {
            Some(trial) if chosen.is_empty() => self.latest_tapes(&trial.mount, &row.tenant).await?,
            _ => chosen,
        };
        // Without tapes the same component under the same conditions gives the same evidence: it is not made twice, as by a broker whose
        // database is new.
        let conditions = vetting.tapes.is_empty().then(|| conditions(row, &vetting));
        if let Some(conditions) = &conditions
            && let Some(mut report) = self.found_before(Digest(row.digest), conditions)
        {
            for step in &mut report.steps {
                step.evidence["found_before"] = true.into();
                drop(told.try_send(step.clone()));
            }
            return Ok(report);
        }
        // There is room for all of them.
        let report = vet::vet(&vetting, |step| drop(told.try_send(step.clone()))).await?;
        if let (true, Some(conditions)) = (report.passed(), &conditions) {
            let note = serde_json::to_vec(&report).unwrap_or_default();
            if let Err(error) = self.runtime.keep_note(Digest(row.digest), conditions, &note) {
                tracing::warn!(%error, "what was found out about a component is not noted; it will be vetted again");
            }
        }
        Ok(report)
    }

    /// What was found out about a component before, under the same conditions.
    fn found_before(&self, digest: Digest, conditions: &str) -> Option<Report> {
        let report: Report = serde_json::from_slice(&self.runtime.note(digest, conditions)?).ok()?;
        report.passed().then_some(report)
    }

    async fn write_step(&self, row: &catalog::Version, position: u32, step: &Step) -> Result<(), RegistryError> {
        let step = VettingStep {
            step: step.step.as_str().to_owned(),
            verdict: match step.verdict {
                vet::Verdict::Passed => Verdict::Passed,
                vet::Verdict::Failed => Verdict::Failed,
                vet::Verdict::Skipped => Verdict::Skipped,
            },
            ms: step.ms,
            evidence: step.evidence.to_string(),
        };
        let change = Change::PutVettingStep { tenant: row.tenant.clone(), digest: row.digest, position, step };
        self.catalog().change(vec![change], None).await?;
        Ok(())
    }
}

/// The bounds of a mount, where they are wider than the usual ones: whether an operator gave it little room says nothing about a version.
fn roomy(mount: &MountLimits) -> MountLimits {
    let usual = MountLimits::default();
    MountLimits {
        effects_max: mount.effects_max.max(usual.effects_max),
        effect_bytes_max: mount.effect_bytes_max.max(usual.effect_bytes_max),
        cpu_ms_max: mount.cpu_ms_max.max(usual.cpu_ms_max),
        memory_bytes_max: mount.memory_bytes_max.max(usual.memory_bytes_max),
        state_bytes_max: mount.state_bytes_max.max(usual.state_bytes_max),
        saved_bytes_max: mount.saved_bytes_max.max(usual.saved_bytes_max),
        log_entries_max: mount.log_entries_max.max(usual.log_entries_max),
        batch_events_max: mount.batch_events_max.max(usual.batch_events_max),
        batch_bytes_max: mount.batch_bytes_max.max(usual.batch_bytes_max),
        message_bytes_max: mount.message_bytes_max.max(usual.message_bytes_max),
        ..mount.clone()
    }
}

/// Names all that evidence depends on beside the component: this host, the manifest, and what the version is tried for. And whose it is,
/// or a tenant could find out that another one has the same component.
fn conditions(row: &catalog::Version, vetting: &vet::Vetting<'_>) -> String {
    let host = env!("CARGO_PKG_VERSION");
    let conditions = format!(
        "{host}\n{}\n{}\n{:?}\n{:?}\n{:?}\n{:?}\n{}",
        row.tenant, row.manifest, vetting.grants, vetting.limits, vetting.node, vetting.channels, vetting.settings
    );
    Digest::of(conditions.as_bytes()).to_string()
}

/// The mount that a version is tried for.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its name.
    pub mount: String,
    /// Its bounds.
    pub limits: MountLimits,
    /// The names its channels may have.
    pub patterns: Vec<ChannelPattern>,
    /// The plugin's settings, as the text of a JSON object.
    pub settings: String,
}

impl Trial {
    /// Names a channel of the mount may have.
    fn channels(&self) -> impl Iterator<Item = ChannelName> {
        let names = self.patterns.iter().map(|pattern| pattern.to_string().replace('*', "conformance"));
        names.filter_map(|name| ChannelName::new("default", &name).ok())
    }
}

//! The mounts as deployments see them: which versions are loaded for each, and the plan that follows from the active deployments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::channel::{Deployed, Logic, Plan, Recording, Rule, Tally, Version};
use crate::plugin::Plugin;
use crate::plugin::compile::Digest;
use crate::protocol::name::ChannelPattern;
use crate::registry::manifest::Manifest;
use crate::registry::queue::Trial;
use crate::registry::recordings::Recorder;
use crate::registry::strategy::{Counts, Kind, Strategy};
use crate::store::catalog::Deployment;

/// A deployment that is in force.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) row: Deployment,
    pub(super) strategy: Strategy,
    pub(super) tally: Arc<Tally>,
}

impl Active {
    /// What it is for: another one for the same takes its place.
    pub(super) fn scope(&self) -> (&str, Option<&str>, Option<&str>) {
        scope(&self.row)
    }

    /// Its version.
    pub(super) fn digest(&self) -> Digest {
        Digest(self.row.digest)
    }

    /// Whether it is what a mount stands on: for all channels that no other deployment is for.
    pub(super) fn is_base(&self) -> bool {
        self.strategy.kind == Kind::All && self.row.tenant.is_none() && self.row.pattern.is_none()
    }

    fn version(&self) -> Owned {
        of(&self.row)
    }
}

fn of(row: &Deployment) -> Owned {
    (row.owner.clone(), Digest(row.digest))
}

/// A version by its owner and its component. Two owners may have the same component, each with a manifest, an approval and an end of its own.
pub(super) type Owned = (String, Digest);

/// Mount, tenant and pattern.
pub(super) fn scope(row: &Deployment) -> (&str, Option<&str>, Option<&str>) {
    (&row.mount, row.tenant.as_deref(), row.pattern.as_deref())
}

/// A mount with the versions that were loaded for it.
struct Mount {
    logic: Arc<Logic>,
    versions: HashMap<Owned, Arc<Version>>,
    /// Those that no channel is to run or to go back to, as long as some still do: they may be revoked meanwhile, or come back.
    left: HashMap<Owned, Weak<Version>>,
}

impl Mount {
    fn version(&self, owned: &Owned) -> Option<Arc<Version>> {
        self.versions.get(owned).cloned().or_else(|| self.left.get(owned)?.upgrade())
    }
}

/// All mounts.
#[derive(Default)]
pub(super) struct Mounts(Mutex<State>);

#[derive(Default)]
struct State {
    mounts: BTreeMap<String, Mount>,
    active: Vec<Active>,
    /// Versions that channels may go back to, by mount, tenant and pattern.
    earlier: HashMap<(String, Option<String>, Option<String>), Owned>,
    /// Schemas of versions, loaded or not.
    schemas: HashMap<(Arc<str>, Digest), u32>,
    recordings: Vec<Arc<Recorder>>,
}

impl State {
    /// A version of an owner on a mount, if some channel has it or may have it.
    fn version(&self, mount: &str, owned: &Owned) -> Option<Arc<Version>> {
        self.mounts.get(mount)?.version(owned)
    }
}

impl Mounts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a mount, when the broker starts.
    pub(super) fn add(&self, logic: Arc<Logic>, version: Arc<Version>) {
        let versions = HashMap::from([((String::new(), version.digest()), version)]);
        self.lock().mounts.insert(logic.mount.clone(), Mount { logic, versions, left: HashMap::new() });
    }

    /// Its logic.
    pub(super) fn logic(&self, mount: &str) -> Option<Arc<Logic>> {
        self.lock().mounts.get(mount).map(|mount| Arc::clone(&mount.logic))
    }

    /// The mount that a plugin of this name is for, if there is one.
    pub(super) fn trial_of(&self, plugin: &str) -> Option<Trial> {
        let state = self.lock();
        let is_for = |logic: &Logic| logic.plugin == plugin || logic.rollout.plan().base.plugin.name() == plugin;
        let logic = state.mounts.values().map(|mount| &mount.logic).find(|logic| is_for(logic))?;
        Some(Trial {
            mount: logic.mount.clone(),
            limits: (*logic.limits).clone(),
            patterns: logic.patterns.clone(),
            settings: logic.settings.clone(),
        })
    }

    /// Names of all.
    pub(super) fn names(&self) -> Vec<String> {
        self.lock().mounts.keys().cloned().collect()
    }

    /// Adds a version of an owner to a mount, or finds it there: there is one of each, which its channels share.
    pub(super) fn version(
        &self,
        mount: &str,
        owner: &str,
        plugin: &Arc<Plugin>,
        manifest: &Manifest,
    ) -> Option<Arc<Version>> {
        let mut state = self.lock();
        state.schemas.insert((owner.into(), plugin.digest()), manifest.state.schema);
        let mount = state.mounts.get_mut(mount)?;
        let owned = (owner.to_owned(), plugin.digest());
        let version = mount.version(&owned).unwrap_or_else(|| {
            let accepts = manifest.state.accepts.iter().copied().collect();
            let limits = Arc::new(manifest.limits(&mount.logic.limits));
            let version = Version::with_schema(Arc::clone(plugin), limits, manifest.state.schema, accepts);
            Arc::new(version.owned_by(owner))
        });
        mount.left.remove(&owned);
        mount.versions.insert(owned, Arc::clone(&version));
        Some(version)
    }

    /// Remembers the schema of a version that is not loaded.
    pub(super) fn remember_schema(&self, owner: &str, digest: Digest, schema: u32) {
        self.lock().schemas.insert((owner.into(), digest), schema);
    }

    /// The deployments in force.
    pub(super) fn active(&self) -> Vec<Active> {
        self.lock().active.clone()
    }

    /// One of them.
    pub(super) fn find(&self, id: i64) -> Option<Active> {
        self.lock().active.iter().find(|active| active.row.id == id).cloned()
    }

    /// Versions that some mount has loaded.
    pub(super) fn in_use(&self) -> HashSet<Owned> {
        let state = self.lock();
        state.mounts.values().flat_map(|mount| mount.versions.keys()).cloned().collect()
    }

    /// Puts a deployment in force, or in the place of what it was before: its version may run.
    pub(super) fn put(&self, row: Deployment, strategy: Strategy) {
        let mut state = self.lock();
        if let Some(version) = state.version(&row.mount, &of(&row)) {
            version.withdraw(false);
        }
        let known = state.active.iter_mut().find(|active| active.row.id == row.id);
        match known {
            Some(active) => (active.row, active.strategy) = (row, strategy),
            None => state.active.push(Active { row, strategy, tally: Arc::default() }),
        }
    }

    /// Takes a deployment out of force. With `withdraw`, its version may not run on this mount any more, unless another deployment says so.
    pub(super) fn remove(&self, id: i64, withdraw: bool) {
        let mut state = self.lock();
        let Some(at) = state.active.iter().position(|active| active.row.id == id) else { return };
        let gone = state.active.remove(at);
        let (mount, version) = (gone.row.mount.clone(), gone.version());
        let stays = state.active.iter().any(|active| active.row.mount == mount && active.version() == version);
        if withdraw && !stays {
            if let Some(version) = state.version(&mount, &version) {
                version.withdraw(true);
            }
        } else if gone.strategy.kind == Kind::All && !withdraw {
            state.earlier.insert((mount, gone.row.tenant, gone.row.pattern), version);
        }
    }

    /// Withdraws a version of an owner everywhere.
    pub(super) fn withdraw(&self, owner: &str, digest: Digest) {
        let version = (owner.to_owned(), digest);
        for mount in self.lock().mounts.values() {
            if let Some(version) = mount.version(&version) {
                version.withdraw(true);
            }
        }
    }

    /// Withdraws a version of an owner on one mount.
    pub(super) fn withdraw_on(&self, mount: &str, owner: &str, digest: Digest) {
        if let Some(version) = self.lock().version(mount, &(owner.to_owned(), digest)) {
            version.withdraw(true);
        }
    }

    /// Mounts that have nothing but this version, which was withdrawn.
    pub(super) fn left_with(&self, owner: &str, digest: Digest) -> Vec<String> {
        let owned = (owner.to_owned(), digest);
        let state = self.lock();
        let left = state.mounts.iter().filter(|(_, mount)| {
            let base = &mount.logic.rollout.plan().base;
            base.is_withdrawn() && mount.versions.get(&owned).is_some_and(|version| Arc::ptr_eq(version, base))
        });
        left.map(|(name, _)| name.clone()).collect()
    }

    /// Adds a recording.
    pub(super) fn record(&self, recorder: Arc<Recorder>) {
        self.lock().recordings.push(recorder);
    }

    /// Ends a recording.
    pub(super) fn stop_recording(&self, id: u64) {
        self.lock().recordings.retain(|recorder| recorder.id() != id);
    }

    /// Recordings that go on.
    pub(super) fn recordings(&self) -> Vec<Arc<Recorder>> {
        self.lock().recordings.clone()
    }

    /// Puts the plans of all mounts in place, as the deployments in force say. Versions that no channel is to run or to go back to are
    /// given up here; those that still run them keep them until they leave.
    pub(super) fn plan(&self) {
        let mut state = self.lock();
        let State { mounts, active, earlier, schemas, recordings } = &mut *state;
        for (name, mount) in mounts.iter_mut() {
            let base = Arc::clone(&mount.logic.rollout.plan().base);
            mount.left.retain(|_, version| version.strong_count() > 0);
            let left = &mut mount.left;
            mount.versions.retain(|owned, version| {
                let stays = Arc::ptr_eq(version, &base)
                    || earlier.iter().any(|((mount, ..), earlier)| mount == name && earlier == owned)
                    || active.iter().any(|active| active.row.mount == *name && active.version() == *owned);
                if !stays {
                    left.insert(owned.clone(), Arc::downgrade(version));
                }
                stays
            });
        }
        for (name, mount) in mounts.iter() {
            let mut active: Vec<&Active> = active.iter().filter(|active| active.row.mount == *name).collect();
            // The narrowest scope first; of one scope what is tried before what counts, and the latest first.
            active.sort_by_key(|active| {
                let (_, tenant, pattern) = active.scope();
                let narrow = u8::from(pattern.is_none()) * 2 + u8::from(tenant.is_none());
                (narrow, active.strategy.kind == Kind::All, std::cmp::Reverse(active.row.id))
            });
            let version = |owned: &Owned| mount.versions.get(owned).map(Arc::clone);
            let base = active.iter().find(|active| active.is_base()).copied();
            let before = mount.logic.rollout.plan();
            let (base_version, base_deployed) = match base.and_then(|base| Some((base, version(&base.version())?))) {
                Some((base, version)) => (version, deployed(base)),
                None => (Arc::clone(&before.base), before.base_deployed.clone()),
            };
            let base_id = base.map(|base| base.row.id);
            let rules = active.iter().filter(|active| Some(active.row.id) != base_id).filter_map(|active| {
                Some(Rule {
                    tenant: active.row.tenant.as_deref().map(Into::into),
                    // It was read when it was deployed.
                    pattern: match &active.row.pattern {
                        Some(pattern) => Some(ChannelPattern::parse(pattern).ok()?),
                        None => None,
                    },
                    version: version(&active.version())?,
                    kind: active.strategy.rule(),
                    deployed: deployed(active),
                })
            });
            let earlier = earlier.iter().filter(|((mount, ..), _)| mount == name);
            let earlier = earlier.filter_map(|(_, owned)| version(owned)).collect();
            mount.logic.rollout.set(Plan {
                rules: rules.collect(),
                base: base_version,
                base_deployed,
                earlier,
                schemas: schemas.clone(),
                recordings: recordings.iter().filter(|one| one.asked.mount == *name).map(recording).collect(),
            });
        }
    }
}

fn recording(recorder: &Arc<Recorder>) -> Recording {
    let asked = &recorder.asked;
    Recording {
        id: recorder.id(),
        tenant: asked.tenant.as_deref().map(Into::into),
        // It was read when it was asked for.
        pattern: asked.pattern.as_ref().and_then(|pattern| ChannelPattern::parse(pattern).ok()),
        tapes: Arc::clone(recorder) as _,
    }
}

fn deployed(active: &Active) -> Deployed {
    Deployed { id: active.row.id, tally: Arc::clone(&active.tally) }
}

/// What a deployment did so far.
pub(super) fn counts(tally: &Tally) -> Counts {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Counts {
        events: of(&tally.events),
        traps: of(&tally.traps),
        deadlines: of(&tally.deadlines),
        refusals: of(&tally.refusals),
        cpu_us: of(&tally.cpu_us),
        channels: of(&tally.channels),
        swaps: of(&tally.swaps),
        swaps_failed: of(&tally.swaps_failed),
        swap_us_max: of(&tally.swap_us_max),
        shadow_events: of(&tally.shadow_events),
        shadow_differences: of(&tally.shadow_differences),
        shadow_skipped: of(&tally.shadow_skipped),
    }
}

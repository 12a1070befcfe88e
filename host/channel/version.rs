//! Which version of a plugin each channel of a mount runs. The registry decides and puts a [`Plan`] in place; channels ask for their
//! [`Assignment`] when they wake, and again whenever the plan has changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::channel::logic::Logic;
use crate::limits::MountLimits;
use crate::plugin::compile::Digest;
use crate::plugin::tape::TapeHandle;
use crate::plugin::{Fault, Plugin, Router};
use crate::protocol::name::{ChannelName, ChannelPattern};

/// A version of a plugin as a mount runs it.
pub struct Version {
    /// Whose it is: a tenant's, or `""` for the platform's. Two owners may have the same component, each with a manifest of its own.
    pub owner: Arc<str>,
    /// What instances are made of.
    pub plugin: Arc<Plugin>,
    /// Its pure functions.
    pub router: Router,
    /// Bounds of its instances: the mount's, or smaller ones that its manifest asks for.
    pub limits: Arc<MountLimits>,
    /// The schema of what its `save` returns.
    pub schema: u32,
    /// Schemas of earlier versions that its `open` accepts, besides its own.
    pub accepts: Vec<u32>,
    /// Set when it was rolled back or revoked: no channel goes back to it, and those on it leave it whatever it takes.
    withdrawn: AtomicBool,
}

impl Version {
    /// A version with state of the first schema.
    pub fn new(plugin: Arc<Plugin>, limits: Arc<MountLimits>) -> Self {
        Self::with_schema(plugin, limits, 1, Vec::new())
    }

    /// A version that says what state it takes over.
    pub fn with_schema(plugin: Arc<Plugin>, limits: Arc<MountLimits>, schema: u32, accepts: Vec<u32>) -> Self {
        let router = Router::new(Arc::clone(&plugin), Arc::clone(&limits));
        Self { owner: "".into(), plugin, router, limits, schema, accepts, withdrawn: AtomicBool::new(false) }
    }

    /// The same as a version of this owner.
    #[must_use]
    pub fn owned_by(self, owner: &str) -> Self {
        Self { owner: owner.into(), ..self }
    }

    /// Whether channels of this tenant may have it.
    fn is_for(&self, tenant: &str) -> bool {
        self.owner.is_empty() || *self.owner == *tenant
    }

    /// Whether it is the same version: the same component of the same owner, whose manifest says what it may use.
    pub fn is(&self, other: &Self) -> bool {
        self.owner == other.owner && self.digest() == other.digest()
    }

    /// Names it.
    pub fn digest(&self) -> Digest {
        self.plugin.digest()
    }

    /// Whether it can take over what a version with this schema saved.
    pub fn takes(&self, schema: u32) -> bool {
        schema == self.schema || self.accepts.contains(&schema)
    }

    /// It may not run any more; or, with `false`, it may again.
    pub fn withdraw(&self, withdrawn: bool) {
        self.withdrawn.store(withdrawn, Ordering::Relaxed);
    }

    /// Whether it may not run any more.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}

/// What the channels of one deployment did since it began, or since this broker started. Counted by channels, read by the registry's
/// budgets.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events that ran, whether or not they succeeded.
    pub events: AtomicU64,
    /// Traps of the plugin, and errors and failures of its `open` and `save`.
    pub traps: AtomicU64,
    /// Calls that took too long.
    pub deadlines: AtomicU64,
    /// Batches that broke a bound or made an effect that is not allowed.
    pub refusals: AtomicU64,
    /// Processor time of its calls, in microseconds.
    pub cpu_us: AtomicU64,
    /// Channels that run it now.
    pub channels: AtomicU64,
    /// Channels that were swapped to it.
    pub swaps: AtomicU64,
    /// Channels that could not be, and went on with the version before.
    pub swaps_failed: AtomicU64,
    /// Longest pause of a channel for a swap, in microseconds.
    pub swap_us_max: AtomicU64,
    /// Events that ran beside the current version, for comparison.
    pub shadow_events: AtomicU64,
    /// Batches among them whose effects differed.
    pub shadow_differences: AtomicU64,
    /// Batches the shadow could not keep up with, so that it began anew.
    pub shadow_skipped: AtomicU64,
    /// The last difference, in words.
    pub last_difference: std::sync::Mutex<Option<String>>,
}

impl Tally {
    /// Counts a batch of so many events.
    pub fn ran(&self, events: usize, cpu: Duration) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.cpu_us.fetch_add(cpu.as_micros() as u64, Ordering::Relaxed);
    }

    /// Counts a fault, if it is the plugin's.
    pub fn fault(&self, fault: &Fault) {
        let counter = match fault {
            Fault::Deadline { .. } => &self.deadlines,
            Fault::Refused { .. } => &self.refusals,
            fault if fault.is_plugins() => &self.traps,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a channel that was swapped to it.
    pub fn swapped(&self, pause: Duration) {
        self.swaps.fetch_add(1, Ordering::Relaxed);
        self.swap_us_max.fetch_max(pause.as_micros() as u64, Ordering::Relaxed);
    }
}

/// Counts a fault of a version, if it is its own, for it and for the deployment that it is run for.
pub fn count_fault(version: &Version, deployed: &Deployed, fault: &Fault) {
    deployed.tally.fault(fault);
    if fault.is_plugins() {
        version.plugin.effort().count_fault();
    }
}

/// A deployment as channels know it.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Its number in the registry; 0 is what the configuration says, before there is one.
    pub id: i64,
    /// What its channels did.
    pub tally: Arc<Tally>,
}

/// A deployment's rule: who gets which version.
pub struct Rule {
    /// Only channels of this tenant.
    pub tenant: Option<Arc<str>>,
    /// Only channels with such a name.
    pub pattern: Option<ChannelPattern>,
    /// What they get.
    pub version: Arc<Version>,
    /// How.
    pub kind: RuleKind,
    /// The deployment.
    pub deployed: Deployed,
}

/// How a rule gives its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// To all channels it is for.
    All,
    /// To so many of ten thousand of them, always the same ones.
    Canary(u32),
    /// To none: it runs beside the version that counts.
    Shadow,
}

impl Rule {
    fn is_for(&self, channel: &ChannelName) -> bool {
        is_for(self.tenant.as_deref(), self.pattern.as_ref(), channel)
    }
}

/// Parts that channels are divided into for canaries.
pub const CANARY_PARTS: u32 = 10_000;

/// Where a channel is among the parts of a deployment: evenly spread, and always the same. Other deployments begin with other
/// channels, or a few would have all the canaries. The hash is 64-bit FNV-1a, finished by the mixer of SplitMix64, since FNV alone
/// spreads names that end alike badly.
pub fn canary_part(deployment: i64, channel: &ChannelName) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let separated = [channel.tenant().as_bytes(), &[0], channel.name().as_bytes()];
    for byte in deployment.to_le_bytes().iter().chain(separated.into_iter().flatten()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((hash ^ (hash >> 31)) % u64::from(CANARY_PARTS)) as u32
}

/// Makes tapes for channels.
pub trait Tapes: Send + Sync {
    /// Begins a tape of a channel whose next call is the opening of an instance; `None` if there are as many as may be.
    fn begin(&self, channel: &ChannelName, logic: &Logic, version: &Version) -> Option<TapeHandle>;
}

/// A wish to have channels recorded.
pub struct Recording {
    /// Names it.
    pub id: u64,
    /// Only channels of this tenant.
    pub tenant: Option<Arc<str>>,
    /// Only channels with such a name.
    pub pattern: Option<ChannelPattern>,
    /// Where their tapes come from.
    pub tapes: Arc<dyn Tapes>,
}

impl Recording {
    /// Whether a channel is to be recorded.
    pub fn is_for(&self, channel: &ChannelName) -> bool {
        is_for(self.tenant.as_deref(), self.pattern.as_ref(), channel)
    }
}

fn is_for(tenant: Option<&str>, pattern: Option<&ChannelPattern>, channel: &ChannelName) -> bool {
    tenant.is_none_or(|tenant| tenant == channel.tenant())
        && pattern.is_none_or(|pattern| pattern.matches(channel.name()))
}

/// The rules of a mount, the one that counts first, first.
pub struct Plan {
    /// The rules.
    pub rules: Vec<Rule>,
    /// What channels get that no rule is for.
    pub base: Arc<Version>,
    /// The deployment of that.
    pub base_deployed: Deployed,
    /// Versions that a channel may be pinned to, beside those of rules: it can go back to them.
    pub earlier: Vec<Arc<Version>>,
    /// Schemas of all versions of the mount by owner and component, also of those that are not loaded: what they saved may be taken over.
    pub schemas: HashMap<(Arc<str>, Digest), u32>,
    /// Which channels are to be recorded.
    pub recordings: Vec<Recording>,
}

/// The version of a channel.
#[derive(Clone)]
pub struct Assignment {
    /// What it runs.
    pub version: Arc<Version>,
    /// Since which deployment.
    pub deployed: Deployed,
    /// What runs beside it, to be compared.
    pub shadow: Option<(Arc<Version>, Deployed)>,
    /// Whether it is a canary: at its first fault the channel leaves it, and what it failed on runs on what the channel has without it.
    pub on_trial: bool,
}

impl Plan {
    /// A plan that gives one version to all.
    pub fn all(version: Arc<Version>) -> Self {
        let schemas = HashMap::from([((Arc::clone(&version.owner), version.digest()), version.schema)]);
        let base_deployed = Deployed { id: 0, tally: Arc::default() };
        Self { rules: Vec::new(), base: version, base_deployed, earlier: Vec::new(), schemas, recordings: Vec::new() }
    }

    /// What a channel gets, if it is not to have what one deployment gives it.
    pub fn assign(&self, channel: &ChannelName, except: Option<i64>) -> Assignment {
        let mut shadow = None;
        let rules = self.rules.iter().filter(|rule| except != Some(rule.deployed.id));
        for rule in rules.filter(|rule| rule.is_for(channel)) {
            let counts = match rule.kind {
                RuleKind::All => true,
                RuleKind::Canary(parts) => canary_part(rule.deployed.id, channel) < parts,
                RuleKind::Shadow => {
                    shadow.get_or_insert_with(|| (Arc::clone(&rule.version), rule.deployed.clone()));
                    false
                }
            };
            if counts {
                let on_trial = matches!(rule.kind, RuleKind::Canary(_));
                let (version, deployed) = (Arc::clone(&rule.version), rule.deployed.clone());
                return Assignment { version, deployed, shadow, on_trial };
            }
        }
        let (version, deployed) = (Arc::clone(&self.base), self.base_deployed.clone());
        Assignment { version, deployed, shadow, on_trial: false }
    }

    /// What answers for a tenant before a channel is known: what all its channels get.
    fn of_tenant(&self, tenant: &str) -> Assignment {
        let is_for_all = |rule: &&Rule| {
            rule.kind == RuleKind::All
                && rule.pattern.is_none()
                && rule.tenant.as_deref().is_none_or(|named| named == tenant)
        };
        let rule = self.rules.iter().find(is_for_all);
        let (version, deployed) =
            rule.map_or((&self.base, &self.base_deployed), |rule| (&rule.version, &rule.deployed));
        Assignment { version: Arc::clone(version), deployed: deployed.clone(), shadow: None, on_trial: false }
    }

    /// A version that is loaded and may run for a tenant: the platform's or its own, whatever others have of the same component.
    fn find(&self, tenant: &str, digest: Digest) -> Option<Assignment> {
        let rules = self.rules.iter().map(|rule| (&rule.version, rule.deployed.clone()));
        let earlier = self.earlier.iter().map(|version| (version, Deployed { id: 0, tally: Arc::default() }));
        let all = rules.chain([(&self.base, self.base_deployed.clone())]).chain(earlier);
        let mut found =
            all.filter(|(version, _)| version.digest() == digest && version.is_for(tenant) && !version.is_withdrawn());
        let (version, deployed) = found.next()?;
        Some(Assignment { version: Arc::clone(version), deployed, shadow: None, on_trial: false })
    }

    /// The schema of what a version saved for a tenant, if it is known. Where its own version and the platform's are one component and say
    /// different things, it is not: nobody wrote down which of them it was.
    fn schema_of(&self, tenant: &str, digest: Digest) -> Option<u32> {
        let of = |owner: &str| self.schemas.get(&(owner.into(), digest)).copied();
        match (of(""), of(tenant)) {
            (Some(one), Some(other)) if one != other => None,
            (one, other) => one.or(other),
        }
    }
}

/// The plan of a mount, and whether it changed.
pub struct Rollout {
    plan: RwLock<Arc<Plan>>,
    changes: AtomicU64,
}

impl Rollout {
    /// Begins with a plan.
    pub fn new(plan: Plan) -> Self {
        Self { plan: RwLock::new(Arc::new(plan)), changes: AtomicU64::new(0) }
    }

    /// Puts another plan in place. Awake channels have to be [told](super::Directory::tell_of_versions).
    pub fn set(&self, plan: Plan) {
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How often the plan has changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The plan.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a channel gets, if it is not to have what one deployment gives it.
    pub fn assign(&self, channel: &ChannelName, except: Option<i64>) -> Assignment {
        self.plan().assign(channel, except)
    }

    /// What answers for a tenant before a channel is known.
    pub fn of_tenant(&self, tenant: &str) -> Assignment {
        self.plan().of_tenant(tenant)
    }

    /// A version that is loaded and may run for a tenant, with the deployment that has it.
    pub fn find(&self, tenant: &str, digest: Digest) -> Option<Assignment> {
        self.plan().find(tenant, digest)
    }

    /// The schema of what a version saved for a tenant, if it is known.
    pub fn schema_of(&self, tenant: &str, digest: Digest) -> Option<u32> {
        self.plan().schema_of(tenant, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a canary of one percent is one percent of the channels, also of channels whose names differ little; it only ever grows,
    /// and another deployment begins with others.
    #[test]
    fn canaries_are_spread_evenly_and_stay_the_same() {
        let channels: Vec<ChannelName> =
            (0..100_000).map(|number| ChannelName::new("acme", &format!("room:{number}")).unwrap()).collect();
        let of = |deployment: i64, parts: u32| -> Vec<bool> {
            channels.iter().map(|channel| canary_part(deployment, channel) < parts).collect()
        };
        let (one, ten) = (of(1, 100), of(1, 1_000));
        let count = |chosen: &[bool]| chosen.iter().filter(|chosen| **chosen).count();

        assert!((900..1_100).contains(&count(&one)), "{}", count(&one));
        assert!((9_600..10_400).contains(&count(&ten)), "{}", count(&ten));
        assert!(one.iter().zip(&ten).all(|(one, ten)| *ten || !*one), "who has it keeps it");
        let both = one.iter().zip(of(2, 100)).filter(|(first, second)| **first && *second).count();
        assert!(both < 50, "{both} of {} channels are canaries again", count(&one));
        assert_eq!(count(&of(1, CANARY_PARTS)), channels.len());
        assert_eq!(count(&of(1, 0)), 0);
    }
}

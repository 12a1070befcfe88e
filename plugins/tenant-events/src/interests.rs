//! Who wants which events. Owns the members, their filters and subscriptions, and finds an event's audience.
//!
//! Members of an event channel that have the same filter and the same event types stand in one group, so an event is compared once
//! with each filter that differs, not once with each member. A member has one subscription per channel, so the groups of a
//! channel share no members, and an audience is the groups that match, one after the other.

use std::collections::BTreeMap;
use std::rc::Rc;

use hotbay_sdk::{Audience, MemberId, Refusal};
use serde::{Deserialize, Serialize};

use crate::filter::{Facts, Filter, Names};
use crate::interner::{DEFAULT, Interner};
use crate::names::DEFAULT_CHANNEL;

/// Most subscriptions of a member.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 100;
/// Most bytes of a member's filter and subscriptions, by [`Wishes::weight`]; stored they are at most about twice that.
const MEMBER_WEIGHT_MAX: usize = 64 << 10;
/// What a subscription costs in memory beside its name and types, in bytes.
const SUBSCRIPTION_BYTES: usize = 64;

/// What a member wants, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wishes {
    pub(crate) filter: Filter,
    /// Event types by channel.
    pub(crate) channels: BTreeMap<String, Names>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { filter: Filter::default(), channels: BTreeMap::from([(DEFAULT_CHANNEL.to_owned(), Names::default())]) }
    }
}

impl Wishes {
    /// About what they cost in memory if nobody wants the same, in bytes. Nothing for those everybody starts with.
    pub(crate) fn weight(&self) -> usize {
        if *self == Self::default() {
            return 0;
        }
        let channels = self.channels.iter();
        let channels: usize = channels.map(|(name, types)| SUBSCRIPTION_BYTES + name.len() + types.weight()).sum();
        self.filter.weight() + channels
    }
}

/// A member with wishes of its own.
struct Own {
    filter: u32,
    /// Event types by channel.
    channels: BTreeMap<Rc<str>, u32>,
    weight: usize,
}

struct Member {
    user: Box<str>,
    /// Absent for what everybody starts with, which most members keep.
    own: Option<Box<Own>>,
    /// Whether something is stored for it.
    stored: bool,
    /// By how much its wishes will weigh more once it has the replay it waits for.
    reserved: usize,
}

/// The subscribers of an event channel: by filter and event types, in ascending order.
#[derive(Default)]
struct Subscribers {
    groups: BTreeMap<(u32, u32), Vec<MemberId>>,
    members: usize,
    /// Members that get nothing until they have their replay; they stand in no group.
    held: usize,
}

/// An event's audience.
pub(crate) struct Reach {
    /// `None` if nobody wants it.
    pub(crate) audience: Option<Audience>,
    /// How many that are.
    pub(crate) members: usize,
}

impl Reach {
    /// What naming them costs, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.audience {
            Some(Audience::Only(members)) => size_of_val(&**members),
            _ => 0,
        }
    }
}

/// All members and what they want.
pub(crate) struct Interests {
    members: BTreeMap<MemberId, Member>,
    channels: BTreeMap<Rc<str>, Subscribers>,
    filters: Interner<Filter>,
    types: Interner<Names>,
    /// Of all members together, with what is reserved.
    weight: usize,
    weight_max: usize,
}

impl Interests {
    /// Nobody yet; all members' wishes may weigh this much.
    pub(crate) fn new(weight_max: usize) -> Self {
        Self {
            members: BTreeMap::new(),
            channels: BTreeMap::new(),
            filters: Interner::new(),
            types: Interner::new(),
            weight: 0,
            weight_max,
        }
    }

    /// A member comes, or comes again: it wants what everybody starts with. Tells what was known of it.
    pub(crate) fn join(&mut self, member: MemberId, user: &str) -> Gone {
        let gone = self.leave(member);
        self.members.insert(member, Member { user: user.into(), own: None, stored: false, reserved: 0 });
        self.enter(member, DEFAULT_CHANNEL, (DEFAULT, DEFAULT));
        gone
    }

    /// A member goes.
    pub(crate) fn leave(&mut self, member: MemberId) -> Gone {
        let Some(gone) = self.members.get(&member) else { return Gone { known: false, stored: false } };
        let stored = gone.stored;
        self.reserve(member, 0);
        self.clear(member);
        self.members.remove(&member);
        Gone { known: true, stored }
    }

    /// Whether this is a member.
    pub(crate) fn knows(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// Whose connection a member is.
    pub(crate) fn user(&self, member: MemberId) -> Option<&str> {
        self.members.get(&member).map(|member| &*member.user)
    }

    /// How many there are.
    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// The members of a user. Looks at all members.
    pub(crate) fn of_user(&self, user: &str) -> Vec<MemberId> {
        self.members.iter().filter(|(_, member)| *member.user == *user).map(|(id, _)| *id).collect()
    }

    /// How many different users there are. Looks at all members.
    pub(crate) fn users(&self) -> usize {
        let mut users: Vec<&str> = self.members.values().map(|member| &*member.user).collect();
        users.sort_unstable();
        users.dedup();
        users.len()
    }

    /// Different filters, the empty one too.
    pub(crate) fn filters(&self) -> usize {
        self.filters.len()
    }

    /// Event channels with subscribers.
    pub(crate) fn channels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.channels.keys().map(|name| &**name)
    }

    /// Subscribers of an event channel, those that wait for a replay too.
    pub(crate) fn subscribers(&self, name: &str) -> usize {
        self.channels.get(name).map_or(0, |subscribers| subscribers.members + subscribers.held)
    }

    /// What a member wants.
    pub(crate) fn wishes(&self, member: MemberId) -> Wishes {
        let own = self.members.get(&member).and_then(|member| member.own.as_ref());
        let Some(own) = own else { return Wishes::default() };
        let types =
            |(name, types): (&Rc<str>, &u32)| (name.to_string(), self.types.get(*types).cloned().unwrap_or_default());
        Wishes {
            filter: self.filters.get(own.filter).cloned().unwrap_or_default(),
            channels: own.channels.iter().map(types).collect(),
        }
    }

    /// What a member's wishes weigh.
    pub(crate) fn weight(&self, member: MemberId) -> usize {
        self.members.get(&member).and_then(|member| member.own.as_ref()).map_or(0, |own| own.weight)
    }

    /// Number of a member's filter; two members with the same number have the same filter.
    pub(crate) fn filter_number(&self, member: MemberId) -> u32 {
        self.members.get(&member).and_then(|member| member.own.as_ref()).map_or(DEFAULT, |own| own.filter)
    }

    /// Whether a member may want this instead of what it wants now. Gives by how much all members' wishes then weigh more; `beside`
    /// is how much others will.
    pub(crate) fn check(&self, member: MemberId, wishes: &Wishes, beside: usize) -> Result<usize, Refusal> {
        let weight = wishes.weight();
        if wishes.channels.len() > SUBSCRIPTIONS_MAX {
            return Err(Refusal::too_large("a client may have 100 subscriptions"));
        }
        if weight > MEMBER_WEIGHT_MAX {
            return Err(Refusal::too_large("the filter and the subscriptions of a client are too large together"));
        }
        let more = weight.saturating_sub(self.weight(member));
        if more > 0 && self.weight + beside + more > self.weight_max {
            return Err(Refusal::too_large("the filters and subscriptions of this tenant are too large together"));
        }
        Ok(more)
    }

    /// A member wants this from now on. True if something was stored for it before.
    pub(crate) fn set(&mut self, member: MemberId, wishes: Wishes, stored: bool) -> bool {
        let weight = wishes.weight();
        let Some(found) = self.members.get_mut(&member) else { return false };
        let was_stored = std::mem::replace(&mut found.stored, stored);
        self.clear(member);
        if wishes == Wishes::default() {
            self.enter(member, DEFAULT_CHANNEL, (DEFAULT, DEFAULT));
            return was_stored;
        }
        let filter = self.filters.acquire(wishes.filter);
        let mut channels = BTreeMap::new();
        for (name, types) in wishes.channels {
            let types = self.types.acquire(types);
            let name = self.enter(member, &name, (filter, types));
            channels.insert(name, types);
        }
        self.weight += weight;
        if let Some(found) = self.members.get_mut(&member) {
            found.own = Some(Box::new(Own { filter, channels, weight }));
        }
        was_stored
    }

    /// A member that is, or is about to be, subscribed to a channel gets nothing of it until [`Interests::release`]. What it will
    /// want then has its place: nobody else can take that meanwhile.
    pub(crate) fn hold(&mut self, member: MemberId, name: &str, types: &Names) {
        if let Some(group) = self.group(member, name) {
            self.exit(member, name, group);
        }
        let mut wishes = self.wishes(member);
        wishes.channels.insert(name.to_owned(), types.clone());
        self.reserve(member, wishes.weight().saturating_sub(self.weight(member)));
        self.channels.entry(name.into()).or_default().held += 1;
    }

    /// Ends what [`Interests::hold`] began: the member is subscribed as it was before.
    pub(crate) fn release(&mut self, member: MemberId, name: &str) {
        self.reserve(member, 0);
        if let Some(subscribers) = self.channels.get_mut(name) {
            subscribers.held = subscribers.held.saturating_sub(1);
        }
        if let Some(group) = self.group(member, name) {
            self.enter(member, name, group);
        } else {
            self.forget_empty(name);
        }
    }

    /// Reserves so much for a member, instead of what was reserved for it.
    fn reserve(&mut self, member: MemberId, weight: usize) {
        let Some(found) = self.members.get_mut(&member) else { return };
        let before = std::mem::replace(&mut found.reserved, weight);
        self.weight = self.weight + weight - before;
    }

    /// The group in which a member stands if nothing holds it.
    fn group(&self, member: MemberId, name: &str) -> Option<(u32, u32)> {
        match &self.members.get(&member)?.own {
            Some(own) => own.channels.get(name).map(|types| (own.filter, *types)),
            None => (name == DEFAULT_CHANNEL).then_some((DEFAULT, DEFAULT)),
        }
    }

    /// Who wants an event of this channel.
    pub(crate) fn reach(&self, name: &str, event: &Facts<'_>) -> Reach {
        let nobody = Reach { audience: None, members: 0 };
        let Some(subscribers) = self.channels.get(name) else { return nobody };
        let mut found = Vec::new();
        let mut members = 0;
        // Groups with the same filter follow each other.
        let mut last: Option<(u32, bool)> = None;
        for ((filter, types), group) in &subscribers.groups {
            let passes = match last {
                Some((same, passes)) if same == *filter => passes,
                _ => self.filters.get(*filter).is_some_and(|filter| filter.allow(event)),
            };
            last = Some((*filter, passes));
            if passes && self.types.get(*types).is_some_and(|types| types.allow(event.event_type)) {
                members += group.len();
                found.push(&**group);
            }
        }
        let audience = match members {
            0 => return nobody,
            // Cheaper for the host, which then need not look for each.
            all if all == self.members.len() => Audience::All,
            _ => Audience::Only(found.concat()),
        };
        Reach { audience: Some(audience), members }
    }

    /// How many filters [`Interests::reach`] has to look at.
    pub(crate) fn groups(&self, name: &str) -> usize {
        self.channels.get(name).map_or(0, |subscribers| subscribers.groups.len())
    }

    /// Adds a subscription; the name is then shared.
    fn enter(&mut self, member: MemberId, name: &str, group: (u32, u32)) -> Rc<str> {
        let name: Rc<str> = match self.channels.get_key_value(name) {
            Some((known, _)) => Rc::clone(known),
            None => name.into(),
        };
        let subscribers = self.channels.entry(Rc::clone(&name)).or_default();
        let group = subscribers.groups.entry(group).or_default();
        if let Err(at) = group.binary_search(&member) {
            group.insert(at, member);
            subscribers.members += 1;
        }
        name
    }

    /// Ends a subscription.
    fn exit(&mut self, member: MemberId, name: &str, group: (u32, u32)) {
        let Some(subscribers) = self.channels.get_mut(name) else { return };
        let Some(members) = subscribers.groups.get_mut(&group) else { return };
        if let Ok(at) = members.binary_search(&member) {
            members.remove(at);
            subscribers.members -= 1;
        }
        if members.is_empty() {
            subscribers.groups.remove(&group);
        }
        self.forget_empty(name);
    }

    fn forget_empty(&mut self, name: &str) {
        let is_empty = |subscribers: &Subscribers| subscribers.groups.is_empty() && subscribers.held == 0;
        if self.channels.get(name).is_some_and(is_empty) {
            self.channels.remove(name);
        }
    }

    /// Takes a member out of all groups.
    fn clear(&mut self, member: MemberId) {
        let Some(own) = self.members.get_mut(&member).map(|member| member.own.take()) else { return };
        let Some(own) = own else {
            self.exit(member, DEFAULT_CHANNEL, (DEFAULT, DEFAULT));
            return;
        };
        for (name, types) in &own.channels {
            self.exit(member, name, (own.filter, *types));
            self.types.release(*types);
        }
        self.filters.release(own.filter);
        self.weight -= own.weight;
    }
}

/// What was known of a member that went.
pub(crate) struct Gone {
    /// Whether it was a member.
    pub(crate) known: bool,
    /// Whether something is stored for it.
    pub(crate) stored: bool,
}

//! Members that do not simply get all shared frames of a burst: named by a frame, left out by one, or joined or gone in the
//! batch. For each of them, the slices of the burst that it gets.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::fanout::roster::{Recipient, Roster};
use crate::outbox::Outbox;
use crate::protocol::burst::{Burst, Slice};
use crate::protocol::event::MemberId;
use crate::protocol::frame::Audience;

/// A membership that begins or ends within a batch.
#[derive(Clone)]
pub struct Change {
    /// Whose.
    pub recipient: Recipient,
    /// Index of the `join` event: it gets what is sent on account of it and later events.
    pub from: Option<u32>,
    /// Index of the `leave` event: it gets what is sent on account of events before it.
    pub until: Option<u32>,
}

/// One such member.
pub(super) struct Special {
    pub(super) outbox: Arc<Outbox>,
    /// Where it stands in the roster.
    pub(super) position: Option<u32>,
    pub(super) slices: Vec<Slice>,
}

struct Member<'a> {
    recipient: &'a Recipient,
    position: Option<u32>,
    /// The events on whose account it gets what is for all.
    window: Option<Window>,
    /// Where it differs, in the order of the frames.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy)]
struct Window {
    from: u32,
    until: u32,
}

enum Mark {
    /// It does not get this shared frame.
    Without(u32),
    /// It also gets these private frames, before the shared frame `at`.
    With { private: Range<u32>, at: u32 },
}

/// Finds them. Costs time for each frame, each member named by a frame, and once each member if a frame names a user.
pub(super) fn specials(burst: &Burst, roster: &Roster, changes: &[Change]) -> Vec<Special> {
    let mut found = Found::new(roster, changes);
    let mut by_user = None;
    let (mut shared, mut private) = (0, 0);
    for frame in &burst.order {
        match &frame.audience {
            Audience::All => {}
            Audience::Except(member) => found.mark(*member, Mark::Without(shared)),
            Audience::Only(members) => {
                for member in members {
                    found.give(*member, private, shared);
                }
            }
            Audience::User(user) => {
                let by_user = by_user.get_or_insert_with(|| members_by_user(burst, roster, changes));
                for member in by_user.get(&**user).into_iter().flatten() {
                    if found.is_present(*member, frame.event) {
                        found.give(*member, private, shared);
                    }
                }
            }
        }
        match &frame.audience {
            Audience::All | Audience::Except(_) => shared += 1,
            Audience::Only(_) | Audience::User(_) => private += 1,
        }
    }
    found.members.into_values().map(|member| member.select(burst)).collect()
}

/// The members, before and after the batch, of the users that frames name.
fn members_by_user<'a>(burst: &'a Burst, roster: &'a Roster, changes: &'a [Change]) -> HashMap<&'a str, Vec<MemberId>> {
    let mut by_user: HashMap<&str, Vec<MemberId>> = HashMap::new();
    for frame in &burst.order {
        if let Audience::User(user) = &frame.audience {
            by_user.entry(user).or_default();
        }
    }
    let gone = changes.iter().map(|change| &change.recipient).filter(|gone| roster.find(gone.member).is_none());
    for recipient in roster.iter().chain(gone) {
        if let Some(members) = by_user.get_mut(recipient.identity.user()) {
            members.push(recipient.member);
        }
    }
    by_user
}

struct Found<'a> {
    roster: &'a Roster,
    members: BTreeMap<MemberId, Member<'a>>,
}

impl<'a> Found<'a> {
    fn new(roster: &'a Roster, changes: &'a [Change]) -> Self {
        let mut members: BTreeMap<MemberId, Member<'a>> = BTreeMap::new();
        for change in changes {
            let member = members.entry(change.recipient.member).or_insert_with(|| Member {
                recipient: &change.recipient,
                position: roster.position(change.recipient.member),
                window: None,
                marks: Vec::new(),
            });
            let window = member.window.get_or_insert(Window { from: 0, until: u32::MAX });
            window.from = change.from.unwrap_or(window.from);
            window.until = change.until.unwrap_or(window.until);
        }
        Self { roster, members }
    }

    fn find(&mut self, member: MemberId) -> Option<&mut Member<'a>> {
        match self.members.entry(member) {
            std::collections::btree_map::Entry::Occupied(known) => Some(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(free) => {
                let position = self.roster.position(member)?;
                let recipient = self.roster.get(position)?;
                Some(free.insert(Member { recipient, position: Some(position), window: None, marks: Vec::new() }))
            }
        }
    }

    fn mark(&mut self, member: MemberId, mark: Mark) {
        if let Some(member) = self.find(member) {
            member.marks.push(mark);
        }
    }

    /// Gives a member a private frame, which comes before the shared frame `at`.
    fn give(&mut self, member: MemberId, frame: u32, at: u32) {
        let Some(member) = self.find(member) else { return };
        match member.marks.last_mut() {
            // An audience may name a member twice.
            Some(Mark::With { private, .. }) if private.end > frame => {}
            Some(Mark::With { private, at: last }) if private.end == frame && *last == at => private.end += 1,
            _ => member.marks.push(Mark::With { private: frame..frame + 1, at }),
        }
    }

    fn is_present(&self, member: MemberId, event: u32) -> bool {
        let window = self.members.get(&member).and_then(|member| member.window);
        window.is_none_or(|window| window.contains(event))
    }
}

impl Window {
    fn contains(self, event: u32) -> bool {
        let (joined, left) = (event >= self.from, event >= self.until);
        // It joined and then left, or left and then joined again.
        if self.from <= self.until { joined && !left } else { joined || !left }
    }
}

impl Member<'_> {
    fn select(mut self, burst: &Burst) -> Special {
        if let Some(window) = self.window {
            let is_shared = |audience: &Audience| matches!(audience, Audience::All | Audience::Except(_));
            let shared = burst.order.iter().filter(|frame| is_shared(&frame.audience)).zip(0_u32..);
            let absent = shared.filter(|(frame, _)| !window.contains(frame.event));
            self.marks.extend(absent.map(|(_, index)| Mark::Without(index)));
            self.marks.sort_by_key(|mark| match mark {
                Mark::With { at, .. } => (*at, 0),
                Mark::Without(index) => (*index, 1),
            });
        }
        let mut slices = Slices(Vec::with_capacity(2 * self.marks.len() + 1));
        let mut next = 0;
        for mark in self.marks {
            match mark {
                Mark::Without(index) => {
                    slices.shared(next..index);
                    next = next.max(index + 1);
                }
                Mark::With { private, at } => {
                    slices.shared(next..at);
                    next = next.max(at);
                    slices.private(private);
                }
            }
        }
        slices.shared(next..burst.shared.len());
        Special { outbox: Arc::clone(&self.recipient.outbox), position: self.position, slices: slices.0 }
    }
}

/// Slices that follow each other become one.
struct Slices(Vec<Slice>);

impl Slices {
    fn shared(&mut self, range: Range<u32>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(Slice::Shared(last)) if last.end == range.start => last.end = range.end,
            _ => self.0.push(Slice::Shared(range)),
        }
    }

    fn private(&mut self, range: Range<u32>) {
        match self.0.last_mut() {
            Some(Slice::Private(last)) if last.end == range.start => last.end = range.end,
            _ => self.0.push(Slice::Private(range)),
        }
    }
}

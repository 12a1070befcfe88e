//! What must hold of a channel, whatever its plugin, its store and its clock do. Sees what goes into the core and what comes
//! out; must not look inside.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use hotbay::channel::core::{BatchId, Output};
use hotbay::limits::{BATCHES_ON_THE_WAY_MAX, FAULTS_IN_A_ROW_MAX, QUARANTINE_MS};
use hotbay::protocol::event::{Batch, Event, MemberId};
use hotbay::protocol::refusal::RefusalCode;

/// How an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Released,
    Refused,
    /// The process died, and nobody was told anything.
    Lost,
}

/// What was seen, to know that the simulation is worth something.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sightings {
    pub(crate) released: u64,
    pub(crate) refused: u64,
    pub(crate) closed: u64,
    pub(crate) quarantined: u64,
    pub(crate) longer: u64,
    pub(crate) given_up: u64,
    pub(crate) held: u64,
    pub(crate) timers: u64,
    pub(crate) sleeps: u64,
    pub(crate) reruns: u64,
    pub(crate) swapped: u64,
    pub(crate) declined: u64,
    pub(crate) went_back: u64,
    pub(crate) left_trial: u64,
    pub(crate) crashes: u64,
}

impl Sightings {
    pub(crate) fn add(&mut self, other: &Self) {
        self.released += other.released;
        self.refused += other.refused;
        self.closed += other.closed;
        self.quarantined += other.quarantined;
        self.longer += other.longer;
        self.given_up += other.given_up;
        self.held += other.held;
        self.timers += other.timers;
        self.sleeps += other.sleeps;
        self.reruns += other.reruns;
        self.swapped += other.swapped;
        self.declined += other.declined;
        self.went_back += other.went_back;
        self.left_trial += other.left_trial;
        self.crashes += other.crashes;
    }
}

/// A batch between its run and its end.
struct InFlight {
    id: BatchId,
    committed: bool,
    released: bool,
    events: Vec<Event>,
    /// Those whose effects it keeps.
    keeps: Vec<u64>,
}

/// Why outputs came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The batch ran, or was committed.
    Success,
    /// The plugin failed on a batch of several events.
    BatchFault,
    /// The plugin failed on this one event.
    EventFault,
    /// The plugin's surroundings failed.
    ReadFailed,
    /// A commit was given up.
    GivenUp,
    /// No instance could be opened.
    StartFailed,
    /// Events came in quarantine.
    Quarantined,
}

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) seen: Sightings,
    fates: BTreeMap<u64, Fate>,
    /// The last event of each member that ran with success, and that was released.
    ran: HashMap<MemberId, u64>,
    released: HashMap<MemberId, u64>,
    in_flight: VecDeque<InFlight>,
    last_now_ms: u64,
    member_faults: HashMap<MemberId, u32>,
    faults: u32,
    culprit: Option<MemberId>,
    /// When the last quarantine ends, and how long it lasts; no success since.
    quarantine: Option<(u64, u64)>,
    /// Every due time that a timer was ever given.
    dues: HashMap<String, Vec<u64>>,
    /// Volatile timers that fired with success or were refused.
    volatile_fired: HashSet<String>,
    /// Events whose refusal follows what is on its way, and why they are refused.
    held: HashMap<u64, Cause>,
    /// Members that are to be closed.
    closing: Vec<MemberId>,
    /// Events that left with success, and whose effects are on the disk by that.
    promised: Vec<u64>,
    /// Events whose effects the batch that ran last keeps, until it is in flight.
    keeps: Vec<u64>,
    /// Events whose senders were told that nobody knows.
    unsure: HashSet<u64>,
    /// The version whose commit took hold last.
    wrote_last: Option<u32>,
}

/// The number a simulated event carries; timers have none.
pub(crate) fn number(event: &Event) -> Option<u64> {
    let payload = match event {
        Event::Join { frame, .. } | Event::Leave { frame, .. } => frame.as_ref()?,
        Event::Message { payload, .. } | Event::Publish { payload, .. } => payload,
        Event::Timer { .. } | Event::Request { .. } => return None,
    };
    std::str::from_utf8(payload.bytes()).ok()?.parse().ok()
}

impl Oracle {
    /// The channel slept and woke: a new core begins, without faults and without time.
    pub(crate) fn woke(&mut self) {
        assert!(self.in_flight.is_empty(), "a batch was on its way when the channel slept");
        self.last_now_ms = 0;
        self.member_faults.clear();
        (self.faults, self.culprit) = (0, None);
    }

    pub(crate) fn accepted(&mut self, event: &Event) {
        let number = number(event).expect("a numbered event");
        assert!(self.fates.insert(number, Fate::Waits).is_none(), "event {number} came twice");
    }

    pub(crate) fn timer_set(&mut self, name: &str, due_ms: u64) {
        self.dues.entry(name.to_owned()).or_default().push(due_ms);
    }

    /// Law: no instance is opened while the channel is in quarantine.
    pub(crate) fn starts(&self, now_ms: u64) {
        let until_ms = self.quarantine.map_or(0, |(until_ms, _)| until_ms);
        assert!(now_ms >= until_ms, "started at {now_ms}, in quarantine until {until_ms}");
    }

    /// Laws: bounded batches, time that never goes back, timers not before they are due, few commits on the way, arrival
    /// order of each member.
    pub(crate) fn runs(&mut self, batch: &Batch, events_max: usize, early: bool) {
        // A channel with nothing but due timers still takes one event along, hence one more; what takes over begins with none.
        assert!(batch.events.len() <= events_max + 1, "a batch of {}", batch.events.len());
        assert!(batch.now_ms >= self.last_now_ms, "the time of a batch went back");
        self.last_now_ms = batch.now_ms;
        let on_the_way_max = if early { BATCHES_ON_THE_WAY_MAX } else { 1 };
        assert!(self.in_flight.len() < on_the_way_max, "too many batches on the way");
        for event in &batch.events {
            if let Event::Timer { name, .. } = event {
                let due = self.dues.get(name).is_some_and(|dues| dues.iter().any(|due_ms| *due_ms <= batch.now_ms));
                assert!(due, "timer {name} fired before it was due, or was never set");
            } else {
                let number = number(event).expect("a numbered event");
                assert_eq!(self.fates[&number], Fate::Waits, "event {number} ran after its end");
            }
        }
    }

    pub(crate) fn ran(&mut self, id: BatchId, batch: &Batch, wrote: bool) {
        for event in &batch.events {
            if let Some(member) = event.member() {
                self.member_faults.remove(&member);
                let number = number(event).expect("a number");
                self.held.remove(&number);
                let last = self.ran.insert(member, number);
                assert!(last.is_none_or(|last| last < number), "event {number} of {member:?} ran after {last:?}");
            }
            if let Event::Timer { name, durable } = event {
                self.seen.timers += 1;
                assert!(*durable || self.volatile_fired.insert(name.clone()), "volatile timer {name} fired twice");
            }
        }
        (self.faults, self.culprit, self.quarantine) = (0, None, None);
        let (events, keeps) = (batch.events.clone(), std::mem::take(&mut self.keeps));
        self.in_flight.push_back(InFlight { id, committed: !wrote, released: false, events, keeps });
    }

    /// The plugin failed on a single event, or in `open` (`culprit` is absent then, as for timers and publishes). Laws: three
    /// faults in a row close the member; three of the channel, those of one member counting once, are a quarantine; those
    /// that follow upon one another grow, up to a bound.
    pub(crate) fn faulted(&mut self, culprit: Option<MemberId>, out: &[Output], now_ms: u64) {
        let close = culprit.is_some_and(|member| {
            let faults = self.member_faults.entry(member).or_insert(0);
            *faults += 1;
            *faults == FAULTS_IN_A_ROW_MAX
        });
        if let Some(member) = culprit.filter(|_| close) {
            self.member_faults.remove(&member);
            self.closing.push(member);
            self.seen.closed += 1;
        }
        self.faults += u32::from(culprit.is_none() || culprit != self.culprit);
        self.culprit = culprit;
        let until =
            out.iter().find_map(|out| if let Output::Quarantine(until_ms) = out { Some(*until_ms) } else { None });
        assert_eq!(until.is_some(), self.faults >= FAULTS_IN_A_ROW_MAX, "a quarantine after {} faults", self.faults);
        let Some(until_ms) = until else { return };
        self.faults = FAULTS_IN_A_ROW_MAX - 1;
        let (first_ms, longest_ms) = QUARANTINE_MS;
        let pause_ms = until_ms - now_ms;
        assert!((first_ms..=longest_ms).contains(&pause_ms), "a quarantine of {pause_ms} ms");
        self.seen.quarantined += 1;
        // It is remembered for as long again as it lasted; one that follows within that time is longer.
        if let Some((last_until_ms, last_ms)) = self.quarantine.filter(|(until_ms, ms)| now_ms < until_ms + ms) {
            assert_eq!(pause_ms, (last_ms * 2).min(longest_ms), "after {last_ms} ms, which ended at {last_until_ms}");
            self.seen.longer += 1;
        }
        self.quarantine = Some((until_ms, pause_ms));
    }

    /// Law: only who faults again and again is closed, and after what is on its way.
    pub(crate) fn closes(&mut self, member: MemberId, cause: Cause) {
        let due = self.closing.iter().position(|closing| *closing == member).expect("a member that is to be closed");
        self.closing.swap_remove(due);
        assert!(self.in_flight.is_empty() || cause == Cause::GivenUp, "{member:?} was closed before its answers left");
    }

    /// These events are refused, if not at once, then after what is on its way.
    pub(crate) fn holds<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>, cause: Cause) {
        self.held.extend(events.into_iter().filter_map(number).map(|number| (number, cause)));
    }

    /// Everything that waits in the core is refused.
    pub(crate) fn holds_all(&mut self, cause: Cause) {
        let on_the_way = |wanted: u64| {
            let mut events = self.in_flight.iter().flat_map(|batch| &batch.events);
            events.any(|event| number(event) == Some(wanted))
        };
        let waiting = self.fates.iter().filter(|(number, fate)| **fate == Fate::Waits && !on_the_way(**number));
        let waiting: Vec<u64> =
            waiting.map(|(number, _)| *number).filter(|number| !self.held.contains_key(number)).collect();
        self.held.extend(waiting.into_iter().map(|number| (number, cause)));
    }

    /// Law: only what was run may be committed, in the order in which it ran.
    pub(crate) fn commits(&self, id: BatchId) {
        let next = self.in_flight.iter().find(|batch| !batch.committed).map(|batch| batch.id);
        assert_eq!(next, Some(id), "committed out of order");
    }

    pub(crate) fn committed(&mut self, id: BatchId) {
        let batch = self.in_flight.iter_mut().find(|batch| batch.id == id).expect("a batch on the way");
        batch.committed = true;
        self.settle();
    }

    /// Laws: nothing leaves before its commit, unless the mount says so; what leaves, leaves once and in order.
    pub(crate) fn releases(&mut self, id: BatchId, early: bool) {
        let first = self.in_flight.iter().position(|batch| !batch.released).expect("a batch that waits");
        let batch = &mut self.in_flight[first];
        assert_eq!(batch.id, id, "released out of order");
        assert!(early || (first == 0 && batch.committed), "released before its commit");
        batch.released = true;
        if !early {
            self.promised.extend(&batch.keeps);
        }
        for event in batch.events.clone() {
            let Some(number) = number(&event) else { continue };
            self.end(number, Fate::Released);
            if let Some(member) = event.member() {
                let last = self.released.insert(member, number);
                assert!(last.is_none_or(|last| last < number), "event {number} of {member:?} left after {last:?}");
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        while self.in_flight.front().is_some_and(|batch| batch.committed && batch.released) {
            self.in_flight.pop_front();
        }
    }

    /// Law: when a commit is given up, every batch that was built on it is forgotten, and its senders are told.
    pub(crate) fn given_up(&mut self, out: &[Output]) {
        self.seen.given_up += 1;
        let discarded: Vec<BatchId> =
            out.iter().filter_map(|out| if let Output::Discard(id) = out { Some(*id) } else { None }).collect();
        let on_the_way: Vec<BatchId> = std::mem::take(&mut self.in_flight).iter().map(|batch| batch.id).collect();
        assert_eq!(discarded, on_the_way, "what is forgotten when a commit is given up");
        assert!(out.iter().any(|out| matches!(out, Output::DropInstance)), "the instance is ahead of the store");
        assert!(out.iter().any(|out| matches!(out, Output::DropClaim)), "whether the commit took hold is unknown");
    }

    /// Laws: an event ends once; `fault` is said only to the event at fault, `unavailable` only with a reason; and a client does
    /// not learn of a later message before an earlier one.
    pub(crate) fn refused(&mut self, event: &Event, code: RefusalCode, cause: Cause, poisonous: bool) {
        let held = number(event).and_then(|number| self.held.remove(&number));
        let given_up = cause == Cause::GivenUp;
        let cause = match held {
            Some(held) if matches!(cause, Cause::Success | Cause::GivenUp) => held,
            _ => cause,
        };
        if let Some(member) = event.member().filter(|_| !given_up) {
            let mut before = self.in_flight.iter().filter(|batch| !batch.released).flat_map(|batch| &batch.events);
            let earlier = before.find(|before| before.member() == Some(member));
            assert!(earlier.is_none(), "{event:?} was refused before {earlier:?} left");
        }
        match code {
            RefusalCode::Fault => {
                assert!(cause == Cause::EventFault && poisonous, "{event:?} is not at fault ({cause:?})");
            }
            RefusalCode::Unavailable => assert!(
                !matches!(cause, Cause::Success | Cause::BatchFault),
                "{event:?} was refused without a reason ({cause:?})"
            ),
            other => panic!("refused with {other:?}"),
        }
        match (event, number(event)) {
            // It fired, and is refused because its commit was given up.
            (Event::Timer { .. }, _) if cause == Cause::GivenUp => {}
            (Event::Timer { name, durable }, _) => {
                assert!(*durable || self.volatile_fired.insert(name.clone()), "volatile timer {name} ended twice");
            }
            (_, Some(number)) => {
                self.seen.refused += 1;
                self.end(number, Fate::Refused);
            }
            _ => panic!("{event:?} is not of this world"),
        }
    }

    fn end(&mut self, number: u64, fate: Fate) {
        let before = self.fates.insert(number, fate);
        assert_eq!(before, Some(Fate::Waits), "event {number} ended twice, now {fate:?}");
        self.seen.released += u64::from(fate == Fate::Released);
    }

    /// Law: sleep forgets, so a channel does not sleep while its last quarantine counts.
    pub(crate) fn sleeps(&mut self, now_ms: u64, stopping: bool) {
        self.seen.sleeps += 1;
        let counts = self.quarantine.take().is_some_and(|(until_ms, ms)| now_ms < until_ms + ms);
        assert!(stopping || !counts, "slept while its quarantine counts");
    }

    /// Law: whatever was accepted has ended.
    pub(crate) fn all_ended(&self) {
        let waits: Vec<_> =
            self.fates.iter().filter(|(_, fate)| **fate == Fate::Waits).map(|(number, _)| number).collect();
        assert!(waits.is_empty(), "events without an end: {waits:?}");
        assert!(self.closing.is_empty(), "members that were not closed: {:?}", self.closing);
        assert!(self.in_flight.is_empty(), "batches without an end");
    }

    /// The sender of this event is told that nobody knows.
    pub(crate) fn is_unsure(&mut self, event: &Event) {
        self.unsure.extend(number(event));
    }

    /// The batch that ran keeps what these events did.
    pub(crate) fn keeps(&mut self, events: &[u64], wrote: bool) {
        assert!(wrote || events.is_empty(), "what is kept was not written");
        self.keeps = events.to_vec();
    }

    /// A commit took hold, of a batch that ran on this version.
    pub(crate) fn takes_hold(&mut self, version: u32) {
        self.wrote_last = Some(version);
    }

    /// Law: what is on the disk is what released events did, each once, in the order of each sender; beyond that only what nobody knows
    /// of. And the version it is pinned to is the one that wrote last.
    pub(crate) fn kept(&self, log: &[u64], pinned: Option<u32>) {
        let mut places: HashMap<u64, usize> = HashMap::new();
        for (place, number) in log.iter().enumerate() {
            assert!(places.insert(*number, place).is_none(), "event {number} took hold twice");
            let fate = self.fates[number];
            let known = fate == Fate::Released || fate == Fate::Waits;
            let may = known || fate == Fate::Lost || self.unsure.contains(number);
            assert!(may, "event {number} took hold, and its sender was told that it did not ({fate:?})");
        }
        let mut last = 0;
        for number in &self.promised {
            let place = places.get(number).unwrap_or_else(|| panic!("event {number} was released, and is lost"));
            assert!(*place >= last, "event {number} took hold before what was released earlier");
            last = *place;
        }
        assert_eq!(pinned, self.wrote_last, "the version that wrote last");
    }

    /// The process died. What waits was never answered.
    pub(crate) fn crashed(&mut self) {
        self.seen.crashes += 1;
        self.in_flight.clear();
        self.fates.values_mut().filter(|fate| **fate == Fate::Waits).for_each(|fate| *fate = Fate::Lost);
        self.held.clear();
        self.closing.clear();
        self.quarantine = None;
        self.woke();
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

//! The handle through which a plugin acts. Owns the position in the batch; everything else is the host's.

use crate::host::{Current, Host};
use crate::random;
use crate::{
    Audience, Delivery, Entry, Event, Extent, HttpResponse, Level, Member, MemberId, Order, Payload, Refusal, Rows,
    Snapshot, SqlError, SqlValue, TimerKeep,
};

/// The channel an instance serves, as of the event it is handling. Effects take hold in the order of the calls, once
/// the batch has committed.
pub struct Channel {
    host: Current,
    now_ms: u64,
    random: u64,
    /// Index in the batch of the event being handled.
    event: u32,
    /// The joins and leaves of this batch in order; a leave carries the user.
    turnover: Vec<(MemberId, Option<String>)>,
}

impl Channel {
    pub(crate) fn new(host: Current, now_ms: u64, seed: u64) -> Self {
        Self { host, now_ms, random: seed, event: 0, turnover: Vec::new() }
    }

    pub(crate) fn begin(&mut self, now_ms: u64, seed: u64, events: &[Event]) {
        self.now_ms = now_ms;
        self.random = seed;
        self.event = 0;
        self.turnover.clear();
        self.turnover.extend(events.iter().filter_map(|event| match event {
            Event::Join(joined) => Some((joined.member, None)),
            Event::Leave(left) => Some((left.member, Some(left.user.clone()))),
            _ => None,
        }));
    }

    pub(crate) fn at(&mut self, event: usize) {
        self.event = event as u32;
    }

    /// Milliseconds since the Unix epoch: the batch's time, the same for all its events, never going back.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The next random number of this batch (SplitMix64). Not for secrets; the same again in a replay.
    pub fn random(&mut self) -> u64 {
        random::next(&mut self.random)
    }

    /// Sends a frame to all members.
    pub fn broadcast(&mut self, what: impl Into<Payload>) {
        self.emit(&Audience::All, what, &Delivery::NORMAL);
    }

    /// Sends a frame to one member.
    pub fn send(&mut self, member: MemberId, what: impl Into<Payload>) {
        self.emit(&Audience::Only(vec![member]), what, &Delivery::NORMAL);
    }

    /// Sends a frame to all members of one user.
    pub fn to_user(&mut self, user: impl Into<String>, what: impl Into<Payload>) {
        self.emit(&Audience::User(user.into()), what, &Delivery::NORMAL);
    }

    /// Sends a frame to any audience, with what becomes of it when a receiver is slow.
    pub fn emit(&mut self, to: &Audience, what: impl Into<Payload>, how: &Delivery) {
        self.host.broadcast(self.event, to, &what.into(), how);
    }

    /// Sends the payload of the event being handled, a message or a publication, unchanged and without copying it.
    pub fn forward(&mut self, to: &Audience, how: &Delivery) {
        self.host.forward(self.event, to, how);
    }

    /// Closes a member's connection, after the frames sent to it before. Code 1000, 1008 or 3000–4999.
    pub fn close(&mut self, member: MemberId, code: u16, reason: &str) {
        self.host.close(member, code, reason);
    }

    /// Says that the event being handled had no effect. Returning `Err` does the same.
    pub fn reject(&mut self, why: &Refusal) {
        self.host.reject(self.event, why);
    }

    /// Sends a message to another channel of the same tenant and mount.
    pub fn publish(&mut self, channel: &str, what: impl Into<Payload>) {
        self.host.publish(channel, &what.into());
    }

    /// Answers an HTTP request of this batch or an earlier one.
    pub fn respond(&mut self, request: u64, response: &HttpResponse) {
        self.host.respond(request, response);
    }

    /// Sets the timer of this name to fire once, `after_ms` from now. [`TimerKeep::Durable`] costs a write.
    pub fn set_timer(&mut self, name: &str, after_ms: u64, keep: TimerKeep) {
        self.host.set_timer(name, after_ms, keep);
    }

    /// Forgets the timer of this name, if there is one.
    pub fn cancel_timer(&mut self, name: &str) {
        self.host.cancel_timer(name);
    }

    /// All members, as they are after the joins and leaves of this batch.
    pub fn members(&self) -> Vec<Member> {
        self.host.members()
    }

    /// The members and their users as they were before this batch, if no join of this batch was a second one of the
    /// same member: what an instance that starts afresh must count before it handles the batch's joins and leaves.
    pub fn members_before_batch(&self) -> Vec<(MemberId, String)> {
        let mut before: std::collections::BTreeMap<MemberId, String> =
            self.members().into_iter().map(|member| (member.id, member.identity.user)).collect();
        for (member, left) in self.turnover.iter().rev() {
            match left {
                Some(user) => before.insert(*member, user.clone()),
                None => before.remove(member),
            };
        }
        before.into_iter().collect()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.host.find_member(id)
    }

    /// The durable key-value state.
    pub fn kv(&self) -> Kv<'_> {
        Kv(&self.host)
    }

    /// The durable log.
    pub fn log(&self) -> Log<'_> {
        Log(&self.host)
    }

    /// Runs a statement that the operator granted to the mount, by its name there. May suspend the instance.
    pub fn query(&self, statement: &str, parameters: &[SqlValue]) -> Result<Rows, SqlError> {
        self.host.query(statement, parameters)
    }

    /// Numbers about the mount.
    pub fn stats(&self) -> Snapshot {
        self.host.stats()
    }

    /// Writes a line for the operator; see [`crate::log_info!`].
    pub fn log_line(&self, level: Level, line: &str) {
        self.host.log_line(level, line);
    }
}

/// The channel's durable key-value state. Reads see the writes of the same batch. Keys up to 512 bytes, values 1 MiB.
pub struct Kv<'a>(&'a Current);

impl Kv<'_> {
    /// One value.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.kv_get(key)
    }

    /// Sets a value.
    pub fn put(&self, key: &str, value: &[u8]) {
        self.0.kv_put(key, value);
    }

    /// Forgets a value.
    pub fn delete(&self, key: &str) {
        self.0.kv_delete(key);
    }

    /// Entries whose keys begin with `prefix`, by the bytes of the key; at most `limit`, at most 1,000.
    pub fn scan(&self, prefix: &str, order: Order, limit: u32) -> Vec<(String, Vec<u8>)> {
        self.0.kv_scan(prefix, order, limit)
    }
}

/// The channel's durable log: entries 1, 2, 3 … without gaps. Reads see the writes of the same batch.
pub struct Log<'a>(&'a Current);

impl Log<'_> {
    /// Appends an entry of up to 1 MiB and returns its offset.
    pub fn append(&self, data: &[u8]) -> u64 {
        self.0.log_append(data)
    }

    /// Entries from this offset on, oldest first; at most `limit`, at most 1,000, at most 1 MiB but at least one.
    pub fn read(&self, from: u64, limit: u32) -> Vec<Entry> {
        self.0.log_read(from, limit)
    }

    /// One entry.
    pub fn get(&self, offset: u64) -> Option<Entry> {
        self.read(offset, 1).into_iter().find(|entry| entry.offset == offset)
    }

    /// Writes over an entry; false if there is none.
    pub fn replace(&self, offset: u64, data: &[u8]) -> bool {
        self.0.log_replace(offset, data)
    }

    /// Forgets the entries before this offset.
    pub fn trim(&self, before: u64) {
        self.0.log_trim(before);
    }

    /// Where the log begins, and the offset the next entry gets.
    pub fn bounds(&self) -> Extent {
        self.0.log_bounds()
    }
}

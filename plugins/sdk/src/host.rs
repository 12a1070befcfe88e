//! The door to the host: the imports of the component, or the harness. Chosen at compile time, not behind a trait
//! object, so that an import nobody calls is not in the component.

use crate::{
    Audience, Delivery, Entry, Extent, HttpResponse, Level, Member, MemberId, Order, Payload, Refusal, Rows, Snapshot,
    SqlError, SqlValue, TimerKeep,
};

/// What [`crate::Channel`] calls.
#[cfg(target_family = "wasm")]
pub(crate) type Current = Imports;
/// What [`crate::Channel`] calls.
#[cfg(not(target_family = "wasm"))]
pub(crate) type Current = crate::harness::HostHandle;

/// The calls of the contract; see `wit/` for their meaning.
pub(crate) trait Host {
    fn broadcast(&self, event: u32, to: &Audience, what: &Payload, how: &Delivery);
    fn forward(&self, event: u32, to: &Audience, how: &Delivery);
    fn close(&self, who: MemberId, code: u16, reason: &str);
    fn reject(&self, event: u32, why: &Refusal);
    fn publish(&self, channel: &str, what: &Payload);
    fn respond(&self, request: u64, response: &HttpResponse);
    fn set_timer(&self, name: &str, after_ms: u64, keep: TimerKeep);
    fn cancel_timer(&self, name: &str);
    fn members(&self) -> Vec<Member>;
    fn find_member(&self, id: MemberId) -> Option<Member>;
    fn kv_get(&self, key: &str) -> Option<Vec<u8>>;
    fn kv_put(&self, key: &str, value: &[u8]);
    fn kv_delete(&self, key: &str);
    fn kv_scan(&self, prefix: &str, order: Order, limit: u32) -> Vec<(String, Vec<u8>)>;
    fn log_append(&self, data: &[u8]) -> u64;
    fn log_read(&self, from: u64, limit: u32) -> Vec<Entry>;
    fn log_replace(&self, offset: u64, data: &[u8]) -> bool;
    fn log_trim(&self, before: u64);
    fn log_bounds(&self) -> Extent;
    fn log_line(&self, level: Level, line: &str);
    fn query(&self, statement: &str, parameters: &[SqlValue]) -> Result<Rows, SqlError>;
    fn stats(&self) -> Snapshot;
}

/// The imports of the component.
#[cfg(target_family = "wasm")]
#[derive(Clone)]
pub(crate) struct Imports;

#[cfg(target_family = "wasm")]
mod imports {
    use super::{
        Audience, Delivery, Entry, Extent, Host, HttpResponse, Imports, Level, Member, MemberId, Order, Payload,
        Refusal, Rows, Snapshot, SqlError, SqlValue, TimerKeep,
    };
    use crate::bindings::hotbay::channel::{channel, kv, log, logging, sql, stats};

    impl Host for Imports {
        fn broadcast(&self, event: u32, to: &Audience, what: &Payload, how: &Delivery) {
            channel::broadcast(event, to, what, how);
        }
        fn forward(&self, event: u32, to: &Audience, how: &Delivery) {
            channel::forward(event, to, how);
        }
        fn close(&self, who: MemberId, code: u16, reason: &str) {
            channel::close(who, code, reason);
        }
        fn reject(&self, event: u32, why: &Refusal) {
            channel::reject(event, why);
        }
        fn publish(&self, channel: &str, what: &Payload) {
            channel::publish(channel, what);
        }
        fn respond(&self, request: u64, response: &HttpResponse) {
            channel::respond(request, response);
        }
        fn set_timer(&self, name: &str, after_ms: u64, keep: TimerKeep) {
            channel::set_timer(name, after_ms, keep);
        }
        fn cancel_timer(&self, name: &str) {
            channel::cancel_timer(name);
        }
        fn members(&self) -> Vec<Member> {
            channel::members()
        }
        fn find_member(&self, id: MemberId) -> Option<Member> {
            channel::find_member(id)
        }
        fn kv_get(&self, key: &str) -> Option<Vec<u8>> {
            kv::get(key)
        }
        fn kv_put(&self, key: &str, value: &[u8]) {
            kv::put(key, value);
        }
        fn kv_delete(&self, key: &str) {
            kv::delete(key);
        }
        fn kv_scan(&self, prefix: &str, order: Order, limit: u32) -> Vec<(String, Vec<u8>)> {
            kv::scan(prefix, order, limit)
        }
        fn log_append(&self, data: &[u8]) -> u64 {
            log::append(data)
        }
        fn log_read(&self, from: u64, limit: u32) -> Vec<Entry> {
            log::read(from, limit)
        }
        fn log_replace(&self, offset: u64, data: &[u8]) -> bool {
            log::replace(offset, data)
        }
        fn log_trim(&self, before: u64) {
            log::trim(before);
        }
        fn log_bounds(&self) -> Extent {
            log::bounds()
        }
        fn log_line(&self, level: Level, line: &str) {
            logging::log(level, line);
        }
        fn query(&self, statement: &str, parameters: &[SqlValue]) -> Result<Rows, SqlError> {
            sql::query(statement, parameters)
        }
        fn stats(&self) -> Snapshot {
            stats::read()
        }
    }
}

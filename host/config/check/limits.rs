//! Checks of limits. Each struct is taken apart whole, so that a new limit cannot be forgotten here.

use super::Check;
use crate::config::tree::KeyPath;
use crate::limits::{MountLimits, NodeLimits, Rate};

/// Longest time a limit may name, in milliseconds (a year): sums with the clock stay far from overflow.
pub(super) const DURATION_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;

/// Takes limits apart and checks that each of the first list is at least 1, and a time at most a year. The second list has those
/// with rules of their own. A limit that is in neither does not compile.
macro_rules! positive {
    ($check:expr, $path:expr, $limits:expr, $type:ident { $($field:ident),* $(,)? } $(else { $($other:ident),* $(,)? })?) => {
        let $type { $($field,)* $($($other: _,)*)? } = $limits;
        $({
            // Limits are of several integer types; as u128 none changes its value.
            let value = u128::try_from(*$field).unwrap_or(u128::MAX);
            if value == 0 {
                $check.refuse(&$path.key(stringify!($field)), "must be at least 1");
            }
            if stringify!($field).contains("_ms") && value > u128::from(DURATION_MS_MAX) {
                $check.refuse(&$path.key(stringify!($field)), format!("must be at most {DURATION_MS_MAX}, a year"));
            }
        })*
    };
}

impl Check<'_> {
    pub(super) fn node_limits(&mut self, limits: &NodeLimits) {
        let path = KeyPath::new(["limits"]);
        positive!(
            self,
            path,
            limits,
            NodeLimits {
                connections_max,
                connections_per_address_max,
                connections_per_tenant_max,
                channels_awake_max,
                channels_max,
                request_bodies_bytes_max,
                http_header_ms_max,
                plugin_bytes_max,
                compile_memory_bytes_max,
                compile_cpu_s_max,
                compile_wall_s_max,
                drain_ms_max,
            }
        );
    }

    pub(super) fn mount_limits(&mut self, limits: &MountLimits, path: &KeyPath) {
        positive!(
            self,
            path,
            limits,
            MountLimits {
                message_bytes_max,
                message_fragments_max,
                message_ms_max,
                request_bytes_max,
                request_ms_max,
                requests_waiting_max,
                bad_messages_per_minute_max,
                connections_per_user_max,
                channels_per_connection_max,
                members_per_channel_max,
                outbox_bytes_max,
                mailbox_events_max,
                mailbox_bytes_max,
                batch_events_max,
                batch_bytes_max,
                effects_max,
                effect_bytes_max,
                cpu_ms_max,
                read_ms_max,
                memory_bytes_max,
                log_lines_per_second_max,
                log_line_bytes_max,
                state_bytes_max,
                saved_bytes_max,
                log_entries_max,
                commit_ms_max,
                idle_ms,
            } else {
                rate_per_connection,
                rate_per_user,
                rate_excess_per_minute_max, // 0 has a meaning
            }
        );
        let rates = [("rate_per_connection", &limits.rate_per_connection), ("rate_per_user", &limits.rate_per_user)];
        for (name, rate) in rates {
            if let Some(rate) = rate {
                let path = path.key(name);
                positive!(self, path, rate, Rate { per_second, burst });
            }
        }
        // Otherwise what is let in by one limit could never pass the next.
        let fits = [
            ("batch_events_max", *batch_events_max, "mailbox_events_max", *mailbox_events_max),
            ("batch_bytes_max", *batch_bytes_max, "mailbox_bytes_max", *mailbox_bytes_max),
            ("message_bytes_max", *message_bytes_max, "mailbox_bytes_max", *mailbox_bytes_max),
            ("request_bytes_max", *request_bytes_max, "mailbox_bytes_max", *mailbox_bytes_max),
            ("message_bytes_max", *message_bytes_max, "outbox_bytes_max", *outbox_bytes_max),
        ];
        for (inner, inner_max, outer, outer_max) in fits {
            if inner_max > outer_max {
                // Said where somebody set one of the two.
                let culprit = if self.tree.get(&path.key(inner)).is_some() { inner } else { outer };
                self.refuse(
                    &path.key(culprit),
                    format!("{inner} ({inner_max}) must not be more than {outer} ({outer_max})"),
                );
            }
        }
    }
}

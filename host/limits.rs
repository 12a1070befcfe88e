//! Every bound of the broker, in one place, with its default.
//!
//! [`NodeLimits`] hold for the whole process (`[limits]` in `hotbay.toml`), [`MountLimits`] for each
//! mount (`[mount.limits]`). Both are plain numbers: who enforces a limit says so in its own module.
//! Constants are bounds that nobody should need to change.

use serde::{Deserialize, Serialize};

/// Longest channel name, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 200;
/// Longest tenant name, and longest value a claim may put into a channel name, in bytes.
pub const NAME_PART_BYTES_MAX: usize = 128;
/// Longest key in a channel's key-value state, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 512;
/// Largest value in a channel's key-value state, and largest log entry, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Most entries one `kv.scan` or `log.read` answers.
pub const READ_ENTRIES_MAX: u32 = 1_000;
/// Most bytes one `kv.scan` or `log.read` answers, unless its first entry alone is larger.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Longest timer name, in bytes.
pub const TIMER_NAME_BYTES_MAX: usize = 128;
/// Most timers of a channel that are set at the same time.
pub const TIMERS_MAX: usize = 1_000;
/// How long one call into a plugin waits for statements on databases (`sql.query`), all of them together, in milliseconds. From then on
/// they answer `timeout` at once.
pub const SQL_WAIT_MS_MAX: u64 = 10_000;
/// Largest answer of a database to one statement, in bytes, for however many callers it is.
pub const SQL_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest batch key of a statement on a database, in bytes: thousands may go to it at once.
pub const SQL_KEY_BYTES_MAX: usize = 1 << 10;
/// What a plugin may give one statement as parameters, in bytes, all of them together.
pub const SQL_PARAMETER_BYTES_MAX: usize = 64 << 10;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;
/// How often an address may come with an API key that is not known before it has to wait, and how many are forgiven it each
/// second. Keys that were right before are let through.
pub const WRONG_KEYS_PER_ADDRESS: Rate = Rate { per_second: 1, burst: 20 };
/// Addresses whose wrong API keys are counted one by one; those beyond it are counted as one.
pub const WRONG_KEY_ADDRESSES_MAX: usize = 10_000;
/// How long a first answer is kept for retries with the same idempotency key, in milliseconds (24 h).
pub const IDEMPOTENCY_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Connections that may wait to be accepted. When more come at once, as after a restart, the kernel drops their first packet, and
/// they try again a second later. The system has a bound of its own (`net.core.somaxconn`, usually 4,096).
pub const LISTEN_BACKLOG: u32 = 4_096;
/// How long a plugin may take over its last word to a connection that is to be closed, in milliseconds.
pub const LAST_WORD_MS_MAX: u64 = 1_000;
/// Longest token a client may present, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest chain of publishes from channel to channel.
pub const PUBLISH_HOPS_MAX: u8 = 8;
/// Publications of one channel to others that are not delivered yet.
pub const PUBLISHES_WAITING_MAX: usize = 1_024;
/// Batches of one channel that may be on the way to the disk at once where effects do not wait for that (`durability = "none"`):
/// while there are fewer, the next one runs. Elsewhere it runs when the one before is committed: commits of a channel follow each other
/// anyway, and what comes in meanwhile then shares one commit, and one write to each member.
pub const BATCHES_ON_THE_WAY_MAX: usize = 2;
/// Faults in a row, with no good event between, after which a member is closed or a channel quarantined.
pub const FAULTS_IN_A_ROW_MAX: u32 = 3;
/// First and longest quarantine of a channel, in milliseconds; it doubles in between.
pub const QUARANTINE_MS: (u64, u64) = (1_000, 60_000);
/// Largest header block of an HTTP request, in bytes.
pub const HTTP_HEADER_BYTES_MAX: usize = 16 << 10;
/// Core instances, modules and components a component may amount to when flattened.
pub const FLATTENED_INSTANCES_MAX: u64 = 256;
/// Most rows one page of a list of the registry has.
pub const CATALOG_ROWS_MAX: u32 = 1_000;
/// Longest text in a row of the registry (a manifest, the evidence of one step of a vetting, settings), in bytes.
pub const CATALOG_TEXT_BYTES_MAX: usize = 64 << 10;
/// Largest change of the registry in one transaction, in bytes: channels' commits wait behind it.
pub const CATALOG_CHANGE_BYTES_MAX: usize = 2 << 20;
/// Most steps of the vetting of a version.
pub const VETTING_STEPS_MAX: usize = 64;
/// Most entries of a channel's log that one transaction deletes when the channel was reset.
pub const LOG_SWEPT_MAX: u32 = 1_000;
/// Most old audit entries one transaction deletes.
pub const AUDIT_PRUNED_MAX: u32 = 1_000;
/// Largest code that a component may compile to, in bytes: several times [`NodeLimits::plugin_bytes_max`].
pub const COMPILED_BYTES_MAX: u64 = 256 << 20;
/// Largest manifest of a plugin (`plugin.toml`), in bytes.
pub const MANIFEST_BYTES_MAX: usize = 16 << 10;
/// Longest version in a manifest, in bytes.
pub const MANIFEST_VERSION_BYTES_MAX: usize = 64;
/// What a scratch channel, in which plugins are tried out, keeps of state and log, in bytes.
pub const SCRATCH_BYTES_MAX: u64 = 256 << 20;
/// Messages that a plugin is sent in its conformance run.
pub const CONFORMANCE_MESSAGES: u32 = 1_000;
/// Processor time of a conformance run, in milliseconds.
pub const CONFORMANCE_CPU_MS_MAX: u64 = 60_000;
/// How long a worker that vets a component may take, in seconds. It only gets the time that nobody else wants: what limits the component
/// is its processor time, and a worker that does not end within this could not do its work.
pub const VET_WALL_S_MAX: u64 = 900;
/// How often a component is vetted for which workers got too little processor time; then it waits for the next start.
pub const VET_TRIES_MAX: u32 = 3;
/// Processor time for reading a component that is vetted, in seconds.
pub const VET_READ_CPU_S_MAX: u64 = 20;
/// Address space for reading a component that is vetted, in bytes.
pub const VET_READ_MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Most tapes a component is played when it is vetted.
pub const TAPES_VETTED_MAX: usize = 8;
/// Processor time for playing them, in seconds; as much again for the version they are compared with.
pub const REPLAY_CPU_S_MAX: u64 = 60;
/// Largest evidence of one step of a vetting, as JSON, in bytes. All steps together are kept as one text.
pub const EVIDENCE_BYTES_MAX: usize = 8 << 10;
/// Most schemas of saved state a manifest may say its plugin takes over.
pub const SCHEMAS_ACCEPTED_MAX: usize = 64;

/// What is kept of the answers that one call into a plugin reads, for tapes and shadows, in bytes. Further ones are missing from the
/// record: a shadow asks the channel itself, a replay counts them.
pub const RECORDED_READS_BYTES_MAX: usize = 8 << 20;
/// Largest tape, in bytes, unless the recording asks for less.
pub const TAPE_BYTES_MAX: u64 = 256 << 20;
/// Longest time a tape covers, in milliseconds (7 days), unless the recording asks for less.
pub const TAPE_AGE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Longest line of a tape that is read, in bytes: one call with all it saw and did.
pub const TAPE_LINE_BYTES_MAX: u64 = 128 << 20;
/// What a tape keeps of what one effect carries, in bytes; of more, it has length and digest.
pub const TAPE_ENTRY_BYTES_MAX: usize = 64 << 10;
/// Calls that wait to be written to tapes, of all channels; then the tape of the next one ends.
pub const TAPE_QUEUE_LINES_MAX: usize = 4_096;
/// The same in bytes.
pub const TAPE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// JSON pointers that a tape is redacted by.
pub const REDACTION_POINTERS_MAX: usize = 64;
/// Longest of them, in bytes.
pub const REDACTION_POINTER_BYTES_MAX: usize = 512;
/// Differences that a replay keeps; it counts the others.
pub const REPLAY_DIFFERENCES_MAX: usize = 1_000;
/// Cores for each channel that changes to another version of its plugin at the same time: such a channel stands still while others take
/// its core, and those that do not change want to go on.
pub const CORES_PER_SWAP: usize = 2;
/// Channels beside whose version another one runs for comparison (`shadow`), at the same time; further ones run without.
pub const SHADOWS_MAX: usize = 1_000;
/// Largest body of JSON that the admin API takes, in bytes.
pub const ADMIN_BODY_BYTES_MAX: usize = 256 << 10;
/// How long such a body may take, in milliseconds.
pub const ADMIN_BODY_MS_MAX: u64 = 10_000;
/// Longest reason in the audit log, in bytes.
pub const ADMIN_REASON_BYTES_MAX: usize = 1 << 10;
/// How long a channel that is put to sleep may take to end its batch, in milliseconds.
pub const BEDTIME_MS_MAX: u64 = 15_000;
/// Versions a tenant may upload within 24 hours, unless an operator says how many (`uploads_per_day`).
pub const UPLOADS_PER_DAY: u64 = 100;
/// Uploads of versions at the same time; of each tenant and operator one.
pub const UPLOADS_MAX: usize = 10;
/// How long an upload may take, in milliseconds.
pub const UPLOAD_MS_MAX: u64 = 10 * 60_000;
/// How long it may pause, in milliseconds.
pub const UPLOAD_PAUSE_MS_MAX: u64 = 30_000;
/// Who may follow what plugins log, at the same time; a caller may be a tenth of them.
pub const LOG_FOLLOWERS_MAX: usize = 64;
/// Lines that wait for the slowest of them; further ones it misses, and is told how many.
pub const LOG_LINES_FOLLOWED_MAX: usize = 1_024;
/// Who may follow channels, at the same time; a caller may be a tenth of them.
pub const TAILS_MAX: usize = 64;
/// Batches that wait for each of them; further ones they miss, and are told how many.
pub const TAIL_LINES_MAX: usize = 256;
/// Bytes of such lines, if they are more than one.
pub const TAIL_BYTES_MAX: usize = 1 << 20;
/// Events, and effects, that are shown of a batch.
pub const TAIL_ITEMS_MAX: usize = 64;
/// Bytes that are shown of a payload.
pub const TAIL_PAYLOAD_BYTES_MAX: usize = 1 << 10;
/// Bytes that are shown of all payloads of a batch.
pub const TAIL_PAYLOADS_BYTES_MAX: usize = 64 << 10;
/// Bytes that are shown of names and other words.
pub const TAIL_TEXT_BYTES_MAX: usize = 256;
/// Largest signature that comes with an upload, in bytes.
pub const SIGNATURE_BYTES_MAX: usize = 4 << 10;

/// Versions that wait to be vetted.
pub const VETTING_QUEUE_MAX: usize = 64;
/// Those of one tenant, so that it does not take the places of all others.
pub const VETTING_QUEUE_TENANT_MAX: usize = 8;
/// Recordings of channels that go on at the same time.
pub const RECORDINGS_MAX: usize = 20;
/// Tapes that are written at the same time.
pub const TAPES_MAX: usize = 100;
/// Accounts of tenants (limits and usage) on this node. Tenants beyond that share one, unless they have limits of their own.
pub const QUOTA_TENANTS_MAX: usize = 100_000;
/// Versions of plugins whose usage is known.
pub const QUOTA_PLUGINS_MAX: usize = 1_000;
/// Tenants that have series of their own in `/metrics`.
pub const METRICS_TENANTS_MAX: usize = 50;
/// The same of versions of plugins.
pub const METRICS_PLUGINS_MAX: usize = 50;

/// Bounds of the whole process.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeLimits {
    /// Open connections, upgraded or not.
    pub connections_max: usize,
    /// Open connections from one peer address.
    pub connections_per_address_max: usize,
    /// Open WebSocket connections of one tenant.
    pub connections_per_tenant_max: usize,
    /// Channels with a running instance. An instance takes up to six memory mappings, and Linux allows
    /// a process 65,530 of them by default (`vm.max_map_count`).
    pub channels_awake_max: usize,
    /// Channels known to this node, awake or asleep.
    pub channels_max: usize,
    /// Bodies of HTTP requests that are being read or wait for their channel, in bytes, all together; a caller may have a tenth of it,
    /// or one body.
    pub request_bodies_bytes_max: usize,
    /// Time to send a whole HTTP header block, in milliseconds.
    pub http_header_ms_max: u64,
    /// Largest component that may be loaded, in bytes.
    pub plugin_bytes_max: usize,
    /// Address space of the compile worker, in bytes.
    pub compile_memory_bytes_max: u64,
    /// CPU time of the compile worker, in seconds.
    pub compile_cpu_s_max: u64,
    /// Wall time of the compile worker, in seconds.
    pub compile_wall_s_max: u64,
    /// Time between SIGTERM and exit, in milliseconds.
    pub drain_ms_max: u64,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_address_max: 20_000,
            connections_per_tenant_max: 100_000,
            channels_awake_max: 8_000,
            channels_max: 1_000_000,
            request_bodies_bytes_max: 64 << 20,
            http_header_ms_max: 10_000,
            plugin_bytes_max: 32 << 20,
            compile_memory_bytes_max: 2 << 30,
            compile_cpu_s_max: 60,
            compile_wall_s_max: 600,
            drain_ms_max: 10_000,
        }
    }
}

/// A token bucket: `per_second` on average, `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Messages per second on average.
    pub per_second: u32,
    /// Messages at once after a pause.
    pub burst: u32,
}

/// Bounds of a mount: its connections, its channels and its plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MountLimits {
    /// Largest inbound message, in bytes, over all its fragments.
    pub message_bytes_max: usize,
    /// Most fragments of one inbound message.
    pub message_fragments_max: u32,
    /// Time from the first byte of a message to its last, in milliseconds.
    pub message_ms_max: u64,
    /// Largest body of an HTTP request to the plugin or the publish API, in bytes.
    pub request_bytes_max: usize,
    /// Time for the plugin to answer an HTTP request, in milliseconds; then 504.
    pub request_ms_max: u64,
    /// HTTP requests that wait for an answer at once; then 503. A caller may have a tenth of them.
    pub requests_waiting_max: usize,
    /// Messages of one connection; and HTTP requests of one user, together.
    pub rate_per_connection: Option<Rate>,
    /// Messages of one user over all connections.
    pub rate_per_user: Option<Rate>,
    /// Messages over the rate within a minute after which the connection is closed with 1008; 0 closes at once.
    pub rate_excess_per_minute_max: u32,
    /// Messages within a minute that are none of the protocol (`bad-request`) after which the connection is closed with 1008; what is
    /// refused for other reasons does not count.
    pub bad_messages_per_minute_max: u32,
    /// Open connections of one user.
    pub connections_per_user_max: usize,
    /// Channels one connection may be joined to.
    pub channels_per_connection_max: usize,
    /// Members of one channel.
    pub members_per_channel_max: usize,
    /// Frames waiting for a slow reader, in bytes.
    pub outbox_bytes_max: usize,
    /// Events waiting for a channel.
    pub mailbox_events_max: usize,
    /// Bytes of the events waiting for a channel.
    pub mailbox_bytes_max: usize,
    /// Events of one batch.
    pub batch_events_max: usize,
    /// Bytes of the events of one batch; a single larger event still makes a batch of its own.
    pub batch_bytes_max: usize,
    /// Effects of one batch.
    pub effects_max: usize,
    /// Bytes of the effects of one batch.
    pub effect_bytes_max: usize,
    /// CPU time of one call into the plugin, in milliseconds.
    pub cpu_ms_max: u64,
    /// Wall time of one read of the plugin (`kv.get`, `log.read`, …), in milliseconds.
    pub read_ms_max: u64,
    /// Linear memory of one instance, in bytes, over all its memories.
    pub memory_bytes_max: usize,
    /// Log lines of one channel's plugin, per second.
    pub log_lines_per_second_max: u32,
    /// Length of one log line, in bytes; the rest is cut.
    pub log_line_bytes_max: usize,
    /// Key-value state of one channel, in bytes.
    pub state_bytes_max: u64,
    /// What `save` may return, in bytes.
    pub saved_bytes_max: usize,
    /// Entries in the log of one channel; the oldest are trimmed beyond it.
    pub log_entries_max: u64,
    /// Time a commit is retried before its senders get `unavailable`, in milliseconds.
    pub commit_ms_max: u64,
    /// Time without an event after which a channel goes to sleep, in milliseconds.
    pub idle_ms: u64,
}

impl Default for MountLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 10,
            message_fragments_max: 1_024,
            message_ms_max: 10_000,
            request_bytes_max: 1 << 20,
            request_ms_max: 10_000,
            requests_waiting_max: 1_000,
            rate_per_connection: None,
            rate_per_user: None,
            rate_excess_per_minute_max: 500,
            bad_messages_per_minute_max: 1_000,
            connections_per_user_max: 1_000,
            channels_per_connection_max: 100,
            members_per_channel_max: 100_000,
            outbox_bytes_max: 1 << 20,
            mailbox_events_max: 1_024,
            mailbox_bytes_max: 4 << 20,
            batch_events_max: 256,
            batch_bytes_max: 1 << 20,
            effects_max: 10_000,
            effect_bytes_max: 8 << 20,
            cpu_ms_max: 100,
            read_ms_max: 5_000,
            memory_bytes_max: 64 << 20,
            log_lines_per_second_max: 20,
            log_line_bytes_max: 4 << 10,
            state_bytes_max: 64 << 20,
            saved_bytes_max: 16 << 20,
            log_entries_max: 1_000_000,
            commit_ms_max: 10_000,
            idle_ms: 60_000,
        }
    }
}

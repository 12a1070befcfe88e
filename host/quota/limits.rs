//! A tenant's limits: which there are, what happens at each, and how they are written.

use serde::{Deserialize, Serialize};

/// The limits of a tenant, over all its connections and channels on this node. As JSON in its row of the registry and in the admin API,
/// for example `{"connections_max":100,"plugin_cpu_ms_per_second":200}`. All may be changed while the tenant is being served, and hold at
/// once: what is over a lower limit stays, and nothing is added to it.
///
/// What is absent has no limit but those of node and mount; `uploads_per_day` is 100 then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Open connections; absent: the node's `connections_per_tenant_max`. Further ones are refused with 429, or, where the mount refuses by
    /// close frames, closed with 1013. 0 shuts a tenant out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u64>,
    /// Channels that are awake or have members. Joins of further ones are refused as `unavailable`, requests and publications with 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels_max: Option<u64>,
    /// Channels with a running instance. Another one waits until one of them goes to sleep, which they do sooner then; what waits for too
    /// long (`commit_ms_max`) is refused as `unavailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels_awake_max: Option<u64>,
    /// Messages that come in on connections, HTTP requests and publications, together, with a burst of one second. A connection that
    /// brings more is not read for as long as it takes; requests and publications get 429 with `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<u64>,
    /// The same of bytes, as they come over the wire; of requests and publications those of their bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Keys and values in the state of its channels, in bytes. A batch that would make it more leaves no trace; its events are run again
    /// one by one, and those that write too much are refused as `unavailable`. What makes it less is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes_max: Option<u64>,
    /// Entries in the logs of its channels, in bytes of their data. The same happens. Trimmed entries count until they are deleted, which
    /// they are some dozens at a time, or at once by a batch that appends nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_max: Option<u64>,
    /// Processor time of its plugins, in milliseconds of each second, with a burst of one second; 1,000 is one core. Beyond it, its
    /// channels take turns: a channel whose turn it is not takes nothing from its mailbox, so that its senders wait, and its timers are
    /// late. Long calls pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_cpu_ms_per_second: Option<u64>,
    /// Linear memory of all its instances together, in bytes. Growing beyond it fails in the plugin like growing beyond its own bound; an
    /// instance that cannot even begin is tried again for a while, then what waits for it is refused as `unavailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_memory_bytes_max: Option<u64>,
    /// Versions of plugins uploaded within 24 hours; absent: 100. Further ones are refused with 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploads_per_day: Option<u64>,
}

/// Names a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `connections_max`
    Connections,
    /// `channels_max`
    Channels,
    /// `channels_awake_max`
    ChannelsAwake,
    /// `messages_per_second`
    Messages,
    /// `bytes_per_second`
    Bytes,
    /// `state_bytes_max`
    StateBytes,
    /// `log_bytes_max`
    LogBytes,
    /// `plugin_cpu_ms_per_second`
    PluginCpu,
    /// `plugin_memory_bytes_max`
    PluginMemory,
    /// `uploads_per_day`
    Uploads,
}

impl Limit {
    /// Its key in [`TenantLimits`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections_max",
            Self::Channels => "channels_max",
            Self::ChannelsAwake => "channels_awake_max",
            Self::Messages => "messages_per_second",
            Self::Bytes => "bytes_per_second",
            Self::StateBytes => "state_bytes_max",
            Self::LogBytes => "log_bytes_max",
            Self::PluginCpu => "plugin_cpu_ms_per_second",
            Self::PluginMemory => "plugin_memory_bytes_max",
            Self::Uploads => "uploads_per_day",
        }
    }

    /// What it counts, and what to do about it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Connections => ("open connections", "close some"),
            Self::Channels => ("channels", "leave some"),
            Self::ChannelsAwake => ("awake channels", "try again when one went to sleep"),
            Self::Messages => ("messages each second", "slow down"),
            Self::Bytes => ("bytes each second", "slow down"),
            Self::StateBytes => ("bytes of state", "delete some"),
            Self::LogBytes => ("bytes of logs", "trim some"),
            Self::PluginCpu => ("milliseconds of processor time each second", "try again"),
            Self::PluginMemory => ("bytes of memory for its plugins", "try again when a channel went to sleep"),
            Self::Uploads => ("uploads within 24 hours", "try again tomorrow"),
        }
    }
}

/// A tenant is at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub limit: Limit,
    /// What it is set to.
    pub max: u64,
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((what, remedy), name, max) = (self.limit.words(), self.limit.as_str(), self.max);
        write!(
            f,
            "the tenant may have {max} {what} ({name}), and would have more: {remedy}, or ask the operator for more"
        )
    }
}

impl std::error::Error for Over {}

/// Text that says no limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// No JSON, an unknown key, or a value of the wrong kind.
    #[error("these are no limits of a tenant: {cause}")]
    Text {
        /// Key and cause.
        cause: String,
    },
    /// A rate of nothing.
    #[error(
        "{key} is 0, and nothing would ever come through: set 1 or more, or connections_max = 0 to shut the tenant out"
    )]
    Nothing {
        /// Which.
        key: &'static str,
    },
}

impl TenantLimits {
    /// Reads them from JSON.
    ///
    /// # Errors
    /// If a key is unknown or a value is not a number from 0 (rates: from 1); the error names the key.
    pub fn parse(json: &str) -> Result<Self, LimitsError> {
        if !json.trim_start().starts_with('{') {
            // Serde would take a list for the fields in their order.
            let cause = "they are a JSON object, for example {\"connections_max\":100}".to_owned();
            return Err(LimitsError::Text { cause });
        }
        let mut text = serde_json::Deserializer::from_str(json);
        let limits: Self = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let (path, cause) = (error.path().to_string(), error.inner().to_string());
            let unknown = cause.starts_with("unknown field");
            LimitsError::Text { cause: if unknown || path == "." { cause } else { format!("{path}: {cause}") } }
        })?;
        text.end().map_err(|error| LimitsError::Text { cause: error.to_string() })?;
        limits.check()
    }

    /// Checks what serde does not.
    ///
    /// # Errors
    /// If a rate is 0.
    pub fn check(self) -> Result<Self, LimitsError> {
        let rates = [
            (self.messages_per_second, Limit::Messages),
            (self.bytes_per_second, Limit::Bytes),
            (self.plugin_cpu_ms_per_second, Limit::PluginCpu),
        ];
        match rates.into_iter().find(|(rate, _)| *rate == Some(0)) {
            Some((_, limit)) => Err(LimitsError::Nothing { key: limit.as_str() }),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: what is wrong with limits is said with the key.
    #[test]
    fn limits_are_read_and_what_is_none_is_named() {
        assert_eq!(TenantLimits::parse("{}"), Ok(TenantLimits::default()));
        let limits = TenantLimits::parse(r#"{"connections_max": 0, "bytes_per_second": 1000}"#).unwrap();
        assert_eq!(
            (limits.connections_max, limits.bytes_per_second, limits.channels_max),
            (Some(0), Some(1_000), None)
        );
        assert_eq!(TenantLimits::parse(&serde_json::to_string(&limits).unwrap()), Ok(limits));
        for (text, named) in [
            (r#"{"conections_max": 1}"#, "unknown field `conections_max`, expected one of `connections_max`"),
            (r#"{"channels_max": -1}"#, "channels_max: invalid value: integer `-1`"),
            (r#"{"uploads_per_day": "ten"}"#, "uploads_per_day: invalid type: string"),
            (r#"{"state_bytes_max": 1.5}"#, "state_bytes_max: invalid type: floating point"),
            (r#"{"log_bytes_max": 1, "log_bytes_max": 2}"#, "duplicate field `log_bytes_max`"),
            (r#"{"messages_per_second": 0}"#, "messages_per_second is 0"),
            (r#"{"plugin_cpu_ms_per_second": 0}"#, "plugin_cpu_ms_per_second is 0"),
            ("{} {}", "trailing characters"),
            ("[]", "they are a JSON object"),
            ("", "they are a JSON object"),
            ("{", "EOF"),
        ] {
            let error = TenantLimits::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    /// Goal: every limit has the name it is set by.
    #[test]
    fn every_limit_is_known_by_its_key() {
        use Limit::{
            Bytes, Channels, ChannelsAwake, Connections, LogBytes, Messages, PluginCpu, PluginMemory, StateBytes,
            Uploads,
        };
        let all = [
            Connections,
            Channels,
            ChannelsAwake,
            Messages,
            Bytes,
            StateBytes,
            LogBytes,
            PluginCpu,
            PluginMemory,
            Uploads,
        ];
        for limit in all {
            let key = limit.as_str();
            TenantLimits::parse(&format!("{{\"{key}\": 7}}")).unwrap();
            assert!(Over { limit, max: 7 }.to_string().contains(key));
        }
    }
}

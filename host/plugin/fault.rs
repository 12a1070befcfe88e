//! Why a call into a plugin had no effect.

use serde::{Deserialize, Serialize};

/// What went wrong. The instance it happened in is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The plugin trapped: a panic, an out-of-bounds access, a stack overflow, memory it did not get.
    #[error("the plugin trapped: {message}")]
    Trap {
        /// The runtime's own words.
        message: String,
    },
    /// The plugin used more CPU time in one call than it may.
    #[error("the plugin ran longer than {cpu_ms_max} ms in one call (cpu_ms_max)")]
    Deadline {
        /// The bound.
        cpu_ms_max: u64,
    },
    /// The plugin asked for something that is not allowed.
    #[error("the plugin asked for something that is refused: {what}")]
    Refused {
        /// What, and which rule it breaks.
        what: String,
    },
    /// The plugin's `open` returned an error.
    #[error("the plugin refused to open the channel: {message}")]
    Open {
        /// The plugin's own words.
        message: String,
    },
    /// A read the store could not answer. Not the plugin's fault.
    #[error("a read of the plugin could not be answered: {cause}")]
    Unavailable {
        /// The store's own words.
        cause: String,
    },
    /// The plugin's tenant has as much as it may. Not this call's fault.
    #[error("{over}")]
    Quota {
        /// Of what, with the limit and the remedy.
        over: String,
    },
    /// No instance could be made.
    #[error("no instance of the plugin could be started: {cause}")]
    Start {
        /// The runtime's own words.
        cause: String,
    },
}

impl Fault {
    /// A [`Fault::Refused`].
    pub fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into() }
    }

    /// Whether the plugin, rather than its surroundings, failed.
    pub fn is_plugins(&self) -> bool {
        !matches!(self, Self::Unavailable { .. } | Self::Quota { .. } | Self::Start { .. })
    }

    /// The kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::Refused { .. } => "refused",
            Self::Open { .. } => "open",
            Self::Unavailable { .. } => "unavailable",
            Self::Quota { .. } => "quota",
            Self::Start { .. } => "start",
        }
    }

    /// Finds the fault in what starting an instance returned: the component's start code may fail like any call, everything else
    /// is for want of room.
    pub(super) fn from_start(error: &wasmtime::Error) -> Self {
        match Self::from_call(error) {
            Self::Trap { message } if !error.is::<wasmtime::Trap>() => Self::Start { cause: message },
            fault => fault,
        }
    }

    /// Finds the fault in what a call into the runtime returned.
    pub(super) fn from_call(error: &wasmtime::Error) -> Self {
        const MESSAGE_CHARS_MAX: usize = 500;
        if let Some(fault) = error.downcast_ref::<Self>() {
            return fault.clone();
        }
        let message: String = match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => trap.to_string(),
            None => format!("{error:#}"),
        };
        Self::Trap { message: message.chars().take(MESSAGE_CHARS_MAX).collect() }
    }
}

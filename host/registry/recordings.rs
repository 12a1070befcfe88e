//! Recordings: which channels go onto tapes, the tapes' files, and their rows in the store.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::json;

use crate::channel::{Logic, Tapes, Version};
use crate::limits::{RECORDINGS_MAX, TAPES_MAX};
use crate::plugin::tape::{Bounds, Header, Redaction, TapeHandle, TapeWriter};
use crate::protocol::name::{ChannelName, ChannelPattern, check_part};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{Change, Tape, TapeFilter};
use crate::telemetry::{self, wall_ms};

/// Which channels to record, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Channels of this mount.
    pub mount: String,
    /// Of this tenant alone.
    pub tenant: Option<String>,
    /// With such names alone.
    pub pattern: Option<String>,
    /// JSON pointers (RFC 6901) to what is taken out of every message that is JSON, before anything is written.
    pub redact: Vec<String>,
    /// Size of each tape, in bytes.
    pub bytes_max: u64,
    /// How long, in milliseconds.
    pub duration_ms: u64,
    /// How many channels at most.
    pub channels_max: usize,
}

/// A recording that goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordingStatus {
    /// Names it.
    pub id: u64,
    /// What was asked for.
    pub asked: Record,
    /// Tapes it made so far.
    pub tapes: usize,
    /// When it ends, in milliseconds since the Unix epoch.
    pub ends_ms: u64,
}

/// What makes the tapes of one recording.
pub(super) struct Recorder {
    id: u64,
    pub(super) asked: Record,
    ends_ms: u64,
    redaction: Redaction,
    studio: Arc<Studio>,
    registry: Weak<Registry>,
    /// Tapes it made.
    made: Mutex<usize>,
}

/// The writer of tapes, and those that are being written.
pub(super) struct Studio {
    folder: PathBuf,
    writer: Mutex<Option<TapeWriter>>,
    running: Mutex<Vec<Running>>,
}

/// A tape that is being written.
struct Running {
    row: Tape,
    handle: TapeHandle,
    written: u64,
}

impl Studio {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, writer: Mutex::default(), running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a tape. The thread that writes starts with the first one.
    fn begin(
        &self,
        path: &std::path::Path,
        header: Header,
        bounds: Bounds,
        redaction: Redaction,
    ) -> Option<TapeHandle> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = TapeWriter::start().inspect_err(|error| tracing::warn!(%error, "no tape can be written")).ok();
        }
        Some(writer.as_ref()?.begin(path, header, bounds, redaction))
    }

    /// Writes what was handed over. Blocks until that is done.
    pub(super) fn finish(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.finish();
        }
    }
}

impl Tapes for Recorder {
    fn begin(&self, channel: &ChannelName, logic: &Logic, version: &Version) -> Option<TapeHandle> {
        let registry = self.registry.upgrade()?;
        let now_ms = wall_ms();
        {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if *made >= self.asked.channels_max || now_ms >= self.ends_ms || self.studio.running().len() >= TAPES_MAX {
                return None;
            }
            *made += 1;
        }
        let path = self.studio.folder.join(format!("{now_ms}-{:016x}.tape", rand::random::<u64>()));
        let header = Header::new(channel, &logic.mount, &logic.settings, &version.limits, now_ms, &self.redaction);
        let bounds = Bounds { bytes_max: self.asked.bytes_max, age_ms_max: self.ends_ms - now_ms };
        let handle = self.studio.begin(&path, header, bounds, self.redaction.clone())?;
        let row = Tape {
            id: 0,
            tenant: channel.tenant().to_owned(),
            channel: channel.name().to_owned(),
            mount: logic.mount.clone(),
            digest: version.digest().0,
            started_ms: now_ms,
            ended_ms: None,
            batches: 0,
            bytes: 0,
            path: path.display().to_string(),
        };
        let (kept, studio) = (handle.clone(), Arc::clone(&self.studio));
        telemetry::spawn("tape", async move {
            match registry.catalog().change(vec![Change::InsertTape(row.clone())], None).await {
                Ok(Some(changed)) => {
                    let row = Tape { id: changed.ids.first().copied().unwrap_or(0), ..row };
                    studio.running().push(Running { row, handle: kept, written: 0 });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a tape cannot be entered in the store; it is given up");
                    kept.stop();
                }
            }
        });
        Some(handle)
    }
}

impl Registry {
    /// Begins to record channels. Those that are awake are recorded from their next batch boundary, others when they wake.
    ///
    /// # Errors
    /// If there is no such mount, or what is asked for makes no sense.
    pub async fn record(self: &Arc<Self>, who: &Actor, asked: Record) -> Result<RecordingStatus, RegistryError> {
        if self.mounts.logic(&asked.mount).is_none() {
            let known = self.mounts.names().join(", ");
            return Err(RegistryError::NotFound { what: format!("mount {:?}; there are: {known}", asked.mount) });
        }
        if let Some(tenant) = &asked.tenant {
            check_part("tenant", tenant).map_err(|e| RegistryError::Invalid(e.to_string()))?;
        }
        if let Some(pattern) = &asked.pattern {
            ChannelPattern::parse(pattern).map_err(|e| RegistryError::Invalid(format!("pattern: {e}")))?;
        }
        if asked.channels_max == 0 || asked.channels_max > TAPES_MAX {
            return Err(RegistryError::Invalid(format!("`channels_max` is between 1 and {TAPES_MAX}")));
        }
        let bounds = Bounds::default();
        if asked.duration_ms == 0 || asked.duration_ms > bounds.age_ms_max {
            return Err(RegistryError::Invalid(format!("a recording lasts between 1 and {} ms", bounds.age_ms_max)));
        }
        if asked.bytes_max == 0 || asked.bytes_max > bounds.bytes_max {
            return Err(RegistryError::Invalid(format!("`bytes_max` is between 1 and {}", bounds.bytes_max)));
        }
        let redaction = Redaction::new(&asked.redact).map_err(|e| RegistryError::Invalid(format!("redact: {e}")))?;
        let folder = &self.studio.folder;
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(|e| RegistryError::Folder { path: folder.display().to_string(), cause: e.to_string() })?;
        if self.mounts.recordings().len() >= RECORDINGS_MAX {
            let why = format!("{RECORDINGS_MAX} recordings go on already; end one first");
            return Err(RegistryError::TooMuch(why));
        }
        let recorder = Arc::new(Recorder {
            id: rand::random::<u64>() >> 12,
            ends_ms: wall_ms() + asked.duration_ms,
            asked,
            redaction,
            studio: Arc::clone(&self.studio),
            registry: Arc::downgrade(self),
            made: Mutex::new(0),
        });
        let asked = &recorder.asked;
        let detail = json!({ "recording": recorder.id, "pattern": asked.pattern, "duration_ms": asked.duration_ms, "redact": asked.redact });
        let tenant = asked.tenant.clone().unwrap_or_default();
        let audit = who.did("recording.begun", &tenant, asked.mount.clone(), &detail);
        self.catalog().change(Vec::new(), Some(audit)).await?;
        let status = recorder.status();
        self.mounts.record(recorder);
        self.apply();
        Ok(status)
    }

    /// Ends a recording, and its tapes.
    ///
    /// # Errors
    /// If there is none.
    pub async fn stop_recording(&self, who: &Actor, id: u64) -> Result<(), RegistryError> {
        let Some(recorder) = self.mounts.recordings().into_iter().find(|recorder| recorder.id == id) else {
            return Err(RegistryError::NotFound { what: format!("recording {id}; it may have ended") });
        };
        let tenant = recorder.asked.tenant.clone().unwrap_or_default();
        let audit = who.did("recording.ended", &tenant, recorder.asked.mount.clone(), &json!({ "recording": id }));
        self.catalog().change(Vec::new(), Some(audit)).await?;
        self.mounts.stop_recording(id);
        self.apply();
        Ok(())
    }

    /// Recordings that go on.
    pub fn recordings(&self) -> Vec<RecordingStatus> {
        self.mounts.recordings().iter().map(|recorder| recorder.status()).collect()
    }

    /// Deletes a tape that has ended, with its file.
    ///
    /// # Errors
    /// If there is none, or it is still being written.
    pub async fn delete_tape(&self, who: &Actor, id: i64) -> Result<(), RegistryError> {
        let missing = || RegistryError::NotFound { what: format!("tape {id}") };
        let row = self.catalog().tape(id).await?.ok_or_else(missing)?;
        if self.studio.running().iter().any(|running| running.row.id == id) {
            return Err(RegistryError::Conflict(format!("tape {id} is still being written; end its recording first")));
        }
        let audit = who.did("tape.deleted", &row.tenant, row.channel.clone(), &json!({ "tape": id }));
        self.catalog().change(vec![Change::DeleteTape { id }], Some(audit)).await?;
        match tokio::fs::remove_file(&row.path).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(RegistryError::Folder { path: row.path, cause: e.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Writes down how far the tapes are, and ends recordings whose time is over.
    pub(super) async fn look_after_tapes(&self) -> Result<(), RegistryError> {
        let now_ms = wall_ms();
        let over: Vec<u64> =
            self.mounts.recordings().iter().filter(|one| one.ends_ms <= now_ms).map(|one| one.id).collect();
        if !over.is_empty() {
            for id in over {
                self.mounts.stop_recording(id);
            }
            self.apply();
        }
        let mut changes = Vec::new();
        self.studio.running().retain_mut(|running| {
            let (bytes, ended) = (running.handle.bytes(), running.handle.ended().is_some());
            if ended || bytes != running.written {
                running.written = bytes;
                let (id, batches) = (running.row.id, running.handle.batches());
                changes.push(Change::UpdateTape { id, batches, bytes, ended_ms: ended.then_some(now_ms) });
            }
            !ended
        });
        for change in changes {
            // A tape that was deleted meanwhile needs no row.
            self.catalog().change(vec![change], None).await?;
        }
        Ok(())
    }

    /// Tapes that a broker which died was writing have ended.
    pub(super) async fn end_tapes_left_behind(&self) -> Result<(), RegistryError> {
        let mut after = None;
        loop {
            let page = self.catalog().tapes(&TapeFilter::default(), after.as_ref(), super::deploy::PAGE).await?;
            for row in page.rows.into_iter().filter(|row| row.ended_ms.is_none()) {
                let bytes = std::fs::metadata(&row.path).map_or(row.bytes, |file| file.len());
                let change = Change::UpdateTape { id: row.id, batches: row.batches, bytes, ended_ms: Some(wall_ms()) };
                self.catalog().change(vec![change], None).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Recorder {
    /// Names it.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    fn status(&self) -> RecordingStatus {
        let tapes = *self.made.lock().unwrap_or_else(PoisonError::into_inner);
        RecordingStatus { id: self.id, asked: self.asked.clone(), tapes, ends_ms: self.ends_ms }
    }
}

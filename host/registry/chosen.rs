//! Which tapes a version is played when it is vetted: those that were chosen with its upload, or else the latest of its mount.

use std::path::PathBuf;

use serde_json::json;

use crate::limits::TAPES_VETTED_MAX;
use crate::registry::{Registry, RegistryError};
use crate::store::catalog::{Tape, TapeFilter, Verdict, VettingStep};

/// The step that says which tapes were chosen; it is there from the upload on.
pub(super) const CHOSEN: &str = "chosen";

impl Registry {
    /// The step of these tapes.
    ///
    /// # Errors
    /// If there is no such tape, it goes on, it is another tenant's, or there are too many.
    pub(super) async fn choose(&self, tenant: &str, tapes: &[i64]) -> Result<Option<VettingStep>, RegistryError> {
        if tapes.is_empty() {
            return Ok(None);
        }
        if tapes.len() > TAPES_VETTED_MAX {
            let why = format!("{} tapes are chosen; a version is played at most {TAPES_VETTED_MAX}", tapes.len());
            return Err(RegistryError::Invalid(why));
        }
        for id in tapes {
            let found = self.catalog().tape(*id).await?;
            let tape = found.filter(|tape| tenant.is_empty() || tape.tenant == tenant);
            let Some(tape) = tape else {
                let of = if tenant.is_empty() { String::new() } else { format!(" of the tenant {tenant:?}") };
                return Err(RegistryError::NotFound {
                    what: format!("tape {id}{of}; `hotbay tape list` shows those there are"),
                });
            };
            if tape.ended_ms.is_none() {
                return Err(RegistryError::Conflict(format!("tape {id} is being recorded; end its recording first")));
            }
        }
        let evidence = json!({ "tapes": tapes }).to_string();
        Ok(Some(VettingStep { step: CHOSEN.to_owned(), verdict: Verdict::Passed, ms: 0, evidence }))
    }

    /// The tapes that the steps of a vetting say were chosen. One that was deleted meanwhile is told as not there.
    pub(super) async fn chosen(&self, steps: &[VettingStep]) -> Result<Vec<PathBuf>, RegistryError> {
        let step = steps.iter().find(|step| step.step == CHOSEN);
        let evidence = step.and_then(|step| serde_json::from_str::<serde_json::Value>(&step.evidence).ok());
        let ids = evidence.map(|evidence| evidence["tapes"].clone()).unwrap_or_default();
        let ids: Vec<i64> = serde_json::from_value(ids).unwrap_or_default();
        let mut paths = Vec::new();
        for id in ids {
            let tape = self.catalog().tape(id).await?;
            paths.push(tape.map_or_else(|| format!("{id} (deleted)"), |tape| tape.path).into());
        }
        Ok(paths)
    }

    /// The latest tapes of a mount that a version may be tried on: those of its tenant, or of all for one of the platform.
    pub(super) async fn latest_tapes(&self, mount: &str, tenant: &str) -> Result<Vec<PathBuf>, RegistryError> {
        let filter = TapeFilter {
            mount: Some(mount.to_owned()),
            tenant: (!tenant.is_empty()).then(|| tenant.to_owned()),
            ..TapeFilter::default()
        };
        let page = self.catalog().tapes(&filter, None, TAPES_VETTED_MAX as u32).await?;
        let has_ended = |tape: &Tape| tape.ended_ms.is_some();
        Ok(page.rows.into_iter().filter(has_ended).map(|tape| tape.path.into()).collect())
    }
}

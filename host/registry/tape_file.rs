//! The files of tapes, for whoever wants to have or to see one.

use std::path::PathBuf;

use crate::plugin::tape::{Header, Tape};
use crate::registry::{Registry, RegistryError};
use crate::store::catalog;

impl Registry {
    /// A tape's row, and the conditions it was made under as its file says them.
    ///
    /// # Errors
    /// If there is none, or its file cannot be read.
    pub async fn tape(&self, id: i64) -> Result<(catalog::Tape, Header), RegistryError> {
        let row = self.tape_row(id).await?;
        let path = PathBuf::from(&row.path);
        let failed = |cause: String| RegistryError::Folder { path: row.path.clone(), cause };
        let header = tokio::task::spawn_blocking(move || Tape::open(&path).map(|tape| tape.header().clone())).await;
        let header = header.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        Ok((row, header))
    }

    /// A tape's file, as far as it is written.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub async fn tape_file(&self, id: i64) -> Result<(catalog::Tape, tokio::fs::File), RegistryError> {
        let row = self.tape_row(id).await?;
        let opened = tokio::fs::File::open(&row.path).await;
        let file = opened.map_err(|e| RegistryError::Folder { path: row.path.clone(), cause: e.to_string() })?;
        Ok((row, file))
    }

    async fn tape_row(&self, id: i64) -> Result<catalog::Tape, RegistryError> {
        let missing =
            || RegistryError::NotFound { what: format!("tape {id}; `hotbay tape list` shows those there are") };
        self.catalog().tape(id).await?.ok_or_else(missing)
    }
}

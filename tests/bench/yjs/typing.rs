//! What is typed: updates that Yjs made beforehand (`typing.mjs`), and the texts they add up to.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::Outcome;
use crate::protocol::texts;
use crate::scenarios::Script;
use crate::server::{FOLDER, here};

/// All that one typer types.
pub(crate) struct Typing {
    /// The typer's number, as Yjs has it.
    pub(crate) client: u64,
    /// How many characters each update adds.
    pub(crate) characters: u32,
    /// The character at each clock.
    pub(crate) text: Vec<u8>,
    bytes: Vec<u8>,
    /// Where each update ends in `bytes`.
    ends: Vec<usize>,
}

impl Typing {
    /// Has Yjs make so many updates of each typer.
    pub(crate) fn prepare(script: &Script, updates: usize) -> Outcome<Vec<Self>> {
        let Script { typers, characters, paragraph, .. } = *script;
        let folder = TempDir::new_in(FOLDER)?;
        let file = folder.path().join("updates");
        let status = Command::new("node")
            .arg(here("typing.mjs")?)
            .arg(&file)
            .args([typers.to_string(), updates.to_string(), characters.to_string(), paragraph.to_string()])
            .status()?;
        if !status.success() {
            return Err(format!("typing.mjs: {status}").into());
        }
        Self::load(&file, updates, characters)
    }

    fn load(file: &Path, updates: usize, characters: u32) -> Outcome<Vec<Self>> {
        let records = std::fs::read(file)?;
        let mut records = records.as_slice();
        let mut all = Vec::new();
        while !records.is_empty() {
            let mut typing = Self { client: 0, characters, text: Vec::new(), bytes: Vec::new(), ends: Vec::new() };
            for _ in 0..updates {
                let (len, rest) = records.split_first_chunk().ok_or("typing.mjs wrote too little")?;
                let (update, rest) = rest
                    .split_at_checked(usize::from(u16::from_le_bytes(*len)))
                    .ok_or("typing.mjs wrote too little")?;
                records = rest;
                typing.add(update).ok_or("typing.mjs wrote something else than updates of a text")?;
            }
            all.push(typing);
        }
        Ok(all)
    }

    /// `None` if the update is not the next one, or adds something else than so many characters.
    fn add(&mut self, update: &[u8]) -> Option<()> {
        let mut follows = true;
        texts(update, |text| {
            if self.text.is_empty() {
                self.client = text.client;
            }
            follows &= text.client == self.client && text.clock as usize == self.text.len() && text.ascii.is_ascii();
            self.text.extend_from_slice(text.ascii);
        })?;
        self.bytes.extend_from_slice(update);
        self.ends.push(self.bytes.len());
        (follows && self.text.len() == self.ends.len() * self.characters as usize).then_some(())
    }

    /// How many updates there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn update(&self, index: usize) -> &[u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[index]]
    }
}

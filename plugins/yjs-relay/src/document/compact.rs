//! Makes a document smaller without changing what it says: rows that touch become one, blocks that Yjs would keep as
//! one are joined, and what is deleted gives up its content, as in every client of Yjs that collects garbage.

use super::{Client, Document, Row};
use crate::block::{Block, Id, Piece};
use crate::lib0::Reader;

impl Document {
    /// Compacts what came since the last time.
    pub(crate) fn compact(&mut self) {
        let collects = self.collects;
        for (client, rows) in self.clients.iter_mut().filter(|(_, client)| client.loose) {
            let before: usize = rows.rows.iter().map(|row| row.bytes.len()).sum();
            let detached = rows.detached();
            rows.compact(*client, collects);
            let after: usize = rows.rows.iter().map(|row| row.bytes.len()).sum();
            self.bytes = self.bytes + after - before;
            self.detached = self.detached + rows.detached() - detached;
        }
        self.loose = 0;
    }
}

impl Client {
    fn compact(&mut self, client: u64, collects: bool) {
        let old = std::mem::take(&mut self.rows);
        let mut deleted = self.deleted.iter().peekable();
        let mut rows = old.iter().peekable();
        while let Some(first) = rows.next() {
            let mut writer = Writer::new(Row { from: first.from, to: first.to, blocks: 0, bytes: Vec::new() });
            writer.read(client, first, collects, &mut deleted);
            while let Some(row) = rows.next_if(|row| row.from == writer.row.to) {
                writer.row.to = row.to;
                writer.read(client, row, collects, &mut deleted);
            }
            self.rows.push(writer.end());
        }
        self.loose = false;
    }
}

/// Writes a row, one block behind.
struct Writer<'a> {
    row: Row,
    open: Option<Piece<'a>>,
}

impl<'a> Writer<'a> {
    fn new(row: Row) -> Self {
        Self { row, open: None }
    }

    /// Takes the blocks of a row.
    fn read(
        &mut self,
        client: u64,
        row: &'a Row,
        collects: bool,
        deleted: &mut std::iter::Peekable<impl Iterator<Item = (u32, u32)>>,
    ) {
        self.row.bytes.reserve(row.bytes.len());
        let mut reader = Reader::new(&row.bytes);
        let mut at = Id { client, clock: row.from };
        while let Ok(block) = Block::read::<false>(&mut reader, at) {
            let (begin, end, is_empty) = (at.clock, at.clock + block.len, block.is_empty());
            let mut cutter = block.cutter(at);
            let mut from = begin;
            while from < end {
                while deleted.next_if(|(_, to)| *to <= from).is_some() {}
                let (to, dead) = match deleted.peek() {
                    _ if !collects || is_empty => (end, false),
                    Some((first, to)) if *first <= from => ((*to).min(end), true),
                    Some((first, _)) => ((*first).min(end), false),
                    None => (end, false),
                };
                let mut piece = cutter.piece(from - begin, to - begin);
                if dead {
                    piece.empty();
                }
                self.push(piece);
                from = to;
            }
            at.clock = end;
        }
    }

    fn push(&mut self, piece: Piece<'a>) {
        if let Some(open) = &mut self.open
            && open.try_join(&piece)
        {
            return;
        }
        if let Some(done) = self.open.replace(piece) {
            done.write(&mut self.row.bytes);
            self.row.blocks += 1;
        }
    }

    fn end(mut self) -> Row {
        if let Some(done) = self.open.take() {
            done.write(&mut self.row.bytes);
            self.row.blocks += 1;
        }
        self.row.bytes.shrink_to_fit();
        self.row
    }
}

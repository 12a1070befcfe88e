//! An editor: a document of yrs with one of each shared type, and the changes the tests make to it.

use hotbay_sdk::harness::Rng;
use yrs::updates::decoder::Decode;
use yrs::{
    Any, Array, ArrayRef, Doc, GetString, Map, MapPrelim, MapRef, OffsetKind, Options, ReadTxn, StateVector, Text,
    TextRef, Transact, Update, XmlElementPrelim, XmlFragment, XmlTextPrelim,
};

/// An editor.
pub(crate) struct Editor {
    pub(crate) doc: Doc,
    text: TextRef,
    map: MapRef,
    array: ArrayRef,
    xml: yrs::XmlFragmentRef,
}

impl Editor {
    pub(crate) fn new(client: u64) -> Self {
        let mut options = Options::with_client_id(yrs::block::ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
        let (array, xml) = (doc.get_or_insert_array("array"), doc.get_or_insert_xml_fragment("xml"));
        Self { doc, text, map, array, xml }
    }

    /// What somebody with this state lacks.
    pub(crate) fn since(&self, vector: &StateVector) -> Vec<u8> {
        self.doc.transact().encode_diff_v1(vector)
    }

    pub(crate) fn vector(&self) -> StateVector {
        self.doc.transact().state_vector()
    }

    pub(crate) fn all(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }

    pub(crate) fn apply(&self, update: &[u8]) {
        let update = Update::decode_v1(update).unwrap();
        self.doc.transact_mut().apply_update(update).unwrap();
    }

    /// What it shows.
    pub(crate) fn shows(&self) -> String {
        let txn = self.doc.transact();
        let (map, array) =
            (yrs::types::ToJson::to_json(&self.map, &txn), yrs::types::ToJson::to_json(&self.array, &txn));
        let mut keys: Vec<String> = match map {
            Any::Map(map) => map.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            _ => Vec::new(),
        };
        keys.sort();
        format!("{} | {keys:?} | {array} | {}", self.text.get_string(&txn), self.xml.get_string(&txn))
    }

    /// Types text at the end, and gives the update.
    pub(crate) fn types(&self, what: &str) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        let end = self.text.len(&txn);
        self.text.insert(&mut txn, end, what);
        txn.encode_update_v1()
    }

    /// Removes so much text from the beginning, and gives the update.
    pub(crate) fn removes(&self, count: u32) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        self.text.remove_range(&mut txn, 0, count);
        txn.encode_update_v1()
    }

    /// The text.
    pub(crate) fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// One random change, and its update.
    pub(crate) fn edits(&self, rng: &mut Rng) -> Vec<u8> {
        const WORDS: [&str; 6] = ["a", "hello ", "😀", "é😀b", "\n", "longer text with some words in it"];
        let mut txn = self.doc.transact_mut();
        // Between characters: what Yjs makes of half a surrogate pair depends on who sees it when.
        let text = self.text.get_string(&txn);
        let mut places: Vec<u32> = vec![0];
        places.extend(text.chars().scan(0, |units, character| {
            *units += character.len_utf16() as u32;
            Some(*units)
        }));
        let (length, index) = (places.len() - 1, rng.below(places.len()));
        let at = places[index];
        match rng.below(10) {
            0..=3 => self.text.insert(&mut txn, at, WORDS[rng.below(WORDS.len())]),
            4 if length > 0 => {
                let from = rng.below(length);
                let to = from + 1 + rng.below((length - from).min(8));
                self.text.remove_range(&mut txn, places[from], places[to] - places[from]);
            }
            5 => {
                let key = format!("key{}", rng.below(4));
                match rng.below(4) {
                    0 => drop(self.map.remove(&mut txn, &key)),
                    1 => drop(self.map.insert(&mut txn, key, MapPrelim::from([("x".to_owned(), Any::from(1_i64))]))),
                    _ => drop(self.map.insert(&mut txn, key, Any::from(rng.below(100) as f64))),
                }
            }
            6 => {
                let items: Vec<Any> = (0..=rng.below(4)).map(|item| Any::from(item as f64)).collect();
                let at = rng.below(self.array.len(&txn) as usize + 1) as u32;
                self.array.insert_range(&mut txn, at, items);
            }
            7 if self.array.len(&txn) > 0 => {
                let at = rng.below(self.array.len(&txn) as usize) as u32;
                self.array.remove(&mut txn, at);
            }
            8 => {
                let paragraph = self.xml.push_back(&mut txn, XmlElementPrelim::empty("p"));
                paragraph.push_back(&mut txn, XmlTextPrelim::new("inside"));
                if rng.below(3) == 0 {
                    self.xml.remove_range(&mut txn, 0, 1);
                }
            }
            _ if length > 1 => {
                let attributes = [("bold".into(), Any::from(true))].into();
                let from = index.min(length - 1);
                self.text.format(&mut txn, places[from], places[from + 1] - places[from], attributes);
            }
            _ => self.text.insert(&mut txn, at, "z"),
        }
        txn.encode_update_v1()
    }
}

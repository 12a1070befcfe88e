//! The document against yrs: whatever way updates take through a relay, what comes out of it is what the editors made.

use hotbay_sdk::harness::Rng;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{StateVector, Update};

use super::Editor;
use crate::document::{Applied, Document, Excess, GAPS_MAX};
use crate::lib0::{write_bytes, write_number};
use crate::ranges::Ranges;
use crate::update::{self, Checked};

const LARGE: usize = 16 << 20;

fn check(bytes: &[u8]) -> Checked<'_> {
    Checked::new(bytes).map_err(|why| format!("{why:?}: {bytes:?}")).unwrap()
}

fn apply(document: &mut Document, update: &[u8]) -> bool {
    document.apply(&check(update)).unwrap().changed
}

fn vector_of(document: &Document) -> StateVector {
    let mut bytes = Vec::new();
    document.write_state_vector(&mut bytes);
    StateVector::decode_v1(&bytes).unwrap()
}

/// What a new editor shows after it got all of it.
fn shown(document: &Document) -> String {
    let reader = Editor::new(999);
    reader.apply(&document.encode());
    reader.shows()
}

/// Goal: the relay holds what all editors made together. Method: five editors change a document at random and hear of
/// each other only now and then, through the relay; updates come twice, in wrong order and as parts of larger ones;
/// compacting at random times.
#[test]
fn what_editors_make_is_what_a_new_reader_sees() {
    for seed in 0..100 {
        let mut rng = Rng(seed);
        let editors: Vec<Editor> = (1..=5).map(|client| Editor::new(client * 1_000_003)).collect();
        let mut document = Document::new(LARGE, seed % 2 == 0);
        let (mut held, all) = (Vec::new(), Editor::new(7));
        for _ in 0..200 {
            let editor = &editors[rng.below(editors.len())];
            match rng.below(12) {
                0..=7 => {
                    let update = editor.edits(&mut rng);
                    all.apply(&update);
                    held.push(update);
                }
                8 => {
                    // Sync as y-websocket does.
                    let vector = update::StateVector::read(&editor.vector().encode_v1()).unwrap();
                    editor.apply(&document.encode_missing(&vector));
                    let missing = editor.since(&vector_of(&document));
                    apply(&mut document, &missing);
                }
                9 => document.compact(),
                _ => {
                    while !held.is_empty() && rng.below(8) > 0 {
                        let index = rng.below(held.len());
                        let update = if rng.below(6) == 0 { held[index].clone() } else { held.swap_remove(index) };
                        apply(&mut document, &update);
                    }
                }
            }
        }
        for update in held {
            apply(&mut document, &update);
        }

        assert_eq!(shown(&document), all.shows(), "seed {seed}");
        assert_eq!(vector_of(&document), all.vector(), "seed {seed}");
        document.compact();
        assert_eq!(shown(&document), all.shows(), "seed {seed}, compacted");
        assert!(document.encode().len() <= document.size(), "seed {seed}");
        // What everybody has is nothing new, but for what editors delete by themselves as they integrate.
        for editor in &editors {
            apply(&mut document, &editor.all());
            assert!(!apply(&mut document, &editor.all()), "seed {seed}");
        }
        assert_eq!(vector_of(&document), all.vector(), "seed {seed}");
        let vector = update::StateVector::read(&all.vector().encode_v1()).unwrap();
        let missing = Update::decode_v1(&document.encode_missing(&vector)).unwrap();
        assert!(missing.state_vector().is_empty(), "seed {seed}");
    }
}

/// An update with these blocks of one client from a clock on: texts under the root `t`.
fn texts(client: u64, clock: u32, texts: &[&str]) -> Vec<u8> {
    let mut update = vec![1];
    write_number(&mut update, texts.len() as u64);
    write_number(&mut update, client);
    write_number(&mut update, u64::from(clock));
    for text in texts {
        update.extend([4, 1, 1, b't']);
        write_bytes(&mut update, text.as_bytes());
    }
    update.push(0);
    update
}

#[test]
fn what_is_missing_before_an_update_is_known_to_be() {
    let mut document = Document::new(LARGE, true);

    assert_eq!(document.apply(&check(&texts(5, 3, &["d"]))), Ok(Applied { changed: true, gap: true }));
    assert!(vector_of(&document).is_empty());
    assert_eq!(document.apply(&check(&texts(5, 0, &["ab"]))), Ok(Applied { changed: true, gap: true }));
    assert_eq!(vector_of(&document).get(&yrs::block::ClientID::new(5)), 2);
    assert_eq!(document.apply(&check(&texts(5, 0, &["ab", "c"]))), Ok(Applied { changed: true, gap: false }));
    assert_eq!(vector_of(&document).get(&yrs::block::ClientID::new(5)), 4);
    assert_eq!(document.apply(&check(&texts(5, 0, &["abcd"]))), Ok(Applied::default()));
    // The gap that was goes with what is told to others.
    assert_eq!(document.encode(), [&[1, 3, 5, 0], &texts(5, 0, &["ab", "c", "d"])[4..]].concat());
}

#[test]
fn gaps_are_told_as_skipped_clocks() {
    let mut document = Document::new(LARGE, true);
    apply(&mut document, &texts(5, 9, &["z"]));
    apply(&mut document, &texts(5, 2, &["a"]));

    let all = document.encode();

    assert_eq!(all, [1, 3, 5, 2, 4, 1, 1, b't', 1, b'a', 10, 6, 4, 1, 1, b't', 1, b'z', 0]);
    let mut again = Document::new(LARGE, true);
    assert!(apply(&mut again, &all));
    assert_eq!(again.encode(), all);
    // Who has the clocks of the gap lacks only what is behind it.
    let vector = update::StateVector::read(&[1, 5, 5]).unwrap();
    assert_eq!(document.encode_missing(&vector), texts(5, 9, &["z"]));
}

#[test]
fn gaps_are_bounded_and_can_be_filled_when_they_are_full() {
    let mut document = Document::new(LARGE, true);
    for gap in 0..GAPS_MAX as u32 {
        apply(&mut document, &texts(5, 2 * gap + 1, &["x"]));
    }
    let before = document.encode();

    assert_eq!(document.apply(&check(&texts(5, 1_000_000, &["x"]))), Err(Excess::Gaps));
    assert_eq!(document.apply(&check(&texts(6, 1, &["x"]))), Err(Excess::Gaps));

    assert_eq!(document.encode(), before);
    assert!(apply(&mut document, &texts(6, 0, &["x"])), "no gap");
    assert!(apply(&mut document, &texts(5, 2 * GAPS_MAX as u32, &["x"])), "behind the last");
    assert!(apply(&mut document, &texts(5, 0, &["x".repeat(2 * GAPS_MAX).as_str()])), "all gaps at once");
    assert_eq!(vector_of(&document).get(&yrs::block::ClientID::new(5)), 2 * GAPS_MAX as u32 + 1);
}

/// Goal: the same text typed letter by letter and folded now and then takes no more than typed at once.
#[test]
fn typed_letters_become_one_block() {
    let editor = Editor::new(5);
    let mut document = Document::new(LARGE, true);
    for _ in 0..1_000 {
        apply(&mut document, &editor.types("a"));
    }
    let loose = document.encode().len();

    document.compact();

    let compacted = document.encode();
    assert_eq!(compacted.len(), editor.all().len());
    assert!(loose > 5 * compacted.len());
    // It goes on behind the joined block.
    apply(&mut document, &editor.types("b"));
    document.compact();
    assert_eq!(document.encode().len(), editor.all().len());
}

#[test]
fn what_is_deleted_gives_up_its_content_unless_it_is_wanted() {
    for collects in [true, false] {
        let editor = Editor::new(5);
        let mut document = Document::new(LARGE, collects);
        apply(&mut document, &editor.types(&"long".repeat(10_000)));
        apply(&mut document, &editor.types("kept"));
        apply(&mut document, &editor.removes(40_000));

        document.compact();

        assert_eq!(document.encode().len() < 100, collects);
        assert_eq!(shown(&document), editor.shows());
    }
}

/// Goal: whoever fills the document is stopped at its limit, and what is there stays as it is.
#[test]
fn the_size_is_bounded_and_a_refused_update_changes_nothing() {
    let mut document = Document::new(64 << 10, true);
    let editor = Editor::new(5);
    let mut refused = None;
    for turn in 0..100 {
        let update = editor.types(&"x".repeat(1_000));
        let before = document.encode();
        if let Err(excess) = document.apply(&check(&update)) {
            assert_eq!(document.encode(), before);
            refused.get_or_insert((turn, excess));
        }
    }
    assert_eq!(refused, Some((65, Excess::Bytes)));
    assert!(document.size() <= 64 << 10);
    // What it has is no reason to refuse anything.
    let known = document.encode();
    assert_eq!(document.apply(&check(&known)), Ok(Applied::default()));
    // Removing makes room, once it is compacted by need.
    document.renew();
    let (vector, mut known) = (vector_of(&document), Editor::new(6));
    known.apply(&document.encode());
    assert!(apply(&mut document, &known.removes(60_000)));
    assert!(apply(&mut document, &known.types(&"y".repeat(50_000))));
    assert!(document.size() <= 64 << 10);
    assert_eq!(vector_of(&document).get(&yrs::block::ClientID::new(5)), vector.get(&yrs::block::ClientID::new(5)));
    known = Editor::new(7);
    known.apply(&document.encode());
    assert!(known.text().ends_with(&"y".repeat(50_000)));
}

/// Goal: many tiny things count as what they take in memory, so that memory is bounded by the size.
#[test]
fn clients_and_deletions_count() {
    let mut document = Document::new(1 << 20, true);
    let mut clients = 0;
    while document.apply(&check(&texts(clients, 0, &["x"]))).is_ok() {
        clients += 1;
    }
    assert!((7_000..8_192).contains(&clients), "{clients}");

    let mut document = Document::new(1 << 20, true);
    let mut ranges = 0_u32;
    loop {
        let mut update = vec![0, 1, 5, 1];
        write_number(&mut update, u64::from(ranges) * 2);
        update.push(1);
        if document.apply(&check(&update)).is_err() {
            break;
        }
        ranges += 1;
    }
    assert!((90_000..98_304).contains(&ranges), "{ranges}");
}

/// Goal: no order in which blocks come costs more than in proportion to what comes.
/// Method: 20,000 blocks one by one from the last to the first, which would take minutes if each were copied for each.
#[test]
fn blocks_in_falling_order_cost_no_more() {
    let mut document = Document::new(LARGE, true);
    for clock in (0..20_000).rev() {
        apply(&mut document, &texts(5, clock, &["x"]));
    }
    assert_eq!(vector_of(&document).get(&yrs::block::ClientID::new(5)), 20_000);
    document.compact();
    assert_eq!(document.encode().len(), 20_000 * 6 + 7);
}

#[test]
fn a_set_of_clocks_joins_what_touches() {
    let mut rng = Rng(4);
    for _ in 0..200 {
        let (mut ranges, mut clocks) = (Ranges::default(), std::collections::BTreeSet::new());
        for _ in 0..40 {
            let (from, length) = (rng.below(60) as u32, 1 + rng.below(8) as u32);
            assert_eq!(ranges.covers(from, from + length), (from..from + length).all(|clock| clocks.contains(&clock)));
            ranges.add(from, from + length);
            clocks.extend(from..from + length);
        }
        let listed: Vec<(u32, u32)> = ranges.iter().collect();
        assert!(listed.windows(2).all(|pair| pair[0].1 < pair[1].0), "{listed:?}");
        assert_eq!(listed.into_iter().flat_map(|(from, to)| from..to).collect::<Vec<_>>(), Vec::from_iter(clocks));
    }
}

#[derive(serde::Deserialize)]
struct Session {
    text: String,
    xml: String,
    vector: std::collections::BTreeMap<u64, u32>,
    bytes: usize,
    updates: Vec<String>,
}

/// Goal: what Yjs itself writes is accepted and kept, every kind of content of it, in whatever order it comes.
/// Method: a session recorded with Yjs 13.6 (`fixtures/yjs.mjs`), with what Yjs made of it.
#[test]
fn a_session_of_yjs_itself_is_kept() {
    let session: Session = serde_json::from_str(include_str!("../../fixtures/yjs.json")).unwrap();
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let updates: Vec<Vec<u8>> =
        session.updates.iter().map(|update| update.as_bytes().chunks(2).map(byte).collect()).collect();
    for seed in 0..20 {
        let (mut rng, mut left) = (Rng(seed), updates.clone());
        let mut document = Document::new(LARGE, seed % 2 == 0);
        while !left.is_empty() {
            let update = left.swap_remove(rng.below(left.len().min(1 + seed as usize)));
            apply(&mut document, &update);
        }

        document.compact();

        let mut vector = Vec::new();
        write_number(&mut vector, session.vector.len() as u64);
        for (client, clock) in &session.vector {
            write_number(&mut vector, *client);
            write_number(&mut vector, u64::from(*clock));
        }
        assert_eq!(vector_of(&document), StateVector::decode_v1(&vector).unwrap(), "seed {seed}");
        let reader = Editor::new(9);
        reader.apply(&document.encode());
        assert_eq!(reader.text(), session.text, "seed {seed}");
        assert!(reader.shows().ends_with(&session.xml), "seed {seed}: {}", reader.shows());
        if seed % 2 == 0 {
            let bytes = document.encode().len();
            assert!(bytes < session.bytes + session.bytes / 4, "seed {seed}: {bytes} bytes, Yjs {}", session.bytes);
        }
    }
}

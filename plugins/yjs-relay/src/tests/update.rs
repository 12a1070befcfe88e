//! Updates and blocks: what is refused, and how blocks are cut.

use hotbay_sdk::harness::Rng;

use super::Editor;
use crate::block::{Block, Id};
use crate::document::Document;
use crate::lib0::{DEPTH_MAX, Reader, write_number};
use crate::update::{Checked, StateVector};

/// An update with one section: client 5 from clock 0, these blocks, nothing deleted.
fn section(count: u8, blocks: &[u8]) -> Vec<u8> {
    [&[1, count, 5, 0], blocks, &[0]].concat()
}

fn refusal(update: &[u8]) -> &'static str {
    match Checked::new(update) {
        Ok(_) => "",
        Err(why) => why.0,
    }
}

/// A block at the root `t` with content of this kind.
fn root(kind: u8, content: &[u8]) -> Vec<u8> {
    section(1, &[&[kind, 1, 1, b't'], content].concat())
}

/// Goal: nothing is accepted that a reader of Yjs fails on; it would fail on every document with it.
#[test]
fn what_yjs_cannot_read_is_refused() {
    let long = |number: u64| {
        let mut bytes = Vec::new();
        write_number(&mut bytes, number);
        bytes
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "it ends too early"),
        (vec![0], "it ends too early"),
        (vec![0, 0, 0], "there is more after its end"),
        (section(2, &[4, 1, 1, b't', 1, b'a']), "it ends too early"),
        (section(1, &[0x84, 5, 0, 1, b'a']), "a block refers to itself or a later one"),
        (section(1, &[0x84, 5, 9, 1, b'a']), "a block refers to itself or a later one"),
        (section(1, &[0x44, 5, 0, 1, b'a']), "a block refers to itself or a later one"),
        (section(1, &[4, 0, 5, 3, 1, b'a']), "a block refers to itself or a later one"),
        (section(1, &[4, 2, 5, 3, 1, b'a']), "a parent is neither a name nor an id"),
        (section(1, &[4, 1, 1, 0xFF, 1, b'a']), "a text is not UTF-8"),
        (root(4, &[0]), "a block is empty"),
        (root(8, &[0]), "a block is empty"),
        (root(2, &[0]), "a block is empty"),
        (root(1, &[0]), "a block is empty"),
        (section(1, &[0, 0]), "a block is empty"),
        (section(1, &[0x20, 1, 1, b't', 1, b'k', 1]), "a block has an unknown kind"),
        (root(4, &[2, 0xC3, 0x28]), "a text is not UTF-8"),
        (root(5, &[2, b'{', b'x']), "a text is not JSON"),
        (root(6, &[1, b'k', 1, b'x']), "a text is not JSON"),
        (root(2, &[1, 1, b'x']), "a text is not JSON"),
        (root(7, &[7]), "a shared type is unknown"),
        (root(9, &[1, b'g', 126]), "a value is not an object"),
        (root(11, &[1]), "a block has an unknown kind"),
        (root(31, &[1]), "a block has an unknown kind"),
        (root(8, &[1, 115]), "a value has an unknown type"),
        (root(8, &[1, 125, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), "a number is too large"),
        (root(8, &[[1, 125].as_slice(), &[0xFF; 9]].concat()), "a number is too long"),
        (root(8, &[1, 117, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]), "it ends too early"),
        ([[0xFF; 8].as_slice(), &[0; 4]].concat(), "a number is too long"),
        ([[0xFF; 7].as_slice(), &[0x7F, 0, 0]].concat(), "a number is too large"),
        (
            [&[1, 1, 5], &*long(i32::MAX as u64 - 1), &[4, 1, 1, b't', 2, b'a', b'b', 0]].concat(),
            "a clock is too large",
        ),
        ([&[1, 1, 5], &*long(1 << 31), &[4, 1, 1, b't', 1, b'a', 0]].concat(), "a clock is too large"),
        ([&[1, 1, 5, 0, 0], &*long(1 << 32), &[0]].concat(), "a clock is too large"),
        (vec![2, 1, 5, 0, 0, 1, 1, 5, 9, 0, 1, 0], "a client comes twice"),
        (vec![3, 1, 5, 0, 0, 1, 1, 6, 0, 0, 1, 1, 5, 9, 0, 1, 0], "a client comes twice"),
        ([&[0, 1, 5, 1], &*long(i32::MAX as u64 - 1), &[9]].concat(), "a clock is too large"),
        (vec![0, 1, 1, 1, 8, 0], "a deletion is empty"),
        (vec![0, 1, 5, 0xFF, 0xFF, 0x03, 0, 1], "it ends too early"),
    ];
    for (update, why) in cases {
        assert_eq!(refusal(&update), why, "{update:?}");
    }
}

#[test]
fn what_yjs_can_read_is_accepted() {
    let cases: Vec<Vec<u8>> = vec![
        vec![0, 0],
        root(4, &[1, b'a']),
        root(2, &[2, 9, b'u', b'n', b'd', b'e', b'f', b'i', b'n', b'e', b'd', 4, b'n', b'u', b'l', b'l']),
        root(3, &[2, 0xFF, 0xFE]),
        root(5, &[7, b'{', b'"', b'a', b'"', b':', b'1', b'}']),
        root(6, &[4, b'b', b'o', b'l', b'd', 4, b't', b'r', b'u', b'e']),
        root(7, &[0]),
        root(7, &[3, 1, b'p']),
        root(7, &[6]),
        root(9, &[1, b'g', 118, 0]),
        // Every type of value.
        root(
            8,
            &[
                &[13, 127, 126, 125, 0xC1, 0x01, 124, 0, 0, 0, 0, 123],
                &[0; 8][..],
                &[122],
                &[0; 8],
                &[121, 120, 119, 1, b'x', 118, 1, 1, b'k', 126, 117, 2, 126, 126, 116, 1, 0xFF, 125, 0x3F],
            ]
            .concat(),
        ),
        // Clients in rising order, a gap, a deletion of what is not there.
        vec![2, 1, 5, 3, 0, 1, 3, 6, 0, 0, 1, 10, 4, 0, 1, 1, 9, 2, 1, 2, 4, 1],
    ];
    for update in cases {
        assert_eq!(refusal(&update), "", "{update:?}");
    }
}

#[test]
fn nesting_ends_at_the_limit_and_not_on_the_stack() {
    let nested = |depth: usize| root(8, &[[1].as_slice(), &[117, 1].repeat(depth), &[126]].concat());

    assert_eq!(refusal(&nested(DEPTH_MAX as usize)), "");
    assert_eq!(refusal(&nested(DEPTH_MAX as usize + 1)), "a value is nested too deep");
    assert_eq!(refusal(&nested(500_000)), "a value is nested too deep");
    let deep_json = root(5, &{
        let mut content = Vec::new();
        crate::lib0::write_bytes(&mut content, &[b"[".repeat(100_000), b"]".repeat(100_000)].concat());
        content
    });
    assert_eq!(refusal(&deep_json), "", "JSON.parse takes it, and nobody here goes down into it");
}

/// Goal: wherever a reader stopped, it gets exactly the rest. Method: for each clock of a document with every kind of
/// content, what is missing begins at that clock and ends at the end.
#[test]
fn what_is_missing_begins_anywhere() {
    let editor = Editor::new(77);
    let mut rng = Rng(3);
    for _ in 0..120 {
        editor.edits(&mut rng);
    }
    let all = editor.all();
    let mut document = Document::new(1 << 20, false);
    document.apply(&Checked::new(&all).unwrap()).unwrap();
    let end = editor.vector().get(&yrs::block::ClientID::new(77));

    for clock in 0..end {
        let mut vector = vec![1, 77];
        write_number(&mut vector, u64::from(clock));
        let missing = document.encode_missing(&StateVector::read(&vector).unwrap());
        assert_eq!(refusal(&missing), "", "clock {clock}");

        let mut reader = Reader::new(&missing);
        assert_eq!(reader.number(), Ok(1), "clock {clock}");
        let blocks = reader.number().unwrap();
        assert_eq!((reader.number(), reader.number()), (Ok(77), Ok(u64::from(clock))));
        let mut at = Id { client: 77, clock };
        for _ in 0..blocks {
            at.clock += Block::read::<true>(&mut reader, at).unwrap().len;
        }
        assert_eq!(at.clock, end, "clock {clock}");

        // Put together from both sides, it is whole.
        let mut parts = Document::new(1 << 20, false);
        parts.apply(&Checked::new(&missing).unwrap()).unwrap();
        assert!(!parts.apply(&Checked::new(&all).unwrap()).unwrap().gap, "clock {clock}");
        let reader = Editor::new(1);
        reader.apply(&parts.encode());
        if !reader.text().contains('\u{FFFD}') {
            assert_eq!(reader.shows(), editor.shows(), "clock {clock}");
        }
    }
}

#[test]
fn half_a_surrogate_pair_is_a_replacement_character() {
    let update = root(4, &[9, b'a', 0xF0, 0x9F, 0x98, 0x80, b'b', 0xC3, 0xA9, b'c']);
    let mut reader = Reader::new(&update[4..]);
    let at = Id { client: 5, clock: 0 };
    let block = Block::read::<true>(&mut reader, at).unwrap();
    assert_eq!(block.len, 6);
    let text = |from, to| {
        let mut bytes = Vec::new();
        block.clone().cutter(at).piece(from, to).write(&mut bytes);
        let text = bytes.iter().rposition(|byte| *byte < 10).unwrap() + 1;
        String::from_utf8(bytes[text..].to_vec()).unwrap()
    };

    assert_eq!(text(0, 6), "a😀béc");
    assert_eq!((text(0, 1), text(1, 3), text(3, 6)), ("a".into(), "😀".into(), "béc".into()));
    assert_eq!((text(0, 2), text(2, 6)), ("a\u{FFFD}".into(), "\u{FFFD}béc".into()));
    assert_eq!((text(1, 2), text(2, 3), text(2, 4)), ("\u{FFFD}".into(), "\u{FFFD}".into(), "\u{FFFD}b".into()));
    assert_eq!((text(4, 5), text(5, 6)), ("é".into(), "c".into()));
}

/// Goal: no bytes make the check panic, run away or accept what the document then cannot walk.
#[test]
fn mutated_updates_are_refused_or_whole() {
    let editor = Editor::new(9);
    let mut rng = Rng(11);
    let mut updates: Vec<Vec<u8>> = (0..60).map(|_| editor.edits(&mut rng)).collect();
    updates.push(editor.all());
    let mut accepted = 0;
    for seed in 0..30_000 {
        let mut rng = Rng(seed);
        let mut update = updates[rng.below(updates.len())].clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(update.len().max(1));
            match rng.below(5) {
                _ if update.is_empty() => {}
                0 => update[at] = rng.next() as u8,
                1 => drop(update.remove(at)),
                2 => update.insert(at, [0, 1, 127, 128, 255][rng.below(5)]),
                3 => update[at] ^= 1 << rng.below(8),
                _ => update.truncate(at),
            }
        }
        let Ok(checked) = Checked::new(&update) else { continue };
        accepted += 1;
        let mut document = Document::new(1 << 20, true);
        document.apply(&checked).unwrap();
        let size = document.size();
        let encoded = document.encode();
        assert_eq!(refusal(&encoded), "", "seed {seed}: {update:?}");
        assert!(encoded.len() <= size, "seed {seed}: {update:?}");
        // Written and read again it is the same, compacted or not.
        let mut again = Document::new(1 << 20, true);
        again.apply(&Checked::new(&encoded).unwrap()).unwrap();
        assert_eq!(again.encode(), encoded, "seed {seed}: {update:?}");
        document.compact();
        let compacted = document.encode();
        assert_eq!(refusal(&compacted), "", "seed {seed}: {update:?}");
        assert!(!again.apply(&Checked::new(&compacted).unwrap()).unwrap().changed, "seed {seed}: {update:?}");
    }
    assert!((1_000..29_000).contains(&accepted), "{accepted}");
}

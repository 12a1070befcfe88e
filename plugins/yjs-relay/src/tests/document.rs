//! The document against yrs: whatever way updates take through a relay, what comes out of it is what the editors made.

use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{StateVector, Update};

use super::{Editor, Rng};
use crate::document::Document;
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

/// Goal: the relay holds what all editors made together.
/// Method: five editors change a document at random and hear of each other only now and then, through the relay; updates
/// come twice, in wrong order and as parts of larger ones; compacting at random times.
#[test]
fn what_editors_make_is_what_a_new_reader_sees() {
    for seed in 0..1500 {
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

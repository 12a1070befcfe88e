//! Equal values kept once, under a small number. Owns how many hold each; the value that everybody starts with, number 0, is
//! never forgotten.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Number of the value that everybody starts with.
pub(crate) const DEFAULT: u32 = 0;

/// The values.
pub(crate) struct Interner<T> {
    numbers: BTreeMap<Rc<T>, u32>,
    /// Each value and how many hold it; `None` where a number is free.
    slots: Vec<Option<(Rc<T>, u32)>>,
    free: Vec<u32>,
}

impl<T: Ord + Default> Interner<T> {
    /// Only the default.
    pub(crate) fn new() -> Self {
        let first = Rc::new(T::default());
        Self {
            numbers: BTreeMap::from([(Rc::clone(&first), DEFAULT)]),
            slots: vec![Some((first, 1))],
            free: Vec::new(),
        }
    }

    /// Takes hold of a value.
    pub(crate) fn acquire(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value).copied() {
            if let Some(Some((_, holders))) = self.slots.get_mut(number as usize) {
                *holders += 1;
            }
            return number;
        }
        let value = Rc::new(value);
        let slot = Some((Rc::clone(&value), 1));
        let number = if let Some(number) = self.free.pop() {
            self.slots[number as usize] = slot;
            number
        } else {
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        };
        self.numbers.insert(value, number);
        number
    }

    /// Lets go of a value.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        match slot {
            Some((_, holders)) if *holders > 1 => *holders -= 1,
            Some(_) => {
                if let Some((value, _)) = slot.take() {
                    self.numbers.remove(&value);
                    self.free.push(number);
                }
            }
            None => {}
        }
    }

    /// A value that somebody holds.
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref().map(|(value, _)| &**value)
    }

    /// Different values.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

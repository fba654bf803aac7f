//! Strings stored once, numbered in order of first sight.
//!
//! Owns storage and look-up. All strings lie one after another in one buffer, and the index holds hashes and numbers
//! only, so that the memory used stays close to the text itself.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Distinct strings, numbered from 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interner {
    buffer: String,
    ends: Vec<usize>,
    by_hash: HashMap<u64, u32>,
    /// Numbers of strings whose hash another string had first; practically always empty.
    collided: Vec<u32>,
}

impl Interner {
    /// Number of `text`, and whether it is new; `None` when `u32` is exhausted.
    pub(crate) fn intern(&mut self, text: &str) -> Option<(u32, bool)> {
        if let Some(number) = self.find(text) {
            return Some((number, false));
        }
        let number = u32::try_from(self.ends.len()).ok().filter(|&number| number < u32::MAX)?;
        self.buffer.push_str(text);
        self.ends.push(self.buffer.len());
        if *self.by_hash.entry(hash_of(text)).or_insert(number) != number {
            self.collided.push(number);
        }
        Some((number, true))
    }

    /// Number of `text`, if it is here.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let &first = self.by_hash.get(&hash_of(text))?;
        if self.get(first) == text {
            return Some(first);
        }
        self.collided.iter().copied().find(|&number| self.get(number) == text)
    }

    /// The string with this number; panics when there is none.
    pub(crate) fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.buffer[start..self.ends[number]]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_sight_and_equal_strings_share_one() {
        let mut interner = Interner::default();
        let numbers: Vec<_> = ["b", "a", "b", "", "a"].iter().map(|text| interner.intern(text)).collect();
        assert_eq!(numbers, [Some((0, true)), Some((1, true)), Some((0, false)), Some((2, true)), Some((1, false))]);
        assert_eq!((interner.get(0), interner.get(1), interner.get(2)), ("b", "a", ""));
        assert_eq!(interner.find("c"), None);
        assert_eq!(interner.len(), 3);
    }

    #[test]
    fn strings_with_one_hash_stay_apart() {
        let mut interner = Interner::default();
        interner.intern("first");
        // A collision made by hand: "second" claims the slot of "first".
        interner.by_hash.insert(hash_of("second"), 0);
        assert_eq!(interner.find("second"), None);
        assert_eq!(interner.intern("second"), Some((1, true)));
        assert_eq!(interner.find("second"), Some(1));
        assert_eq!(interner.intern("second"), Some((1, false)));
    }
}

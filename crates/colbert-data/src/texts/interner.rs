//! Strings stored once, numbered in order of first sight.
//!
//! Owns storage and look-up. All strings lie one after another in one buffer, and the index holds hashes and numbers
//! only, so that the memory used stays close to the text itself.

use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Distinct strings, numbered from 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interner {
    buffer: String,
    ends: Vec<usize>,
    /// Numbers only: hashes are computed again when the table grows, which is cheaper than to keep them.
    numbers: HashTable<u32>,
}

impl Interner {
    /// Number of `text`, and whether it is new; `None` when `u32` is exhausted.
    pub(crate) fn intern(&mut self, text: &str) -> Option<(u32, bool)> {
        let Self { buffer, ends, numbers } = self;
        let is_it = |&number: &u32| string(buffer, ends, number) == text;
        let entry = numbers.entry(hash_of(text), is_it, |&number| hash_of(string(buffer, ends, number)));
        let vacant = match entry {
            Entry::Occupied(occupied) => return Some((*occupied.get(), false)),
            Entry::Vacant(vacant) => vacant,
        };
        let number = u32::try_from(ends.len()).ok().filter(|&number| number < u32::MAX)?;
        vacant.insert(number);
        buffer.push_str(text);
        ends.push(buffer.len());
        Some((number, true))
    }

    /// Number of `text`, if it is here.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.find(hash_of(text), |&number| self.get(number) == text).copied()
    }

    /// The string with this number; panics when there is none.
    pub(crate) fn get(&self, number: u32) -> &str {
        string(&self.buffer, &self.ends, number)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of memory, about: the strings, where each ends, and the table.
    pub(crate) fn memory(&self) -> u64 {
        let of_one = size_of::<usize>() + 2 * (size_of::<u32>() + 1);
        (self.buffer.len() + self.len() * of_one) as u64
    }
}

fn string<'a>(buffer: &'a str, ends: &[usize], number: u32) -> &'a str {
    let number = number as usize;
    let start = if number == 0 { 0 } else { ends[number - 1] };
    &buffer[start..ends[number]]
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
    fn many_strings_keep_their_numbers_while_the_table_grows() {
        let mut interner = Interner::default();
        let text = |number: u32| format!("text {number}");
        assert!((0..10_000).all(|number| interner.intern(&text(number)) == Some((number, true))));
        assert!((0..10_000).all(|number| interner.find(&text(number)) == Some(number)));
        assert!((0..10_000).all(|number| interner.intern(&text(number)) == Some((number, false))));
    }
}

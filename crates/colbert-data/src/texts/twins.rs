//! Twins: texts that are the same but for case, white space and Unicode form.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use rayon::prelude::*;

use crate::texts::Texts;
use crate::texts::normalise::{is_same, normalised};

/// Groups of twins, found without keeping the normalised texts.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    group_of: HashMap<u32, usize>,
    groups: Vec<Vec<u32>>,
}

impl Twins {
    pub(crate) fn find<Kind: Sync>(texts: &Texts<Kind>) -> Self {
        let hashes: Vec<u64> =
            (0..texts.len() as u32).into_par_iter().map(|id| normalised_hash(texts.text(id))).collect();
        let mut by_hash: HashMap<u64, u32> = HashMap::with_capacity(hashes.len());
        let mut twins = Self::default();
        for (id, &hash) in hashes.iter().enumerate() {
            let id = id as u32;
            let first = *by_hash.entry(hash).or_insert(id);
            // Equal hashes are nearly always equal texts; the comparison keeps "nearly" out of the result.
            if first != id && is_same(texts.text(first), texts.text(id)) {
                twins.join(first, id);
            }
        }
        twins
    }

    fn join(&mut self, first: u32, id: u32) {
        let group = *self.group_of.entry(first).or_insert_with(|| {
            self.groups.push(vec![first]);
            self.groups.len() - 1
        });
        self.groups[group].push(id);
        self.group_of.insert(id, group);
    }

    /// Every twin of `id`, itself included if there are others; empty if there are none.
    pub(crate) fn of(&self, id: u32) -> &[u32] {
        self.group_of.get(&id).map_or(&[], |&group| &self.groups[group])
    }

    /// The first of the twins of `id`; `id` itself if there are none.
    pub(crate) fn first(&self, id: u32) -> u32 {
        self.of(id).first().copied().unwrap_or(id)
    }

    /// Groups of two or more, each in order of first sight.
    pub(crate) fn groups(&self) -> &[Vec<u32>] {
        &self.groups
    }
}

/// Hash of the normalised text.
pub(crate) fn normalised_hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(normalised(text).as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::Collection;

    #[test]
    fn twins_are_grouped_in_order() {
        let mut collection = Collection::new();
        for text in ["One two", "three", "one  TWO", "one two"] {
            collection.add(text).unwrap();
        }
        let twins = Twins::find(&collection);
        assert_eq!(twins.of(3), [0, 2, 3]);
        assert!(twins.of(1).is_empty());
        assert_eq!((twins.first(3), twins.first(1)), (0, 1));
        assert_eq!(twins.groups().len(), 1);
    }
}

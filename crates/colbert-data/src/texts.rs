//! Queries and documents: each distinct text once, with a dense id and, where the source has one, its own id.

pub(crate) mod fingerprint;
pub(crate) mod ids;
pub(crate) mod interner;
pub(crate) mod judgements;
pub(crate) mod language;
pub(crate) mod language_code;
pub(crate) mod normalise;
pub(crate) mod pid_set;
pub(crate) mod sample;
pub(crate) mod side;
pub(crate) mod twins;

use std::fmt;
use std::marker::PhantomData;

use crate::error::DataError;
use crate::texts::interner::Interner;

/// Distinct documents. Ids (pids) are dense and in order of first sight.
pub type Collection = Texts<Document>;
/// Distinct queries. Ids (qids) are dense and in order of first sight.
pub type Queries = Texts<Query>;

/// Marks [`Texts`] as documents.
#[derive(Debug, Clone, Copy, Default)]
pub enum Document {
    /// Never constructed; the type only distinguishes a [`Collection`] from [`Queries`].
    #[default]
    Marker,
}

/// Marks [`Texts`] as queries.
#[derive(Debug, Clone, Copy, Default)]
pub enum Query {
    /// Never constructed; the type only distinguishes [`Queries`] from a [`Collection`].
    #[default]
    Marker,
}

/// Distinct texts with dense ids in order of first sight. Texts are equal when they are equal byte for byte.
///
/// A source's own ids ("external" ids) are kept beside. Two external ids with the same text name one entry; its
/// [`Texts::id`] is the first of them, and both are found by [`Texts::find_id`].
#[derive(Clone)]
pub struct Texts<Kind> {
    texts: Interner,
    ids: Interner,
    /// Entry that each external id names.
    entry_of_id: Vec<u32>,
    /// First external id of each entry; [`NO_ID`] where there is none. Shorter than `texts` when the last have none.
    id_of_entry: Vec<u32>,
    kind: PhantomData<Kind>,
}

const NO_ID: u32 = u32::MAX;

impl<Kind> Texts<Kind> {
    /// No texts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            texts: Interner::default(),
            ids: Interner::default(),
            entry_of_id: Vec::new(),
            id_of_entry: Vec::new(),
            kind: PhantomData,
        }
    }

    /// Number of distinct texts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are no texts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text with this id.
    ///
    /// # Panics
    /// When the id is not below [`Texts::len`]: ids are only ever made here.
    #[must_use]
    pub fn text(&self, id: u32) -> &str {
        self.texts.get(id)
    }

    /// The source's own id of a text, if the source has ids.
    #[must_use]
    pub fn id(&self, id: u32) -> Option<&str> {
        self.id_of_entry.get(id as usize).filter(|&&number| number != NO_ID).map(|&number| self.ids.get(number))
    }

    /// Id of the text that a source calls `external`.
    #[must_use]
    pub fn find_id(&self, external: &str) -> Option<u32> {
        self.ids.find(external).map(|number| self.entry_of_id[number as usize])
    }

    /// Id of this exact text.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<u32> {
        self.texts.find(text)
    }

    /// All texts in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.texts.len()).map(|number| self.texts.get(number as u32))
    }

    /// Adds a text and returns its id; a text that is already there keeps its id.
    ///
    /// # Errors
    /// [`DataError::TooMany`] past 2^32 - 1 texts.
    pub fn add(&mut self, text: &str) -> Result<u32, DataError> {
        self.texts.intern(text).map(|(id, _)| id).ok_or_else(too_many)
    }

    /// Adds a text with its source's id. `Ok(None)`: that id already names another text, and nothing was added.
    ///
    /// # Errors
    /// [`DataError::TooMany`] past 2^32 - 1 texts.
    pub fn add_with_id(&mut self, external: &str, text: &str) -> Result<Option<u32>, DataError> {
        if let Some(number) = self.ids.find(external) {
            let entry = self.entry_of_id[number as usize];
            return Ok((self.text(entry) == text).then_some(entry));
        }
        let entry = self.add(text)?;
        let (number, _) = self.ids.intern(external).ok_or_else(too_many)?;
        self.entry_of_id.push(entry);
        if self.id_of_entry.len() <= entry as usize {
            self.id_of_entry.resize(entry as usize + 1, NO_ID);
        }
        if self.id_of_entry[entry as usize] == NO_ID {
            self.id_of_entry[entry as usize] = number;
        }
        Ok(Some(entry))
    }

    /// Approximate memory of texts and ids in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let entries = self.entry_of_id.len() + self.id_of_entry.len();
        self.texts.memory() + self.ids.memory() + (entries * size_of::<u32>()) as u64
    }

    /// Number of external ids whose text another external id names too.
    #[must_use]
    pub fn merged_ids(&self) -> usize {
        self.ids.len() - self.id_of_entry.iter().filter(|&&number| number != NO_ID).count()
    }
}

impl Collection {
    /// Pid of the document with this exact text.
    #[must_use]
    pub fn pid_of_text(&self, text: &str) -> Option<u32> {
        self.find(text)
    }

    /// Pid of the document that its source calls `external`.
    #[must_use]
    pub fn pid_of_id(&self, external: &str) -> Option<u32> {
        self.find_id(external)
    }
}

impl Queries {
    /// Qid of the query with this exact text.
    #[must_use]
    pub fn qid_of_text(&self, text: &str) -> Option<u32> {
        self.find(text)
    }

    /// Qid of the query that its source calls `external`.
    #[must_use]
    pub fn qid_of_id(&self, external: &str) -> Option<u32> {
        self.find_id(external)
    }
}

fn too_many() -> DataError {
    DataError::TooMany { what: "texts", limit: u32::MAX - 1 }
}

impl<Kind> Default for Texts<Kind> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Kind> fmt::Debug for Texts<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().take(8)).finish_non_exhaustive()
    }
}

/// The same texts with the same ids and external ids.
impl<Kind> PartialEq for Texts<Kind> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && (0..self.len() as u32).all(|id| self.text(id) == other.text(id) && self.id(id) == other.id(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_an_entry_and_keep_both_external_ids() {
        let mut collection = Collection::new();
        assert_eq!(collection.add("plain").unwrap(), 0);
        assert_eq!(collection.add_with_id("d1", "text").unwrap(), Some(1));
        assert_eq!(collection.add_with_id("d2", "text").unwrap(), Some(1));
        assert_eq!(collection.add_with_id("d1", "text").unwrap(), Some(1));
        assert_eq!(collection.add_with_id("d1", "other").unwrap(), None);
        assert_eq!(collection.len(), 2);
        assert_eq!((collection.id(0), collection.id(1)), (None, Some("d1")));
        assert_eq!(collection.pid_of_id("d2"), Some(1));
        assert_eq!(collection.pid_of_text("text"), Some(1));
        assert_eq!(collection.merged_ids(), 1);
        assert_eq!(collection.iter().collect::<Vec<_>>(), ["plain", "text"]);
        let before = collection.memory();
        collection.add(&"long ".repeat(1_000)).unwrap();
        assert!((5_000..5_100).contains(&(collection.memory() - before)));
    }
}

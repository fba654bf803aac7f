//! Encoded documents in memory.

use std::ops::Range;

use crate::error::Error;
use crate::search::pretrained::RagPretrainedModel;
use crate::search::ranking::{EncodedSource, Passage};
use crate::search::text_vectors::{TextVectors, VectorBlock};

/// Documents and their vectors, in memory. [`RagPretrainedModel::encode`] makes them.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedDocuments {
    fingerprint: u64,
    texts: Vec<String>,
    vectors: TextVectors,
}

impl EncodedDocuments {
    /// No documents yet.
    pub fn new(model: &RagPretrainedModel) -> Self {
        Self { fingerprint: model.fingerprint(), texts: Vec::new(), vectors: TextVectors::new(model.settings().dim) }
    }

    /// Encodes further documents and adds them at the end.
    ///
    /// # Errors
    /// An empty text, or a model that is not the one of the documents before; then nothing is added.
    pub fn add<S: AsRef<str> + Sync>(&mut self, model: &RagPretrainedModel, documents: &[S]) -> Result<(), Error> {
        model.same_model(self.fingerprint)?;
        model.same_size(self.vectors.dim())?;
        self.vectors.append(&model.document_vectors(documents)?);
        self.texts.extend(documents.iter().map(|text| text.as_ref().to_owned()));
        Ok(())
    }

    /// Removes the documents at these places; the ones behind move up.
    ///
    /// # Errors
    /// A place where there is no document; then nothing is removed.
    pub fn remove(&mut self, places: &[usize]) -> Result<(), Error> {
        if let Some(place) = places.iter().find(|place| **place >= self.len()) {
            return Err(Error::UnknownDocument { id: place.to_string() });
        }
        let keep = |place: usize| !places.contains(&place);
        self.vectors.retain(keep);
        let mut place = 0;
        self.texts.retain(|_| {
            place += 1;
            keep(place - 1)
        });
        Ok(())
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The texts, in the order in which they were added.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The vectors, in the same order.
    pub fn vectors(&self) -> &TextVectors {
        &self.vectors
    }
}

impl RagPretrainedModel {
    /// Encodes documents, to be searched in memory; [`DocumentFolder`](crate::DocumentFolder) keeps them on disk.
    ///
    /// # Errors
    /// An empty text, or one that the tokenizer refuses.
    pub fn encode<S: AsRef<str> + Sync>(&self, documents: &[S]) -> Result<EncodedDocuments, Error> {
        let mut encoded = EncodedDocuments::new(self);
        encoded.add(self, documents)?;
        Ok(encoded)
    }
}

impl EncodedSource for EncodedDocuments {
    fn dim(&self) -> usize {
        self.vectors.dim()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn places(&self) -> usize {
        self.len()
    }

    fn block<'a>(&'a self, places: Range<usize>, _: &'a mut Vec<u8>) -> Result<VectorBlock<'a>, Error> {
        Ok(self.vectors.block(places))
    }

    fn passage(&self, place: usize) -> Result<Passage, Error> {
        Ok(Passage { text: self.texts[place].clone(), ..Passage::default() })
    }

    /// Documents in memory have no ids but their places.
    fn places_of(&self, id: &str) -> Result<Option<Range<usize>>, Error> {
        Ok(id.parse().ok().filter(|place| *place < self.len()).map(|place| place..place + 1))
    }
}

//! Texts become vectors: in blocks, which several processes share, checked and pooled.

use colbert_model::TokenSequence;
use rayon::prelude::*;

use crate::error::Error;
use crate::search::pretrained::{ENCODE_BLOCK, RagPretrainedModel};
use crate::search::text_vectors::TextVectors;

impl RagPretrainedModel {
    /// Tokenizes and encodes texts in blocks, of which each process does every `size`-th. Process 0 gets all vectors.
    pub(super) fn vectors<S: AsRef<str> + Sync>(
        &self,
        what: &'static str,
        first: usize,
        texts: &[S],
        progress: &mut dyn FnMut(usize),
    ) -> Result<TextVectors, Error> {
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let blocks: Vec<&[S]> = texts.chunks(ENCODE_BLOCK).collect();
        let (mut all, mut done) = (TextVectors::new(self.settings.dim), 0);
        for (number, round) in (0..).step_by(size).zip(blocks.chunks(size)) {
            let own = round.get(rank).map(|block| {
                let sequences =
                    if what == "query" { self.tokenizer.queries(block) } else { self.tokenizer.documents(block) };
                self.encode_block(what, first + (number + rank) * ENCODE_BLOCK, &sequences?)
            });
            let own = own.transpose()?;
            if size == 1 {
                own.iter().for_each(|own| all.append(own));
            } else {
                self.for_first(own).iter().for_each(|vectors| all.append(vectors));
            }
            done += round.iter().map(|block| block.len()).sum::<usize>();
            progress(done);
        }
        Ok(all)
    }

    /// Sends vectors to process 0, which gets those of every process, by rank.
    fn for_first(&self, own: Option<TextVectors>) -> Vec<TextVectors> {
        let words = own.map_or_else(Vec::new, |own| own.to_words());
        let mut parts: Vec<&[u32]> = vec![&[]; self.processes.size()];
        parts[0] = &words;
        let of_all = self.processes.all_to_all(&parts);
        of_all.iter().map(|words| TextVectors::from_words(self.settings.dim, words)).collect()
    }

    /// Encodes texts and pools documents, if that is asked for.
    pub(super) fn encode_block(
        &self,
        what: &'static str,
        first: usize,
        sequences: &[TokenSequence],
    ) -> Result<TextVectors, Error> {
        let vectors = self.encode_whole(what, first, sequences)?;
        let Some(pooling) = self.pooling.filter(|_| what == "document") else { return Ok(vectors) };
        let dim = vectors.dim();
        let pooled = (0..vectors.len()).into_par_iter().map(|text| pooling.pool(vectors.rows(text), dim));
        let mut all = TextVectors::new(dim);
        pooled.collect::<Vec<_>>().iter().for_each(|rows| all.push(rows));
        Ok(all)
    }

    /// Encodes texts, the first of which has the number `first`. Vectors that are not finite are an error: every
    /// ranking by them would be the order of the documents.
    pub(super) fn encode_whole(
        &self,
        what: &'static str,
        first: usize,
        sequences: &[TokenSequence],
    ) -> Result<TextVectors, Error> {
        let vectors = self.on_device.encode(sequences, self.full_dim, self.precision);
        let vectors = if self.settings.dim < self.full_dim { vectors.truncated(self.settings.dim) } else { vectors };
        let is_finite = |text: &usize| vectors.rows(*text).iter().all(|value| value.is_finite());
        match (0..vectors.len()).find(|text| !is_finite(text)) {
            None => Ok(vectors),
            Some(text) => Err(Error::NotFinite { path: self.directory.clone(), what, index: first + text }),
        }
    }
}

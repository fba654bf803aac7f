//! The facade's other half: a trained model in use. The reference's `RAGPretrainedModel`, without its index.

mod encoding;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use colbert_config::{ArtifactMetadata, Precision};
use colbert_model::{ColbertSettings, ColbertTokenizer, LoadReport, TokenPooling, TokenSequence};
use colbert_train::{OneProcess, Processes};

use crate::backend::Backend;
use crate::error::Error;
use crate::search::exact;
use crate::search::explanation::{DocumentToken, Explanation, TokenVectors};
use crate::search::on_device::{BLOCK_NUMBERS, Load, OnDevice};
use crate::search::ranking::{EncodedSource, Hit, Passage, hits};
use crate::search::text_vectors::TextVectors;
use crate::search::top::Top;
use crate::source::read_model;

/// Texts that go through the encoder at once.
const ENCODE_BLOCK: usize = 64;

/// A trained model, to encode, rerank and search with.
///
/// A document's score depends on the query, the document and the model, and on nothing else in the call.
///
/// # Examples
/// ```
/// use ragtrainer::RagPretrainedModel;
///
/// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../colbert-model/tests/parity/tiny");
/// # #[cfg(any())]
/// let directory = "runs/quickstart/best";
/// let model = RagPretrainedModel::from_pretrained(directory)?;
/// let hits = model.rerank("What is a tor?", &["A fen is wet land.", "A tor is a rocky hill."], 10)?;
/// assert_eq!((hits.len(), hits[0].rank), (2, 1));
///
/// let documents = model.encode(&["A fen is wet land.", "A tor is a rocky hill."])?;
/// assert_eq!(model.search("What is a tor?", &documents, 1)?[0].score, hits[0].score);
/// # Ok::<(), ragtrainer::Error>(())
/// ```
#[derive(Debug)]
pub struct RagPretrainedModel {
    directory: PathBuf,
    settings: ColbertSettings,
    tokenizer: ColbertTokenizer,
    loaded: LoadReport,
    fingerprint: u64,
    backend: Backend,
    precision: Precision,
    zero_floor: bool,
    pooling: Option<TokenPooling>,
    /// Size of the vectors that the head gives; `settings.dim` is the size that is kept.
    full_dim: usize,
    on_device: Box<dyn OnDevice>,
    processes: Arc<dyn Processes>,
}

impl RagPretrainedModel {
    /// Loads a model directory, or the model of this name on the Hugging Face hub (`org/name`, `org/name@revision`),
    /// with the lengths, markers and masks that it declares, on the default backend.
    ///
    /// # Errors
    /// A hub that cannot be reached or does not give the model; a directory that is missing, damaged or of an unknown
    /// kind; one without a projection, which was never trained for retrieval.
    pub fn from_pretrained(directory: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_pretrained_on(directory, "auto")
    }

    /// The same on a backend and device by name, such as `cuda:1`.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::from_pretrained`], or a backend that this program does not have.
    pub fn from_pretrained_on(directory: impl AsRef<Path>, backend: &str) -> Result<Self, Error> {
        Self::from_pretrained_with(directory, backend, Arc::new(OneProcess))
    }

    /// The same in each of several processes ([`Launched::processes`](crate::Launched::processes)), which share the
    /// encoding of many texts: all make the same calls with the same texts, and process 0 alone gets the vectors of
    /// [`Self::document_vectors`] and [`Self::query_vectors`]; the others get those of no text. While process 0 adds
    /// documents to a folder, the others call [`Self::help_to_add`]. Every other call is of one process, with few texts.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::from_pretrained_on`]; a machine with fewer GPUs than processes.
    pub fn from_pretrained_with(
        directory: impl AsRef<Path>,
        backend: &str,
        processes: Arc<dyn Processes>,
    ) -> Result<Self, Error> {
        let backend = Backend::of_process(backend, processes.local_rank())?;
        let pretrained = read_model(directory)?;
        let directory = pretrained.directory();
        let Some(settings) = pretrained.declared_settings() else {
            return Err(Error::NoColbert { path: directory.to_owned() });
        };
        let tokenizer = pretrained.tokenizer(&settings)?;
        let (on_device, loaded, fingerprint) = backend.run(Load { pretrained: &pretrained, settings: &settings })?;
        if !loaded.initialised.is_empty() {
            return Err(Error::NoColbert { path: directory.to_owned() });
        }
        let (directory, pooling) = (directory.to_owned(), settings.token_pooling);
        Ok(Self {
            directory,
            full_dim: settings.dim,
            settings,
            tokenizer,
            loaded,
            fingerprint,
            backend,
            precision: Precision::F32,
            zero_floor: false,
            pooling,
            on_device,
            processes,
        })
    }

    /// Encode with factors of matrix products in this format. Default `f32`. bfloat16 is taken only where the device
    /// is faster by it, float16 only where there is any ([`Self::precision`] tells what was taken), and a format moves
    /// vectors by some thousandths; documents that were encoded in one format may be searched in the other.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = self.backend.nearest_precision(precision);
        self
    }

    /// Score as RAGatouille's `rerank` and `search_encoded_docs` do: no query token counts less than 0 in a document
    /// that is shorter than the longest of the call (of a search: than `doc_maxlen`) or has punctuation. Then a score
    /// can depend on the other documents of the call. Default false.
    #[must_use]
    pub fn with_zero_floor(mut self, zero_floor: bool) -> Self {
        self.zero_floor = zero_floor;
        self
    }

    /// Pool the vectors of documents wherever they are encoded: fewer vectors to store and to score. Queries stay
    /// whole. Without this, as the directory declares it; a pooling of its own is replaced. Documents that were pooled, by any factor, and documents that were not may be searched together.
    #[must_use]
    pub fn with_token_pooling(mut self, pooling: TokenPooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// Keep the first `dim` numbers of every vector, brought back to length 1, of queries and documents. A model whose
    /// `settings().dims` names the size was trained for it; another one loses more.
    ///
    /// # Errors
    /// A size of 0, or one that is larger than the model's.
    pub fn with_dim(mut self, dim: usize) -> Result<Self, Error> {
        if dim == 0 || dim > self.full_dim {
            return Err(Error::NoSuchSize { path: self.directory, found: dim, dim: self.full_dim });
        }
        if dim < self.full_dim && !self.settings.dims.contains(&dim) {
            let trained: Vec<String> = self.settings.dims.iter().map(ToString::to_string).collect();
            let trained = if trained.is_empty() { self.full_dim.to_string() } else { trained.join(", ") };
            tracing::warn!("{} was trained for vectors of {trained} numbers, not of {dim}", self.directory.display());
        }
        self.settings.dim = dim;
        Ok(self)
    }

    /// The directory it was loaded from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The format that texts are encoded in: `f32`, `tf32`, `bf16` or `f16`.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Lengths, markers and masks that the directory declares.
    pub fn settings(&self) -> &ColbertSettings {
        &self.settings
    }

    /// Bits that the directory declares for the compressed numbers of an index (`nbits` of `artifact.metadata`).
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn index_bits(&self) -> Result<Option<usize>, Error> {
        let path = self.directory.join("artifact.metadata");
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(ArtifactMetadata::read(&path)?.nbits as usize))
    }

    /// Returns which tensors of the directory were loaded, ignored or drawn.
    pub fn loaded(&self) -> &LoadReport {
        &self.loaded
    }

    /// Tells this model's vectors from those of other models.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Vectors of documents, of the tokens that are scored.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::encode`].
    pub fn document_vectors<S: AsRef<str> + Sync>(&self, documents: &[S]) -> Result<TextVectors, Error> {
        self.document_vectors_with(documents, &mut |_| {})
    }

    /// The same; `progress` is told how many documents are done.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::encode`].
    pub fn document_vectors_with<S: AsRef<str> + Sync>(
        &self,
        documents: &[S],
        progress: &mut dyn FnMut(usize),
    ) -> Result<TextVectors, Error> {
        self.numbered_document_vectors(0, documents, progress)
    }

    /// The same for documents of which the first has the number `first` in messages.
    pub(crate) fn numbered_document_vectors<S: AsRef<str> + Sync>(
        &self,
        first: usize,
        documents: &[S],
        progress: &mut dyn FnMut(usize),
    ) -> Result<TextVectors, Error> {
        not_empty("document", first, documents)?;
        self.vectors("document", first, documents, progress)
    }

    /// Tokens of a document's own text that the model takes at most.
    pub(crate) fn room_for_text(&self) -> Result<usize, Error> {
        Ok(self.tokenizer.room_for_text()?)
    }

    /// Bytes of each text that its tokens are from.
    pub(crate) fn token_spans(&self, texts: &[&str]) -> Result<Vec<Vec<std::ops::Range<usize>>>, Error> {
        Ok(self.tokenizer.spans(texts)?)
    }

    /// Vectors of queries, `[MASK]` expansion included.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::encode`].
    pub fn query_vectors<S: AsRef<str> + Sync>(&self, queries: &[S]) -> Result<TextVectors, Error> {
        not_empty("query", 0, queries)?;
        self.vectors("query", 0, queries, &mut |_| {})
    }

    /// Tokens of a query and their vectors.
    pub(crate) fn tokens_of_query(&self, query: &str) -> Result<TokenVectors, Error> {
        not_empty("query", 0, &[query])?;
        self.token_vectors("query", &self.tokenizer.queries(&[query])?)
    }

    /// Tokens of a document and the vectors of those that are scored, which no pooling touches.
    pub(crate) fn tokens_of_document(&self, document: &str) -> Result<TokenVectors, Error> {
        not_empty("document", 0, &[document])?;
        self.token_vectors("document", &self.tokenizer.documents(&[document])?)
    }

    fn token_vectors(&self, what: &'static str, sequences: &[TokenSequence]) -> Result<TokenVectors, Error> {
        let sequence = &sequences[0];
        let tokens = sequence.ids.iter().zip(&sequence.scored);
        let tokens = tokens.map(|(id, &is_scored)| Ok(DocumentToken { token: self.tokenizer.token(*id)?, is_scored }));
        let tokens = tokens.collect::<Result<Vec<_>, Error>>()?;
        Ok(TokenVectors { tokens, vectors: self.encode_whole(what, 0, sequences)? })
    }

    /// Explains the score of a document: the matches of which it is the sum. Token pooling and the zero floor are left
    /// out of it.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::encode`].
    pub fn explain(&self, query: &str, document: &str) -> Result<Explanation, Error> {
        Ok(Explanation::new(&self.tokens_of_query(query)?, self.tokens_of_document(document)?))
    }

    /// Ranks documents for a query and returns the best `k` of them, or all if there are fewer.
    ///
    /// # Errors
    /// An empty text, or `k` of 0.
    pub fn rerank<S: AsRef<str> + Sync>(&self, query: &str, documents: &[S], k: usize) -> Result<Vec<Hit>, Error> {
        let k = at_least_one(k)?;
        let queries = self.query_vectors(&[query])?;
        not_empty("document", 0, documents)?;
        let sequences = self.tokenizer.documents(documents)?;
        let longest = sequences.iter().map(TokenSequence::len).max().unwrap_or(0);
        let mut top = Top::new(k);
        for (number, block) in sequences.chunks(ENCODE_BLOCK).enumerate() {
            let first = number * ENCODE_BLOCK;
            let vectors = self.encode_block("document", first, block)?;
            let scores = self.scores(&queries, &vectors, longest);
            scores.into_iter().enumerate().for_each(|(document, score)| top.offer(first + document, score));
        }
        hits(top, |index| Ok(Passage { text: documents[index].as_ref().to_owned(), ..Passage::default() }))
    }

    /// The best `k` of encoded documents for a query, or all if there are fewer. Every document is scored, exactly.
    ///
    /// # Errors
    /// An empty query, `k` of 0, documents that another model encoded, or ones that cannot be read.
    pub fn search(&self, query: &str, documents: &dyn EncodedSource, k: usize) -> Result<Vec<Hit>, Error> {
        Ok(self.search_all(&[query], documents, k)?.remove(0))
    }

    /// The same for many queries, which passes over the documents once. The hits of a query are those it has alone.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::search`].
    pub fn search_all<S: AsRef<str> + Sync>(
        &self,
        queries: &[S],
        documents: &dyn EncodedSource,
        k: usize,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let k = at_least_one(k)?;
        self.search_vectors(&self.queries_for(queries, documents)?, documents, k, None)
    }

    /// The same among the documents with these ids alone.
    ///
    /// # Errors
    /// As [`RagPretrainedModel::search`], or an id that is not there.
    pub fn search_among<S: AsRef<str> + Sync, I: AsRef<str>>(
        &self,
        queries: &[S],
        documents: &dyn EncodedSource,
        k: usize,
        ids: &[I],
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let k = at_least_one(k)?;
        let queries = self.queries_for(queries, documents)?;
        let mut places = Vec::new();
        for id in ids {
            let unknown = || Error::UnknownDocument { id: id.as_ref().to_owned() };
            places.extend(documents.places_of(id.as_ref())?.ok_or_else(unknown)?);
        }
        self.search_vectors(&queries, documents, k, Some(&places))
    }

    /// Vectors of queries in the size of the documents', which may have been cut.
    fn queries_for<S: AsRef<str> + Sync>(
        &self,
        queries: &[S],
        documents: &dyn EncodedSource,
    ) -> Result<TextVectors, Error> {
        self.same_model(documents.fingerprint())?;
        let (found, expected) = (documents.dim(), self.settings.dim);
        if found > expected {
            return Err(Error::OtherSize { found, expected });
        }
        let vectors = self.query_vectors(queries)?;
        Ok(if found < expected { vectors.truncated(found) } else { vectors })
    }

    fn search_vectors(
        &self,
        queries: &TextVectors,
        documents: &dyn EncodedSource,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let floored_below = if self.zero_floor { self.settings.doc_maxlen } else { 0 };
        let candidates = match (documents.candidates(queries, k, among)?, among) {
            (None, Some(among)) => Some(vec![among.to_vec(); queries.len()]),
            (candidates, _) => candidates,
        };
        let tops = match candidates {
            Some(candidates) => exact::best_of(queries, documents, &candidates, k, floored_below)?,
            None if self.backend.is_gpu() => self.best_on_device(queries, documents, k)?,
            None => exact::best(queries, documents, k, floored_below)?,
        };
        tops.into_iter().map(|top| hits(top, |place| documents.passage(place))).collect()
    }

    /// The best `k` places for each query. Vectors are copied to the GPU a block at a time.
    fn best_on_device(
        &self,
        queries: &TextVectors,
        documents: &dyn EncodedSource,
        k: usize,
    ) -> Result<Vec<Top>, Error> {
        let mut tops = vec![Top::new(k); queries.len()];
        let (mut places, mut waiting) = (Vec::new(), TextVectors::new(documents.dim()));
        let mut score = |places: &mut Vec<usize>, waiting: &mut TextVectors| {
            let scores = self.scores(queries, waiting, self.settings.doc_maxlen);
            for (top, scores) in tops.iter_mut().zip(scores.chunks(places.len().max(1))) {
                places.iter().zip(scores).for_each(|(place, score)| top.offer(*place, *score));
            }
            places.clear();
            *waiting = TextVectors::new(documents.dim());
        };
        let mut buffer = Vec::new();
        for place in (0..documents.places()).step_by(ENCODE_BLOCK) {
            let block = documents.block(place..documents.places().min(place + ENCODE_BLOCK), &mut buffer)?;
            places.extend_from_slice(&block.places);
            waiting.append(&block.text_vectors(documents.dim()));
            if waiting.values().len() >= BLOCK_NUMBERS {
                score(&mut places, &mut waiting);
            }
        }
        score(&mut places, &mut waiting);
        Ok(tops)
    }

    /// # Errors
    /// Vectors of documents have another size than those of this model.
    pub(crate) fn same_size(&self, found: usize) -> Result<(), Error> {
        let expected = self.settings.dim;
        if found == expected { Ok(()) } else { Err(Error::OtherSize { found, expected }) }
    }

    /// # Errors
    /// The fingerprint is another model's.
    pub(crate) fn same_model(&self, fingerprint: u64) -> Result<(), Error> {
        if fingerprint == self.fingerprint {
            return Ok(());
        }
        Err(Error::OtherModel { path: self.directory.clone() })
    }

    /// Scores `[queries, documents]`. With the floor, documents of fewer than `padded` vectors get a vector of zeros,
    /// as the padding and the punctuation of the reference are.
    fn scores(&self, queries: &TextVectors, documents: &TextVectors, padded: usize) -> Vec<f32> {
        if !self.backend.is_gpu() {
            return exact::scores(queries, documents, if self.zero_floor { padded } else { 0 });
        }
        let dim = documents.dim();
        let is_empty: Vec<bool> = (0..documents.len()).map(|text| documents.rows(text).is_empty()).collect();
        let any_empty = is_empty.contains(&true);
        if !self.zero_floor && !any_empty {
            return self.on_device.scores(queries, documents);
        }
        let mut filled = TextVectors::new(dim);
        for text in 0..documents.len() {
            let mut rows = documents.rows(text).to_vec();
            if rows.is_empty() || self.zero_floor && rows.len() < padded * dim {
                rows.extend(std::iter::repeat_n(0.0, dim));
            }
            filled.push(&rows);
        }
        let mut scores = self.on_device.scores(queries, &filled);
        // A document without a scored token, as in training: less than any real score, so that it ranks last.
        for (query, row) in scores.chunks_mut(documents.len().max(1)).enumerate() {
            let least = NO_TOKEN * (queries.rows(query).len() / dim) as f32;
            row.iter_mut().zip(&is_empty).filter(|(_, is_empty)| **is_empty).for_each(|(score, _)| *score = least);
        }
        scores
    }
}

/// Score of a query token against a document without a scored token, as in `colbert_kernels::maxsim`.
const NO_TOKEN: f32 = -9999.0;

/// # Errors
/// A text of nothing but white space.
pub(crate) fn not_empty<S: AsRef<str>>(what: &'static str, first: usize, texts: &[S]) -> Result<(), Error> {
    match texts.iter().position(|text| text.as_ref().trim().is_empty()) {
        Some(index) => Err(Error::EmptyText { what, index: first + index }),
        None => Ok(()),
    }
}

fn at_least_one(k: usize) -> Result<usize, Error> {
    if k == 0 { Err(Error::NoHits) } else { Ok(k) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document that fills the call's length has nothing at 0 to compete with it; a shorter one has.
    #[test]
    fn the_floor_counts_where_something_would_be_padded() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/parity/tiny");
        let vectors = |rows: &[[f32; 2]]| {
            let mut all = TextVectors::new(16);
            let row = |start: &[f32; 2]| start.iter().copied().chain([0.0; 14]).collect::<Vec<f32>>();
            all.push(&rows.iter().flat_map(row).collect::<Vec<f32>>());
            all
        };
        let (query, only) = (vectors(&[[1.0, 0.0], [0.0, 1.0]]), vectors(&[[-1.0, 0.0]]));
        let plain = RagPretrainedModel::from_pretrained(&tiny).unwrap();
        assert_eq!(plain.scores(&query, &only, 2), [-1.0]);
        let floored = plain.with_zero_floor(true);
        assert_eq!(floored.scores(&query, &only, 1), [-1.0]);
        assert_eq!(floored.scores(&query, &only, 2), [0.0]);
    }

    /// A document of nothing but skipped tokens has no vectors: it can be stored and searched, and ranks last.
    #[test]
    fn a_document_without_a_scored_token_ranks_last() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/parity/tiny");
        let row = |start: f32| [start].into_iter().chain([0.0; 15]).collect::<Vec<f32>>();
        let (mut query, mut documents) = (TextVectors::new(16), TextVectors::new(16));
        query.push(&[row(1.0), row(0.5)].concat());
        documents.push(&row(-1.0));
        documents.push(&[]);
        documents.push(&row(0.5));
        for zero_floor in [false, true] {
            let model = RagPretrainedModel::from_pretrained(&tiny).unwrap().with_zero_floor(zero_floor);
            let scores = model.scores(&query, &documents, 1);
            assert_eq!(scores, [-1.5, 2.0 * NO_TOKEN, 0.75]);
        }
    }
}

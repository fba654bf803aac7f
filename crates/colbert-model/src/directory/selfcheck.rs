//! `selfcheck.json`: a few texts with their token ids and vectors by a model directory, for other loaders to replay.

use std::path::Path;

use colbert_kernels::KernelBackend;
use serde::{Deserialize, Serialize};

use crate::colbert::Colbert;
use crate::directory::load::Pretrained;
use crate::embeddings::{Embeddings, maxsim};
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::tokenizer::ColbertTokenizer;
use crate::tokenizer::sequence::TokenSequence;
use crate::weights::json::read_json;

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// Name of the file in a model directory.
pub(crate) const FILE: &str = "selfcheck.json";

/// Queries: a plain one, one with accents and punctuation, one that is longer than 32 tokens.
const QUERIES: [&str; 3] = [
    "what is a tor?",
    "Où la bruyère pousse-t-elle \"à l'état sauvage\"?",
    "how long does a walk across the open moor take in winter when the becks are in flood and the path over the tor is \
     covered by snow and mist so that a walker has to go round by the road",
];

/// Documents: a plain one, one of many punctuation marks, one in other scripts, one without words.
const DOCUMENTS: [&str; 4] = [
    "A tor is a rocky hill.",
    "Weirs (low dams), becks & fens: see p. 12-14; \"wet land\" -- £3.50, 100% off!",
    "Ein Moor ist nass. 東京は日本の首都です。 Москва",
    "...",
];

/// Token ids and vectors of a few texts by a model directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// Version of this layout: 1.
    pub format: u32,
    /// Queries, with the directory's own lengths and markers.
    pub queries: Vec<CheckedText>,
    /// Documents.
    pub documents: Vec<CheckedText>,
    /// MaxSim of each query (outer) with each document (inner).
    pub scores: Vec<Vec<f32>>,
}

/// One text, tokenized and encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckedText {
    /// The text.
    pub text: String,
    /// Token ids, markers and `[MASK]` expansion included.
    pub ids: Vec<u32>,
    /// How many of the first tokens can be attended to.
    pub attended: usize,
    /// Which tokens take part in MaxSim.
    pub scored: Vec<bool>,
    /// Unit vector of every token, scored or not, in float32.
    pub vectors: Vec<Vec<f32>>,
}

impl SelfCheck {
    /// Loads a directory as any other program would and encodes the texts with the settings that it declares.
    ///
    /// # Errors
    /// A directory that cannot be loaded, or whose vectors are not finite.
    pub fn compute<B: KernelBackend>(directory: &Path, device: &B::Device) -> Result<Self, ModelError> {
        let pretrained = Pretrained::read(directory)?;
        let settings = pretrained.declared_settings().unwrap_or_else(|| pretrained.default_settings());
        let tokenizer = pretrained.tokenizer(&settings)?;
        let (model, _) = pretrained.model::<B>(&settings, None, 0, device)?;
        Self::of(&model, &tokenizer, directory, device)
    }

    /// Encodes the texts with a model that was loaded from a directory, which messages name.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn of<B: KernelBackend, E: Encoder<B>>(
        model: &Colbert<B, E>,
        tokenizer: &ColbertTokenizer,
        directory: &Path,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (queries, documents) = (tokenizer.queries(&QUERIES)?, tokenizer.documents(&DOCUMENTS)?);
        let (encoded_queries, encoded_documents) = (model.encode(&queries, device), model.encode(&documents, device));
        let scores = maxsim(&encoded_queries, &encoded_documents).into_data().convert::<f32>();
        let scores = scores.into_vec::<f32>().expect("the data was converted to f32");
        let check = Self {
            format: FORMAT,
            queries: checked(&QUERIES, queries, &encoded_queries),
            documents: checked(&DOCUMENTS, documents, &encoded_documents),
            scores: scores.chunks(DOCUMENTS.len()).map(<[f32]>::to_vec).collect(),
        };
        let is_finite = |text: &&CheckedText| text.vectors.iter().flatten().all(|value| value.is_finite());
        match check.queries.iter().chain(&check.documents).find(|text| !is_finite(text)) {
            None => Ok(check),
            Some(text) => Err(ModelError::NonFiniteVectors { path: directory.to_owned(), text: text.text.clone() }),
        }
    }

    /// Compares the token ids and masks with those that a tokenizer gives: that of training, before a directory is
    /// published at `path`.
    ///
    /// # Errors
    /// They differ: the written files do not describe the trained model.
    pub(crate) fn agrees_with(&self, tokenizer: &ColbertTokenizer, path: &Path) -> Result<(), ModelError> {
        let tokens = |text: &CheckedText| TokenSequence {
            ids: text.ids.clone(),
            attended: text.attended,
            scored: text.scored.clone(),
        };
        let sides =
            [(&self.queries, tokenizer.queries(&QUERIES)?), (&self.documents, tokenizer.documents(&DOCUMENTS)?)];
        sides.iter().try_for_each(|(written, trained)| {
            same(written.iter().map(|text| text.text.as_str()), written.iter().map(tokens), trained, path)
        })
    }

    /// Computes a directory's texts again and compares with its `selfcheck.json`: the largest difference of a number of
    /// a vector.
    ///
    /// # Errors
    /// A directory that cannot be loaded, or whose file is missing, or holds other texts or other token ids.
    pub fn replay<B: KernelBackend>(directory: &Path, device: &B::Device) -> Result<f32, ModelError> {
        let path = directory.join(FILE);
        let recorded: Self = read_json(&path, "texts, token ids and vectors")?;
        let found = Self::compute::<B>(directory, device)?;
        let pairs = |check: &Self| check.queries.iter().chain(&check.documents).cloned().collect::<Vec<_>>();
        let (recorded, found) = (pairs(&recorded), pairs(&found));
        let sizes = |text: &CheckedText| text.vectors.iter().map(Vec::len).collect::<Vec<_>>();
        let tokens =
            |text: &CheckedText| (text.text.clone(), text.ids.clone(), text.attended, text.scored.clone(), sizes(text));
        let differing = recorded.iter().map(tokens).ne(found.iter().map(tokens));
        if let Some(text) = differing.then(|| recorded.iter().zip(&found).find(|(a, b)| tokens(a) != tokens(b))) {
            let text = text.map_or_else(|| "(their number differs)".to_owned(), |(text, _)| text.text.clone());
            return Err(ModelError::SelfCheckTokens { path, text });
        }
        let numbers = |texts: Vec<CheckedText>| texts.into_iter().flat_map(|text| text.vectors).flatten();
        Ok(numbers(recorded).zip(numbers(found)).map(|(a, b)| (a - b).abs()).fold(0.0, larger))
    }
}

/// Compares two tokenizers on the texts of the self-check. `path` appears in messages.
///
/// # Errors
/// They differ.
pub(crate) fn same_tokens(
    trained: &ColbertTokenizer,
    written: &ColbertTokenizer,
    path: &Path,
) -> Result<(), ModelError> {
    same(QUERIES, written.queries(&QUERIES)?, &trained.queries(&QUERIES)?, path)?;
    same(DOCUMENTS, written.documents(&DOCUMENTS)?, &trained.documents(&DOCUMENTS)?, path)
}

fn same<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    written: impl IntoIterator<Item = TokenSequence>,
    trained: &[TokenSequence],
    path: &Path,
) -> Result<(), ModelError> {
    let differs = |((_, written), trained): &((&str, TokenSequence), &TokenSequence)| written != *trained;
    match texts.into_iter().zip(written).zip(trained).find(differs) {
        Some(((text, _), _)) => Err(ModelError::ExportTokens { path: path.to_owned(), text: text.to_owned() }),
        None => Ok(()),
    }
}

/// Returns the larger of two differences. `f32::max` would skip NaN, so that a model of NaN would agree with
/// everything.
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

fn checked<B: KernelBackend>(texts: &[&str], tokens: Vec<TokenSequence>, encoded: &Embeddings<B>) -> Vec<CheckedText> {
    let dim = encoded.vectors.dims()[1];
    let vectors = encoded.vectors.to_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
    let texts = texts.iter().zip(tokens).enumerate().map(|(i, (text, tokens))| CheckedText {
        text: (*text).to_owned(),
        ids: tokens.ids,
        attended: tokens.attended,
        scored: tokens.scored,
        vectors: encoded.texts.rows(i).map(|row| vectors[row * dim..(row + 1) * dim].to_vec()).collect(),
    });
    texts.collect()
}

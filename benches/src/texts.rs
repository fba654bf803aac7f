//! Synthetic texts of a stated length distribution.

use std::collections::BTreeSet;

use ragtrainer::data::{Collection, Example, Judgements, Queries, TrainingSet};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Zipf};

use crate::model::vocabulary;

/// Words of a text: log-normal, cut to a range.
#[derive(Debug, Clone, Copy)]
pub struct WordCount {
    /// Half of the texts are shorter.
    pub median: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
    /// Shortest.
    pub minimum: usize,
    /// Longest.
    pub maximum: usize,
}

/// Documents like those of MedQuAD and web collections: about 120 words on average, one in sixteen cut at 256 tokens.
pub const DOCUMENT_WORDS: WordCount = WordCount { median: 100.0, sigma: 0.6, minimum: 8, maximum: 400 };

/// Questions of about nine words.
pub const QUERY_WORDS: WordCount = WordCount { median: 8.0, sigma: 0.4, minimum: 3, maximum: 24 };

/// Draws texts: whole words of the quickstart's vocabulary, the frequent ones often (Zipf, exponent 1). The same seed
/// gives the same texts.
#[derive(Debug, Clone)]
pub struct TextGenerator {
    words: Vec<String>,
    frequency: Zipf<f64>,
    rng: ChaCha8Rng,
}

impl TextGenerator {
    /// A generator with a seed.
    pub fn new(seed: u64) -> Self {
        let words = vocabulary();
        let frequency = Zipf::new(words.len() as f64, 1.0).expect("the vocabulary has words");
        Self { words, frequency, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Distinct texts.
    pub fn texts(&mut self, count: usize, length: WordCount) -> Vec<String> {
        let words = LogNormal::new(length.median.ln(), length.sigma).expect("a finite standard deviation");
        let mut seen = BTreeSet::new();
        let mut texts = Vec::with_capacity(count);
        while texts.len() < count {
            let drawn = words.sample(&mut self.rng).round() as usize;
            let text = self.text(drawn.clamp(length.minimum, length.maximum));
            if seen.insert(text.clone()) {
                texts.push(text);
            }
        }
        texts
    }

    fn text(&mut self, words: usize) -> String {
        let mut text = String::new();
        for place in 0..words {
            if place > 0 {
                text.push(' ');
            }
            // Ranks count from 1.
            let rank = self.frequency.sample(&mut self.rng) as usize;
            text.push_str(&self.words[rank - 1]);
        }
        text.push('.');
        text
    }
}

/// Triples of made-up texts, documents of these lengths; every query and every document occurs once.
pub fn training_set(triples: usize, of_documents: WordCount, seed: u64) -> TrainingSet {
    let mut generator = TextGenerator::new(seed);
    let (mut queries, mut collection, mut positives) = (Queries::new(), Collection::new(), Judgements::new());
    let documents = generator.texts(2 * triples, of_documents);
    let mut examples = Vec::with_capacity(triples);
    for (query, documents) in generator.texts(triples, QUERY_WORDS).iter().zip(documents.chunks(2)) {
        let query = queries.add(query).expect("a text with words");
        let documents = documents.iter().map(|text| collection.add(text).expect("a text with words"));
        let documents: Vec<u32> = documents.collect();
        positives.insert(query, documents[0], 1);
        examples.push(Example { query, documents, scores: None });
    }
    TrainingSet { queries, collection, examples, positives, sources: Vec::new() }
}

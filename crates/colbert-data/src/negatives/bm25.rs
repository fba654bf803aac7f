//! BM25 over a collection, on tantivy: in memory, or in a temporary folder where the collection is large.
//!
//! Owns indexing and ranking. tantivy fixes BM25's constants at k1 = 1.2 and b = 0.75.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use tantivy::collector::TopDocs;
use tantivy::directory::{Directory, MmapDirectory, RamDirectory};
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::PreTokenizedString;
use tantivy::{Index, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term};
use tempfile::TempDir;

use crate::error::DataError;
use crate::negatives::miner::{MiningPhase, MiningProgress, NegativeMiner, Ranked};
use crate::read::Candidates;
use crate::texts::language::{Analyzer, TextAnalysis};
use crate::texts::{Collection, Queries};

/// Size of tantivy's term table while indexing, bytes; it grows past it when the collection needs more.
const MEMORY_BUDGET: usize = 64 << 20;

/// Collections up to this size are indexed in memory, in bytes of text. The text itself is in memory already; the index
/// of a larger collection is left to the file cache, which gives it up when memory is needed elsewhere.
const IN_MEMORY: u64 = 1 << 30;

/// Memory to build and hold an index in memory, relative to the size of the text: 1.15 was measured with 100,000
/// documents of 1,000 bytes.
const SHARE_OF_TEXT: f64 = 1.5;

/// Number of queries between two reports of progress.
const PROGRESS_EVERY: usize = 100;

/// A collection indexed for BM25. Document numbers of the index are pids.
pub struct Bm25Index {
    searcher: Searcher,
    text: Field,
    analyzer: Analyzer,
    /// Where the index is, if not in memory; removed with it. The last field, as the searcher reads from it.
    folder: Option<TempDir>,
}

impl fmt::Debug for Bm25Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bm25Index")
            .field("documents", &self.searcher.num_docs())
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Bm25Index {
    /// Indexes a collection; in the system's temporary folder if it has more than 1 GiB of text.
    ///
    /// # Errors
    /// [`DataError::Miner`] with tantivy's reason.
    pub fn new(collection: &Collection, analysis: &TextAnalysis) -> Result<Self, DataError> {
        Self::build(collection, analysis, IN_MEMORY, &|_, _, _| ()).map_err(failed)
    }

    /// Approximate upper bound of the memory of an index in bytes, while it is built and used.
    #[must_use]
    pub fn memory(collection: &Collection) -> u64 {
        (text_bytes(collection).min(IN_MEMORY) as f64 * SHARE_OF_TEXT) as u64
    }

    fn build(
        collection: &Collection,
        analysis: &TextAnalysis,
        in_memory: u64,
        progress: &MiningProgress<'_>,
    ) -> Result<Self, TantivyError> {
        let analyzer = analysis.analyzer()?;
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default().set_index_option(IndexRecordOption::WithFreqs);
        let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
        let size = text_bytes(collection);
        let folder = if size > in_memory { Some(tempfile::tempdir()?) } else { None };
        let directory: Box<dyn Directory> = match &folder {
            Some(folder) => {
                tracing::info!(bytes = size, folder = %folder.path().display(), "indexing on disk");
                Box::new(MmapDirectory::open(folder.path())?)
            }
            None => Box::new(RamDirectory::create()),
        };
        // One segment, so that document numbers are pids and ties are broken the same way on every run.
        let mut writer = Index::builder()
            .schema(schema.build())
            .single_segment_index_writer::<TantivyDocument>(directory, MEMORY_BUDGET)?;
        progress(MiningPhase::Indexing, 0, collection.len());
        // Analysis is most of the work. It runs on all cores, one block at a time to save memory.
        for block in (0..collection.len() as u32).collect::<Vec<_>>().chunks(4096) {
            let analyzed: Vec<_> = block
                .par_iter()
                .map_init(|| analyzer.clone(), |analyzer, &pid| analyzer.tokens(collection.text(pid)))
                .collect();
            for tokens in analyzed {
                let mut document = TantivyDocument::default();
                document.add_pre_tokenized_text(text, PreTokenizedString { text: String::new(), tokens });
                writer.add_document(document)?;
            }
            let done = block.last().map_or(0, |&last| last as usize + 1);
            progress(MiningPhase::Indexing, done, collection.len());
        }
        let reader = writer.finalize()?.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { searcher: reader.searcher(), text, analyzer, folder })
    }

    /// The best `depth` documents for every query, best first, equal scores by pid; queries run on all cores.
    ///
    /// # Errors
    /// [`DataError::Miner`] with tantivy's reason.
    pub fn rank(&self, queries: &Queries, depth: usize) -> Result<Vec<Vec<Ranked>>, DataError> {
        self.rank_with(queries, depth, &|_, _, _| ())
    }

    /// The candidates of every query that have a word of it, best first, equal scores by pid.
    ///
    /// # Errors
    /// As [`Bm25Index::rank`].
    pub fn rank_among(&self, queries: &Queries, candidates: &Candidates) -> Result<Vec<Vec<Ranked>>, DataError> {
        let rank = |analyzer: &mut Analyzer, qid: u32| {
            let mut ranking = self.search(analyzer, queries.text(qid), usize::MAX)?;
            ranking.retain(|hit| candidates.contains(qid, hit.pid));
            Ok(ranking)
        };
        let qids = (0..queries.len() as u32).into_par_iter();
        qids.map_init(|| self.analyzer.clone(), rank).collect::<Result<_, _>>().map_err(failed)
    }

    fn rank_with(
        &self,
        queries: &Queries,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        progress(MiningPhase::Ranking, 0, queries.len());
        let ranked = AtomicUsize::new(0);
        let rankings = (0..queries.len() as u32)
            .into_par_iter()
            .map_init(
                || self.analyzer.clone(),
                |analyzer, qid| {
                    let ranking = self.search(analyzer, queries.text(qid), depth);
                    let done = ranked.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(PROGRESS_EVERY) {
                        progress(MiningPhase::Ranking, done, queries.len());
                    }
                    ranking
                },
            )
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        progress(MiningPhase::Ranking, queries.len(), queries.len());
        Ok(rankings)
    }

    fn search(&self, analyzer: &mut Analyzer, query: &str, depth: usize) -> Result<Vec<Ranked>, TantivyError> {
        let depth = depth.min(self.searcher.num_docs() as usize);
        if depth == 0 {
            return Ok(Vec::new());
        }
        let terms: Vec<(Occur, Box<dyn Query>)> = analyzer
            .tokens(query)
            .into_iter()
            .map(|token| {
                let term = Term::from_field_text(self.text, &token.text);
                let query: Box<dyn Query> = Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
                (Occur::Should, query)
            })
            .collect();
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.searcher.search(&BooleanQuery::new(terms), &TopDocs::with_limit(depth).order_by_score())?;
        let mut ranking: Vec<_> =
            found.into_iter().map(|(score, address)| Ranked { pid: address.doc_id, score }).collect();
        ranking.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.pid.cmp(&b.pid)));
        Ok(ranking)
    }
}

/// Ranks by BM25; the default miner, and the baseline that a trained model is compared with.
#[derive(Debug, Clone)]
pub struct Bm25Miner {
    /// How texts become terms.
    pub analysis: TextAnalysis,
    /// Largest collection that is indexed in memory, in bytes of text; a larger one is indexed in the system's
    /// temporary folder. Default 1 GiB.
    pub in_memory: u64,
}

impl Default for Bm25Miner {
    fn default() -> Self {
        Self { analysis: TextAnalysis::default(), in_memory: IN_MEMORY }
    }
}

impl Bm25Miner {
    /// A miner for a language code such as `en`.
    #[must_use]
    pub fn new(language_code: &str) -> Self {
        Self { analysis: TextAnalysis::for_language(language_code), ..Self::default() }
    }
}

impl NegativeMiner for Bm25Miner {
    fn name(&self) -> String {
        format!("bm25 ({})", self.analysis.code())
    }

    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let index = Bm25Index::build(collection, &self.analysis, self.in_memory, progress).map_err(failed)?;
        index.rank_with(queries, depth, progress)
    }
}

fn failed(source: TantivyError) -> DataError {
    DataError::Miner { miner: "bm25".to_owned(), source: Box::new(source) }
}

fn text_bytes(collection: &Collection) -> u64 {
    collection.iter().map(|text| text.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn texts<Kind>(texts: &[&str]) -> crate::texts::Texts<Kind> {
        let mut out = crate::texts::Texts::new();
        texts.iter().for_each(|text| {
            out.add(text).unwrap();
        });
        out
    }

    const DOCUMENTS: [&str; 5] = [
        "a red fox jumps over a red fence",
        "the brown dog sleeps",
        "foxes and dogs are animals, and a fox is not a dog",
        "red red red paint",
        "nothing to see here",
    ];

    /// BM25 as published (Robertson and Zaragoza 2009) with Lucene's idf, in f64; tantivy rounds document lengths,
    /// which is why the tests' documents are short enough to be stored exactly.
    fn naive(documents: &[&str], query: &str, k1: f64, b: f64) -> Vec<f64> {
        let mut analyzer = TextAnalysis::for_language("en").analyzer().unwrap();
        let mut terms = |text: &str| analyzer.tokens(text).into_iter().map(|token| token.text).collect::<Vec<_>>();
        let documents: Vec<Vec<String>> = documents.iter().map(|text| terms(text)).collect();
        let mean = documents.iter().map(Vec::len).sum::<usize>() as f64 / documents.len() as f64;
        let mut scores = vec![0.0; documents.len()];
        for term in terms(query) {
            let containing = documents.iter().filter(|document| document.contains(&term)).count() as f64;
            let idf = (1.0 + (documents.len() as f64 - containing + 0.5) / (containing + 0.5)).ln();
            for (score, document) in scores.iter_mut().zip(&documents) {
                let tf = document.iter().filter(|word| **word == term).count() as f64;
                let norm = k1 * (1.0 - b + b * document.len() as f64 / mean);
                *score += idf * tf * (k1 + 1.0) / (tf + norm);
            }
        }
        scores
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        let collection = texts(&DOCUMENTS);
        let index = Bm25Index::new(&collection, &TextAnalysis::default()).unwrap();
        let queries = ["red fox", "dogs and foxes", "paint paint dog"];
        let rankings = index.rank(&texts(&queries), 10).unwrap();
        for (query, ranking) in queries.iter().zip(rankings) {
            let expected = naive(&DOCUMENTS, query, 1.2, 0.75);
            let found: HashMap<u32, f32> = ranking.iter().map(|ranked| (ranked.pid, ranked.score)).collect();
            for (pid, &score) in expected.iter().enumerate() {
                let found = found.get(&(pid as u32)).copied().unwrap_or(0.0);
                // f32 sums of at most three terms.
                assert!((f64::from(found) - score).abs() < 1e-5, "{query}, {pid}: {found} against {score}");
            }
            assert!(ranking.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }

    #[test]
    fn ties_go_by_pid_and_the_depth_is_kept() {
        let collection = texts(&["a fox 1", "a fox 2", "a fox 3", "a fox 4"]);
        let index = Bm25Index::new(&collection, &TextAnalysis::default()).unwrap();
        let rankings = index.rank(&texts(&["fox", "the of", "unseen"]), 3).unwrap();
        assert_eq!(rankings[0].iter().map(|ranked| ranked.pid).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(rankings[1].is_empty() && rankings[2].is_empty());
        assert!(index.rank(&texts(&["fox"]), 0).unwrap()[0].is_empty());
    }

    #[test]
    fn an_index_on_disk_ranks_alike_and_leaves_nothing_behind() {
        let text = |number: u32| {
            format!("fox {} and dog {} paint {}", number % 7, number % 11, "hill ".repeat(number as usize % 5))
        };
        let texts = |range: std::ops::Range<u32>| {
            let mut collection = Collection::new();
            range.for_each(|number| {
                collection.add(&text(number)).unwrap();
            });
            collection
        };
        let collection = texts(0..3000);
        let mut queries = Queries::new();
        for number in 0..50 {
            queries.add(&text(number * 31)).unwrap();
        }
        let rankings = |in_memory| {
            let miner = Bm25Miner { in_memory, ..Bm25Miner::default() };
            miner.rank(&queries, &collection, 40, &|_, _, _| ()).unwrap()
        };
        assert_eq!(rankings(0), rankings(u64::MAX));
        let size: u64 = collection.iter().map(|text| text.len() as u64).sum();
        let build =
            |in_memory| Bm25Index::build(&collection, &TextAnalysis::default(), in_memory, &|_, _, _| ()).unwrap();
        assert!(build(size).folder.is_none());
        let index = build(size - 1);
        let folder = index.folder.as_ref().unwrap().path().to_owned();
        assert!(folder.is_dir());
        drop(index);
        assert!(!folder.exists());
    }

    #[test]
    fn an_empty_collection_ranks_nothing() {
        let index = Bm25Index::new(&Collection::new(), &TextAnalysis::default()).unwrap();
        assert_eq!(index.rank(&texts(&["fox"]), 5).unwrap(), [[]]);
    }
}

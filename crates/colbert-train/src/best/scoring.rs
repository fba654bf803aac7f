//! MaxSim of every judged query with every document, in blocks: memory does not grow with the corpus.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use colbert_data::{Candidates, EvaluationSet};
use colbert_kernels::{KernelBackend, ScoredTexts};
use colbert_model::{
    Colbert, ColbertTokenizer, Embeddings, Encoder, TokenPooling, TokenSequence, maxsim, scored_texts,
};
use rayon::prelude::*;

use crate::best::standing::Standing;
use crate::error::TrainError;
use crate::flow::Flow;
use crate::processes::Processes;
use crate::processes::exchange::{gather_results, host_values};

/// Takes the scores of one query with a block of documents, of which the first has this place in the list.
type TakeScores<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

/// Whether a query (the second) is to be scored with the documents at these places.
type Concerned<'a> = dyn Fn(Range<usize>, usize) -> bool + 'a;

/// Queries whose vectors are held at once: 16 KiB each with 32 tokens of 128 numbers. With more judged queries,
/// documents are encoded once for each such part.
pub(crate) const QUERIES_HELD: usize = 16_384;

/// Queries of one MaxSim. The composed operator makes a matrix `[queries, query tokens]`, which grows with the square.
const QUERY_BLOCK: usize = 64;

/// Documents encoded at once, if their tokens are not too many.
pub(crate) const DOCUMENT_BLOCK: usize = 64;

/// Scores of relevant documents that an evaluation keeps: 16 MiB.
pub(crate) const SCORES_HELD: usize = 4 << 20;

/// A model, and the texts that it ranks.
pub(crate) struct Scorer<'a, B: KernelBackend, E: Encoder<B>> {
    pub(crate) model: &'a Colbert<B, E>,
    pub(crate) tokenizer: &'a ColbertTokenizer,
    pub(crate) set: &'a EvaluationSet,
    /// The documents of each query that are ranked; none for all.
    pub(crate) candidates: Option<&'a Candidates>,
    pub(crate) device: &'a B::Device,
    /// Tokens encoded at once; a longer text is encoded alone.
    pub(crate) tokens_at_once: usize,
    /// Scores of relevant documents that are kept until all of them are encoded; if there are more, these documents are
    /// encoded a second time.
    pub(crate) scores_held: usize,
    pub(crate) with_loss: bool,
    /// Blocks of texts are shared among these.
    pub(crate) processes: &'a dyn Processes,
}

/// The scores of relevant documents.
struct RelevantScores {
    /// Of each query: its relevant documents with grade and score.
    own: Vec<Vec<(u32, i32, f32)>>,
    /// Scores `[queries, documents]` of all documents that are relevant to a query; none if they are too many to keep.
    held: Option<Vec<f32>>,
}

/// The documents in the order in which they are scored.
struct Order {
    /// Documents that are relevant to a query, with the queries of each (places in the list of queries) and their
    /// grades, by the first of these.
    relevant: Vec<(u32, Vec<(usize, i32)>)>,
    /// All others.
    others: Vec<u32>,
}

impl<B: KernelBackend, E: Encoder<B>> Scorer<'_, B, E> {
    /// Computes the standing of each of these queries, at most [`QUERIES_HELD`]. `progress` receives how many documents
    /// are done, and may end it.
    pub(crate) fn standings(
        &self,
        qids: &[u32],
        progress: &mut dyn FnMut(usize) -> Flow,
    ) -> Result<Vec<Standing>, TrainError> {
        let queries = self.queries(qids)?;
        let order = self.order(qids);
        let pids: Vec<u32> = order.relevant.iter().map(|(pid, _)| *pid).collect();
        // The relevant documents first: the others are compared with their scores.
        let RelevantScores { own, held } = self.relevant_scores(&queries, &order.relevant, qids.len(), progress)?;
        let mut standings: Vec<Standing> = own.into_iter().map(|own| Standing::new(own, self.with_loss)).collect();
        let mut pass = |query: usize, pid: u32, score: f32| {
            if !standings[query].is_relevant(pid) && self.is_candidate(qids[query], pid) {
                standings[query].pass(pid, score);
            }
        };
        let (rest, done) = match held {
            Some(held) => {
                for (query, row) in held.chunks(pids.len().max(1)).enumerate() {
                    pids.iter().zip(row).for_each(|(&pid, &score)| pass(query, pid, score));
                }
                (order.others, pids.len())
            }
            None => ([pids, order.others].concat(), 0),
        };
        let mut take = |query: usize, first: usize, row: &[f32]| {
            rest[first..].iter().zip(row).for_each(|(&pid, &score)| pass(query, pid, score));
        };
        self.each_block(&queries, &rest, &|_, _| true, &mut take, &mut |count| progress(done + count))?;
        Ok(standings)
    }

    /// Encodes the relevant documents. Where their scores are not kept they are encoded again later, and not counted as
    /// done.
    fn relevant_scores(
        &self,
        queries: &[Embeddings<B>],
        relevant: &[(u32, Vec<(usize, i32)>)],
        query_count: usize,
        progress: &mut dyn FnMut(usize) -> Flow,
    ) -> Result<RelevantScores, TrainError> {
        let count = relevant.len();
        let keeps = count.saturating_mul(query_count) <= self.scores_held;
        let mut held = vec![0f32; if keeps { count * query_count } else { 0 }];
        let mut own = vec![Vec::new(); query_count];
        let grade = |relevant_to: &[(usize, i32)], query: usize| {
            relevant_to.binary_search_by_key(&query, |(query, _)| *query).ok().map(|place| relevant_to[place].1)
        };
        let pids: Vec<u32> = relevant.iter().map(|(pid, _)| *pid).collect();
        let concerned = |block: Range<usize>, query: usize| {
            keeps || relevant[block].iter().any(|(_, relevant_to)| grade(relevant_to, query).is_some())
        };
        let mut take = |query: usize, first: usize, row: &[f32]| {
            for ((pid, relevant_to), &score) in relevant[first..].iter().zip(row) {
                own[query].extend(grade(relevant_to, query).map(|grade| (*pid, grade, score)));
            }
            if keeps {
                held[query * count + first..][..row.len()].copy_from_slice(row);
            }
        };
        self.each_block(queries, &pids, &concerned, &mut take, &mut |count| progress(if keeps { count } else { 0 }))?;
        Ok(RelevantScores { own, held: keeps.then_some(held) })
    }

    fn is_candidate(&self, qid: u32, pid: u32) -> bool {
        self.candidates.is_none_or(|candidates| candidates.contains(qid, pid))
    }

    fn order(&self, qids: &[u32]) -> Order {
        let mut place = vec![usize::MAX; self.set.collection.len()];
        let mut relevant: Vec<(u32, Vec<(usize, i32)>)> = Vec::new();
        for (query, &qid) in qids.iter().enumerate() {
            for &(pid, grade) in self.set.judgements.of(qid).iter().filter(|(_, grade)| *grade > 0) {
                // A document that is not in the corpus cannot be found; metrics count it as missed.
                // Neither can one that is no candidate.
                let Some(place) = place.get_mut(pid as usize).filter(|_| self.is_candidate(qid, pid)) else { continue };
                if *place == usize::MAX {
                    *place = relevant.len();
                    relevant.push((pid, Vec::new()));
                }
                relevant[*place].1.push((query, grade));
            }
        }
        let mut ranked = vec![self.candidates.is_none(); place.len()];
        if let Some(candidates) = self.candidates {
            qids.iter().flat_map(|qid| candidates.of(*qid)).for_each(|pid| ranked[*pid as usize] = true);
        }
        let is_other = |pid: &u32| place[*pid as usize] == usize::MAX && ranked[*pid as usize];
        let others = (0..place.len() as u32).filter(is_other).collect();
        Order { relevant, others }
    }

    /// Encodes the queries in blocks of [`QUERY_BLOCK`] (fewer if they have many tokens).
    fn queries(&self, qids: &[u32]) -> Result<Vec<Embeddings<B>>, TrainError> {
        let blocks: Vec<&[u32]> = qids.chunks(QUERY_BLOCK).collect();
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let mut encoded = Vec::with_capacity(blocks.len());
        for (first, round) in (0..).step_by(size).zip(blocks.chunks(size)) {
            let own = blocks.get(first + rank).map(|block| self.query_block(block));
            if size == 1 {
                encoded.extend(own.transpose()?);
                continue;
            }
            let own = own.transpose().map(|own| own.map_or_else(Vec::new, |own| host_values(own.vectors)));
            for (block, values) in round.iter().zip(gather_results(self.processes, own)?) {
                let sequences = self.query_tokens(block)?;
                let tokens: usize = sequences.iter().map(TokenSequence::len).sum();
                let shape = [tokens, values.len() / tokens];
                let vectors = Tensor::from_data(TensorData::new(values, shape), self.device);
                encoded.push(Embeddings { vectors, texts: scored_texts(&sequences) });
            }
        }
        Ok(encoded)
    }

    fn query_tokens(&self, qids: &[u32]) -> Result<Vec<TokenSequence>, TrainError> {
        let texts: Vec<&str> = qids.iter().map(|&qid| self.set.queries.text(qid)).collect();
        Ok(self.tokenizer.queries(&texts)?)
    }

    fn query_block(&self, qids: &[u32]) -> Result<Embeddings<B>, TrainError> {
        let sequences = self.query_tokens(qids)?;
        let pieces = within(&sequences, self.tokens_at_once).into_iter();
        let pieces: Vec<_> = pieces.map(|piece| self.model.encode(&sequences[piece], self.device)).collect();
        let queries = Embeddings::concatenated(&pieces);
        if let Some(place) = not_finite(&queries) {
            let qid = qids[place];
            let id = self.set.queries.id(qid).map_or_else(|| qid.to_string(), str::to_owned);
            return Err(TrainError::NonFiniteVectors { what: "query", id });
        }
        Ok(queries)
    }

    /// Scores documents block by block with the queries that are `concerned`. Each process computes every `size`-th
    /// block, and all take the scores of all blocks in their order. `progress` receives how many documents are done.
    fn each_block(
        &self,
        queries: &[Embeddings<B>],
        pids: &[u32],
        concerned: &Concerned<'_>,
        take: &mut TakeScores<'_>,
        progress: &mut dyn FnMut(usize) -> Flow,
    ) -> Result<(), TrainError> {
        let count = queries.iter().map(Embeddings::len).sum();
        let at_once = documents_at_once(pids.len());
        let places = |start: usize| start..(start + at_once).min(pids.len());
        let concerned_by = |block: Range<usize>| -> Vec<usize> {
            (0..count).filter(|query| concerned(block.clone(), *query)).collect()
        };
        let blocks: Vec<Range<usize>> = (0..pids.len()).step_by(at_once).map(places).collect();
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let mut goes_on = Ok(());
        for (first, round) in (0..).step_by(size).zip(blocks.chunks(size)) {
            let own = goes_on.and_then(|()| match blocks.get(first + rank) {
                Some(block) => self.block_scores(queries, &pids[block.clone()], &concerned_by(block.clone())),
                None => Ok(Vec::new()),
            });
            for (block, values) in round.iter().zip(gather_results(self.processes, own)?) {
                for (query, row) in concerned_by(block.clone()).into_iter().zip(values.chunks(block.len())) {
                    take(query, block.start, row);
                }
            }
            goes_on = go_on(progress(round[round.len() - 1].end));
        }
        gather_results(self.processes, goes_on.map(|()| Vec::new())).map(drop)
    }

    /// Scores of some documents with some queries, a row a query.
    fn block_scores(
        &self,
        queries: &[Embeddings<B>],
        pids: &[u32],
        concerned: &[usize],
    ) -> Result<Vec<f32>, TrainError> {
        let texts: Vec<&str> = pids.iter().map(|&pid| self.set.collection.text(pid)).collect();
        let sequences = self.tokenizer.documents(&texts)?;
        let mut rows = vec![0f32; concerned.len() * pids.len()];
        for piece in within(&sequences, self.tokens_at_once) {
            let documents = self.model.encode(&sequences[piece.clone()], self.device);
            if let Some(place) = not_finite(&documents) {
                let pid = pids[piece.start + place];
                let id = self.set.collection.id(pid).map_or_else(|| pid.to_string(), str::to_owned);
                return Err(TrainError::NonFiniteVectors { what: "document", id });
            }
            let documents = match self.tokenizer.settings().token_pooling {
                Some(pooling) => pooled(&documents, &pooling, self.device),
                None => documents,
            };
            self.scores(queries, &documents, concerned, &mut |place, row| {
                rows[place * pids.len() + piece.start..][..row.len()].copy_from_slice(row);
            });
        }
        Ok(rows)
    }

    /// Scores of encoded documents with some queries, in rising order; `take` receives the place of each among these,
    /// and its row.
    fn scores(
        &self,
        queries: &[Embeddings<B>],
        documents: &Embeddings<B>,
        concerned: &[usize],
        take: &mut dyn FnMut(usize, &[f32]),
    ) {
        let (mut of_blocks, mut scores) = (Vec::new(), Vec::new());
        for (block, queries) in queries.iter().enumerate() {
            let own = block * QUERY_BLOCK..block * QUERY_BLOCK + queries.len();
            if concerned.iter().any(|query| own.contains(query)) {
                of_blocks.extend(own);
                scores.push(maxsim(queries, documents));
            }
        }
        if scores.is_empty() {
            return;
        }
        // Read together: on a GPU every read waits for it.
        let scores = host_values(Tensor::cat(scores, 0));
        for (query, row) in of_blocks.into_iter().zip(scores.chunks(documents.len())) {
            if let Ok(place) = concerned.binary_search(&query) {
                take(place, row);
            }
        }
    }
}

/// Returns the documents of a block: of few documents fewer, so that processes have about as many each. It does not
/// depend on the number of processes, and neither do scores.
fn documents_at_once(documents: usize) -> usize {
    documents.div_ceil(8).next_multiple_of(8).clamp(8, DOCUMENT_BLOCK)
}

/// Pools the vectors of documents, if the model directory does so.
fn pooled<B: KernelBackend>(documents: &Embeddings<B>, pooling: &TokenPooling, device: &B::Device) -> Embeddings<B> {
    let dim = documents.dim();
    let rows: Vec<Vec<f32>> = documents.to_host().par_iter().map(|text| pooling.pool(&text.values, dim)).collect();
    // A text without a scored token keeps a place that is not scored.
    let rows: Vec<(Vec<f32>, bool)> =
        rows.into_iter().map(|rows| if rows.is_empty() { (vec![0.0; dim], false) } else { (rows, true) }).collect();
    let lengths: Vec<usize> = rows.iter().map(|(rows, _)| rows.len() / dim).collect();
    let scored =
        rows.iter().zip(&lengths).flat_map(|((_, is_scored), length)| std::iter::repeat_n(*is_scored, *length));
    let texts = ScoredTexts::new(&lengths, scored.collect::<Vec<bool>>());
    let values: Vec<f32> = rows.into_iter().flat_map(|(rows, _)| rows).collect();
    let count = values.len() / dim;
    Embeddings { vectors: Tensor::from_data(TensorData::new(values, [count, dim]), device), texts }
}

fn go_on(flow: Flow) -> Result<(), TrainError> {
    if flow == Flow::Continue { Ok(()) } else { Err(TrainError::Interrupted) }
}

/// Cuts texts into ranges of at most `tokens` tokens; a longer text has a range of its own.
fn within(sequences: &[TokenSequence], tokens: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut sum) = (Vec::new(), 0, 0);
    for (place, sequence) in sequences.iter().enumerate() {
        if place > start && sum + sequence.len() > tokens {
            ranges.push(start..place);
            (start, sum) = (place, 0);
        }
        sum += sequence.len();
    }
    if start < sequences.len() {
        ranges.push(start..sequences.len());
    }
    ranges
}

/// Finds the first text with a vector that is not finite. MaxSim cannot detect it: it skips NaN when it looks for the
/// largest product.
pub(crate) fn not_finite<B: KernelBackend>(embeddings: &Embeddings<B>) -> Option<usize> {
    if colbert_kernels::all_finite(embeddings.vectors.clone()) {
        return None;
    }
    let dim = embeddings.vectors.dims()[1];
    let values = embeddings.vectors.to_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
    let of_text = |text: &usize| {
        let rows = embeddings.texts.rows(*text);
        values[rows.start * dim..rows.end * dim].iter().any(|value| !value.is_finite())
    };
    Some((0..embeddings.len()).find(of_text).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use colbert_data::{Collection, Judgements, Queries};
    use colbert_model::{ColbertSettings, Pretrained};
    use test_backend::{TestBackend, device};

    use super::*;
    use crate::processes::OneProcess;

    /// 70 queries, so that there are two blocks, each judged on up to two of 150 documents.
    fn set() -> EvaluationSet {
        let (mut queries, mut collection, mut judgements) = (Queries::new(), Collection::new(), Judgements::new());
        let words = ["tor", "bog", "moor", "river", "dam", "weir", "ford", "hill"];
        let text = |seed: usize, count: usize| {
            let words: Vec<&str> = (0..count).map(|i| words[(seed * 31 + i * i * 7 + seed / 8) % 8]).collect();
            format!("{} {seed}", words.join(" "))
        };
        for i in 0..150 {
            collection.add(&text(i, 1 + i % 17)).unwrap();
        }
        for i in 0..70 {
            let qid = queries.add(&text(i * 3, 4)).unwrap();
            judgements.insert(qid, (i * 2) as u32, 1);
            judgements.insert(qid, (i % 5) as u32, 2);
        }
        EvaluationSet { queries, collection: Arc::new(collection), judgements }
    }

    /// Blocks, what is kept and what is encoded again change no rank, no score and no loss.
    #[test]
    fn standings_do_not_depend_on_blocks() {
        let settings = ColbertSettings { dim: 16, ..ColbertSettings::default() };
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/parity/tiny");
        let pretrained = Pretrained::read(&tiny).unwrap();
        let device = device();
        let (model, _) = pretrained.model::<TestBackend>(&settings, None, 0, &device).unwrap();
        let (tokenizer, set) = (pretrained.tokenizer(&settings).unwrap(), set());
        let qids: Vec<u32> = (0..set.queries.len() as u32).collect();
        let standings = |tokens_at_once, scores_held| {
            let (model, tokenizer, set, device) = (&model, &tokenizer, &set, &device);
            let (candidates, processes) = (None, &OneProcess);
            let scorer = Scorer {
                model,
                tokenizer,
                set,
                candidates,
                device,
                tokens_at_once,
                scores_held,
                with_loss: true,
                processes,
            };
            let mut told = Vec::new();
            let found = scorer.standings(&qids, &mut |done| {
                told.push(done);
                Flow::Continue
            });
            assert!(told.is_sorted() && told.last() == Some(&150), "{told:?}");
            found.unwrap().iter().map(|own| (own.ranks(), own.first(), own.loss().unwrap())).collect::<Vec<_>>()
        };
        let expected = standings(usize::MAX, usize::MAX);
        assert!(expected.iter().any(|(ranks, ..)| ranks.len() == 2 && ranks[0].0 > 1), "not all is trivial");
        for (tokens_at_once, scores_held) in [(usize::MAX, 0), (100, usize::MAX), (1, 0)] {
            for (found, expected) in standings(tokens_at_once, scores_held).iter().zip(&expected) {
                assert_eq!((&found.0, &found.1), (&expected.0, &expected.1), "{tokens_at_once} {scores_held}");
                assert!((found.2 - expected.2).abs() < 1e-9, "{} {}", found.2, expected.2);
            }
        }
    }

    /// Of the documents of a small pool, no process of four has more than two fifths.
    #[test]
    fn a_small_pool_is_many_blocks() {
        for documents in [30, 60, 100, 250, 500, 1000] {
            let at_once = documents_at_once(documents);
            let blocks = documents.div_ceil(at_once);
            let most = blocks.div_ceil(4) * at_once;
            assert!(most * 5 <= documents * 2, "{documents} in blocks of {at_once}");
        }
        assert_eq!([1, 64, 449, 100_000].map(documents_at_once), [8, 8, 64, 64]);
    }

    /// Pooled documents keep their order and no text is lost, one without a scored token included.
    #[test]
    fn documents_are_pooled_one_by_one() {
        let row = |a: f32, b: f32| [a, b];
        let values: Vec<f32> = [row(1.0, 0.0), row(0.0, 1.0), row(0.0, 1.0), row(1.0, 0.0), row(0.6, 0.8)].concat();
        let vectors = Tensor::<TestBackend, 2>::from_data(TensorData::new(values, [5, 2]), &device());
        let texts = ScoredTexts::new(&[3, 1, 1], vec![true, true, true, false, true]);
        let found = pooled(&Embeddings { vectors, texts }, &TokenPooling::new(2.0).unwrap(), &device());
        let rows: Vec<Vec<f32>> = found.to_host().into_iter().map(|text| text.values).collect();
        assert_eq!(rows, [vec![1.0, 0.0, 0.0, 1.0], vec![], vec![0.6, 0.8]]);
    }

    #[test]
    fn texts_are_cut_by_their_tokens_and_none_is_lost() {
        let text = |length| TokenSequence { ids: vec![0; length], attended: length, scored: vec![true; length] };
        let texts: Vec<_> = [3, 4, 9, 1, 1, 1, 8].map(text).to_vec();
        assert_eq!(within(&texts, 8), [0..2, 2..3, 3..6, 6..7]);
        assert!(within(&texts, 1000).into_iter().eq(std::iter::once(0..texts.len())));
        assert_eq!(within(&texts, 0), (0..7).map(|i| i..i + 1).collect::<Vec<_>>());
        assert!(within(&[], 8).is_empty());
    }
}

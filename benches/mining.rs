//! Negatives: BM25 (indexing a collection in memory, and ranking it for queries), a sentence encoder, late interaction.
#![expect(clippy::print_stdout, reason = "a bench says what it measures")]

use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::backend::Job;
use ragtrainer::config::NegativeOptions;
use ragtrainer::data::{Bm25Index, Bm25Miner, Collection, NegativeMiner, Queries, TextAnalysis};
use ragtrainer::model::kernels::KernelAutodiffBackend;
use ragtrainer::train::mining::{DenseMiner, LateInteractionMiner};
use ragtrainer_benches::{
    DOCUMENT_WORDS, QUERY_WORDS, Size, TextGenerator, backend, describe, group, measure, quick, quickstart_model,
    settings, tokenizer, untrained,
};

fn texts(documents: usize, count: usize) -> (Collection, Queries) {
    let mut generator = TextGenerator::new(7);
    let (mut collection, mut queries) = (Collection::new(), Queries::new());
    for text in generator.texts(documents, DOCUMENT_WORDS) {
        collection.add(&text).expect("a text with words");
    }
    for text in generator.texts(count, QUERY_WORDS) {
        queries.add(&text).expect("a text with words");
    }
    (collection, queries)
}

fn mining(criterion: &mut Criterion) {
    let (documents, count) = if quick() { (50, 10) } else { (10_000, 500) };
    let depth = NegativeOptions::default().hard_negative_maximum_rank;
    let (collection, queries) = texts(documents, count);
    println!("\nmining: BM25, {count} queries, {documents} documents, the best {depth} of each");
    let analysis = TextAnalysis::for_language("en");
    let indexed = || Bm25Index::new(&collection, &analysis).expect("an index in memory");
    let mut group = group(criterion, "mining");
    measure(&mut group, "bm25_index", &[("documents", documents)], || {
        std::hint::black_box(indexed());
    });
    let index = indexed();
    measure(&mut group, "bm25_rank", &[("queries", count)], || {
        std::hint::black_box(index.rank(&queries, depth).expect("a ranking"));
    });
    group.finish();
    backend().run(WithModel(criterion));
}

/// The miners that need a model: the quickstart's MiniLM-L3 as a sentence encoder, and a ColBERT of the same size.
struct WithModel<'a>(&'a mut Criterion);

impl Job for WithModel<'_> {
    type Output = ();

    fn run<AB: KernelAutodiffBackend>(self, device: &AB::Device) {
        let (size, doc_maxlen, documents, count) =
            if quick() { (Size::Tiny, 32, 20, 5) } else { (Size::L3, 256, 512, 50) };
        let depth = NegativeOptions::default().hard_negative_maximum_rank;
        let (collection, queries) = texts(documents, count);
        let shapes = format!("{count} queries, {documents} documents, the best {depth} of each");
        describe::<AB::InnerBackend>("mining with a model", device, &shapes);
        let dense = DenseMiner::<AB::InnerBackend>::read(Path::new(quickstart_model()), None, None, device)
            .expect("the quickstart's model");
        let settings = settings(doc_maxlen);
        let model = untrained::<AB::InnerBackend>(size, settings.dim, false, device);
        let late = LateInteractionMiner::new(model, tokenizer(&settings), Arc::new(Bm25Miner::new("en")), device);
        let mut group = group(self.0, "mining");
        for (name, miner) in [("dense", &dense as &dyn NegativeMiner), ("late_interaction", &late)] {
            measure(&mut group, name, &[("texts", documents + count)], || {
                std::hint::black_box(miner.rank(&queries, &collection, depth, &|_, _, _| ()).expect("a ranking"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, mining);
criterion_main!(benches);

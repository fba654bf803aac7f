//! BM25 negatives: indexing a collection in memory, and ranking it for queries.
#![expect(clippy::print_stdout, reason = "a bench says what it measures")]

use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::config::NegativeOptions;
use ragtrainer::data::{Bm25Index, Collection, Queries, TextAnalysis};
use ragtrainer_benches::{DOCUMENT_WORDS, QUERY_WORDS, TextGenerator, group, measure, quick};

fn mining(criterion: &mut Criterion) {
    let (documents, count) = if quick() { (50, 10) } else { (10_000, 500) };
    let depth = NegativeOptions::default().hard_negative_maximum_rank;
    let mut generator = TextGenerator::new(7);
    let (mut collection, mut queries) = (Collection::new(), Queries::new());
    for text in generator.texts(documents, DOCUMENT_WORDS) {
        collection.add(&text).expect("a text with words");
    }
    for text in generator.texts(count, QUERY_WORDS) {
        queries.add(&text).expect("a text with words");
    }
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
}

criterion_group!(benches, mining);
criterion_main!(benches);

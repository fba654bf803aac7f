//! Texts to token sequences, on all threads.
#![expect(clippy::print_stdout, reason = "a bench says what it measures")]

use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::model::TokenSequence;
use ragtrainer_benches::{DOCUMENT_WORDS, QUERY_WORDS, TextGenerator, group, measure, quick, settings, tokenizer};

fn tokenize(criterion: &mut Criterion) {
    let count = if quick() { 20 } else { 2_000 };
    let settings = settings(256);
    let tokenizer = tokenizer(&settings);
    let mut generator = TextGenerator::new(6);
    let documents = generator.texts(count, DOCUMENT_WORDS);
    let queries = generator.texts(count, QUERY_WORDS);
    let tokenized = |what: &str| match what {
        "documents" => tokenizer.documents(&documents).expect("texts of known words"),
        _ => tokenizer.queries(&queries).expect("texts of known words"),
    };
    println!(
        "\ntokenize: {count} documents of at most {} tokens, {count} queries of {}",
        settings.doc_maxlen, settings.query_maxlen
    );
    let mut group = group(criterion, "tokenize");
    for what in ["documents", "queries"] {
        let tokens = tokenized(what).iter().map(TokenSequence::len).sum();
        measure(&mut group, what, &[("tokens", tokens), (what, count)], || {
            std::hint::black_box(tokenized(what));
        });
    }
    group.finish();
}

criterion_group!(benches, tokenize);
criterion_main!(benches);

//! MaxSim of a batch of queries against a batch of documents: scores alone, and with the gradient of both sides.

use burn::tensor::backend::Backend;
use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::backend::Job;
use ragtrainer::model::kernels::{KernelAutodiffBackend, Precision};
use ragtrainer::model::{Embeddings, TokenSequence, maxsim};
use ragtrainer_benches::{
    DOCUMENT_WORDS, QUERY_WORDS, Size, TextGenerator, Work, backend, describe, group, measure, print_share,
    product_rate, quick, settings, tokenizer, untrained,
};

struct MaxSim<'a>(&'a mut Criterion);

impl Job for MaxSim<'_> {
    type Output = ();

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) {
        let (queries, documents, doc_maxlen) = if quick() { (4, 8, 32) } else { (32, 64, 256) };
        let settings = settings(doc_maxlen);
        let tokenizer = tokenizer(&settings);
        let mut generator = TextGenerator::new(5);
        let query_texts = tokenizer.queries(&generator.texts(queries, QUERY_WORDS)).expect("texts of known words");
        let document_texts = tokenizer.documents(&generator.texts(documents, DOCUMENT_WORDS));
        let document_texts = document_texts.expect("texts of known words");
        // Which encoder the vectors are from does not matter; lengths and dim do.
        let model = untrained::<B::InnerBackend>(Size::Tiny, settings.dim, false, device);
        let (plain_queries, plain_documents) =
            (model.encode(&query_texts, device), model.encode(&document_texts, device));
        let queries = Embeddings::<B>::leaf(plain_queries.clone());
        let documents = Embeddings::<B>::leaf(plain_documents.clone());

        let tokens = |texts: &[TokenSequence]| texts.iter().map(TokenSequence::len).sum::<usize>();
        let (query_tokens, document_tokens) = (tokens(&query_texts), tokens(&document_texts));
        let shapes = format!(
            "{} queries ({query_tokens} tokens) against {} documents ({document_tokens} tokens), dim {}",
            queries.len(),
            documents.len(),
            settings.dim
        );
        describe::<B>("maxsim", device, &shapes);

        let units = [("scores", queries.len() * documents.len()), ("token pairs", query_tokens * document_tokens)];
        let mut group = group(self.0, "maxsim");
        let seconds = measure(&mut group, "forward", &units, || {
            std::hint::black_box(maxsim(&plain_queries, &plain_documents));
            B::InnerBackend::sync(device).expect("the device answers");
        });
        if let Some(seconds) = seconds {
            let sizes = Size::L6.sizes();
            let peak = product_rate::<B::InnerBackend>(document_tokens, &sizes, Precision::F32, device);
            print_share("forward", Work::of_maxsim(query_tokens, document_tokens, settings.dim), seconds, peak);
        }
        measure(&mut group, "forward_backward", &units, || {
            std::hint::black_box(maxsim(&queries, &documents).sum().backward());
            B::sync(device).expect("the device answers");
        });
        group.finish();
    }
}

fn maxsim_scores(criterion: &mut Criterion) {
    backend().run(MaxSim(criterion));
}

criterion_group!(benches, maxsim_scores);
criterion_main!(benches);

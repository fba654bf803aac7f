//! Encoding without gradients, as evaluation and indexing do it: documents and queries, MiniLM-L6 and L3.

use burn::tensor::backend::Backend;
use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::Job;
use ragtrainer::model::TokenSequence;
use ragtrainer::model::kernels::KernelAutodiffBackend;
use ragtrainer_benches::{
    DOCUMENT_WORDS, QUERY_WORDS, Size, TextGenerator, backend, describe, group, measure, quick, settings, tokenizer,
    untrained,
};

struct Encode<'a>(&'a mut Criterion);

impl Job for Encode<'_> {
    type Output = ();

    fn run<AB: KernelAutodiffBackend>(self, device: &AB::Device) {
        let (sizes, count, doc_maxlen) =
            if quick() { (&[Size::Tiny][..], 8, 32) } else { (&[Size::L6, Size::L3][..], 64, 256) };
        let settings = settings(doc_maxlen);
        let tokenizer = tokenizer(&settings);
        let mut generator = TextGenerator::new(4);
        let documents = tokenizer.documents(&generator.texts(count, DOCUMENT_WORDS)).expect("texts of known words");
        let queries = tokenizer.queries(&generator.texts(count, QUERY_WORDS)).expect("texts of known words");
        let tokens = |texts: &[TokenSequence]| texts.iter().map(TokenSequence::len).sum::<usize>();
        let shapes = format!(
            "{count} documents of at most {doc_maxlen} tokens ({} in all), {count} queries of {} ({} in all), dim {}",
            tokens(&documents),
            settings.query_maxlen,
            tokens(&queries),
            settings.dim
        );
        describe::<AB::InnerBackend>("encode", device, &shapes);

        let mut group = group(self.0, "encode");
        for size in sizes {
            let model = untrained::<AB::InnerBackend>(*size, settings.dim, false, device);
            for (what, texts) in [("documents", &documents), ("queries", &queries)] {
                let units = [("tokens", tokens(texts)), (what, texts.len())];
                measure(&mut group, &format!("{size:?}/{what}"), &units, || {
                    std::hint::black_box(model.encode(texts, device));
                    AB::InnerBackend::sync(device).expect("the device answers");
                });
            }
        }
        group.finish();
    }
}

fn encode(criterion: &mut Criterion) {
    backend().run(Encode(criterion));
}

criterion_group!(benches, encode);
criterion_main!(benches);

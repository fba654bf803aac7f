//! Encoding without gradients, as evaluation and indexing do it: documents and queries, MiniLM-L6 and L3.

use burn::tensor::backend::Backend;
use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::backend::Job;
use ragtrainer::model::kernels::{KernelAutodiffBackend, Kernels, Precision};
use ragtrainer::model::{EncodeOptions, TokenSequence};
use ragtrainer_benches::{
    DOCUMENT_WORDS, QUERY_WORDS, Size, TextGenerator, Work, backend, describe, group, measure, print_share,
    product_rate, quick, settings, tokenizer, untrained,
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

        let has_bf16 = AB::InnerBackend::has_bf16(device);
        let precisions = [("f32", Precision::F32), ("bf16", Precision::Bf16)];
        let precisions = precisions.into_iter().filter(|(_, precision)| has_bf16 || *precision == Precision::F32);
        let mut group = group(self.0, "encode");
        for size in sizes {
            let model = untrained::<AB::InnerBackend>(*size, settings.dim, false, device);
            let of_encoder = size.sizes();
            for (name, precision) in precisions.clone() {
                let options = EncodeOptions { precision, ..EncodeOptions::default() };
                for (what, texts) in [("documents", &documents), ("queries", &queries)] {
                    let units = [("tokens", tokens(texts)), (what, texts.len())];
                    let id = format!("{size:?}/{what}/{name}");
                    let seconds = measure(&mut group, &id, &units, || {
                        std::hint::black_box(model.encode_with(texts, options, device));
                        AB::InnerBackend::sync(device).expect("the device answers");
                    });
                    if let Some(seconds) = seconds {
                        let peak = product_rate::<AB::InnerBackend>(tokens(texts), &of_encoder, precision, device);
                        print_share(&id, Work::of_encoding(texts.iter(), &of_encoder, settings.dim), seconds, peak);
                    }
                }
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

//! A hostile `config.json` in training: steps are computed and applied, which loading and encoding never do.

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use colbert_config::{Precision, TrainOptions, resolve};
use colbert_data::{Collection, Example, Judgements, Queries, TrainingSet};
use colbert_model::{ColbertSettings, Pretrained};
use colbert_train::{Begin, Training};

use super::scratch::{choice, with_scratch};
use super::tiny_model::write_tiny_model;

type B = Autodiff<Flex>;

/// Two examples of two documents each.
fn examples() -> TrainingSet {
    let (mut queries, mut collection) = (Queries::new(), Collection::new());
    let texts = [("tor ?", ["a tor", "tors ."]), ("a ?", ["a a a", "tor tor"])];
    let examples = texts.map(|(query, documents)| Example {
        query: queries.add(query).expect("a text"),
        documents: documents.map(|text| collection.add(text).expect("a text")).to_vec(),
        scores: None,
    });
    let examples = examples.to_vec();
    TrainingSet { queries, collection, examples, positives: Judgements::new(), sources: Vec::new() }
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    // The first byte chooses float32 or bfloat16, and one micro-batch or two.
    let Some((kind, content)) = choice(bytes, 4) else { return };
    with_scratch(
        "training",
        |scratch| write_tiny_model(scratch, "model"),
        |scratch| {
            scratch.write("model/config.json", content);
            let options = TrainOptions {
                dim: 2,
                batch_size: 2,
                query_maxlen: 8,
                doc_maxlen: 8,
                precision: if kind & 1 == 0 { Precision::F32 } else { Precision::Bf16 },
                accumsteps: 1 + kind / 2,
                epochs: 2,
                ..TrainOptions::default()
            };
            let settings = ColbertSettings::from(&options);
            let Ok(pretrained) = Pretrained::read(&scratch.path().join("model")) else { return };
            let Ok(tokenizer) = pretrained.tokenizer(&settings) else { return };
            let Ok((model, _)) = pretrained.model::<B>(&settings, None, options.seed, &FlexDevice) else { return };
            let set = examples();
            let plan = resolve(&options, set.examples.len()).expect("these options fit these examples");
            drop(Training::new(&set, &tokenizer, &options, &plan, &FlexDevice).run(model, Begin::New));
        },
    );
}

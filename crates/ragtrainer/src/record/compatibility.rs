//! Differences between this program and the others that load a directory written here. docs/interop.md has the table.

use colbert_config::{Options, TrainOptions};
use colbert_model::{EncoderConfig, HeadConfig, Loaders};

/// A choice that a program does not honour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHonoured {
    /// The program, or several that do the same.
    pub stack: &'static str,
    /// The behaviour it has instead, and what differs because of it.
    pub instead: &'static str,
    /// It is so with the default options too.
    pub by_default: bool,
}

impl std::fmt::Display for NotHonoured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.stack, self.instead)
    }
}

/// Lists what programs that load an exported directory do not honour of these options, of the model's head and of its
/// encoder. Programs that refuse the directory come first and have that line alone. PyLate and sentence-transformers
/// honour all of them, and so does next-plaid with `export_onnx`. Without `encoder` it is one of another crate, which
/// no program knows.
pub fn not_honoured(options: &Options, head: &HeadConfig, encoder: Option<&EncoderConfig>) -> Vec<NotHonoured> {
    let Some(encoder) = encoder else {
        let instead = "does not know this encoder and refuses the directory";
        return vec![NotHonoured { stack: "every other program", instead, by_default: false }];
    };
    const COLBERT_AI: &str = "colbert-ai and RAGatouille";
    const PYLATE_RS: &str = "pylate-rs";
    const NEXT_PLAID: &str = "next-plaid, by way of PyLate's ONNX export";
    const FIRST_LAYER: &str =
        "takes the first matrix of the head alone, without bias, activation and residual: other vectors";
    let Loaders { colbert_ai, pylate_rs, colbert_ai_punctuation } = encoder.loaders();
    let TrainOptions { query_expansion, mask_punctuation, attend_to_mask_tokens, .. } = options.train;
    let (relu, stacked) = (head.is_simple() && head.ends_with_relu(), !head.is_simple());
    let differences = [
        (relu, COLBERT_AI, "leave the ReLU after the projection out: other vectors", false),
        (
            stacked && !head.is_linear(),
            COLBERT_AI,
            "take the head's matrices multiplied into one, without biases and activations: other vectors",
            false,
        ),
        (!query_expansion, COLBERT_AI, "fill queries up with [MASK] all the same: other vectors", false),
        (
            mask_punctuation && !colbert_ai_punctuation,
            COLBERT_AI,
            "take other tokens for punctuation: other scores of documents",
            true,
        ),
        (relu, PYLATE_RS, "leaves the ReLU after the projection out: other vectors", false),
        (stacked, PYLATE_RS, FIRST_LAYER, false),
        (!query_expansion, PYLATE_RS, "fills queries up with [MASK] all the same: other vectors", false),
        (mask_punctuation, PYLATE_RS, "scores the punctuation of documents: other scores, the same vectors", true),
        (relu, NEXT_PLAID, "leaves the ReLU after the projection out: other vectors", false),
        (stacked, NEXT_PLAID, FIRST_LAYER, false),
        (
            query_expansion && !attend_to_mask_tokens,
            NEXT_PLAID,
            "does without [MASK] expansion, or attends to it: other vectors of queries",
            true,
        ),
        (
            query_expansion && attend_to_mask_tokens,
            NEXT_PLAID,
            "does without [MASK] expansion: other vectors of queries",
            false,
        ),
    ];
    let refused = [
        (!colbert_ai, COLBERT_AI, "refuse this encoder under the tensor names that the other programs read"),
        (!pylate_rs, PYLATE_RS, "refuses encoders other than BERT and ModernBERT"),
    ];
    let refused: Vec<_> = refused.into_iter().filter(|(refuses, ..)| *refuses).collect();
    // With a graph of ours next-plaid needs none of PyLate's.
    let counts = |stack: &str| {
        !(refused.iter().any(|(_, refusing, _)| *refusing == stack) || options.export_onnx && stack == NEXT_PLAID)
    };
    let differences = differences.into_iter().filter(|(chosen, stack, ..)| *chosen && counts(stack));
    let differences = differences.map(|(_, stack, instead, by_default)| NotHonoured { stack, instead, by_default });
    let refused = refused.iter().map(|(_, stack, instead)| NotHonoured { stack, instead, by_default: false });
    refused.chain(differences).collect()
}

#[cfg(test)]
mod tests {
    use colbert_model::{Activation, DenseConfig};

    use super::*;

    fn lines_of(train: TrainOptions, head: &HeadConfig) -> Vec<(String, bool)> {
        let options = Options { train, ..Options::default() };
        not_honoured(&options, head, Some(&encoder("bert")))
            .iter()
            .map(|one| (one.to_string(), one.by_default))
            .collect()
    }

    fn encoder(model_type: &str) -> EncoderConfig {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests");
        let folder = if model_type == "bert" { "parity/tiny".to_owned() } else { format!("families/{model_type}") };
        colbert_model::Pretrained::read(&fixtures.join(folder)).unwrap().config
    }

    #[test]
    fn programs_that_refuse_an_encoder_have_that_line_alone() {
        let train = TrainOptions { use_relu: true, ..TrainOptions::default() };
        let options = Options { train, export_onnx: true, ..Options::default() };
        let lines = |model_type: &str| -> Vec<String> {
            let all = not_honoured(&options, &simple(Activation::Relu), Some(&encoder(model_type)));
            all.iter().map(ToString::to_string).collect()
        };
        let modern = lines("modernbert");
        assert!(
            modern[0].contains("refuse this encoder") && modern[1].contains("pylate-rs: leaves the ReLU"),
            "{modern:?}"
        );
        assert!(modern[1..].iter().all(|line| line.starts_with("pylate-rs")), "{modern:?}");
        let electra = lines("electra");
        assert!(electra.len() == 2 && electra[0] == "pylate-rs: refuses encoders other than BERT and ModernBERT");
        let roberta = lines("roberta");
        assert!(roberta.len() == 3 && roberta[2].contains("other tokens for punctuation"), "{roberta:?}");
    }

    fn simple(activation: Activation) -> HeadConfig {
        HeadConfig { layers: vec![DenseConfig { activation, ..DenseConfig::linear(32, 16) }] }
    }

    fn lines(train: TrainOptions) -> Vec<(String, bool)> {
        lines_of(train, &simple(Activation::Identity))
    }

    #[test]
    fn what_is_not_honoured_by_default_is_marked() {
        let all = lines(TrainOptions::default());
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().all(|(_, by_default)| *by_default), "{all:?}");
        assert!(all[0].0.starts_with("pylate-rs: ") && all[1].0.starts_with("next-plaid"), "{all:?}");
        let attending =
            TrainOptions { mask_punctuation: false, attend_to_mask_tokens: true, ..TrainOptions::default() };
        let all = lines(attending);
        assert!(all.len() == 1 && all[0].0.contains("does without [MASK] expansion:") && !all[0].1, "{all:?}");
    }

    #[test]
    fn every_choice_has_a_line_for_each_stack() {
        let relu = TrainOptions { use_relu: true, ..TrainOptions::default() };
        let all = lines_of(relu, &simple(Activation::Relu));
        assert_eq!(all.iter().filter(|(line, _)| line.contains("ReLU")).count(), 3);
        let short = TrainOptions { query_expansion: false, ..TrainOptions::default() };
        let all = lines(short);
        assert_eq!(all.iter().filter(|(line, _)| line.contains("fill")).count(), 2);
        assert!(!all.iter().any(|(line, _)| line.contains("does without")), "{all:?}");
    }

    #[test]
    fn next_plaid_honours_a_graph_of_ours() {
        let train = TrainOptions { use_relu: true, mask_punctuation: false, ..TrainOptions::default() };
        let options = |export_onnx| Options { export_onnx, train: train.clone(), ..Options::default() };
        let named = |options: &Options| {
            let all = not_honoured(options, &simple(Activation::Relu), Some(&encoder("bert")));
            all.iter().filter(|one| one.stack.starts_with("next-plaid")).count()
        };
        assert_eq!((named(&options(false)), named(&options(true))), (2, 0));
    }

    #[test]
    fn a_head_of_several_layers_has_a_line_for_each_stack_that_reads_one_matrix() {
        let mut layers = vec![DenseConfig::linear(32, 48), DenseConfig::linear(48, 16)];
        let linear = HeadConfig { layers: layers.clone() };
        let with = |head: &HeadConfig, word: &str| -> Vec<String> {
            let all = lines_of(TrainOptions::default(), head);
            assert!(all.iter().all(|(line, by_default)| !line.contains("head") || !by_default));
            all.into_iter().map(|(line, _)| line).filter(|line| line.contains(word)).collect()
        };
        let all = with(&linear, "first matrix");
        assert!(all.len() == 2 && all[0].starts_with("pylate-rs") && all[1].starts_with("next-plaid"), "{all:?}");
        assert!(with(&linear, "multiplied into one").is_empty(), "one matrix does the same");
        layers[0].activation = Activation::Gelu;
        let all = with(&HeadConfig { layers }, "multiplied into one");
        assert!(all.len() == 1 && all[0].starts_with("colbert-ai"), "{all:?}");
        let biased = HeadConfig { layers: vec![DenseConfig { bias: true, ..DenseConfig::linear(32, 16) }] };
        assert_eq!((with(&biased, "first matrix").len(), with(&biased, "multiplied into one").len()), (2, 1));
    }
}

//! Differences between this program and the others that load a directory written here. docs/interop.md has the table.

use colbert_config::{ExportLayout, Options};
use colbert_model::{ColbertSettings, EncoderConfig, HeadConfig, Loaders, Transformers};

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

const COLBERT_AI: &str = "colbert-ai and RAGatouille";
const PYLATE: &str = "PyLate";
const PYLATE_AND_SENTENCE_TRANSFORMERS: &str = "PyLate and sentence-transformers";
const PYLATE_RS: &str = "pylate-rs";
const NEXT_PLAID: &str = "next-plaid";
const NEXT_PLAID_BY_PYLATE: &str = "next-plaid, by way of PyLate's ONNX export";

/// A choice, the program that does not honour it, its behaviour instead, and whether it is so by default.
type Difference = (bool, &'static str, &'static str, bool);

/// Lists what programs that load an exported directory do not honour of these options, of the model's settings, head
/// and encoder. Programs that refuse the directory come first and have that line alone. sentence-transformers 6 honours
/// all of them where its transformers knows the encoder. Without `encoder` it is one of another crate, which no program
/// knows.
pub fn not_honoured(
    options: &Options,
    settings: &ColbertSettings,
    head: &HeadConfig,
    encoder: Option<&EncoderConfig>,
) -> Vec<NotHonoured> {
    let Some(encoder) = encoder else {
        let instead = "does not know this encoder and refuses the directory";
        return vec![NotHonoured { stack: "every other program", instead, by_default: false }];
    };
    if options.export_layout == ExportLayout::SentenceTransformers {
        let (stack, instead) = (
            "colbert-ai, RAGatouille, PyLate, pylate-rs and next-plaid",
            "do not read the layout of sentence-transformers; export_layout = \"all\" is for them",
        );
        return vec![NotHonoured { stack, instead, by_default: false }];
    }
    let Loaders { colbert_ai, pylate_rs, transformers, .. } = encoder.loaders();
    let newer = match transformers {
        Transformers::Any => None,
        Transformers::From5_3 => Some("need a newer transformers for this encoder: 5.3 loads it, 4.55 does not"),
        Transformers::From5_24 => Some("need a newer transformers for this encoder: 5.24 loads it, 5.3 does not"),
        _ => Some("refuse this encoder without the model code of the source, which is not exported"),
    };
    let refused = [
        (newer.is_some(), PYLATE_AND_SENTENCE_TRANSFORMERS, newer.unwrap_or_default()),
        (!colbert_ai, COLBERT_AI, "refuse this encoder under the tensor names that the other programs read"),
        (!pylate_rs, PYLATE_RS, "refuses encoders other than BERT and ModernBERT"),
    ];
    let refused: Vec<_> = refused.into_iter().filter(|(refuses, ..)| *refuses).collect();
    // With a graph of ours next-plaid needs none of PyLate's.
    let counts = |stack: &str| {
        !(refused
            .iter()
            .any(|(_, refusing, _)| refusing.split(" and ").any(|name| name == stack) || *refusing == stack)
            || options.export_onnx && stack == NEXT_PLAID_BY_PYLATE)
    };
    let differences = of_head(head).into_iter().chain(of_expansion(settings)).chain(of_texts(settings));
    let differences = differences.chain(of_punctuation(settings, encoder.loaders()));
    let differences = differences.filter(|(chosen, stack, ..)| *chosen && counts(stack));
    let differences = differences.map(|(_, stack, instead, by_default)| NotHonoured { stack, instead, by_default });
    let refused = refused.iter().map(|(_, stack, instead)| NotHonoured { stack, instead, by_default: false });
    refused.chain(differences).collect()
}

fn of_head(head: &HeadConfig) -> [Difference; 6] {
    const FIRST_LAYER: &str =
        "takes the first matrix of the head alone, without bias, activation and residual: other vectors";
    let (relu, stacked) = (head.is_simple() && head.ends_with_relu(), !head.is_simple());
    [
        (relu, COLBERT_AI, "leave the ReLU after the projection out: other vectors", false),
        (
            stacked && !head.is_linear(),
            COLBERT_AI,
            "take the head's matrices multiplied into one, without biases and activations: other vectors",
            false,
        ),
        (relu, PYLATE_RS, "leaves the ReLU after the projection out: other vectors", false),
        (stacked, PYLATE_RS, FIRST_LAYER, false),
        (relu, NEXT_PLAID_BY_PYLATE, "leaves the ReLU after the projection out: other vectors", false),
        (stacked, NEXT_PLAID_BY_PYLATE, FIRST_LAYER, false),
    ]
}

fn of_expansion(settings: &ColbertSettings) -> [Difference; 8] {
    let ColbertSettings { query_expansion: expands, attend_to_mask_tokens: attends, .. } = *settings;
    let shorter = settings.query_expansion_length.is_some_and(|length| length < settings.query_maxlen) && expands;
    const FULL: &str = "fills all queries up to query_maxlen: other vectors";
    [
        (!expands, COLBERT_AI, "fill queries up with [MASK] all the same: other vectors", false),
        (shorter, COLBERT_AI, "fill all queries up to query_maxlen: other vectors", false),
        (shorter, PYLATE, FULL, false),
        (!expands, PYLATE_RS, "fills queries up with [MASK] all the same: other vectors", false),
        (shorter, PYLATE_RS, FULL, false),
        (shorter, NEXT_PLAID, FULL, false),
        (
            expands && !attends,
            NEXT_PLAID_BY_PYLATE,
            "does without [MASK] expansion, or attends to it: other vectors of queries",
            true,
        ),
        (expands && attends, NEXT_PLAID_BY_PYLATE, "does without [MASK] expansion: other vectors of queries", false),
    ]
}

fn of_texts(settings: &ColbertSettings) -> [Difference; 6] {
    let unmarked = settings.query_token_id.is_empty() || settings.doc_token_id.is_empty();
    let prompted = !(settings.query_prompt.is_empty() && settings.document_prompt.is_empty());
    const OUT: &str = "leaves prompts out: other vectors, unless you put them in front of the texts yourself";
    [
        (unmarked, COLBERT_AI, "put the unknown token where this model has no marker: other vectors", false),
        (
            prompted,
            COLBERT_AI,
            "leave prompts out: other vectors, unless you put them in front of the texts yourself",
            false,
        ),
        (
            prompted,
            PYLATE,
            "puts prompts in front of texts only when told to: encode(..., prompt_name=\"query\") or \"document\"",
            false,
        ),
        (prompted, PYLATE_RS, OUT, false),
        (unmarked, NEXT_PLAID, "needs a token that marks each side, and refuses a model without one", false),
        (prompted, NEXT_PLAID, OUT, false),
    ]
}

fn of_punctuation(settings: &ColbertSettings, loaders: Loaders) -> [Difference; 2] {
    let masked = settings.mask_punctuation;
    [
        (
            masked && !loaders.colbert_ai_punctuation,
            COLBERT_AI,
            "take other tokens for punctuation: other scores of documents",
            true,
        ),
        (masked, PYLATE_RS, "scores the punctuation of documents: other scores, the same vectors", true),
    ]
}

#[cfg(test)]
mod tests {
    use colbert_config::TrainOptions;
    use colbert_model::{Activation, DenseConfig};

    use super::*;

    fn lines_of(train: TrainOptions, head: &HeadConfig) -> Vec<(String, bool)> {
        let options = Options { train, ..Options::default() };
        let all = differences(&options, head, "bert");
        all.iter().map(|one| (one.to_string(), one.by_default)).collect()
    }

    fn differences(options: &Options, head: &HeadConfig, model_type: &str) -> Vec<NotHonoured> {
        not_honoured(options, &ColbertSettings::from(&options.train), head, Some(&encoder(model_type)))
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
            let all = differences(&options, &simple(Activation::Relu), model_type);
            all.iter().map(ToString::to_string).collect()
        };
        let modern = lines("modernbert");
        assert!(
            modern[0].contains("refuse this encoder") && modern[1].contains("pylate-rs: leaves the ReLU"),
            "{modern:?}"
        );
        assert!(modern[1..].iter().all(|line| line.starts_with("pylate-rs")), "{modern:?}");
        let electra = lines("electra");
        let first = |model_type: &str| lines(model_type)[0].clone();
        assert!(first("nomic_bert").starts_with("PyLate and sentence-transformers: need a newer transformers"));
        assert!(first("eurobert").ends_with("5.3 loads it, 4.55 does not"));
        assert!(first("qwen3").starts_with("colbert-ai") && first("mpnet").starts_with("pylate-rs"));
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
        for stack in ["pylate-rs: ", "next-plaid, "] {
            assert!(all.iter().any(|(line, _)| line.starts_with(stack)), "{stack}: {all:?}");
        }
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
            let all = differences(options, &simple(Activation::Relu), "bert");
            all.iter().filter(|one| one.stack.starts_with("next-plaid")).count()
        };
        assert_eq!((named(&options(false)), named(&options(true))), (2, 0));
    }

    #[test]
    fn prompts_markers_and_shorter_expansion_have_a_line_for_each_stack_that_cannot_read_them() {
        let of = |train: TrainOptions| -> Vec<&str> {
            let options = Options { train, export_onnx: true, ..Options::default() };
            let all = differences(&options, &simple(Activation::Identity), "bert");
            all.iter().filter(|one| !one.by_default).map(|one| one.stack).collect()
        };
        let prompt = Some("search_query: ".to_owned());
        let prompted = TrainOptions { query_prompt: prompt, ..TrainOptions::default() };
        assert_eq!(of(prompted), [COLBERT_AI, PYLATE, PYLATE_RS, NEXT_PLAID]);
        let unmarked = TrainOptions { doc_token_id: Some(String::new()), ..TrainOptions::default() };
        assert_eq!(of(unmarked), [COLBERT_AI, NEXT_PLAID]);
        let shorter = TrainOptions { query_expansion_length: Some(8), ..TrainOptions::default() };
        assert_eq!(of(shorter.clone()), [COLBERT_AI, PYLATE, PYLATE_RS, NEXT_PLAID]);
        assert!(of(TrainOptions { query_expansion_length: Some(32), ..shorter }).is_empty(), "the same as without");
        let native = Options { export_layout: ExportLayout::SentenceTransformers, ..Options::default() };
        let all = differences(&native, &simple(Activation::Identity), "bert");
        assert!(all.len() == 1 && all[0].to_string().contains("do not read the layout"), "{all:?}");
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

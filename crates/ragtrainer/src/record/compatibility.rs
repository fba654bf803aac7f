//! Differences between this program and the others that load a directory written here. docs/interop.md has the table.

use colbert_config::{ExportLayout, Options};
use colbert_model::{ColbertSettings, ColbertTokenizer, EncoderConfig, HeadConfig, Loaders, Transformers};

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
const SENTENCE_TRANSFORMERS: &str = "sentence-transformers";
const PYLATE_AND_SENTENCE_TRANSFORMERS: &str = "PyLate and sentence-transformers";
const PYLATE_RS: &str = "pylate-rs";
const NEXT_PLAID: &str = "next-plaid";
const NEXT_PLAID_BY_PYLATE: &str = "next-plaid, by way of PyLate's ONNX export";

/// A choice, the program that does not honour it, its behaviour instead, and whether it is so by default.
type Difference = (bool, &'static str, &'static str, bool);

/// Lists what programs that load an exported directory do not honour of these options, of the model's settings, head,
/// encoder and tokenizer. Programs that refuse the directory come first and have that line alone, unless a newer
/// version loads it. Without `encoder` it is one of another crate, which no program knows.
pub fn not_honoured(
    options: &Options,
    settings: &ColbertSettings,
    head: &HeadConfig,
    encoder: Option<&EncoderConfig>,
    tokenizer: &ColbertTokenizer,
) -> Vec<NotHonoured> {
    let line = |stack, instead| NotHonoured { stack, instead, by_default: false };
    let Some(encoder) = encoder else {
        return vec![line("every other program", "does not know this encoder and refuses the directory")];
    };
    let Loaders { colbert_ai, pylate_rs, transformers, .. } = encoder.loaders();
    let of_transformers = of_transformers(transformers);
    if options.export_layout == ExportLayout::SentenceTransformers {
        let others = line(
            "colbert-ai, RAGatouille, PyLate, pylate-rs and next-plaid",
            "do not read the layout of sentence-transformers; export_layout = \"all\" is for them",
        );
        let [beyond, _] = of_windows(settings, encoder);
        let lines = [of_transformers, beyond.0.then_some(BEYOND_WINDOWS)].into_iter().flatten();
        return lines.map(|instead| line(SENTENCE_TRANSFORMERS, instead)).chain([others]).collect();
    }
    let refuse = transformers == Transformers::None;
    let refused = [
        (of_transformers.is_some(), PYLATE_AND_SENTENCE_TRANSFORMERS, of_transformers.unwrap_or_default(), refuse),
        (!colbert_ai, COLBERT_AI, "refuse this encoder", true),
        (!pylate_rs, PYLATE_RS, "refuses encoders other than BERT and ModernBERT", true),
    ];
    // With a graph of ours next-plaid needs none of PyLate's.
    let counts = |stack: &str| {
        let refuses = |(counts, refusing, _, every): &(bool, &str, &str, bool)| {
            *counts && *every && (*refusing == stack || refusing.split(" and ").any(|name| name == stack))
        };
        !(refused.iter().any(refuses) || options.export_onnx && stack == NEXT_PLAID_BY_PYLATE)
    };
    let differences = of_head(head).into_iter().chain(of_expansion(settings)).chain(of_texts(settings));
    let differences = differences.chain(of_punctuation(settings, encoder.loaders()));
    let differences = differences.chain(of_windows(settings, encoder)).chain([of_first_token(settings, tokenizer)]);
    let differences = differences.filter(|(chosen, stack, ..)| *chosen && counts(stack));
    let differences = differences.map(|(_, stack, instead, by_default)| NotHonoured { stack, instead, by_default });
    let refused = refused.iter().filter(|(counts, ..)| *counts).map(|(_, stack, instead, _)| line(*stack, *instead));
    refused.chain(differences).collect()
}

/// The line about the version of transformers under PyLate and sentence-transformers.
fn of_transformers(transformers: Transformers) -> Option<&'static str> {
    match transformers {
        Transformers::Any => None,
        Transformers::From5_3 => Some("a newer transformers is needed for this encoder: 5.3 loads it, 4.55 does not"),
        Transformers::From5_24 => Some("a newer transformers is needed for this encoder: 5.24 loads it, 5.3 does not"),
        Transformers::CausalBefore5_3 => {
            Some("on transformers 4.55 the tokens of this encoder look back only: other vectors; 5.3 agrees")
        }
        _ => Some("this encoder is refused without the model code of the source, which is not exported"),
    }
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

const BEYOND_WINDOWS: &str = "on transformers 4.55 other vectors of the [MASK] tokens of a query that stand further \
                              behind its text than half a window; 5.3 agrees";

/// Expansion that is not attended to and reaches beyond the windows of local layers: there a \[MASK\] sees nothing, and
/// what attention gives it then differs.
fn of_windows(settings: &ColbertSettings, encoder: &EncoderConfig) -> [Difference; 2] {
    // Of an empty query: what the tokenizer puts around it, and the marker.
    const SHORTEST: usize = 3;
    let beyond = encoder.reach().is_some_and(|reach| settings.query_maxlen > reach.saturating_add(SHORTEST));
    let chosen = beyond && settings.query_expansion && !settings.attend_to_mask_tokens;
    let pylate_rs =
        "gives other vectors to the [MASK] tokens of a query that stand further behind its text than half a window";
    [(chosen, PYLATE_AND_SENTENCE_TRANSFORMERS, BEYOND_WINDOWS, false), (chosen, PYLATE_RS, pylate_rs, false)]
}

/// A marker where the tokenizer puts nothing before a text: behind the first token of the text, as in PyLate.
fn of_first_token(settings: &ColbertSettings, tokenizer: &ColbertTokenizer) -> Difference {
    let marked = !(settings.query_token_id.is_empty() && settings.doc_token_id.is_empty());
    (
        marked && !tokenizer.begins_texts(),
        SENTENCE_TRANSFORMERS,
        "puts the marker before the first token of a text instead of behind it: other vectors",
        false,
    )
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
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests");
        let folder = if model_type == "bert" { "parity/tiny".to_owned() } else { format!("families/{model_type}") };
        let pretrained = colbert_model::Pretrained::read(&fixtures.join(folder)).unwrap();
        let settings = ColbertSettings::from(&options.train);
        // The lengths of the options fit no tiny model.
        let short = TrainOptions { query_maxlen: 16, doc_maxlen: 40, ..options.train.clone() };
        let tokenizer = pretrained.tokenizer(&pretrained.settings(&short)).unwrap();
        not_honoured(options, &settings, head, Some(&pretrained.config), &tokenizer)
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
        // 32 tokens of a query, and windows of 12.
        let beyond: Vec<_> = modern.iter().filter(|line| line.contains("further behind its text")).collect();
        assert!(beyond.len() == 2 && beyond[0].starts_with("PyLate and sentence-transformers"), "{modern:?}");
        assert!(modern.iter().filter(|line| line.starts_with("pylate-rs")).count() == modern.len() - 2, "{modern:?}");
        let electra = lines("electra");
        let first = |model_type: &str| lines(model_type)[0].clone();
        assert!(first("nomic_bert").starts_with("PyLate and sentence-transformers: a newer transformers is needed"));
        assert!(first("eurobert").ends_with("5.3 loads it, 4.55 does not"));
        assert!(first("qwen3").starts_with("colbert-ai") && first("mpnet").starts_with("pylate-rs"));
        let native = |model_type: &str| {
            let options = Options { export_layout: ExportLayout::SentenceTransformers, ..options.clone() };
            let all = differences(&options, &simple(Activation::Relu), model_type);
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(native("gte")[0].starts_with("sentence-transformers: a newer transformers is needed"));
        assert_eq!((native("mpnet").len(), native("mmbert").len()), (1, 2));
        // A version that is too old, or a newer one that has more to say.
        let both = lines("qwen3-both");
        assert!(both[0].contains("look back only: other vectors") && both.len() == 4, "{both:?}");
        assert!(both[3].starts_with("sentence-transformers: puts the marker before the first token"), "{both:?}");
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

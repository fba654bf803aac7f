//! The model card of an exported directory.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use colbert_config::{ExportDtype, ExportLayout, Options, Plan};
use colbert_data::{PrepareReport, TrainingSet};
use colbert_model::{ColbertSettings, ColbertTokenizer, EncoderConfig, HeadConfig};
use colbert_train::{Comparison, Evaluation};
use serde_json::json;

use crate::record::compatibility::not_honoured;
use crate::record::outcome::{DevResult, Outcome};

/// Which of a run's models a card is of.
#[derive(Clone, Copy)]
pub(crate) enum Standing<'a> {
    /// One of a run that goes on.
    Underway,
    /// The last one of a run that has ended.
    Last,
    /// The best one.
    Best(&'a Outcome),
}

/// The facts of a model card.
#[derive(Clone, Copy)]
pub(crate) struct ModelCard<'a> {
    pub(crate) options: &'a Options,
    pub(crate) plan: &'a Plan,
    pub(crate) settings: &'a ColbertSettings,
    pub(crate) head: &'a HeadConfig,
    /// The family of the encoder; none for one of another crate.
    pub(crate) encoder: Option<&'a EncoderConfig>,
    pub(crate) tokenizer: &'a ColbertTokenizer,
    /// Name of the model that training started from, and its directory.
    pub(crate) base: &'a str,
    pub(crate) base_directory: &'a Path,
    pub(crate) set: &'a TrainingSet,
    pub(crate) prepared: Option<&'a PrepareReport>,
}

impl ModelCard<'_> {
    /// `README.md`: what the model is, what it was made from, how it was trained, what it was measured as, how to load
    /// it. Nothing in it depends on the machine or on when it was written.
    pub(crate) fn text(&self, standing: Standing<'_>) -> String {
        let Self { options, plan, settings, head, encoder, tokenizer, base, .. } = *self;
        let folder = options.output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = if options.model_name.is_empty() { &folder } else { &options.model_name };
        let train = &options.train;
        let layers = if head.is_simple() { String::new() } else { format!("- Head: {head}.\n") };
        let stored = match options.export_dtype {
            ExportDtype::F32 => String::new(),
            other => format!("- Weights are stored as {}.\n", other.torch_name()),
        };
        let differences: String =
            not_honoured(options, settings, head, encoder, tokenizer).iter().map(|one| format!("- {one}.\n")).collect();
        let onnx = if options.export_onnx { ", next-plaid" } else { "" };
        let files = match (encoder, options.export_layout) {
            (None, _) => {
                "The encoder is one of another crate: its program loads the folder with `load_parameters`.".to_owned()
            }
            (_, ExportLayout::All) => format!(
                "The folder has the files of colbert-ai, RAGatouille, PyLate, sentence-transformers{onnx} and pylate-rs. \
                 What other programs do otherwise than ragtrainer:"
            ),
            (_, ExportLayout::SentenceTransformers) => {
                "The folder has the files of sentence-transformers 6. What other programs do otherwise:".to_owned()
            }
        };
        format!(
            "{front}\n# {name}\n\n\
             A late-interaction (ColBERT) retrieval model, trained from `{base}` with ragtrainer {version}.\n\n\
             - Token vectors of {dim} numbers; queries of {query} tokens, documents of at most {doc} tokens.\n\
             {texts}{layers}{stored}- Planned training: {plan}\n\n\
             ## Data\n{data}\n## Results\n{results}\n## Licence\n{licence}\n## Use\n\
             {files}\n\n{differences}",
            texts = sizes(settings) + &markers_and_prompts(settings),
            front = self.front_matter(),
            version = env!("CARGO_PKG_VERSION"),
            dim = train.dim,
            query = train.query_maxlen,
            doc = train.doc_maxlen,
            plan = plan.to_string().replace('\n', "\n  "),
            data = self.data(),
            results = match standing {
                Standing::Underway => "Not measured yet: the run goes on.\n".to_owned(),
                Standing::Last =>
                    "This is the last model of its run; what was measured is in the card of the best one.\n".to_owned(),
                Standing::Best(outcome) => results(outcome),
            },
            licence = self.licence(),
        )
    }

    /// The fields that the Hugging Face hub reads. JSON texts are YAML texts.
    fn front_matter(&self) -> String {
        let options = self.options;
        let library = match options.export_layout {
            ExportLayout::All => "PyLate",
            ExportLayout::SentenceTransformers => "sentence-transformers",
        };
        let mut text = format!("---\nlibrary_name: {library}\npipeline_tag: sentence-similarity\n");
        let mut field = |name: &str, value: &str| _ = writeln!(text, "{name}: {}", json!(value));
        field("language", &options.language_code);
        // Only a name on the hub may stand there.
        if !Path::new(&options.pretrained_model_name).is_dir() || self.base.contains('/') {
            field("base_model", self.base.split('@').next().unwrap_or_default());
        }
        if !options.license.is_empty() {
            field("license", &options.license);
        }
        text + "tags: [ColBERT, late-interaction]\n---\n"
    }

    fn data(&self) -> String {
        let set = self.set;
        let names = self.options.data.train.0.iter().filter_map(|path| path.file_name());
        let names: Vec<String> = names.map(|name| format!("`{}`", name.to_string_lossy())).collect();
        let source = if names.is_empty() { "given in memory".to_owned() } else { names.join(", ") };
        let mut text = format!(
            "- {source}: {} examples of {} queries and {} documents.\n",
            set.examples.len(),
            set.queries.len(),
            set.collection.len()
        );
        if let Some(prepared) = self.prepared {
            let (given, random) = (prepared.given_negatives, prepared.random_negatives);
            let mined = match &prepared.miner {
                Some(miner) => format!("{} mined by {miner}", prepared.mined_negatives),
                None => "none mined".to_owned(),
            };
            _ = writeln!(text, "- Negatives: {given} given, {mined}, {random} drawn at random.");
        }
        text
    }

    fn licence(&self) -> String {
        let own = match self.options.license.as_str() {
            "" => "None was stated for this model".to_owned(),
            stated => format!("This model: {stated}"),
        };
        let base = match fs::read_to_string(self.base_directory.join("README.md")).ok().as_deref().and_then(license_of)
        {
            Some(stated) => format!("the card of `{}` states {stated}", self.base),
            None => format!("`{}` came without a card that states one", self.base),
        };
        format!("{own}; {base}. What the data allow, is for whoever chose them to say.\n")
    }
}

/// A line for the sizes that vectors can be cut to, if there are several.
fn sizes(settings: &ColbertSettings) -> String {
    let smaller: Vec<String> = settings.dims.iter().skip(1).map(ToString::to_string).collect();
    if smaller.is_empty() {
        return String::new();
    }
    format!(
        "- Trained to be used with the first {} numbers of each vector too, brought back to length 1 (`ragtrainer encode \
         --dim`).\n",
        smaller.join(" or ")
    )
}

/// A line for what stands before texts and for how queries are filled up, where that is not as usual.
fn markers_and_prompts(settings: &ColbertSettings) -> String {
    let usual = ColbertSettings::default();
    let mut text = String::new();
    let sides = [
        ("queries", &settings.query_token_id, &usual.query_token_id, &settings.query_prompt),
        ("documents", &settings.doc_token_id, &usual.doc_token_id, &settings.document_prompt),
    ];
    for (side, marker, usual, prompt) in sides {
        let marker = match marker.as_str() {
            _ if marker == usual && prompt.is_empty() => continue,
            "" => "no marker".to_owned(),
            marker => format!("the marker `{marker}`"),
        };
        let prompt = if prompt.is_empty() { "no prompt".to_owned() } else { format!("the prompt `{prompt}`") };
        _ = writeln!(text, "- In front of {side}: {marker}, {prompt}.");
    }
    if let Some(pooling) = settings.token_pooling.filter(|pooling| pooling.factor > 1.0) {
        _ = writeln!(text, "- Vectors of documents are pooled to about one in {}.", pooling.factor);
    }
    match (settings.query_expansion, settings.query_expansion_length) {
        (false, _) => text += "- Queries are not filled up with [MASK].\n",
        (true, Some(length)) => {
            _ = writeln!(
                text,
                "- Queries of fewer than {length} tokens are filled up with [MASK], longer ones are not."
            )
        }
        (true, None) => {}
    }
    text
}

/// The licence in the front matter of a card.
fn license_of(card: &str) -> Option<&str> {
    let front = card.strip_prefix("---")?.split("\n---").next()?;
    let stated = front.lines().find_map(|line| line.strip_prefix("license:"))?;
    let stated = stated.trim().trim_matches(['"', '\'']);
    let is_name = !stated.is_empty() && stated.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    is_name.then_some(stated)
}

fn results(outcome: &Outcome) -> String {
    let mut text = String::new();
    let metric = outcome.metric;
    let verdict = |compared: Option<&Comparison>| {
        compared.map_or_else(String::new, |Comparison { gain, low, high, .. }| {
            format!("Gain in {metric} by a paired bootstrap over the queries: {gain:+.4} (95 % interval {low:+.4} to {high:+.4}).\n\n")
        })
    };
    if let Some(DevResult { start: before, best: after }) = &outcome.dev {
        text += &table("dev queries, which chose the model", &[("before training", before), ("this model", after)]);
        text += &verdict(outcome.dev_comparison.as_ref());
    }
    if let Some(test) = &outcome.test {
        let rows = [("BM25", &test.bm25), ("before training", &test.start), ("this model", &test.best)];
        text += &table("test queries, which did not", &rows);
        text += &verdict(test.comparison.as_ref());
    }
    if text.is_empty() {
        return "Not measured: there were no dev or test queries. This is the last model of the run.\n".to_owned();
    }
    match (&outcome.best_made_of, outcome.best_step) {
        (Some(made_of), _) => _ = writeln!(text, "Weights: {made_of}."),
        (None, Some(0)) => {
            text += "Weights: those that training started from; no checkpoint was better on dev queries.\n"
        }
        (None, Some(step)) => _ = writeln!(text, "Weights: after step {step} of {}.", outcome.steps),
        (None, None) => _ = writeln!(text, "Weights: after the last step, {}.", outcome.steps),
    }
    text
}

fn table(of: &str, rows: &[(&str, &Evaluation)]) -> String {
    let Some((_, first)) = rows.first() else { return String::new() };
    let mut text = format!("{} {of}, each against {} documents:\n\n| |", first.queries, first.documents);
    let names = first.metrics.iter().map(|(metric, _)| metric);
    names.clone().for_each(|metric| _ = write!(text, " {metric} |"));
    text += &format!("\n|---|{}\n", "---|".repeat(first.metrics.len()));
    for (name, evaluation) in rows {
        _ = write!(text, "| {name} |");
        for metric in names.clone() {
            let value = evaluation.value(*metric).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
            _ = write!(text, " {value} |");
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_of_a_card_is_read_from_its_front_matter_alone() {
        assert_eq!(license_of("---\nlanguage: en\nlicense: apache-2.0\n---\n# Name"), Some("apache-2.0"));
        assert_eq!(license_of("---\nlicense: \"mit\"\n---\n"), Some("mit"));
        for other in [
            "# Name\nlicense: mit",
            "---\nlicense:\n- mit\n---",
            "---\ntags: x\n---\nlicense: mit",
            "---\nlicense: a b\n---",
            "",
        ] {
            assert_eq!(license_of(other), None, "{other}");
        }
    }
}

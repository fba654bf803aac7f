//! The model card of an exported directory.

use colbert_config::{ExportDtype, Options, Plan};
use colbert_model::HeadConfig;

use crate::stacks::not_honoured;

/// `README.md` of a model directory: what it is, what it was made from, how it was trained, how to load it.
pub(crate) fn model_card(options: &Options, plan: &Plan, head: &HeadConfig, base: &str) -> String {
    let folder = options.output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if options.model_name.is_empty() { &folder } else { &options.model_name };
    let train = &options.train;
    let differences: String = not_honoured(options, head).iter().map(|one| format!("- {one}.\n")).collect();
    let layers = if head.is_simple() { String::new() } else { format!("- Head: {head}.\n") };
    let onnx = if options.export_onnx { ", next-plaid" } else { "" };
    let stored = match options.export_dtype {
        ExportDtype::F32 => String::new(),
        other => format!("- Weights are stored as {}.\n", other.torch_name()),
    };
    format!(
        "---\nlibrary_name: PyLate\npipeline_tag: sentence-similarity\ntags: [ColBERT, late-interaction]\n---\n\n# {name}\n\n\
         A late-interaction (ColBERT) retrieval model, trained from `{base}` with ragtrainer {version}.\n\n\
         - Token vectors of {dim} numbers; queries of {query} tokens, documents of at most {doc} tokens.\n\
         {layers}{stored}- Planned training: {plan}\n\n\
         The folder has the files of colbert-ai, RAGatouille, PyLate, sentence-transformers{onnx} and pylate-rs. What other programs \
         do otherwise than ragtrainer:\n\n{differences}",
        version = env!("CARGO_PKG_VERSION"),
        dim = train.dim,
        query = train.query_maxlen,
        doc = train.doc_maxlen,
        plan = plan.to_string().replace('\n', "\n  "),
    )
}

//! The settings of a directory in the keys of other programs: in PyLate's dialect, which sentence-transformers 6 and
//! pylate-rs read too, and in that of sentence-transformers 6.

use serde_json::{Value, json};

use crate::directory::declared::DIMS;
use crate::head::config::{HeadConfig, module_folder};
use crate::settings::ColbertSettings;
use crate::settings::token_pooling::{POOLING, TokenPooling};

/// Versions of the libraries that the files are written for; loading with an older one only warns.
const VERSIONS: [&str; 2] = ["5.3.0", "6.2.0"];

/// The settings to be written.
#[derive(Clone, Copy)]
pub(crate) struct Dialect<'a> {
    pub(crate) settings: &'a ColbertSettings,
    pub(crate) head: &'a HeadConfig,
    /// Vocabulary entries that take no part in MaxSim.
    pub(crate) skiplist: &'a [String],
}

type Files = Vec<(String, Value)>;

/// Makes PyLate's files. Settings that it has no key for are listed by `not_honoured` in the facade.
pub(crate) fn pylate(dialect: Dialect<'_>) -> Files {
    let Dialect { settings, head, .. } = dialect;
    let dense = (0..head.layers.len()).map(|place| (module_folder(place), "pylate.models.Dense.Dense"));
    let modules = [(String::new(), "sentence_transformers.models.Transformer")].into_iter().chain(dense);
    let longest = settings.doc_maxlen - usize::from(!settings.doc_token_id.is_empty());
    let layers = head.layers.iter().enumerate();
    let mut files: Files =
        layers.map(|(place, layer)| (format!("{}/config.json", module_folder(place)), layer.to_json())).collect();
    files.push(("modules.json".to_owned(), listed(modules)));
    files.push(("sentence_bert_config.json".to_owned(), json!({"max_seq_length": longest, "do_lower_case": false})));
    files.push(("config_sentence_transformers.json".to_owned(), pylate_config(dialect)));
    files
}

fn pylate_config(dialect: Dialect<'_>) -> Value {
    let Dialect { settings, skiplist, .. } = dialect;
    let mut config = json!({
        "model_type": "ColBERT",
        "__version__": {"sentence_transformers": VERSIONS[0], "transformers": "5.3.0", "pytorch": "2.9.0"},
        "prompts": prompts([("query", &settings.query_prompt), ("document", &settings.document_prompt)]),
        "default_prompt_name": null,
        "similarity_fn_name": "MaxSim",
        "query_prefix": settings.query_token_id,
        "document_prefix": settings.doc_token_id,
        "query_length": settings.query_maxlen,
        "document_length": settings.doc_maxlen,
        "attend_to_expansion_tokens": settings.attend_to_mask_tokens,
        "skiplist_words": skiplist,
        "do_query_expansion": settings.query_expansion,
    });
    if settings.query_expansion && settings.query_expansion_length.is_some() {
        // Only sentence-transformers 6 has a length to which queries are padded but not truncated.
        config["query_expansion"] = expansion(settings);
    }
    sizes(&mut config, settings);
    config
}

/// Makes the files of sentence-transformers 6. A marker is the beginning of the prompt, as the program puts both before
/// a text; the tokenizer has it as one special token.
pub(crate) fn native(dialect: Dialect<'_>) -> Files {
    let Dialect { settings, head, skiplist } = dialect;
    let tokens = || json!({"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"});
    let layers = head.layers.len();
    let (normalize, mask) = (format!("{}_Normalize", layers + 1), format!("{}_MultiVectorMask", layers + 2));
    let dense = (0..layers).map(|place| (module_folder(place), "sentence_transformers.base.modules.dense.Dense"));
    let modules = [(String::new(), "sentence_transformers.base.modules.transformer.Transformer")]
        .into_iter()
        .chain(dense)
        .chain([
            (normalize.clone(), "sentence_transformers.base.modules.normalize.Normalize"),
            (mask.clone(), "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"),
        ]);
    let pooling = settings.token_pooling.filter(|pooling| pooling.factor > 1.0);
    let pooling = pooling.map(|pooling| (format!("{}_{POOLING}", layers + 3), pooling));
    let module = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling";
    let modules = modules.chain(pooling.iter().map(|(folder, _)| (folder.clone(), module)));
    let mut files = vec![("modules.json".to_owned(), listed(modules))];
    if let Some((folder, TokenPooling { factor, protected, unit_length })) = pooling {
        let config = json!({
            "pool_factor": factor, "num_protected_tokens": protected, "normalize_embeddings": unit_length,
            "tasks": ["document"],
        });
        files.push((format!("{folder}/config.json"), config));
    }
    for (place, layer) in head.layers.iter().enumerate() {
        let mut json = layer.to_json();
        if let (Some(json), Value::Object(tokens)) = (json.as_object_mut(), tokens()) {
            json.extend(tokens);
        }
        files.push((format!("{}/config.json", module_folder(place)), json));
    }
    files.push((format!("{normalize}/config.json"), tokens()));
    let sides = ["query", "document"].into_iter().filter(|side| *side == "document" || settings.mask_query_punctuation);
    let sides: Vec<&str> = sides.collect();
    let skipped = json!({"skiplist_words": skiplist, "skiplist_tasks": sides, "keep_only_token_ids": null});
    files.push((format!("{mask}/config.json"), skipped));
    files.push(("sentence_bert_config.json".to_owned(), native_lengths(settings)));
    let texts = as_text(settings);
    let texts = [("query", &texts.query_prompt), ("document", &texts.document_prompt)];
    let mut config = json!({
        "model_type": "MultiVectorEncoder",
        "__version__": {"sentence_transformers": VERSIONS[1], "transformers": "5.3.0", "pytorch": "2.9.0"},
        "prompts": prompts(texts),
        "default_prompt_name": null,
        "similarity_fn_name": "maxsim",
    });
    sizes(&mut config, settings);
    files.push(("config_sentence_transformers.json".to_owned(), config));
    files
}

/// Adds the sizes that vectors can be cut to, for which no other program has a key.
fn sizes(config: &mut Value, settings: &ColbertSettings) {
    if !settings.dims.is_empty() {
        config[DIMS] = json!(settings.dims);
    }
}

/// Returns the settings with markers moved to the beginning of the prompts.
pub(crate) fn as_text(settings: &ColbertSettings) -> ColbertSettings {
    ColbertSettings {
        query_token_id: String::new(),
        doc_token_id: String::new(),
        query_prompt: format!("{}{}", settings.query_token_id, settings.query_prompt),
        document_prompt: format!("{}{}", settings.doc_token_id, settings.document_prompt),
        ..settings.clone()
    }
}

fn native_lengths(settings: &ColbertSettings) -> Value {
    let text = json!({"method": "forward", "method_output_name": "last_hidden_state"});
    let mut json = json!({
        "transformer_task": "feature-extraction",
        "modality_config": {"text": text},
        "module_output_name": "token_embeddings",
        "query_length": settings.query_maxlen,
        "document_length": settings.doc_maxlen,
    });
    if settings.query_expansion {
        json["query_expansion"] = expansion(settings);
    }
    json
}

fn expansion(settings: &ColbertSettings) -> Value {
    let (strategy, length) = match settings.query_expansion_length {
        Some(length) => ("min", length),
        None => ("fixed", settings.query_maxlen),
    };
    json!({"strategy": strategy, "attend": settings.attend_to_mask_tokens, "token": null, "length": length})
}

/// Makes `modules.json`: folders and classes, in the order in which they work.
fn listed(modules: impl Iterator<Item = (String, &'static str)>) -> Value {
    let entry = |(place, (path, class))| json!({"idx": place, "name": format!("{place}"), "path": path, "type": class});
    modules.enumerate().map(entry).collect()
}

/// Makes the value of the key `prompts`, which sentence-transformers always puts before texts and PyLate on request.
fn prompts(sides: [(&str, &String); 2]) -> Value {
    let written = sides.into_iter().filter(|(_, prompt)| !prompt.is_empty());
    Value::Object(written.map(|(side, prompt)| (side.to_owned(), json!(prompt))).collect())
}

//! A model directory as an ONNX graph, for next-plaid: `model.onnx` and `onnx_config.json` (next-plaid-onnx 1.6.1,
//! `src/lib.rs`).
//!
//! Token ids and masks in, unit vectors of all tokens out. The graph computes the same as the model here, including the
//! head and the masks of a query's expansion. Operators are those of opset 17, which has layer normalisation.

use std::path::Path;

use colbert_config::ExportDtype;
use prost::Message;
use serde_json::{Value as Json, json};

use crate::directory::load::Pretrained;
use crate::encoder::families::EncoderConfig;
use crate::error::ModelError;
use crate::head::activation::Activation;
use crate::head::config::HeadConfig;
use crate::onnx::graph::{BOOL, Graph, INT64, Setting, Value};
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::onnx::proto::{ModelProto, OperatorSetIdProto};
use crate::settings::ColbertSettings;
use crate::tokenizer::special_tokens::skiplist_words;
use colbert_config::durable::replace_file;

/// Version of the operators.
const OPSET: i64 = 17;

/// Version of the format that goes with it.
const IR_VERSION: i64 = 8;

/// Readers refuse a file of more bytes.
const LIMIT: u64 = (1 << 31) - 1;

/// Smallest squared length that a vector is divided by the root of, as in `colbert.rs`.
const MIN_SQUARED_NORM: f32 = 1e-24;

/// Writes `model.onnx` and `onnx_config.json` into a model directory, in place of those that it has. Weights are
/// stored in `dtype`; computed is in float32.
///
/// # Errors
/// A directory that cannot be loaded, without a head or without the markers that it uses; more than 2 GiB; the disk
/// refuses.
pub fn write_onnx(directory: &Path, dtype: ExportDtype) -> Result<(), ModelError> {
    let pretrained = Pretrained::read(directory)?;
    let model = onnx_model(&pretrained, dtype)?;
    let config = format!("{:#}\n", onnx_config(&pretrained)?);
    for (name, bytes) in [("model.onnx", model.encode_to_vec()), ("onnx_config.json", config.into_bytes())] {
        let path = directory.join(name);
        replace_file(&path, &bytes).map_err(|source| ModelError::Io { action: "write", path, source })?;
    }
    Ok(())
}

impl Pretrained {
    /// Checks before training that a model with this encoder, settings and head fits into an ONNX file that next-plaid
    /// can use.
    ///
    /// # Errors
    /// More than 2 GiB, or a side without a marker.
    pub fn check_onnx(
        &self,
        settings: &ColbertSettings,
        head: &HeadConfig,
        dtype: ExportDtype,
    ) -> Result<(), ModelError> {
        let markers = [
            ("query", "query_token_id", &settings.query_token_id),
            ("document", "doc_token_id", &settings.doc_token_id),
        ];
        if let Some((side, option, _)) = markers.into_iter().find(|(.., marker)| marker.is_empty()) {
            return Err(ModelError::OnnxWithoutMarker { path: self.directory().to_owned(), side, option });
        }
        let of_head =
            head.layers.iter().flat_map(|layer| layer.shapes()).map(|(_, shape)| shape.iter().product::<usize>());
        let numbers = self.weights.numbers() + of_head.sum::<usize>();
        let bytes = numbers as u64 * if dtype == ExportDtype::F32 { 4 } else { 2 };
        // The nodes take some hundred bytes each.
        if bytes + (1 << 20) > LIMIT {
            return Err(ModelError::TooLargeForOnnx { path: self.directory().to_owned(), bytes });
        }
        Ok(())
    }
}

/// Returns the settings of a directory that can be written: it has a head, and its vocabulary has the markers.
fn settings(pretrained: &Pretrained) -> Result<ColbertSettings, ModelError> {
    let path = pretrained.directory().to_owned();
    if pretrained.files.head.is_none() {
        return Err(ModelError::MissingTensor { path, name: "linear.weight".to_owned() });
    }
    if let Some(token) = pretrained.added_markers().first() {
        return Err(ModelError::MissingToken { path, token: token.clone(), role: "marker" });
    }
    Ok(pretrained.declared_settings().unwrap_or_else(|| pretrained.default_settings()))
}

/// Builds the graph of a model directory.
///
/// # Errors
/// As [`write_onnx`].
fn onnx_model(pretrained: &Pretrained, dtype: ExportDtype) -> Result<ModelProto, ModelError> {
    let settings = settings(pretrained)?;
    let head = pretrained.head(&settings)?;
    pretrained.check_onnx(&settings, &head, dtype)?;
    let mut weights = pretrained.weights.clone();
    let mut on = Nodes { graph: Graph::new(dtype), weights: &mut weights };
    let ids = on.graph.input("input_ids");
    let mask = on.graph.input("attention_mask");
    let token_types = pretrained.config.takes_token_types().then(|| on.graph.input("token_type_ids"));
    let inputs = Inputs { ids, token_types };
    let masked = settings.query_expansion && !settings.attend_to_mask_tokens;
    let expansion = masked.then(|| mask_id(pretrained)).transpose()?;
    let tokens = tokens(&mut on, &inputs.ids, &mask, expansion);
    let hidden = pretrained.config.nodes(&mut on, &inputs, &tokens)?;
    let vectors = head_nodes(&mut on, pretrained, &head, &hidden)?;
    let output = unit_length(&mut on.graph, &vectors);
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: "ragtrainer".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(on.graph.finish(&output, "output", head.dim())),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
    })
}

fn mask_id(pretrained: &Pretrained) -> Result<i64, ModelError> {
    special_id(pretrained, &pretrained.special.mask, "query expansion").map(i64::from)
}

fn special_id(pretrained: &Pretrained, token: &str, role: &'static str) -> Result<u32, ModelError> {
    let path = pretrained.tokenizer_path.clone();
    let missing = || ModelError::MissingToken { path, token: token.to_owned(), role };
    pretrained.tokenizer.token_to_id(token).ok_or_else(missing)
}

/// Adds the places, and which tokens can be attended to: those of the mask, without a query's expansion if its id is
/// given.
///
/// next-plaid attends to expansion whatever the model was trained with. So the graph itself leaves out the `[MASK]`
/// tokens that nothing else follows; one that was typed has `[SEP]` after it.
fn tokens(on: &mut Nodes<'_>, ids: &Value, mask: &Value, expansion: Option<i64>) -> Tokens {
    let places = on.places(ids);
    let graph = &mut on.graph;
    let mut attended = graph.cast(mask, BOOL);
    if let Some(id) = expansion {
        let (id, zero, one) = (graph.int(id), graph.int(0), graph.int(1));
        let is_mask = graph.op("Equal", &[ids, &id]);
        let other = graph.op("Not", &[&is_mask]);
        let other = graph.cast(&other, INT64);
        let from_here = graph.op_with("CumSum", &[&other, &one], &[("reverse", Setting::Int(1))]);
        let followed = graph.op("Greater", &[&from_here, &zero]);
        attended = graph.op("And", &[&attended, &followed]);
    }
    let axes = graph.ints(&[1, 2]);
    Tokens { places, attended: graph.op("Unsqueeze", &[&attended, &axes]) }
}

fn head_nodes(
    on: &mut Nodes<'_>,
    pretrained: &Pretrained,
    head: &HeadConfig,
    hidden: &Value,
) -> Result<Value, ModelError> {
    let mut vectors = hidden.clone();
    for (place, layer) in head.layers.iter().enumerate() {
        let tensor = |name: &str| pretrained.head_tensor(place, name);
        let matrix = tensor("linear.weight").expect("every layer has a matrix");
        let mapped = on.map(&format!("head.{place}.linear"), matrix, tensor("linear.bias"), &vectors)?;
        let mut projected = activate(on, layer.activation, &mapped);
        if layer.use_residual {
            let residual = match tensor("residual.weight") {
                Some(matrix) => on.map(&format!("head.{place}.residual"), matrix, None, &vectors)?,
                None => vectors,
            };
            projected = on.graph.op("Add", &[&projected, &residual]);
        }
        vectors = projected;
    }
    Ok(vectors)
}

/// Adds an activation of the head.
fn activate(on: &mut Nodes<'_>, activation: Activation, x: &Value) -> Value {
    match activation {
        Activation::Identity => x.clone(),
        Activation::Relu => on.graph.op("Relu", &[x]),
        Activation::Tanh => on.graph.op("Tanh", &[x]),
        Activation::Sigmoid => on.graph.op("Sigmoid", &[x]),
        Activation::Silu => {
            let gate = on.graph.op("Sigmoid", &[x]);
            on.graph.op("Mul", &[x, &gate])
        }
        Activation::Gelu => on.gelu(x),
    }
}

fn unit_length(graph: &mut Graph, vectors: &Value) -> Value {
    let (axes, least) = (graph.ints(&[-1]), graph.float(MIN_SQUARED_NORM));
    let squares = graph.op("Mul", &[vectors, vectors]);
    let sum = graph.op_with("ReduceSum", &[&squares, &axes], &[("keepdims", Setting::Int(1))]);
    let sum = graph.op("Max", &[&sum, &least]);
    let norm = graph.op("Sqrt", &[&sum]);
    graph.op("Div", &[vectors, &norm])
}

/// Makes `onnx_config.json`: how texts become the graph's inputs, and which vectors count.
fn onnx_config(pretrained: &Pretrained) -> Result<Json, ModelError> {
    let settings = settings(pretrained)?;
    let special = &pretrained.special;
    let skiplist = match &settings.skiplist_words {
        _ if !settings.mask_punctuation => Vec::new(),
        Some(words) => words.clone(),
        None => skiplist_words(&pretrained.tokenizer, &pretrained.tokenizer_path)?,
    };
    Ok(json!({
        "model_type": "ColBERT",
        "model_name": null,
        "model_class": EncoderConfig::architecture(&pretrained.files.config),
        "uses_token_type_ids": pretrained.config.takes_token_types(),
        "query_prefix": settings.query_token_id,
        "document_prefix": settings.doc_token_id,
        "query_prefix_id": special_id(pretrained, &settings.query_token_id, "marker of a query")?,
        "document_prefix_id": special_id(pretrained, &settings.doc_token_id, "marker of a document")?,
        "query_length": settings.query_maxlen,
        "document_length": settings.doc_maxlen,
        "do_query_expansion": settings.query_expansion,
        "attend_to_expansion_tokens": settings.attend_to_mask_tokens,
        "skiplist_words": skiplist,
        "embedding_dim": settings.dim,
        // next-plaid requires an id even without padding.
        "mask_token_id": match settings.query_expansion || pretrained.has_mask() {
            true => special_id(pretrained, &special.mask, "query expansion")?,
            false => special_id(pretrained, &special.pad, "padding")?,
        },
        "pad_token_id": special_id(pretrained, &special.pad, "padding")?,
        "do_lower_case": false,
    }))
}

//! The shared layers of BERT, DistilBERT, RoBERTa and ELECTRA as nodes of an ONNX graph: what `transformer.rs` and
//! `token_embeddings.rs` compute.

use crate::encoder::token_embeddings::TableSizes;
use crate::encoder::transformer::{LayerNames, LayerSizes};
use crate::error::ModelError;
use crate::onnx::graph::{INT64, Setting, Value};
use crate::onnx::nodes::{Inputs, Mix, Nodes, Tokens};

/// An encoder of BERT's layers.
pub(crate) struct TransformerNodes {
    pub(crate) layers: LayerSizes,
    pub(crate) names: LayerNames,
    pub(crate) tables: TableSizes,
    pub(crate) heads: usize,
    /// The id of padding, behind which positions begin; none where the first position is 0.
    pub(crate) padding: Option<u32>,
}

impl TransformerNodes {
    /// Hidden states, `[batch, length, hidden]`.
    pub(crate) fn build(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let mut hidden = self.embeddings(on, inputs, tokens)?;
        let LayerSizes { hidden: size, wide, eps, .. } = self.layers;
        for i in 0..self.layers.layers {
            let at = |part: usize| format!("{}.{i}.{}", self.names.layers, self.names.parts[part]);
            let mut part = |place: usize| {
                let mapped = on.linear(&at(place), [size, size], &hidden)?;
                Ok::<_, ModelError>(on.split_heads(&mapped, self.heads, size))
            };
            let parts = [part(0)?, part(1)?, part(2)?];
            let mix = Mix { parts, allowed: &tokens.attended, may_be_empty: false, heads: self.heads, hidden: size };
            let mixed = on.attention(&mix);
            let projected = on.linear(&at(3), [size, size], &mixed)?;
            let sum = on.graph.op("Add", &[&projected, &hidden]);
            let attended = on.layer_norm(&at(4), size, eps, &sum)?;
            let up = on.linear(&at(5), [wide, size], &attended)?;
            let up = on.gelu(&up);
            let down = on.linear(&at(6), [size, wide], &up)?;
            let sum = on.graph.op("Add", &[&down, &attended]);
            hidden = on.layer_norm(&at(7), size, eps, &sum)?;
        }
        Ok(hidden)
    }

    fn embeddings(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let tables = self.tables;
        let words = on.rows("embeddings.word_embeddings.weight", [tables.words, tables.size], &inputs.ids)?;
        let places = match self.padding {
            None => tokens.places.clone(),
            Some(padding) => behind(on, &inputs.ids, i64::from(padding)),
        };
        let positions = on.rows("embeddings.position_embeddings.weight", [tables.positions, tables.size], &places)?;
        let mut sum = on.graph.op("Add", &[&words, &positions]);
        if let Some(rows) = tables.token_types {
            let types = match &inputs.token_types {
                Some(types) => types.clone(),
                None => on.graph.int(0),
            };
            let types = on.rows("embeddings.token_type_embeddings.weight", [rows, tables.size], &types)?;
            sum = on.graph.op("Add", &[&sum, &types]);
        }
        let embedded = on.layer_norm("embeddings.LayerNorm", tables.size, tables.eps, &sum)?;
        if tables.size == self.layers.hidden {
            return Ok(embedded);
        }
        on.linear("embeddings_project", [self.layers.hidden, tables.size], &embedded)
    }
}

/// Position of every token: padding has the padding id, the others are counted from the one behind it.
fn behind(on: &mut Nodes<'_>, ids: &Value, padding: i64) -> Value {
    let (padding, one) = (on.graph.int(padding), on.graph.int(1));
    let is_padding = on.graph.op("Equal", &[ids, &padding]);
    let counts = on.graph.op("Not", &[&is_padding]);
    let counts = on.graph.cast(&counts, INT64);
    let sum = on.graph.op_with("CumSum", &[&counts, &one], &[("exclusive", Setting::Int(0))]);
    let own = on.graph.op("Mul", &[&sum, &counts]);
    on.graph.op("Add", &[&own, &padding])
}

//! The shared layers of BERT, DistilBERT, RoBERTa and ELECTRA as nodes of an ONNX graph, the counterpart of
//! `transformer.rs` and `token_embeddings.rs`.

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
    /// The id of padding, after which positions begin; none if the first position is 0.
    pub(crate) padding: Option<u32>,
    /// The table of relative positions whose biases are added to attention's products: its name, its rows, and the row
    /// of each distance from the query to the key, the smallest distance first.
    pub(crate) relative: Option<(&'static str, usize, Vec<i64>)>,
}

impl TransformerNodes {
    /// Adds the nodes of the hidden states, `[batch, length, hidden]`.
    pub(crate) fn build(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let embedded = self.embeddings(on, inputs, tokens)?;
        let size = self.layers.hidden;
        let bias = match &self.relative {
            Some((table, rows, of_distance)) => Some(self.bias(on, (table, *rows), of_distance, tokens)?),
            None => None,
        };
        self.layers(on, embedded, |on, maps, hidden| {
            let mut part = |name: &str| {
                let mapped = on.linear(name, [size, size], hidden)?;
                Ok::<_, ModelError>(on.split_heads(&mapped, self.heads, size))
            };
            let parts = [part(&maps[0])?, part(&maps[1])?, part(&maps[2])?];
            let (allowed, bias, heads) = (&tokens.attended, bias.as_ref(), self.heads);
            Ok(on.attention(&Mix { parts, allowed, may_be_empty: false, bias, heads, hidden: size }))
        })
    }

    /// Adds all layers after the embeddings. `attend` adds the attention of a layer, given the names of its maps to
    /// query, key and value, and its input.
    pub(crate) fn layers(
        &self,
        on: &mut Nodes<'_>,
        embedded: Value,
        mut attend: impl FnMut(&mut Nodes<'_>, [String; 3], &Value) -> Result<Value, ModelError>,
    ) -> Result<Value, ModelError> {
        let mut hidden = embedded;
        let LayerSizes { hidden: size, wide, eps, .. } = self.layers;
        for i in 0..self.layers.layers {
            let at = |part: usize| format!("{}.{i}.{}", self.names.layers, self.names.parts[part]);
            let mixed = attend(on, [at(0), at(1), at(2)], &hidden)?;
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

    /// Adds the bias of each head, query and key, `[heads, length, length]`.
    fn bias(
        &self,
        on: &mut Nodes<'_>,
        (table, rows): (&str, usize),
        of_distance: &[i64],
        tokens: &Tokens,
    ) -> Result<Value, ModelError> {
        let [queries, keys] = on.column_and_row(&tokens.places);
        let distance = on.graph.op("Sub", &[&keys, &queries]);
        let places = rows_of_distances(on, of_distance, &distance);
        let numbers = on.rows(table, [rows, self.heads], &places)?;
        Ok(on.graph.op_with("Transpose", &[&numbers], &[("perm", Setting::Ints(vec![2, 0, 1]))]))
    }

    fn embeddings(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let tables = self.tables;
        let places = match self.padding {
            None => tokens.places.clone(),
            Some(padding) => behind(on, &inputs.ids, i64::from(padding)),
        };
        let embedded = embeddings(&tables, on, inputs, &places)?;
        if tables.size == self.layers.hidden {
            return Ok(embedded);
        }
        on.linear("embeddings_project", [self.layers.hidden, tables.size], &embedded)
    }
}

/// Adds the row of each distance; `of_distance` lists the rows, the smallest distance first, 0 in the middle.
pub(crate) fn rows_of_distances(on: &mut Nodes<'_>, of_distance: &[i64], distance: &Value) -> Value {
    let middle = on.graph.int(of_distance.len() as i64 / 2);
    let place = on.graph.op("Add", &[distance, &middle]);
    let of_distance = on.graph.ints(of_distance);
    on.graph.op("Gather", &[&of_distance, &place])
}

/// Adds the normalised sum of the rows of all tables, `[batch, length, size]`.
pub(crate) fn embeddings(
    tables: &TableSizes,
    on: &mut Nodes<'_>,
    inputs: &Inputs,
    places: &Value,
) -> Result<Value, ModelError> {
    let mut sum = on.rows("embeddings.word_embeddings.weight", [tables.words, tables.size], &inputs.ids)?;
    if let Some(rows) = tables.positions {
        let positions = on.rows("embeddings.position_embeddings.weight", [rows, tables.size], places)?;
        sum = on.graph.op("Add", &[&sum, &positions]);
    }
    if let Some(rows) = tables.token_types {
        let types = match &inputs.token_types {
            Some(types) => types.clone(),
            None => on.graph.int(0),
        };
        let types = on.rows("embeddings.token_type_embeddings.weight", [rows, tables.size], &types)?;
        sum = on.graph.op("Add", &[&sum, &types]);
    }
    on.layer_norm(tables.norm, tables.size, tables.eps, &sum)
}

/// Adds the position of every token: padding has the padding id, the others are counted from the one after it.
fn behind(on: &mut Nodes<'_>, ids: &Value, padding: i64) -> Value {
    let (padding, one) = (on.graph.int(padding), on.graph.int(1));
    let is_padding = on.graph.op("Equal", &[ids, &padding]);
    let counts = on.graph.op("Not", &[&is_padding]);
    let counts = on.graph.cast(&counts, INT64);
    let sum = on.graph.op_with("CumSum", &[&counts, &one], &[("exclusive", Setting::Int(0))]);
    let own = on.graph.op("Mul", &[&sum, &counts]);
    on.graph.op("Add", &[&own, &padding])
}

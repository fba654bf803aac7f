//! DeBERTa as nodes of an ONNX graph, the counterpart of `deberta.rs` on padded texts.

use crate::encoder::transformer_nodes::{TransformerNodes, embeddings, rows_of_distances};
use crate::error::ModelError;
use crate::onnx::graph::{Setting, Value};
use crate::onnx::nodes::{Inputs, NEVER, Nodes, Tokens};

/// An encoder of BERT's layers whose attention has products with places.
pub(crate) struct DebertaNodes {
    pub(crate) transformer: TransformerNodes,
    /// Name of the table of places, without `.weight`.
    pub(crate) table: &'static str,
    /// Rows of that table.
    pub(crate) rows: usize,
    /// Name of the norm on it.
    pub(crate) norm: Option<&'static str>,
    /// The row of each distance from the key to the query, the smallest distance first.
    pub(crate) of_distance: Vec<i64>,
    /// Products of queries with places are added.
    pub(crate) to_place: bool,
    /// Products of keys with places are added.
    pub(crate) from_place: bool,
    /// Factor of all products.
    pub(crate) scale: f32,
}

/// Values that all layers use.
struct Shared {
    /// Pairs that count, `[batch, 1, length, length]`. A row without any attends to all alike: the softmax of equal
    /// numbers.
    allowed: Value,
    /// The normalised places, `[1, rows, hidden]`.
    places: Value,
    /// The row of each query and key, int64 `[length, length]`, and the same of each key and query.
    rows: [Value; 2],
}

/// Swaps the last of four axes.
fn swapped(on: &mut Nodes<'_>, x: &Value) -> Value {
    on.graph.op_with("Transpose", &[x], &[("perm", Setting::Ints(vec![0, 1, 3, 2]))])
}

/// Multiplies `left right^T` over the last two axes.
fn products(on: &mut Nodes<'_>, left: &Value, right: &Value) -> Value {
    let right = swapped(on, right);
    on.graph.op("MatMul", &[left, &right])
}

impl DebertaNodes {
    /// Adds the nodes of the hidden states, `[batch, length, hidden]`.
    pub(crate) fn build(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let embedded = embeddings(&self.transformer.tables, on, inputs, &tokens.places)?;
        let column = swapped(on, &tokens.attended);
        let axis = on.graph.ints(&[1]);
        let kept = on.graph.op("Squeeze", &[&column, &axis]);
        let kept = on.graph.float32(&kept);
        let embedded = on.graph.op("Mul", &[&embedded, &kept]);
        let allowed = on.graph.op("And", &[&tokens.attended, &column]);
        let rows = self.rows_of_places(on, tokens);
        let of_keys = on.graph.op_with("Transpose", &[&rows], &[("perm", Setting::Ints(vec![1, 0]))]);
        let shared = Shared { allowed, places: self.places(on)?, rows: [rows, of_keys] };
        self.transformer.layers(on, embedded, |on, maps, hidden| self.attend(on, &maps, hidden, &shared))
    }

    fn attend(
        &self,
        on: &mut Nodes<'_>,
        [query, key, value]: &[String; 3],
        hidden: &Value,
        shared: &Shared,
    ) -> Result<Value, ModelError> {
        let (size, heads) = (self.transformer.layers.hidden, self.transformer.heads);
        let Shared { allowed, places, rows: [of_queries, of_keys] } = shared;
        let [query, query_places] = on.linear_of_each(query, [size, size], [hidden, places])?;
        let [key, key_places] = on.linear_of_each(key, [size, size], [hidden, places])?;
        let value = on.linear(value, [size, size], hidden)?;
        let [query, key, value] = [query, key, value].map(|part| on.split_heads(&part, heads, size));
        let mut sum = products(on, &query, &key);
        let shape = on.graph.op("Shape", &[&sum]);
        let with_places = |on: &mut Nodes<'_>, left: &Value, places: &Value, rows: &Value| {
            let places = on.split_heads(places, heads, size);
            let all = products(on, left, &places);
            let rows = on.graph.op("Expand", &[rows, &shape]);
            on.graph.op_with("GatherElements", &[&all, &rows], &[("axis", Setting::Int(3))])
        };
        if self.to_place {
            let added = with_places(on, &query, &key_places, of_queries);
            sum = on.graph.op("Add", &[&sum, &added]);
        }
        if self.from_place {
            let added = with_places(on, &key, &query_places, of_keys);
            let added = swapped(on, &added);
            sum = on.graph.op("Add", &[&sum, &added]);
        }
        let (scale, never) = (on.graph.float(self.scale), on.graph.float(NEVER));
        let sum = on.graph.op("Mul", &[&sum, &scale]);
        let sum = on.graph.op("Where", &[allowed, &sum, &never]);
        let weights = on.graph.op_with("Softmax", &[&sum], &[("axis", Setting::Int(-1))]);
        let mixed = on.graph.op("MatMul", &[&weights, &value]);
        Ok(on.join_heads(&mixed, size))
    }

    /// Adds the table of places, `[1, rows, hidden]`.
    fn places(&self, on: &mut Nodes<'_>) -> Result<Value, ModelError> {
        let (size, eps) = (self.transformer.layers.hidden, self.transformer.layers.eps);
        let name = format!("{}.weight", self.table);
        let table = on.weights.take(&name, &[self.rows, size])?;
        let mut places = on.graph.weight(&name, &table)?;
        if let Some(norm) = self.norm {
            places = on.layer_norm(norm, size, eps, &places)?;
        }
        let front = on.graph.ints(&[0]);
        Ok(on.graph.op("Unsqueeze", &[&places, &front]))
    }

    /// Adds the row of each query and key, int64 `[length, length]`.
    fn rows_of_places(&self, on: &mut Nodes<'_>, tokens: &Tokens) -> Value {
        let [queries, keys] = on.column_and_row(&tokens.places);
        let distance = on.graph.op("Sub", &[&queries, &keys]);
        rows_of_distances(on, &self.of_distance, &distance)
    }
}

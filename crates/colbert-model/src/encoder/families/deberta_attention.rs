//! The attention of DeBERTa, composed of burn's operators, one text after the other.

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use colbert_kernels::{AttentionPlan, Dropout, KernelBackend, Segment, dropout, float32_matmul};

use crate::encoder::EncodeOptions;
use crate::encoder::dropout::DropoutSeed;
use crate::encoder::families::deberta_places::Relative;
use crate::encoder::layers::Linear;

/// The child of a layer's options for dropout of the places.
const OF_PLACES: u64 = 3;

/// The parts of attention that the layers of a pass share.
pub(super) struct SharedAttention<B: Backend> {
    /// The normalised table of places, `[places, hidden]`.
    pub(super) places: Tensor<B, 2>,
    /// The row of each query and key, `[positions, positions]`.
    pub(super) rows: Tensor<B, 2, Int>,
    pub(super) relative: Relative,
    /// Probability that a number of a place is dropped.
    pub(super) dropout: f64,
}

impl<B: KernelBackend> SharedAttention<B> {
    /// Attends from a layer's input, `[tokens, hidden]`, by its maps to query, key and value; the same shape.
    pub(super) fn attend(
        &self,
        input: Tensor<B, 2>,
        maps: [&Linear<B>; 3],
        plan: &AttentionPlan,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let of_places = DropoutSeed::dropout(options.child(OF_PLACES).dropout, self.dropout);
        let places = dropout(self.places.clone(), of_places);
        let heads = |packed: Tensor<B, 2>| {
            let [rows, size] = packed.dims();
            packed.reshape([rows, plan.heads, size / plan.heads]).swap_dims(0, 1)
        };
        // `[heads, size of a head, places]`.
        let mapped = |wanted: bool, map: &Linear<B>| {
            wanted.then(|| heads(map.forward(places.clone(), plan.precision)).swap_dims(1, 2))
        };
        let [query, key, value] = maps.map(|map| map.forward(input.clone(), plan.precision));
        let of_layer = Places {
            keys: mapped(self.relative.to_place, maps[1]),
            queries: mapped(self.relative.from_place, maps[0]),
            rows: self.rows.clone(),
            scale: self.relative.scale,
        };
        let of_text = |segment: &Segment| {
            let of = |packed: &Tensor<B, 2>| heads(packed.clone().narrow(0, segment.start, segment.length));
            let [query, key, value] = [of(&query), of(&key), of(&value)];
            let weights = of_layer.weights(query, key, segment.attended);
            // Each text has its own mask, as with windows.
            let seed = plan.dropout.seed ^ (segment.start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (length, size) = (segment.length, plan.heads * value.dims()[2]);
            let weights = weights.reshape([plan.heads * length, length]);
            let weights = dropout(weights, Dropout { seed, ..plan.dropout }).reshape([plan.heads, length, length]);
            float32_matmul(weights, value).swap_dims(0, 1).reshape([length, size])
        };
        Tensor::cat(plan.segments.as_slice().iter().map(of_text).collect(), 0)
    }
}

/// The places of a layer.
struct Places<B: Backend> {
    /// The places as keys, for products with queries, `[heads, size of a head, places]`.
    keys: Option<Tensor<B, 3>>,
    /// The places as queries, for products with keys, of the same shape.
    queries: Option<Tensor<B, 3>>,
    /// The row of each query and key, `[positions, positions]`.
    rows: Tensor<B, 2, Int>,
    /// Factor of all products.
    scale: f32,
}

impl<B: KernelBackend> Places<B> {
    /// Computes the weights of a text's tokens, `[heads, length, length]`, from queries and keys `[heads, length, size
    /// of a head]`.
    fn weights(&self, query: Tensor<B, 3>, key: Tensor<B, 3>, attended: usize) -> Tensor<B, 3> {
        let ([heads, length, _], device) = (query.dims(), query.device());
        let first = |tensor: Tensor<B, 3>| tensor.narrow(1, 0, attended);
        let (query, key) = (first(query), first(key));
        let rows = self.rows.clone().narrow(0, 0, attended).narrow(1, 0, attended);
        let of_head = |rows: Tensor<B, 2, Int>| rows.unsqueeze::<3>().expand([heads, attended, attended]);
        let mut products = float32_matmul(query.clone(), key.clone().swap_dims(1, 2));
        if let Some(places) = &self.keys {
            products = products + float32_matmul(query, places.clone()).gather(2, of_head(rows.clone()));
        }
        if let Some(places) = &self.queries {
            let of_keys = float32_matmul(key, places.clone()).gather(2, of_head(rows.swap_dims(0, 1)));
            products = products + of_keys.swap_dims(1, 2);
        }
        let weights = softmax(products * self.scale, 2);
        if attended == length {
            return weights;
        }
        let beside = Tensor::zeros([heads, attended, length - attended], &device);
        let alike = Tensor::full([heads, length - attended, length], 1.0 / length as f32, &device);
        Tensor::cat(vec![Tensor::cat(vec![weights, beside], 2), alike], 1)
    }
}

//! The attention of a transformer layer that is normalised after it: query, key and value of the same tokens, attention
//! of them, and the sublayer's end.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::attention::{self, AttentionPlan};
use crate::operators::linear::{self, FloatMap, Map, register_weights};
use crate::operators::mapped_attention::{self, MappedAttention};
use crate::operators::node::record;
use crate::operators::post_norm::{self, Ended, FloatPostNorm, PostNorm};
use crate::operators::primitive::{primitive, tensor};

/// Computes `layer_norm(dropout(out(attention(query(input), key(input), value(input)))) + input)`, the first half of a
/// transformer layer (Vaswani et al. 2017, section 3.2.2), `out` being the end's map. See
/// [`attention()`](crate::attention()); the maps are multiplied in the plan's precision too.
///
/// # Shapes
/// - input, output: `[tokens, size]`, the sequences one after the other
/// - maps: `[heads * head_size, size]` and `[heads * head_size]`
/// - the end's map: `[size, heads * head_size]` and `[size]`
///
/// # Panics
/// If the shapes do not fit, or the tokens are not the segments'.
pub fn post_norm_attention<B: KernelBackend>(
    input: Tensor<B, 2>,
    maps: [Map<Tensor<B, 2>, Tensor<B, 1>>; 3],
    plan: &AttentionPlan,
    end: PostNorm<Tensor<B, 2>, Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let [tokens, size] = input.dims();
    let [wide, _] = maps[0].weight.dims();
    for map in &maps {
        linear::check(size, &map.weight, Some(&map.bias));
        assert_eq!(map.weight.dims()[0], wide, "query, key and value have one size");
    }
    attention::check([tokens, wide], plan);
    let end = post_norm::checked(wide, &input, end);
    let maps = maps.map(|map| Map { weight: primitive(map.weight), bias: primitive(map.bias) });
    tensor(B::kernel_post_norm_attention(primitive(input), maps, plan.clone(), end))
}

/// Parents: input, weights of query, key and value, their biases, and those of the end.
#[derive(Debug)]
struct Node;

/// The state for the backward pass.
#[derive(Debug, Clone)]
struct State<T> {
    /// The input as the maps' factor.
    input: T,
    attention: MappedAttention<T>,
    plan: AttentionPlan,
    /// The attention's output as the factor of the end's map.
    factor: T,
    ended: Ended<T>,
}

impl<B: Kernels> Backward<B, 11> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 11>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, q, k, v, q_bias, k_bias, v_bias, out, out_bias, norm, norm_bias] =
            ops.parents.map(|parent| parent.map(|node| node.id));
        let State { input: inner, attention, plan, factor, ended } = ops.state;
        let weight = ended.end.map.weight.clone();
        let (of_mapped, of_residual) = ended.go_back::<B>(gradient, [out_bias, norm, norm_bias], gradients);
        register_weights::<B, 1>([out], [of_mapped.clone()], factor, plan.precision, gradients);
        let of_attended = B::inner_input_gradient(of_mapped, weight, plan.precision);
        let found = mapped_attention::gradients::<B>(inner, attention, of_attended, of_residual, &plan);
        let [of_q, of_k, of_v] = found.maps;
        let weights = [(q, of_q.weight), (k, of_k.weight), (v, of_v.weight)];
        let biases = [(q_bias, of_q.bias), (k_bias, of_k.bias), (v_bias, of_v.bias)];
        for (node, gradient) in [(input, found.input)].into_iter().chain(weights).chain(biases) {
            if let Some(node) = node {
                gradients.register::<B>(node, gradient);
            }
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    maps: [FloatMap<Autodiff<B, C>>; 3],
    plan: AttentionPlan,
    end: FloatPostNorm<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let precision = plan.precision;
    let inner = B::rounded(input.primitive.clone(), precision);
    let inside =
        maps.each_ref().map(|map| Map { weight: map.weight.primitive.clone(), bias: map.bias.primitive.clone() });
    let attention = B::mapped_attention_forward(inner.clone(), inside, &plan);
    let factor = B::rounded(attention.attended.output.clone(), precision);
    let inside = post_norm::inner::<B, C>(&end);
    let (output, ended) = Ended::forward::<B>(factor.clone(), input.primitive.clone(), inside, precision);
    let state = State { input: inner, attention, plan, factor, ended };
    let [q, k, v] = &maps;
    let [out, out_bias, norm, norm_bias] = post_norm::parents::<B, C>(&end, &input);
    let parents = [&input, &q.weight, &k.weight, &v.weight, &q.bias, &k.bias, &v.bias, out, out_bias, norm, norm_bias];
    record::<_, B, C, 11>(Node, parents, output, state)
}

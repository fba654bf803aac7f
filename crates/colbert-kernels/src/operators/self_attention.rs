//! Query, key and value of the same tokens, and attention of them.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::attention::{self, AttentionPlan, State};
use crate::operators::linear::{self, Asking, FloatMap, Map, Saved, propagate};
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};

/// Computes `attention(query(input), key(input), value(input))`, the self-attention of a transformer layer before its
/// projection (Vaswani et al. 2017, section 3.2.2). See [`attention()`](crate::attention()); the maps are multiplied in
/// the plan's precision too.
///
/// # Shapes
/// - input: `[tokens, in]`, the sequences one after the other
/// - maps: `[heads * head_size, in]` and `[heads * head_size]`
/// - output: `[tokens, heads * head_size]`
///
/// # Panics
/// If the shapes do not fit, or the tokens are not the segments'.
pub fn self_attention<B: KernelBackend>(
    input: Tensor<B, 2>,
    maps: [Map<Tensor<B, 2>, Tensor<B, 1>>; 3],
    plan: &AttentionPlan,
) -> Tensor<B, 2> {
    let [tokens, size] = input.dims();
    let [out, _] = maps[0].weight.dims();
    for map in &maps {
        linear::check(size, &map.weight, Some(&map.bias));
        assert_eq!(map.weight.dims()[0], out, "query, key and value have one size");
    }
    attention::check([tokens, out], plan);
    let maps = maps.map(|map| Map { weight: primitive(map.weight), bias: primitive(map.bias) });
    tensor(B::kernel_self_attention(primitive(input), maps, plan.clone()))
}

#[derive(Debug)]
struct Node;

impl<B: Kernels> Backward<B, 7> for Node {
    type State = (Saved<FloatTensor<B>, 3>, State<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (maps, State { qkv, forward, plan }) = ops.state;
        let of_qkv = B::attention_gradient(qkv, forward, gradient, &plan);
        let [input, q, k, v, q_bias, k_bias, v_bias] = ops.parents.map(|parent| parent.map(|node| node.id));
        let asking = Asking { input, weights: [q, k, v], biases: [q_bias, k_bias, v_bias] };
        propagate::<B, 3>(asking, of_qkv, maps, gradients);
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    maps: [FloatMap<Autodiff<B, C>>; 3],
    plan: AttentionPlan,
) -> FloatTensor<Autodiff<B, C>> {
    let weights = maps.each_ref().map(|map| map.weight.primitive.clone());
    let saved =
        Saved { input: B::rounded(input.primitive.clone(), plan.precision), weights, precision: plan.precision };
    let inner =
        maps.each_ref().map(|map| Map { weight: map.weight.primitive.clone(), bias: Some(map.bias.primitive.clone()) });
    let qkv = B::inner_linears_forward(saved.input.clone(), inner, plan.precision);
    let forward = B::attention_forward(qkv.clone(), &plan);
    let output = forward.output.clone();
    let [q, k, v] = &maps;
    let parents = [&input, &q.weight, &k.weight, &v.weight, &q.bias, &k.bias, &v.bias];
    record::<_, B, C, 7>(Node, parents, output, (saved, State { qkv, forward, plan }))
}

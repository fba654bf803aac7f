//! Attention in windows against the same composed of burn's operators, one sequence after the other.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, TensorData};
use colbert_kernels::{AttentionPlan, Dropout, Precision, Segments, attention, dropout};
use test_backend::device;

use crate::support::{Back, numbers, random, run};

/// Float32 sums of up to 60 numbers below 1, summed in another order.
const ERROR: f32 = 1e-5;

/// The value of a product that does not count. A lower one would overflow if a row has no other.
const NEVER: f32 = -1e30;

/// Each sequence has its own mask, with rows (head, query) and columns (key): this pins which weights are dropped, so
/// that a seed gives the same training in every version.
fn composed([query, key, value]: [&Tensor<Back, 2>; 3], plan: &AttentionPlan, reach: usize) -> Tensor<Back, 2> {
    let size = query.dims()[1];
    let (heads, head_size) = (plan.heads, size / plan.heads);
    let each = plan.segments.as_slice().iter().map(|segment| {
        let (length, attended) = (segment.length, segment.attended);
        let split = |packed: &Tensor<Back, 2>, rows: usize| {
            packed.clone().narrow(0, segment.start, rows).reshape([rows, heads, head_size]).swap_dims(0, 1)
        };
        let far: Vec<bool> =
            (0..length).flat_map(|row| (0..attended).map(move |column| row.abs_diff(column) > reach)).collect();
        let far = Tensor::<Back, 3, Bool>::from_data(TensorData::new(far, [1, length, attended]), &device());
        let far = far.expand([heads, length, attended]);
        let products = split(query, length).matmul(split(key, attended).swap_dims(1, 2));
        let products = products * (1.0 / (head_size as f32).sqrt());
        // Masked twice, so that a row without any key has weights of 0 rather than equal ones.
        let weights = softmax(products.mask_fill(far.clone(), NEVER), 2).mask_fill(far, 0.0);
        let seed = plan.dropout.seed ^ (segment.start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rows = dropout(weights.reshape([heads * length, attended]), Dropout { seed, ..plan.dropout });
        let weights = rows.reshape([heads, length, attended]);
        weights.matmul(split(value, attended)).swap_dims(0, 1).reshape([length, size])
    });
    Tensor::cat(each.collect(), 0)
}

#[test]
fn windows_drop_the_weights_that_the_composed_version_drops() {
    let segments = Segments::new([(70, 51), (1, 1), (30, 4), (57, 57)]);
    let inputs = [1, 2, 3].map(|seed| random([segments.tokens(), 24], seed));
    for (reach, probability) in [(0, 0.2), (7, 0.0), (7, 0.2), (20, 0.4)] {
        let dropout = Dropout { probability, seed: 77 };
        let (segments, precision) = (segments.clone(), Precision::F32);
        let plan = AttentionPlan { segments, heads: 3, reach: Some(reach), dropout, precision };
        let fused = run(&inputs, &|x| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan));
        let expected = run(&inputs, &|x| composed([&x[0], &x[1], &x[2]], &plan, reach));
        let (found, expected) = ([vec![fused.0], fused.1].concat(), [vec![expected.0], expected.1].concat());
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < ERROR, "reach {reach}, {probability}: {found}, not {expected}");
        }
        assert!(found.iter().flatten().any(|x| *x != 0.0) && numbers(inputs[0].clone()).len() == found[0].len());
    }
}

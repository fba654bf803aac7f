use burn::tensor::Tensor;
use burn_flex::Flex;

use super::*;
use crate::flex::halves::round;
use crate::flex::pack::widen_row;
use crate::flex::testing::{close, flat, matrix, random, slope, wide};
use crate::operators::attention::{Attended, composed, composed_gradient};
use crate::operators::dropout::Dropout;
use crate::operators::packed_attention;
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;
use crate::segments::Segments;

/// Outputs are means of numbers below 1, gradients sums of a few dozen.
const ERROR: f64 = 5e-6;

fn plan(sequences: &[(usize, usize)], heads: usize, reach: Option<usize>, dropout: Dropout) -> AttentionPlan {
    let segments = Segments::new(sequences.iter().copied());
    AttentionPlan { segments, heads, reach, dropout, precision: Precision::F32 }
}

/// Rotated numbers of one head of a token.
fn rotated(numbers: &[f64], rotation: Option<&Rotation>, position: usize) -> Vec<f64> {
    let mut turned = numbers.to_vec();
    let Some(rotation) = rotation else { return turned };
    let (cos, sin) = rotation.at(position);
    for (i, (cos, sin)) in cos.iter().zip(sin).enumerate() {
        let (cos, sin, second) = (f64::from(*cos), f64::from(*sin), i + rotation.at(0).0.len());
        turned[i] = numbers[i] * cos - numbers[second] * sin;
        turned[second] = numbers[second] * cos + numbers[i] * sin;
    }
    turned
}

/// Computes attention of query, key and value, one after the other in `qkv`.
fn exact(qkv: &[f64], rotation: Option<&Rotation>, plan: &AttentionPlan) -> Vec<f64> {
    let tokens = plan.segments.tokens();
    let (query, rest) = qkv.split_at(qkv.len() / 3);
    let (key, value) = rest.split_at(rest.len() / 2);
    let stride = query.len() / tokens;
    let size = stride / plan.heads;
    let mut output = vec![0.0; query.len()];
    for segment in plan.segments.as_slice() {
        for (i, head) in (0..segment.length).flat_map(|i| (0..plan.heads).map(move |head| (i, head))) {
            let at = |position: usize| (segment.start + position) * stride + head * size;
            let own = |of: &[f64], position: usize| rotated(&of[at(position)..][..size], rotation, position);
            let seen: Vec<usize> =
                (0..segment.attended).filter(|j| plan.reach.is_none_or(|reach| j.abs_diff(i) <= reach)).collect();
            let query = own(query, i);
            let product = |j: &usize| own(key, *j).iter().zip(&query).map(|(k, q)| k * q).sum::<f64>();
            let weights: Vec<f64> = seen.iter().map(|j| (product(j) / (size as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            let (dropout, row) = plan.weights_row(*segment, head, i);
            for (j, weight) in seen.iter().zip(weights) {
                let factor = if dropout.is_none() { 1.0 } else { f64::from(dropout.row(row).factor(*j as u32)) };
                for n in 0..size {
                    output[at(i) + n] += weight / total * factor * value[at(*j) + n];
                }
            }
        }
    }
    output
}

/// Sequences (tokens, attended), heads, size of a head, and reaches.
type Case = (Vec<(usize, usize)>, usize, usize, Vec<Option<usize>>);

/// Cases of sequences, heads and their size, and reaches: of all, of windows that end within a block, and of a token
/// alone.
fn cases() -> Vec<Case> {
    let lengths: Vec<(usize, usize)> = (1..=20).map(|i| (2 * i, (2 * i).min(i + 7))).collect();
    vec![
        (vec![(1, 1)], 1, 8, vec![None, Some(0)]),
        (vec![(40, 40)], 2, 32, vec![None, Some(3)]),
        (vec![(32, 5), (1, 1), (17, 17), (3, 1)], 3, 8, vec![None, Some(0), Some(6)]),
        (vec![(7, 7), (60, 49)], 1, 64, vec![None, Some(2)]),
        (vec![(100, 97), (2, 2)], 1, 5, vec![None, Some(9), Some(usize::MAX)]),
        (lengths, 2, 16, vec![None, Some(5)]),
        (vec![(150, 110)], 1, 8, vec![Some(1), Some(40)]),
    ]
}

#[test]
fn outputs_and_gradients_are_those_of_f64_on_every_level_and_composed() {
    for (case, (sequences, heads, size, reaches)) in cases().into_iter().enumerate() {
        for (probability, reach) in [0.0, 0.25].into_iter().flat_map(|p| reaches.iter().map(move |reach| (p, *reach))) {
            let plan = plan(&sequences, heads, reach, Dropout { probability, seed: case as u64 });
            let (tokens, columns) = (plan.segments.tokens(), heads * size);
            let count = tokens * columns;
            let qkv = random(3 * count, case);
            let parts = [0, 1, 2].map(|i| &qkv[i * count..(i + 1) * count]);
            let back = random(count, case + 70);
            let expected = exact(&wide(&qkv), None, &plan);
            let loss = |qkv: &[f64]| exact(qkv, None, &plan).iter().zip(&back).map(|(x, g)| x * f64::from(*g)).sum();
            // A prime distance, so that all heads, tokens and all three tensors are met.
            let places: Vec<usize> = (0..3 * count).step_by((3 * count / 25).max(1) | 1).collect();
            let slopes: Vec<f64> = places.iter().map(|&i| slope(loss, &wide(&qkv), i)).collect();
            let pick = |all: &[Vec<f32>; 3]| places.iter().map(|&i| all[i / count][i % count]).collect::<Vec<_>>();

            let tensors = parts.map(|part| matrix(part, columns));
            let forward: Attended<_> = composed::<Flex>(tensors.clone(), &plan);
            let what = format!("composed, case {case}, {reach:?}");
            close(&flat(&forward.output), &expected, ERROR, &what);
            let logs = flat(&forward.log_sum_exp);
            let gradients = composed_gradient::<Flex>(tensors, forward, matrix(&back, columns), &plan);
            let gradients = gradients.map(|gradient| flat(&gradient));
            close(&pick(&gradients), &slopes, ERROR, &what);
            for level in Level::available() {
                let what = format!("{level:?}, case {case}, {reach:?}, dropout {probability}");
                let inputs = Inputs::apart(parts.map(Numbers::Single), columns);
                let [output, log_sum_exp] = attention(level, inputs, &plan);
                close(&output, &expected, ERROR, &what);
                close(&log_sum_exp, &wide(&logs), ERROR, &what);
                let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &back };
                let found = gradient::<f32>(level, inputs, back, &plan).map(|gradient| gradient.to_vec());
                close(&pick(&found), &slopes, ERROR, &what);
                for (found, composed) in found.iter().zip(&gradients) {
                    close(found, &wide(composed), ERROR, &what);
                }
            }
        }
    }
}

#[test]
fn packed_and_rotated_attention_is_that_of_f64_on_every_level_and_composed() {
    for (case, (sequences, heads, size, reaches)) in cases().into_iter().enumerate() {
        for reach in reaches {
            let plan = plan(&sequences, heads, reach, Dropout { probability: 0.25, seed: case as u64 });
            // Some numbers of a head are not rotated.
            let frequencies: Vec<f32> = (0..(size / 2).max(2) - 1).map(|i| 0.7 / (i as f32 + 1.0)).collect();
            let rotation = Rotation::new(&frequencies, plan.segments.max_length());
            let (tokens, columns) = (plan.segments.tokens(), heads * size);
            let count = tokens * columns;
            // One after the other for each token; `exact` wants one tensor after the other.
            let qkv = random(3 * count, case);
            let apart = |qkv: &[f64]| -> Vec<f64> {
                let part = |i: usize| qkv.chunks(3 * columns).flat_map(move |row| &row[i * columns..(i + 1) * columns]);
                (0..3).flat_map(part).copied().collect()
            };
            let back = random(count, case + 70);
            let expected = exact(&apart(&wide(&qkv)), Some(&rotation), &plan);
            let loss = |qkv: &[f64]| {
                exact(&apart(qkv), Some(&rotation), &plan).iter().zip(&back).map(|(x, g)| x * f64::from(*g)).sum()
            };
            let places: Vec<usize> = (0..3 * count).step_by((3 * count / 25).max(1) | 1).collect();
            let slopes: Vec<f64> = places.iter().map(|&i| slope(loss, &wide(&qkv), i)).collect();
            let pick = |all: &[f32]| places.iter().map(|&i| all[i]).collect::<Vec<_>>();
            let what = format!("case {case}, {reach:?}");
            let packed = matrix(&qkv, 3 * columns);
            let (forward, packed) = packed_attention::composed::<Flex>(packed, Some(&rotation), &plan);
            close(&flat(&forward.output), &expected, ERROR, &what);
            let of_output = matrix(&back, columns);
            let composed =
                packed_attention::composed_gradient::<Flex>(packed, forward, of_output, Some(&rotation), &plan);
            close(&pick(&flat(&composed)), &slopes, ERROR, &what);
            for level in Level::available() {
                let inputs = Inputs::packed(Numbers::Single(&qkv), columns, Some(&rotation));
                let [output, log_sum_exp] = attention(level, inputs, &plan);
                close(&output, &expected, ERROR, &what);
                let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &back };
                let found = packed_gradient::<f32>(level, inputs, back, &plan);
                close(&pick(&found), &slopes, ERROR, &what);
                close(&found, &wide(&flat(&composed)), ERROR, &what);
            }
        }
    }
}

/// bfloat16 has 8 significant bits, so that a factor is off by up to 1/256; values and gradients are below 2, and the
/// errors of a sum mostly cancel.
const BF16_ERROR: f64 = 2e-2;

#[test]
fn bfloat16_is_float32_up_to_rounding() {
    for level in Level::available() {
        for (sequences, heads, size, reach) in [
            (vec![(1, 1), (3, 2), (40, 40)], 2, 32, None),
            (vec![(33, 5), (17, 17)], 3, 7, None),
            (vec![(131, 131), (2, 1)], 1, 64, None),
            (vec![(131, 101), (2, 1)], 1, 64, Some(13)),
        ] {
            for probability in [0.0, 0.25] {
                let single = plan(&sequences, heads, reach, Dropout { probability, seed: 3 });
                let half = AttentionPlan { precision: Precision::Bf16, ..single.clone() };
                let columns = heads * size;
                let qkv = random(3 * single.segments.tokens() * columns, 5);
                let of_output = random(qkv.len() / 3, 8);
                let rotation = Rotation::new(&vec![0.5; size / 2], single.segments.max_length());
                let inputs = Inputs::packed(Numbers::Single(&qkv), columns, Some(&rotation));
                let all = |plan: &AttentionPlan| {
                    let [output, log_sum_exp] = attention(level, inputs, plan);
                    let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &of_output };
                    let gradient = packed_gradient::<f32>(level, inputs, back, plan);
                    [output.to_vec(), log_sum_exp.to_vec(), gradient.to_vec()]
                };
                let (found, exact) = (all(&half), all(&single));
                for (found, exact) in found.iter().zip(&exact) {
                    close(found, &wide(exact), BF16_ERROR, &format!("{level:?}, {size} numbers, {probability}"));
                }
                assert_eq!(found != exact, level.has_bf16(), "rounded where the processor has bfloat16");
            }
        }
    }
}

#[test]
fn tokens_that_were_rounded_have_the_bits_of_rounded_factors() {
    for level in Level::available().into_iter().filter(|level| level.has_bf16()) {
        for (sequences, heads, size, reach) in [
            (vec![(1, 1), (3, 2), (40, 40)], 2, 32, None),
            (vec![(33, 5), (17, 17)], 3, 7, None),
            (vec![(131, 131), (2, 1)], 1, 64, None),
            (vec![(131, 101), (2, 1), (90, 4)], 2, 10, Some(13)),
        ] {
            let single = plan(&sequences, heads, reach, Dropout { probability: 0.25, seed: 3 });
            let plan = AttentionPlan { precision: Precision::Bf16, ..single };
            let columns = heads * size;
            let qkv = random(3 * plan.segments.tokens() * columns, 5);
            let of_output = random(qkv.len() / 3, 8);
            let halves = round(level, &qkv);
            let mut widened = vec![0.0; qkv.len()];
            widen_row(level, &halves, &mut widened);
            let rotation = Rotation::new(&vec![0.5; size / 2], plan.segments.max_length());
            for rotation in [None, Some(&rotation)] {
                let inputs = [Numbers::Half(&halves), Numbers::Single(&widened)]
                    .map(|qkv| Inputs::packed(qkv, columns, rotation));
                let [[output, log_sum_exp], exact] = inputs.map(|inputs| attention(level, inputs, &plan));
                assert!(output[..] == exact[0][..] && log_sum_exp[..] == exact[1][..], "{size} numbers");
                let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &of_output };
                let found = packed_gradient::<half::bf16>(level, inputs[0], back, &plan);
                let exact = packed_gradient::<f32>(level, inputs[1], back, &plan);
                assert!(found[..] == round(level, &exact)[..], "gradients of {size} numbers");
            }
        }
    }
}

#[test]
fn large_products_do_not_overflow() {
    let qkv: Vec<f32> = random(50 * 8, 1).iter().map(|x| x * 1e3).collect();
    for (level, reach) in Level::available().into_iter().flat_map(|level| [(level, None), (level, Some(4))]) {
        let plan = plan(&[(50, 50)], 1, reach, Dropout::NONE);
        let inputs = Inputs::apart([Numbers::Single(&qkv); 3], 8);
        let [output, log_sum_exp] = attention(level, inputs, &plan);
        assert!(output.iter().chain(log_sum_exp.iter()).all(|x| x.is_finite()));
        let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &qkv };
        let found = gradient::<f32>(level, inputs, back, &plan);
        assert!(found.iter().all(|found| found.iter().all(|x| x.is_finite())));
    }
}

/// A query far after the attended tokens gets zeros, and its numbers affect no gradient.
#[test]
fn a_query_without_any_key_in_its_window_gets_zeros() {
    let plan = plan(&[(90, 4), (3, 3)], 1, Some(6), Dropout::NONE);
    let qkv = random(93 * 3 * 8, 2);
    for level in Level::available() {
        let inputs = Inputs::packed(Numbers::Single(&qkv), 8, None);
        let [output, log_sum_exp] = attention(level, inputs, &plan);
        assert!(output[10 * 8..90 * 8].iter().chain(&log_sum_exp[10..90]).all(|x| *x == 0.0));
        assert!(output[..10 * 8].iter().chain(&output[90 * 8..]).all(|x| *x != 0.0));
        let of_output = random(93 * 8, 3);
        let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &of_output };
        let found = packed_gradient::<f32>(level, inputs, back, &plan);
        assert!(found[10 * 24..90 * 24].iter().all(|x| *x == 0.0));
    }
    let (forward, _) = packed_attention::composed::<Flex>(matrix(&qkv, 24), None, &plan);
    let output: Tensor<Flex, 2> = tensor(forward.output.clone());
    assert!(
        flat(&primitive(output))[10 * 8..90 * 8].iter().chain(&flat(&forward.log_sum_exp)[10..90]).all(|x| *x == 0.0)
    );
}

//! Values and gradients through autodiff, against double precision and its central differences.

use burn::tensor::Tensor;
use colbert_kernels::{
    AttentionPlan, Dropout, Precision, Rotation, ScoredTexts, Segments, Tables, TokenRows, attention, dropout, embed,
    gelu, layer_norm, linear, maxsim, packed_self_attention, residual_layer_norm,
};

use crate::exact::{check, exact_attention, exact_gelu, exact_linear, exact_norm, vector};
use crate::support::{Back, plain_attention, random, run};

#[test]
fn linear_with_and_without_bias_and_gelu() {
    for (tokens, size, out) in [(1, 1, 1), (7, 13, 5), (33, 50, 41)] {
        let inputs = [random([tokens, size], 1), random([out, size], 2), random([1, out], 3)];
        let biased = |x: &[Tensor<Back, 2>]| linear(x[0].clone(), x[1].clone(), Some(vector(&x[2])), Precision::F32);
        check("linear", &inputs, &biased, &|x| exact_linear(&x[0], &x[1], &x[2], size));
        let plain = |x: &[Tensor<Back, 2>]| linear(x[0].clone(), x[1].clone(), None, Precision::F32);
        check("no bias", &inputs[..2], &plain, &|x| exact_linear(&x[0], &x[1], &[], size));
        let alone = |x: &[Tensor<Back, 2>]| gelu(x[0].clone());
        check("GELU", &inputs[..1], &alone, &|x| x[0].iter().copied().map(exact_gelu).collect());
    }
}

#[test]
fn an_input_that_is_a_view_is_read_as_what_it_is() {
    let inputs = [random([5, 9], 1), random([5, 4], 2)];
    let operator =
        |x: &[Tensor<Back, 2>]| linear(x[0].clone().transpose(), x[1].clone().transpose(), None, Precision::F32);
    let turn = |x: &[f64], columns: usize| -> Vec<f64> {
        (0..columns).flat_map(|j| x.iter().skip(j).step_by(columns).copied().collect::<Vec<f64>>()).collect()
    };
    check("views", &inputs, &operator, &|x| exact_linear(&turn(&x[0], 9), &turn(&x[1], 4), &[], 5));
}

#[test]
fn normalisation_with_residual_and_dropout() {
    for (tokens, size) in [(1, 3), (5, 17), (70, 48)] {
        let inputs = [random([tokens, size], 1), random([1, size], 2), random([1, size], 3), random([tokens, size], 4)];
        let plain = |x: &[Tensor<Back, 2>]| layer_norm(x[0].clone(), vector(&x[1]), Some(vector(&x[2])), 1e-3);
        check("norm", &inputs[..3], &plain, &|x| exact_norm(&x[0], &x[1], &x[2], 1e-3));
        for options in [Dropout::NONE, Dropout { probability: 0.3, seed: 5 }] {
            let operator = |x: &[Tensor<Back, 2>]| {
                residual_layer_norm(x[0].clone(), x[3].clone(), vector(&x[1]), vector(&x[2]), 1e-3, options)
            };
            let mask = options.mask(tokens, size);
            let exact = |x: &Vec<Vec<f64>>| {
                let sum: Vec<f64> = (0..x[0].len()).map(|i| x[0][i] * f64::from(mask[i]) + x[3][i]).collect();
                exact_norm(&sum, &x[1], &x[2], 1e-3)
            };
            check("residual norm", &inputs, &operator, &exact);
        }
    }
}

#[test]
fn dropout_alone() {
    let options = Dropout { probability: 0.5, seed: 3 };
    let mask = options.mask(11, 6);
    let operator = |x: &[Tensor<Back, 2>]| dropout(x[0].clone(), options);
    let exact = |x: &Vec<Vec<f64>>| x[0].iter().zip(&mask).map(|(x, m)| x * f64::from(*m)).collect();
    check("dropout", &[random([11, 6], 1)], &operator, &exact);
}

#[test]
fn attention_of_one_sequence_each_is_that_of_all_together() {
    let sequences = [(1, 1), (32, 9), (40, 40), (13, 1), (5, 5)];
    let (heads, size) = (3, 24);
    let all = Segments::new(sequences);
    let inputs = [0, 1, 2].map(|seed| random([all.tokens(), size], seed));
    let together =
        |x: &[Tensor<Back, 2>]| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plain_attention(&all, heads));
    let apart = |x: &[Tensor<Back, 2>]| {
        let each = all.as_slice().iter().map(|segment| {
            let own = |x: &Tensor<Back, 2>| x.clone().narrow(0, segment.start, segment.length);
            let segments = Segments::new([(segment.length, segment.attended)]);
            attention(own(&x[0]), own(&x[1]), own(&x[2]), &plain_attention(&segments, heads))
        });
        Tensor::cat(each.collect(), 0)
    };
    assert_eq!(run(&inputs, &together), run(&inputs, &apart));
    // Values of tokens that no query attends to do not matter, and get no gradient.
    let (_, gradients) = run(&inputs, &together);
    for segment in all.as_slice() {
        let idle = (segment.start + segment.attended) * size..(segment.start + segment.length) * size;
        assert!(gradients[1][idle.clone()].iter().chain(&gradients[2][idle]).all(|x| *x == 0.0));
    }
}

#[test]
fn attention_through_autodiff() {
    let segments = Segments::new([(6, 4), (9, 9)]);
    let (heads, size) = (2, 10);
    let plan = plain_attention(&segments, heads);
    let inputs = [0, 1, 2].map(|seed| random([15, size], seed));
    let operator = |x: &[Tensor<Back, 2>]| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan);
    let exact = |x: &Vec<Vec<f64>>| exact_attention([&x[0], &x[1], &x[2]], &segments, heads);
    check("attention", &inputs, &operator, &exact);
}

#[test]
fn packed_attention_through_autodiff() {
    let segments = Segments::new([(6, 4), (9, 9)]);
    let (heads, size) = (2, 8);
    let rotation = Rotation::new(&[0.7, 0.2], 9);
    let rotated = |numbers: &[f64]| -> Vec<f64> {
        let positions = segments.positions();
        let each = numbers.chunks(4).enumerate().flat_map(|(i, x)| {
            let position = f64::from(positions[i / heads]);
            let [(s, c), (t, d)] = [0.7, 0.2].map(|frequency| (position * frequency).sin_cos());
            [x[0] * c - x[2] * s, x[1] * d - x[3] * t, x[2] * c + x[0] * s, x[3] * d + x[1] * t]
        });
        each.collect()
    };
    let inputs = [random([15, 7], 3), random([3 * size, 7], 4).mul_scalar(0.5), random([1, 3 * size], 5)];
    let exact = |x: &Vec<Vec<f64>>, bias: &[f64]| {
        let qkv = exact_linear(&x[0], &x[1], bias, 7);
        let part = |i: usize| -> Vec<f64> {
            qkv.chunks(3 * size).flat_map(|row| row[i * size..(i + 1) * size].iter().copied()).collect()
        };
        exact_attention([&rotated(&part(0)), &rotated(&part(1)), &part(2)], &segments, heads)
    };
    let plan = plain_attention(&segments, heads);
    let operator = |x: &[Tensor<Back, 2>]| {
        packed_self_attention(x[0].clone(), x[1].clone(), Some(vector(&x[2])), Some(&rotation), &plan)
    };
    check("packed attention", &inputs, &operator, &|x| exact(x, &x[2]));
    let operator =
        |x: &[Tensor<Back, 2>]| packed_self_attention(x[0].clone(), x[1].clone(), None, Some(&rotation), &plan);
    check("packed attention without bias", &inputs[..2], &operator, &|x| exact(x, &[]));
    // A window that covers every token of every sequence.
    let wide = AttentionPlan { reach: Some(8), ..plan.clone() };
    let operator =
        |x: &[Tensor<Back, 2>]| packed_self_attention(x[0].clone(), x[1].clone(), None, Some(&rotation), &wide);
    check("a wide window", &inputs[..2], &operator, &|x| exact(x, &[]));
}

#[test]
fn embeddings_of_three_tables() {
    let rows = TokenRows { ids: [3, 0, 3, 10].into(), positions: [0, 1, 2, 0].into() };
    let inputs = [random([11, 7], 1), random([3, 7], 2), random([2, 7], 3)];
    let operator = |x: &[Tensor<Back, 2>]| {
        embed(Tables { word: x[0].clone(), position: Some(x[1].clone()), token_type: Some(x[2].clone()) }, &rows)
    };
    let exact = |x: &Vec<Vec<f64>>| {
        let token = |t: usize| {
            let (id, position) = (rows.ids[t] as usize, rows.positions[t] as usize);
            (0..7).map(move |i| x[0][id * 7 + i] + x[1][position * 7 + i] + x[2][i])
        };
        (0..4).flat_map(token).collect()
    };
    check("embeddings", &inputs, &operator, &exact);
    let one_type = [inputs[0].clone(), inputs[1].clone(), random([1, 7], 3)];
    check("one token type", &one_type, &operator, &exact);
    let words = |x: &[Tensor<Back, 2>]| embed(Tables { word: x[0].clone(), position: None, token_type: None }, &rows);
    let exact =
        |x: &Vec<Vec<f64>>| rows.ids.iter().flat_map(|id| x[0][*id as usize * 7..][..7].iter().copied()).collect();
    check("words alone", &inputs[..1], &words, &exact);
}

#[test]
fn scores_through_autodiff() {
    let texts = [ScoredTexts::new(&[2, 3], vec![true; 5]), {
        let scored: Vec<bool> = (0..9).map(|i| i % 4 != 3).collect();
        ScoredTexts::new(&[4, 5], scored)
    }];
    let inputs = [random([5, 6], 1), random([9, 6], 2)];
    let operator = |x: &[Tensor<Back, 2>]| maxsim(x[0].clone(), &texts[0], x[1].clone(), &texts[1]);
    let exact = |x: &Vec<Vec<f64>>| {
        let score = |q: usize, d: usize| -> f64 {
            let product = |i: usize, j: usize| (0..6).map(|n| x[0][i * 6 + n] * x[1][j * 6 + n]).sum::<f64>();
            let best = |i: usize| texts[1].scored_rows(d).map(|j| product(i, j)).reduce(f64::max).expect("scored");
            texts[0].rows(q).map(best).sum()
        };
        vec![score(0, 0), score(0, 1), score(1, 0), score(1, 1)]
    };
    check("MaxSim", &inputs, &operator, &exact);
}

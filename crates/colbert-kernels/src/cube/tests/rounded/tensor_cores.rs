//! Attention of bfloat16 on tensor cores, where the device has them, against the composed operators in float32. Elsewhere
//! the same tests hold of the kernels without.

use super::*;

/// The share of a row that rounding may be. Each weight or change of a product, and each result, is off by at most 1/256
/// of itself: 1/128 in all in a row of few terms, and less on the whole in others. What rounding does to the
/// output and its gradient before the backward pass is not in it: the oracle takes the rounded ones.
const SHARE: f32 = 1.0 / 128.0;

/// The query's numbers are below this, so that some keys have most of a row's weight.
const SPREAD: f32 = 4.0;

/// Sequences that fill tiles of 16 tokens or not, blocks of 64 or not, or several; with tokens that nothing attends to.
fn sequences() -> Segments {
    Segments::new([(1, 1), (15, 15), (16, 16), (17, 17), (80, 80), (180, 180), (32, 5), (70, 33), (64, 64)])
}

/// Compares the numbers of a token in a head as a whole: the norm of the difference with the norm of what is expected.
fn rows_near(found: Float, expected: Float, size: usize, what: &str) {
    assert_eq!(shape(&found), shape(&expected), "{what}");
    let [found, expected] = [found, expected].map(|x| numbers(B::float_cast(x, FloatDType::F32)));
    let norm = |row: &mut dyn Iterator<Item = f32>| row.map(|x| x * x).sum::<f32>().sqrt();
    for (i, (found, expected)) in found.chunks(size).zip(expected.chunks(size)).enumerate() {
        let off = norm(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
        let most = SHARE * norm(&mut expected.iter().copied()) + ERROR * (size as f32).sqrt();
        assert!(off <= most, "{what}: row {i} is off by {off}, more than {most}");
    }
}

/// Query, key and value: as the kernels take them, and in float32.
struct Inputs {
    rounded: [Float; 3],
    exact: [Float; 3],
}

fn inputs(tokens: usize, size: usize) -> Inputs {
    let exact = [1, 2, 3].map(|seed| halves([tokens, size], seed) * if seed == 1 { SPREAD } else { 1.0 });
    let exact = exact.map(|x| p(&x));
    Inputs { rounded: exact.clone().map(|x| B::rounded(x, Precision::Bf16)), exact }
}

fn plans(segments: &Segments, heads: usize, reach: Option<usize>, probability: f32) -> [AttentionPlan; 2] {
    let dropout = Dropout { probability, seed: 99 << 40 };
    [Precision::Bf16, Precision::F32].map(|precision| AttentionPlan {
        segments: segments.clone(),
        heads,
        reach,
        dropout,
        precision,
    })
}

fn compare(heads: usize, head_size: usize, reach: Option<usize>, probability: f32) {
    let segments = sequences();
    let (tokens, size) = (segments.tokens(), heads * head_size);
    let Inputs { rounded, exact } = inputs(tokens, size);
    let back = p(&random([tokens, size], 4));
    let [plan, exact_plan] = plans(&segments, heads, reach, probability);
    let what = format!("{heads} heads of {head_size}, reach {reach:?}, {probability} dropped");
    let expected = attention::composed::<B>(exact.clone(), &exact_plan);
    spoil();
    let found = B::attention_forward(rounded.clone(), &plan);
    assert_eq!(dtype(&found.output), kept(), "{what}");
    rows_near(found.output, expected.output.clone(), head_size, &format!("output, {what}"));
    same(found.log_sum_exp, expected.log_sum_exp.clone(), &format!("log-sum-exp, {what}"));
    let round = |x: &Float| B::unrounded(B::rounded(x.clone(), Precision::Bf16));
    let expected = attention::Attended { output: round(&expected.output), ..expected };
    let gradients = attention::composed_gradient::<B>(exact, expected.clone(), round(&back), &exact_plan);
    spoil();
    let found = B::attention_gradient(rounded.clone(), expected.clone(), back.clone(), &plan);
    for ((found, expected), name) in found.clone().into_iter().zip(gradients).zip(["query", "key", "value"]) {
        assert_eq!(dtype(&found), kept(), "{what}");
        rows_near(found, expected, head_size, &format!("gradient of the {name}, {what}"));
    }
    // The same numbers side by side.
    let joined = |parts: [Float; 3]| B::float_cat(parts.to_vec(), 1);
    spoil();
    let (again, kept) = B::packed_attention_forward(joined(rounded.clone()), None, &plan);
    equal(again.output, B::attention_forward(rounded, &plan).output, &format!("output, side by side, {what}"));
    spoil();
    let again = B::packed_attention_gradient(kept, expected, back, None, &plan);
    equal(again, joined(found), &format!("gradients, side by side, {what}"));
}

/// The same bits.
fn equal(found: Float, expected: Float, what: &str) {
    assert_eq!((dtype(&found), shape(&found)), (dtype(&expected), shape(&expected)), "{what}");
    assert_eq!(numbers(B::unrounded(found)), numbers(B::unrounded(expected)), "{what}");
}

#[test]
fn heads_of_32() {
    for (reach, probability) in [(None, 0.0), (None, 0.2), (Some(7), 0.2), (Some(64), 0.0)] {
        compare(2, 32, reach, probability);
    }
}

#[test]
fn heads_of_64() {
    compare(2, 64, None, 0.1);
    compare(1, 64, Some(0), 0.0);
}

#[test]
fn heads_of_128_and_of_no_multiple_of_32() {
    compare(1, 128, None, 0.2);
    compare(1, 112, Some(40), 0.1);
}

/// Returns by how much attention of bfloat16 is at most off that of the same numbers in float32, where the output may be
/// rounded once to the kept type, and off by [`ERROR`] before.
fn largest_difference(head_size: usize) -> f32 {
    let segments = Segments::new([(40, 40), (3, 3)]);
    let Inputs { rounded, exact } = inputs(segments.tokens(), head_size);
    let [plan, exact_plan] = plans(&segments, 1, None, 0.0);
    let [found, expected] = [(rounded, plan), (exact, exact_plan)].map(|(qkv, plan)| {
        spoil();
        numbers(B::unrounded(B::attention_forward(qkv, &plan).output))
    });
    let round = |x: f32| if kept() == DType::BF16 { bf16::from_f32(x).to_f32() } else { x };
    let off = |(found, expected): (&f32, &f32)| {
        let [least, most] = [-ERROR, ERROR].map(|error| round(expected + error));
        (least - found).max(found - most)
    };
    found.iter().zip(&expected).map(off).fold(0.0, f32::max)
}

#[test]
fn weights_are_rounded_only_where_tensor_cores_multiply() {
    let found = largest_difference(64);
    assert!(found <= SHARE && (found > 10.0 * ERROR) == B::has_bf16(&device()), "{found}");
    assert_eq!(largest_difference(40), 0.0);
}

#[test]
fn a_nan_stays_in_its_sequence_and_is_not_lost() {
    let segments = Segments::new([(20, 20), (70, 70), (5, 5)]);
    let (tokens, size) = (segments.tokens(), 64);
    let Inputs { rounded: [query, key, value], exact: [_, exact, _] } = inputs(tokens, size);
    for token in [20, 89] {
        let key_with_nan = tensor::<B, 2>(exact.clone())
            .slice_assign([token..token + 1, 3..4], Tensor::full([1, 1], f32::NAN, &device()));
        let key_with_nan = B::rounded(primitive(key_with_nan), Precision::Bf16);
        assert_eq!(dtype(&key_with_nan), dtype(&key));
        let [plan, _] = plans(&segments, 1, None, 0.0);
        let found = B::attention_forward([query.clone(), key_with_nan, value.clone()], &plan).output;
        let found = numbers(B::unrounded(found));
        for (row, numbers) in found.chunks(size).enumerate() {
            assert!(numbers.iter().all(|x| x.is_nan() == (20..90).contains(&row)), "row {row}, NaN in token {token}");
        }
    }
}

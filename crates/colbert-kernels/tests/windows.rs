//! Attention in windows, and its gradients, against the same in f64, one query after the other.

use colbert_kernels::{AttentionPlan, Dropout, Precision, Segments, attention};

use crate::support::{numbers, random, run};

/// Float32 sums of up to 60 numbers below 1, summed in another order.
const ERROR: f64 = 1e-5;

/// Returns the output, and the gradients of query, key and value where `back` is that of the output.
///
/// Each sequence has its own mask, with rows (head, query) and columns (key): this pins which weights are dropped, so
/// that a seed gives the same training in every version.
fn exact([query, key, value, back]: [&[f64]; 4], plan: &AttentionPlan, reach: usize) -> [Vec<f64>; 4] {
    let size = query.len() / plan.segments.tokens();
    let own = size / plan.heads;
    let scale = 1.0 / (own as f64).sqrt();
    let mut found = [(); 4].map(|()| vec![0.0; query.len()]);
    for segment in plan.segments.as_slice() {
        let (start, length, attended) = (segment.start, segment.length, segment.attended);
        let seed = plan.dropout.seed ^ (start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mask = Dropout { seed, ..plan.dropout }.mask(plan.heads * length, attended);
        for (head, i) in (0..plan.heads).flat_map(|head| (0..length).map(move |i| (head, i))) {
            let at = |token: usize| (start + token) * size + head * own..(start + token) * size + (head + 1) * own;
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let seen: Vec<usize> = (0..attended).filter(|j| i.abs_diff(*j) <= reach).collect();
            let of = |j: &usize| (dot(&query[at(i)], &key[at(*j)]) * scale).exp();
            let total: f64 = seen.iter().map(of).sum();
            let kept = |j: usize| f64::from(mask[(head * length + i) * attended + j]);
            let through = |j: usize| kept(j) * dot(&back[at(i)], &value[at(j)]);
            let mean: f64 = seen.iter().map(|j| of(j) / total * through(*j)).sum();
            for j in &seen {
                let weight = of(j) / total;
                let change = weight * (through(*j) - mean) * scale;
                for n in 0..own {
                    let [query_at, key_at] = [i, *j].map(|token| at(token).start + n);
                    found[0][query_at] += kept(*j) * weight * value[key_at];
                    found[1][query_at] += change * key[key_at];
                    found[2][key_at] += change * query[query_at];
                    found[3][key_at] += kept(*j) * weight * back[query_at];
                }
            }
        }
    }
    found
}

#[test]
fn windows_drop_the_weights_of_their_own_sequence() {
    let segments = Segments::new([(70, 51), (1, 1), (30, 4), (57, 57)]);
    let inputs = [1, 2, 3].map(|seed| random([segments.tokens(), 24], seed));
    let [query, key, value, back] = [&inputs[0], &inputs[1], &inputs[2], &random([segments.tokens(), 24], 1234)]
        .map(|x| numbers(x.clone()).into_iter().map(f64::from).collect::<Vec<f64>>());
    for (reach, probability) in [(0, 0.2), (7, 0.0), (7, 0.2), (20, 0.4)] {
        let dropout = Dropout { probability, seed: 77 };
        let (segments, precision) = (segments.clone(), Precision::F32);
        let plan = AttentionPlan { segments, heads: 3, reach: Some(reach), dropout, precision };
        let (output, gradients) = run(&inputs, &|x| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan));
        let expected = exact([&query, &key, &value, &back], &plan, reach);
        let found = [vec![output], gradients].concat();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let off = (f64::from(*found) - expected).abs();
                assert!(off < ERROR, "reach {reach}, {probability}: {found}, not {expected}");
            }
        }
        assert!(found.iter().flatten().any(|x| *x != 0.0));
    }
}

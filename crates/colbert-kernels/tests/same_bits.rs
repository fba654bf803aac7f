//! The same bits on every run and with any number of threads; dropout that drops the expected share.

use burn::tensor::Tensor;
use colbert_kernels::{
    Activation, ActiveHalf, AdamW, Affine, AttentionPlan, AttentionSublayer, Dropout, Gate, GatedFeedForward, Map,
    Moments, PostNorm, Precision, Rotation, ScoredTexts, Segments, Tables, TokenRows, Update, adamw_step, attention,
    attention_sublayer, embed, gated_feed_forward, maxsim, packed_self_attention, post_norm_attention,
    post_norm_feed_forward, residual_layer_norm,
};
use rayon::ThreadPoolBuilder;

use crate::support::{Back, numbers, random, run};

/// All operators, on shapes that are cut into several blocks.
fn everything(precision: Precision) -> Vec<Vec<f32>> {
    let lengths: Vec<usize> = (0..24).map(|i| 3 + (i * 7) % 30).collect();
    let segments = Segments::new(lengths.iter().map(|length| (*length, (*length).min(20))));
    let tokens = segments.tokens();
    let dropout = Dropout { probability: 0.1, seed: 1 };
    let rows = TokenRows { ids: (0..tokens as u32).map(|i| i * 31 % 600).collect(), positions: segments.positions() };
    let texts = ScoredTexts::new(&lengths, vec![true; tokens]);
    let plan = AttentionPlan { segments, heads: 3, reach: None, dropout: dropout.at(1), precision };
    let window = AttentionPlan { reach: Some(5), ..plan.clone() };
    let rotation = Rotation::new(&[0.3, 0.1, 0.01], 40);
    let inputs = [random([600, 48], 1), random([40, 48], 2), random([2, 48], 3), random([48, 48], 4)];
    let operator = |x: &[Tensor<Back, 2>]| {
        let tables = Tables { word: x[0].clone(), position: Some(x[1].clone()), token_type: Some(x[2].clone()) };
        let hidden = embed(tables, &rows);
        let bias = || x[1].clone().narrow(0, 0, 1).reshape([48]);
        let map = || Map { weight: x[3].clone(), bias: bias() };
        let end = |place| PostNorm {
            map: Map { weight: x[3].clone(), bias: Some(bias()) },
            dropout: dropout.at(place),
            norm: Affine { weight: bias(), bias: Some(bias()), eps: 1e-5 },
        };
        let wide = post_norm_feed_forward(hidden.clone(), map(), end(4), precision);
        let mixed = attention(wide.clone(), hidden.clone(), wide, &plan);
        // Scaled, as gradients of float16 products would overflow.
        let mixed = post_norm_attention(mixed * 0.01, [map(), map(), map()], &plan, end(5));
        let qkv = Tensor::cat(vec![x[3].clone(), x[3].clone(), x[3].clone()], 0);
        let mixed = packed_self_attention(mixed, qkv.clone(), None, Some(&rotation), &plan);
        let mixed = packed_self_attention(mixed, qkv, None, Some(&rotation), &window);
        let mixed = attention_sublayer(
            mixed,
            AttentionSublayer {
                norm: Some(Affine { weight: bias(), bias: None, eps: 1e-5 }),
                qkv: Tensor::cat(vec![x[3].clone(), x[3].clone(), x[3].clone()], 0),
                rotation: Some(rotation.clone()),
                plan: window.clone(),
                out: x[3].clone(),
                dropout: Dropout::NONE,
            },
        );
        let network = GatedFeedForward {
            norm: Some(Affine { weight: bias(), bias: None, eps: 1e-5 }),
            up: x[3].clone(),
            up_bias: None,
            gate: Gate { activation: Activation::Gelu, active: ActiveHalf::First, dropout: dropout.at(3) },
            down: x[3].clone().narrow(1, 0, 24),
            down_bias: None,
            residual: true,
            precision,
        };
        let mixed = gated_feed_forward(mixed, network);
        let normal = residual_layer_norm(mixed, hidden, bias(), bias(), 1e-5, dropout.at(2));
        maxsim(normal.clone(), &texts, normal, &texts)
    };
    let (output, mut all) = run(&inputs, &operator);
    all.push(output);
    let inner = |seed| random([300, 200], seed).inner();
    let moments = Moments { parameter: inner(1), mean: inner(2), square: inner(3).abs() };
    let options = AdamW {
        learning_rate: 1e-3,
        beta_1: 0.9,
        beta_2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 3,
        gradient_scale: 1.0,
    };
    for Moments { parameter, mean, square } in adamw_step(vec![Update { moments, gradient: inner(4), options }]) {
        all.extend([parameter, mean, square].map(|x| x.into_data().to_vec().expect("float32")));
    }
    all
}

#[test]
fn runs_and_thread_counts_agree_bit_for_bit() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let first = everything(precision);
        assert!(first.iter().flatten().all(|x| x.is_finite()));
        for threads in [1, 2, 5] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            assert!(pool.install(|| everything(precision)) == first, "{precision:?}, {threads} threads");
        }
    }
}

#[test]
fn a_step_leaves_shared_tensors_as_they_were() {
    let shared = random([3, 4], 1).inner();
    let before = numbers(Tensor::<Back, 2>::from_inner(shared.clone()));
    let moments = Moments { parameter: shared.clone(), mean: shared.clone(), square: shared.clone().abs() };
    let options = AdamW {
        learning_rate: 1.0,
        beta_1: 0.9,
        beta_2: 0.9,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
        gradient_scale: 1.0,
    };
    let step = |moments| {
        let updates = vec![Update { moments, gradient: shared.clone(), options }];
        adamw_step(updates).pop().expect("one parameter")
    };
    let after = step(moments);
    let once = numbers(Tensor::<Back, 2>::from_inner(after.parameter.clone()));
    assert_ne!(once, before);
    assert_eq!(numbers(Tensor::<Back, 2>::from_inner(shared.clone())), before);
    // Again, on memory of the kernels' own.
    let twice = step(after.clone());
    assert_ne!(numbers(Tensor::<Back, 2>::from_inner(twice.parameter)), once);
    assert_eq!(numbers(Tensor::<Back, 2>::from_inner(after.parameter)), once);
}

/// Distance from the expected share of 400 thousand fair draws: eight standard deviations.
const SHARE_ERROR: f64 = 0.006;

#[test]
fn dropped_shares_are_as_asked_and_neighbours_independent() {
    let (rows, columns) = (1000, 400);
    for probability in [0.1f32, 0.5] {
        let options = Dropout { probability, seed: 9 };
        let scale = 1.0 / (1.0 - probability);
        let mask = options.mask(rows, columns);
        assert!(mask.iter().all(|x| *x == 0.0 || *x == scale));
        let dropped = |i: usize| mask[i] == 0.0;
        let share = |both: &dyn Fn(usize) -> bool| {
            (0..mask.len() - columns).filter(|&i| both(i)).count() as f64 / (mask.len() - columns) as f64
        };
        let p = f64::from(probability);
        assert!((share(&|i| dropped(i)) - p).abs() < SHARE_ERROR);
        for distance in [1, 2, 16, columns] {
            assert!((share(&|i| dropped(i) && dropped(i + distance)) - p * p).abs() < SHARE_ERROR, "{distance}");
        }
        let other = options.at(1).mask(rows, columns);
        assert!((share(&|i| dropped(i) && other[i] == 0.0) - p * p).abs() < SHARE_ERROR);
    }
}

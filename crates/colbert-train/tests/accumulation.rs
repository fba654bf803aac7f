//! Micro-batches: the same gradient as without them, in-batch negatives included, unless the reference's behaviour is
//! requested.

use std::collections::HashMap;

use burn::tensor::Tensor;
use colbert_config::{IbScope, Precision, TrainOptions, resolve};
use colbert_kernels::Kernels;
use colbert_model::{named_parameters, replace_parameters};
use colbert_train::{BatchLoss, ColbertObjective, Gradient, Step};

use crate::losses::gradients_by_name;
use crate::support::{B, Inner, Model, device, lines, sum_and_l2, tiny, training_set};

/// Two orders of summation of the same float32 numbers.
const TOLERANCE: f64 = 1e-5;

pub(crate) fn options(accumsteps: usize, ib_scope: IbScope) -> TrainOptions {
    TrainOptions {
        batch_size: 8,
        accumsteps,
        ib_scope,
        dim: 16,
        doc_maxlen: 64,
        shuffle: false,
        seed: 5,
        ..TrainOptions::default()
    }
}

pub(crate) type Found = (BatchLoss, HashMap<String, Vec<f32>>);

pub(crate) fn gradients(model: &Model, options: &TrainOptions) -> Found {
    gradients_in(model, options, Precision::F32, 1.0)
}

pub(crate) fn gradients_in(model: &Model, options: &TrainOptions, precision: Precision, loss_scale: f64) -> Found {
    let set = training_set(&lines("triples.jsonl")[..8]);
    let options = TrainOptions { precision, ..options.clone() };
    let plan = resolve(&options, 8).unwrap();
    let (_, tokenizer) = tiny(&options, None);
    let device = device();
    let step =
        Step::<B, _>::new(&options, &plan, ColbertObjective::from(&options), &device).with_loss_scale(loss_scale);
    let Gradient { loss, parameters, .. } = step.gradient(model, &step.batch(&set, &tokenizer, 0).unwrap());
    (loss, gradients_by_name(model, &parameters))
}

pub(crate) fn assert_same((loss, gradients): &Found, (expected_loss, expected): &Found) {
    assert!((loss.total - expected_loss.total).abs() < TOLERANCE, "{} and {}", loss.total, expected_loss.total);
    assert_eq!(gradients.len(), expected.len());
    for (name, gradient) in expected {
        let difference: Vec<f32> = gradients[name].iter().zip(gradient).map(|(a, b)| a - b).collect();
        let (distance, norm) = (sum_and_l2(&difference).1, sum_and_l2(gradient).1);
        assert!(distance <= 1e-4 * norm + 1e-6, "{name}: {distance} of {norm}");
    }
}

#[test]
fn defect_35_cached_embeddings_give_the_gradient_of_the_whole_batch() {
    let (model, _) = tiny(&options(1, IbScope::Batch), None);
    let whole = gradients(&model, &options(1, IbScope::Batch));
    for accumsteps in [2, 4, 8] {
        assert_same(&gradients(&model, &options(accumsteps, IbScope::Batch)), &whole);
    }
}

#[test]
fn the_references_micro_batches_see_fewer_negatives() {
    let (model, _) = tiny(&options(1, IbScope::Batch), None);
    let whole = gradients(&model, &options(1, IbScope::MicroBatch)).0;
    let micro = gradients(&model, &options(4, IbScope::MicroBatch)).0;
    assert!((whole.parts[0].1 - micro.parts[0].1).abs() < TOLERANCE, "the explicit loss does not change");
    assert!(micro.parts[1].1 < whole.parts[1].1 - 0.1, "{} and {}", micro.parts[1].1, whole.parts[1].1);
    assert_eq!(micro.part_losses.len(), 4);
}

#[test]
fn without_in_batch_negatives_micro_batches_change_nothing() {
    let plain = |accumsteps| TrainOptions { use_ib_negatives: false, ..options(accumsteps, IbScope::Batch) };
    let (model, _) = tiny(&plain(1), None);
    assert_same(&gradients(&model, &plain(4)), &gradients(&model, &plain(1)));
}

/// Measured: 0.11. Besides rounding to 8 significant bits, some of MaxSim's winners change, as tokens of this untrained
/// model lie close together. On MiniLM-L6 and real texts gradient norms differ by 0.8 % at most (docs/performance.md).
const BF16_SHARE: f64 = 0.2;

#[test]
fn bfloat16_gives_nearly_the_gradient_of_float32() {
    let options = options(1, IbScope::Batch);
    let (model, _) = tiny(&options, None);
    let single = gradients(&model, &options);
    let half = gradients_in(&model, &options, Precision::Bf16, 1.0);
    assert!((half.0.total - single.0.total).abs() < 0.02 * single.0.total, "{} and {}", half.0.total, single.0.total);
    let share = distance(&half, &single);
    assert!(share < BF16_SHARE, "{share}");
    assert_eq!(share > 0.0, Inner::has_bf16(&device()), "rounded where there is bfloat16");
}

/// L2 norm of the difference of all gradients together, as a share of the second's.
pub(crate) fn distance(found: &Found, exact: &Found) -> f64 {
    let (mut difference, mut all) = (Vec::new(), Vec::new());
    for (name, exact) in &exact.1 {
        difference.extend(found.1[name].iter().zip(exact).map(|(a, b)| a - b));
        all.extend(exact);
    }
    sum_and_l2(&difference).1 / sum_and_l2(&all).1
}

/// The slope of the loss along a direction, by differences, against the gradient. It only agrees if the second pass of
/// the cached gradient drops exactly the elements that the first pass dropped.
#[test]
fn cached_gradients_with_dropout_are_the_slope_of_the_loss() {
    let options = options(4, IbScope::Batch);
    let (model, _) = tiny(&options, Some(0.3));
    let (_, gradient) = gradients(&model, &options);
    let direction = &gradient["linear.weight"];
    let length = sum_and_l2(direction).1;
    let moved = |by: f64| {
        let mut named = named_parameters::<B, Model>(&model);
        let linear = &mut named.iter_mut().find(|(name, _)| name == "linear.weight").unwrap().1;
        for (value, along) in linear.values.iter_mut().zip(direction) {
            *value += (by * f64::from(*along) / length) as f32;
        }
        let mut weights = colbert_model::Weights::new("moved", named);
        let model = replace_parameters::<B, Model>(model.clone(), &mut weights).unwrap();
        gradients(&model, &options).0.total
    };
    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
    assert!((slope - length).abs() < 0.02 * length, "slope {slope}, gradient {length}");
    assert_eq!(gradients(&model, &options).0, gradients(&model, &options).0, "the same seed drops out the same");
    let (loss, _) = gradients(&model, &TrainOptions { seed: 6, ..options.clone() });
    assert_ne!(loss.total, gradients(&model, &options).0.total, "another seed drops out something else");
}

/// Defect 36: another query's positive that is also this query's positive is no negative.
#[test]
fn defect_36_known_positives_of_a_query_are_not_its_negatives() {
    let rows: Vec<serde_json::Value> = serde_json::from_str("[[0, 1, 2], [1, 3, 4], [2, 5, 1], [0, 3, 6]]").unwrap();
    let set = training_set(&rows);
    let loss = |ib_skip_known_positives| {
        let options = TrainOptions { batch_size: 4, ib_skip_known_positives, ..options(1, IbScope::Batch) };
        let plan = resolve(&options, 4).unwrap();
        let (model, tokenizer) = tiny(&options, None);
        let device = device();
        let step = Step::<B, _>::new(&options, &plan, ColbertObjective::from(&options), &device);
        let batch = step.batch(&set, &tokenizer, 0).unwrap();
        assert_eq!(batch.parts[0].documents.len(), 6, "documents that occur twice are encoded once");
        let targets = batch.parts[0].targets.clone();
        let scores = {
            let queries = model.encode(&batch.parts[0].queries, &device);
            let documents = model.encode(&batch.parts[0].documents, &device);
            let scores: Tensor<B, 2> = colbert_model::maxsim(&queries, &documents);
            scores.into_data().to_vec::<f32>().unwrap()
        };
        (step.gradient(&model, &batch).loss.parts[1].1, targets, scores)
    };
    // In f64, by the definition: query i against its positive and every document of the others.
    let by_hand = |skip: bool, targets: &colbert_train::Targets, scores: &[f32]| {
        let mut total = 0.0;
        for (i, own) in targets.documents.iter().enumerate() {
            let score = |document: usize| f64::from(scores[i * 6 + document]);
            let mut candidates = vec![score(own[0])];
            for (j, other) in targets.documents.iter().enumerate().filter(|(j, _)| *j != i) {
                assert_ne!(i, j);
                let wanted = other.iter().filter(|d| !(skip && targets.positives[i].contains(d)));
                candidates.extend(wanted.map(|d| score(*d)));
            }
            total += candidates.iter().map(|s| s.exp()).sum::<f64>().ln() - candidates[0];
        }
        total / 4.0
    };
    let (skipping, targets, scores) = loss(true);
    assert!((skipping - by_hand(true, &targets, &scores)).abs() < TOLERANCE);
    let (reference, targets, scores) = loss(false);
    assert!((reference - by_hand(false, &targets, &scores)).abs() < TOLERANCE);
    assert!(skipping < reference);
}

//! The loss that options describe, against a naive version in f64 and against the numbers of two other libraries.
//!
//! Query i is the i-th unit vector and each document one token, so that a document's vector is its score with every
//! query, and its gradient is that of these scores.

use std::fs;

use burn::tensor::{Tensor, TensorData};
use colbert_config::{DistillationLoss, ScoreScale, TrainOptions};
use colbert_kernels::ScoredTexts;
use colbert_model::Embeddings;
use colbert_train::{ColbertObjective, Objective, Targets};
use serde_json::Value;
use test_backend::crate_folder;

use crate::support::{B, device};

/// float32 against float64, sums of a dozen numbers of size 10.
const TOLERANCE: f64 = 2e-5;

/// `scores[query][document]`
type Scores = Vec<Vec<f64>>;

fn embeddings(vectors: &[Vec<f64>]) -> Embeddings<B> {
    let (count, dim) = (vectors.len(), vectors[0].len());
    let values: Vec<f32> = vectors.iter().flatten().map(|value| *value as f32).collect();
    let vectors = Tensor::from_data(TensorData::new(values, [count, dim]), &device());
    Embeddings { vectors: vectors.require_grad(), texts: ScoredTexts::new(&vec![1; count], vec![true; count]) }
}

fn transposed(scores: &Scores) -> Scores {
    (0..scores[0].len()).map(|document| scores.iter().map(|row| row[document]).collect()).collect()
}

struct Computed {
    total: f64,
    parts: Vec<(String, f64)>,
    of_scores: Scores,
    of_learned: Option<f64>,
}

fn computed(objective: &ColbertObjective, scores: &Scores, targets: &Targets, learned: f64) -> Computed {
    let count = scores.len();
    let unit = |i: usize| (0..count).map(|j| f64::from(u8::from(i == j))).collect();
    let queries = embeddings(&targets.rows().map(unit).collect::<Vec<_>>());
    let documents = embeddings(&transposed(scores));
    let learned = Tensor::<B, 1>::from_data(TensorData::new(vec![learned as f32], [1]), &device()).require_grad();
    let loss = objective.loss_with(&queries, &documents, targets, &learned);
    let number = |tensor: &Tensor<B, 1>| f64::from(tensor.to_data().to_vec::<f32>().unwrap()[0]);
    let (total, parts) = (number(&loss.total), loss.parts.iter().map(|(name, p)| ((*name).to_owned(), number(p))));
    let parts = parts.collect();
    let gradients = loss.total.backward();
    let found = documents.vectors.grad(&gradients).unwrap().to_data().to_vec::<f32>().unwrap();
    let of_documents: Scores = found.chunks(count).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
    let of_learned = learned.grad(&gradients).map(|g| f64::from(g.to_data().to_vec::<f32>().unwrap()[0]));
    Computed { total, parts, of_scores: transposed(&of_documents), of_learned }
}

fn cross_entropy(scores: &[f64]) -> f64 {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + scores.iter().map(|s| (s - most).exp()).sum::<f64>().ln() - scores[0]
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = scores.iter().map(|s| (s - most).exp()).sum();
    scores.iter().map(|s| (s - most).exp() / all).collect()
}

fn scaled(scores: &[f64], scale: ScoreScale) -> Vec<f64> {
    let (least, most) = scores.iter().fold((f64::MAX, f64::MIN), |(l, m), s| (l.min(*s), m.max(*s)));
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let deviation = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / scores.len() as f64).sqrt();
    scores
        .iter()
        .map(|s| match scale {
            ScoreScale::Raw => *s,
            ScoreScale::MinMax => (s - least) / (most - least + 1e-8),
            ScoreScale::ZScore => (s - mean) / deviation,
        })
        .collect()
}

/// By the definition, a query at a time.
pub(crate) fn naive(o: &ColbertObjective, temperature: f64, scores: &Scores, targets: &Targets) -> f64 {
    let count = targets.documents.len() as f64;
    let mut total = 0.0;
    for (query, own) in targets.documents.iter().enumerate() {
        let s: Vec<f64> = own.iter().map(|document| scores[query][*document]).collect();
        let t: Option<Vec<f64>> = targets.teacher.as_ref().map(|t| t[query].iter().map(|v| f64::from(*v)).collect());
        let t = t.filter(|t| !t.is_empty() && !o.ignore_scores);
        let weight = o.cross_entropy_weight.unwrap_or(if t.is_some() { 0.0 } else { 1.0 });
        let over = |values: &[f64], by: f64| values.iter().map(|v| v / by).collect::<Vec<f64>>();
        total += weight * cross_entropy(&over(&s, temperature)) / count;
        if let Some(t) = t {
            let student = scaled(&s, o.student_scores);
            let teacher: Vec<f64> = scaled(&t, o.teacher_scores).iter().map(|v| v * o.distillation_alpha).collect();
            total += o.distillation_weight / count
                * match o.distillation_loss {
                    DistillationLoss::Kl => {
                        let (p, q) = (softmax(&teacher), softmax(&over(&student, o.student_temperature)));
                        let divergence: f64 = p.iter().zip(&q).map(|(p, q)| p * (p.ln() - q.ln())).sum();
                        divergence * o.student_temperature.powi(2)
                    }
                    DistillationLoss::MarginMse => {
                        let margin = |v: &[f64], j: usize| v[0] - v[j];
                        let squares = (1..s.len()).map(|j| (margin(&student, j) - margin(&teacher, j)).powi(2));
                        squares.sum::<f64>() / (s.len() - 1) as f64
                    }
                };
        }
        if o.use_ib_negatives {
            let mut candidates = vec![s[0]];
            if o.ib_own_negatives {
                let known = |d: &&usize| o.ib_skip_known_positives && targets.positives[query].contains(d);
                candidates.extend(own[1..].iter().filter(|d| !known(d)).map(|document| scores[query][*document]));
            }
            for (_, others) in targets.documents.iter().enumerate().filter(|(other, _)| *other != query) {
                let known = |d: &&usize| !(o.ib_skip_known_positives && targets.positives[query].contains(d));
                candidates.extend(others.iter().filter(known).map(|document| scores[query][*document]));
            }
            total += o.in_batch_weight * cross_entropy(&over(&candidates, temperature)) / count;
        }
    }
    total
}

/// Five queries: rows of 2 to 4 documents, two with a teacher, document 3 shared by two of them.
fn batch() -> (Scores, Targets) {
    let documents = vec![vec![0, 1, 2], vec![3, 4], vec![5, 6, 7, 8], vec![9, 3, 10], vec![11, 12]];
    let score = |query: usize, document: usize| 4.0 + ((query * 13 + document * 7 + 5) % 11) as f64 * 0.37;
    let scores = (0..5).map(|query| (0..13).map(|document| score(query, document)).collect()).collect();
    let teacher = vec![vec![2.5, 0.5, 1.0], vec![], vec![7.0, 6.5, 2.0, 3.5], vec![], vec![]];
    let positives = vec![vec![0], vec![3, 9], vec![5], vec![9], vec![11]];
    (scores, Targets { documents, teacher: Some(teacher), positives, block: None })
}

fn objective(options: &TrainOptions) -> ColbertObjective {
    ColbertObjective::from(options)
}

fn recipes() -> Vec<TrainOptions> {
    let plain = TrainOptions::default();
    vec![
        plain.clone(),
        TrainOptions { use_ib_negatives: false, ..plain.clone() },
        TrainOptions { temperature: 0.2, ..plain.clone() },
        TrainOptions { temperature: 3.0, ib_skip_known_positives: false, ..plain.clone() },
        TrainOptions {
            cross_entropy_weight: Some(0.3),
            distillation_weight: 0.7,
            in_batch_weight: 0.5,
            ..plain.clone()
        },
        TrainOptions { teacher_temperature: 0.25, student_temperature: 0.5, ..plain.clone() },
        TrainOptions { teacher_scores: ScoreScale::MinMax, student_scores: ScoreScale::MinMax, ..plain.clone() },
        TrainOptions { teacher_scores: ScoreScale::ZScore, student_scores: ScoreScale::ZScore, ..plain.clone() },
        TrainOptions {
            distillation_loss: DistillationLoss::MarginMse,
            student_scores: ScoreScale::ZScore,
            distillation_alpha: 0.5,
            ..plain.clone()
        },
        TrainOptions { ib_own_negatives: true, temperature: 0.4, ..plain.clone() },
        TrainOptions { ignore_scores: true, temperature: 0.7, ..plain },
    ]
}

#[test]
fn rows_of_unlike_kinds_have_the_loss_and_gradient_of_the_definition() {
    let (scores, targets) = batch();
    for options in recipes() {
        let o = objective(&options);
        let found = computed(&o, &scores, &targets, 0.0);
        let expected = naive(&o, o.temperature, &scores, &targets);
        assert!((found.total - expected).abs() < TOLERANCE, "{o:?}: {} instead of {expected}", found.total);
        let parts: f64 = found.parts.iter().map(|(_, part)| part).sum();
        assert!((parts - expected).abs() < TOLERANCE, "parts add up: {:?}", found.parts);
        for query in 0..scores.len() {
            for document in 0..scores[0].len() {
                let moved = |by: f64| {
                    let mut scores = scores.clone();
                    scores[query][document] += by;
                    naive(&o, o.temperature, &scores, &targets)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let gradient = found.of_scores[query][document];
                assert!((gradient - slope).abs() < TOLERANCE, "{o:?}, {query}, {document}: {gradient}, not {slope}");
            }
        }
    }
}

#[test]
fn a_learned_temperature_has_the_gradient_of_its_logarithm() {
    let (scores, targets) = batch();
    let o = objective(&TrainOptions { learn_temperature: true, temperature: 0.5, ..TrainOptions::default() });
    let number = o.learned()[0];
    assert!((number.start - 0.5_f64.ln()).abs() < 1e-12);
    let loss = |logarithm: f64| naive(&o, logarithm.exp(), &scores, &targets);
    let found = computed(&o, &scores, &targets, number.start);
    assert!((found.total - loss(number.start)).abs() < TOLERANCE);
    let slope = (loss(number.start + 1e-5) - loss(number.start - 1e-5)) / 2e-5;
    let gradient = found.of_learned.unwrap();
    assert!((gradient - slope).abs() < 10.0 * TOLERANCE, "{gradient}, not {slope}");
    assert!(objective(&TrainOptions::default()).learned().is_empty());
}

/// As in a micro-batch whose rows do not count: the gradient is 0, without a panic.
#[test]
fn rows_that_weigh_nothing_have_a_gradient_of_zero() {
    let (scores, targets) = batch();
    let weightless = TrainOptions {
        use_ib_negatives: false,
        cross_entropy_weight: Some(0.0),
        distillation_weight: 0.0,
        ..TrainOptions::default()
    };
    let found = computed(&objective(&weightless), &scores, &targets, 0.0);
    assert_eq!((found.total, found.parts.len()), (0.0, 0));
    assert!(found.of_scores.iter().flatten().all(|gradient| *gradient == 0.0), "{:?}", found.of_scores);
}

/// Blocks of any size add up to the loss and gradient of the whole batch.
#[test]
fn a_loss_by_blocks_is_the_loss_of_the_batch() {
    let (scores, targets) = batch();
    for options in recipes() {
        let o = objective(&options);
        let whole = computed(&o, &scores, &targets, 0.0);
        for size in 1..5 {
            let (mut total, mut gradient) = (0.0, vec![vec![0.0; 13]; 5]);
            for start in (0..5).step_by(size) {
                let block = start..(start + size).min(5);
                let share = block.len() as f64 / 5.0;
                let own = computed(&o, &scores, &Targets { block: Some(block), ..targets.clone() }, 0.0);
                total += own.total * share;
                for (sum, own) in gradient.iter_mut().flatten().zip(own.of_scores.iter().flatten()) {
                    *sum += own * share;
                }
            }
            assert!((total - whole.total).abs() < TOLERANCE, "{o:?}, {size}: {total} and {}", whole.total);
            for (found, expected) in gradient.iter().flatten().zip(whole.of_scores.iter().flatten()) {
                assert!((found - expected).abs() < TOLERANCE, "{o:?}, {size}: {found} and {expected}");
            }
        }
    }
}

/// The losses of PyLate and sentence-transformers on the same scores (`tests/losses/make_peers.py`).
#[test]
fn losses_are_those_of_pylate_and_sentence_transformers() {
    let text = fs::read_to_string(crate_folder().join("tests/losses/peers.json")).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let list = |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let table = |value: &Value| -> Scores { value.as_array().unwrap().iter().map(list).collect() };
    let (scores, teacher) = (table(&recorded["scores"]), table(&recorded["teacher"]));
    let (count, nway) = (scores.len(), teacher[0].len());
    let documents: Vec<Vec<usize>> = (0..count).map(|i| (i * nway..(i + 1) * nway).collect()).collect();
    let positives = (0..count).map(|i| vec![i * nway]).collect();
    let teacher = Some(teacher.iter().map(|row| row.iter().map(|v| *v as f32).collect()).collect());
    let targets = Targets { documents, teacher, positives, block: None };
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let number = |name: &str| case[name].as_f64().unwrap_or(1.0);
        let is = |name: &str| case[name].as_bool().unwrap_or(false);
        let contrastive = is("contrastive");
        let options = TrainOptions {
            use_ib_negatives: contrastive,
            ib_own_negatives: contrastive,
            cross_entropy_weight: Some(0.0),
            distillation_weight: if contrastive { 0.0 } else { 1.0 },
            temperature: number("temperature"),
            teacher_temperature: number("teacher_temperature"),
            student_temperature: number("student_temperature"),
            student_scores: if is("min_max") { ScoreScale::MinMax } else { ScoreScale::Raw },
            distillation_loss: if is("margin_mse") { DistillationLoss::MarginMse } else { DistillationLoss::Kl },
            ..TrainOptions::default()
        };
        let found = computed(&objective(&options), &scores, &targets, 0.0).total;
        let expected = case["loss"].as_f64().unwrap();
        assert!((found - expected).abs() < TOLERANCE * expected.max(1.0), "{case}: {found} instead of {expected}");
    }
}

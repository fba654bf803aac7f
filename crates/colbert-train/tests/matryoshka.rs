//! A loss summed over sizes of vectors, against a naive version in f64 and against sentence-transformers.

use std::fs;

use burn::tensor::{Tensor, TensorData};
use colbert_config::{IbScope, NumberList, ScoreScale, TrainOptions};
use colbert_kernels::ScoredTexts;
use colbert_model::Embeddings;
use colbert_train::{ColbertObjective, Objective, Targets};
use serde_json::Value;
use test_backend::crate_folder;

use crate::accumulation::{assert_same, gradients, options};
use crate::objective::naive;
use crate::support::{B, device, tiny};

const TOLERANCE: f64 = 2e-5;

/// Texts with these numbers of vectors.
struct Texts {
    vectors: Vec<Vec<f64>>,
    tokens: usize,
}

impl Texts {
    /// Vectors of length 1, each number a function of its place.
    fn new(count: usize, tokens: usize, dim: usize, seed: usize) -> Self {
        let number = |place: usize| (((place * 37 + seed * 101) % 89) as f64 / 89.0 - 0.5) + 0.01;
        let vector = |row: usize| unit(&(0..dim).map(|i| number(row * dim + i)).collect::<Vec<f64>>());
        Self { vectors: (0..count * tokens).map(vector).collect(), tokens }
    }

    fn cut(&self, dim: usize) -> Self {
        Self { vectors: self.vectors.iter().map(|vector| unit(&vector[..dim])).collect(), tokens: self.tokens }
    }

    fn embeddings(&self) -> Embeddings<B> {
        let (count, dim) = (self.vectors.len(), self.vectors[0].len());
        let values: Vec<f32> = self.vectors.iter().flatten().map(|value| *value as f32).collect();
        let vectors = Tensor::from_data(TensorData::new(values, [count, dim]), &device()).require_grad();
        let lengths = vec![self.tokens; count / self.tokens];
        Embeddings { vectors, texts: ScoredTexts::new(&lengths, vec![true; count]) }
    }
}

fn unit(vector: &[f64]) -> Vec<f64> {
    let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    vector.iter().map(|value| value / length).collect()
}

/// MaxSim of every query with every document.
fn scores(queries: &Texts, documents: &Texts) -> Vec<Vec<f64>> {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let best = |token: &Vec<f64>, document: &[Vec<f64>]| {
        document.iter().map(|other| product(token, other)).fold(f64::NEG_INFINITY, f64::max)
    };
    let documents: Vec<&[Vec<f64>]> = documents.vectors.chunks(documents.tokens).collect();
    let row = |query: &[Vec<f64>]| {
        documents.iter().map(|document| query.iter().map(|token| best(token, document)).sum()).collect()
    };
    queries.vectors.chunks(queries.tokens).map(row).collect()
}

/// By the definition: the sum of the losses of vectors that are cut and normalised to length 1.
fn summed(objective: &ColbertObjective, queries: &Texts, documents: &Texts, targets: &Targets) -> f64 {
    let of = |dim: &usize| {
        naive(objective, objective.temperature, &scores(&queries.cut(*dim), &documents.cut(*dim)), targets)
    };
    objective.dims.iter().map(of).sum()
}

fn total(objective: &ColbertObjective, queries: &Texts, documents: &Texts, targets: &Targets) -> f64 {
    let loss = objective.loss(&queries.embeddings(), &documents.embeddings(), targets);
    f64::from(loss.total.into_data().to_vec::<f32>().unwrap()[0])
}

fn sizes(dims: &[usize], options: TrainOptions) -> ColbertObjective {
    ColbertObjective::from(&TrainOptions { dims: NumberList(dims.to_vec()), ..options })
}

/// Rows of different widths, one of them with a teacher, with and without in-batch negatives.
#[test]
fn the_loss_is_the_sum_over_sizes_and_so_is_its_gradient() {
    let targets = Targets {
        documents: vec![vec![0, 1], vec![2, 3, 4], vec![5, 6]],
        teacher: Some(vec![vec![], vec![3.0, 1.0, 2.0], vec![]]),
        positives: vec![vec![0], vec![2], vec![5]],
        block: None,
    };
    let (queries, documents) = (Texts::new(3, 2, 8, 1), Texts::new(7, 3, 8, 2));
    let plain = TrainOptions::default();
    for options in [
        plain.clone(),
        TrainOptions { use_ib_negatives: false, student_scores: ScoreScale::MinMax, ..plain.clone() },
        TrainOptions { temperature: 0.3, ib_own_negatives: true, cross_entropy_weight: Some(0.5), ..plain },
    ] {
        let objective = sizes(&[8, 4, 2], options);
        let (of_queries, of_documents) = (queries.embeddings(), documents.embeddings());
        let loss = objective.loss(&of_queries, &of_documents, &targets);
        let expected = summed(&objective, &queries, &documents, &targets);
        let number = |tensor: &Tensor<B, 1>| f64::from(tensor.to_data().to_vec::<f32>().unwrap()[0]);
        assert!((number(&loss.total) - expected).abs() < TOLERANCE, "{} instead of {expected}", number(&loss.total));
        let parts: f64 = loss.parts.iter().map(|(_, part)| number(part)).sum();
        assert!((parts - expected).abs() < TOLERANCE, "parts of a name are summed: {parts}");
        let names: Vec<&str> = loss.parts.iter().map(|(name, _)| *name).collect();
        assert!(names.iter().all(|name| names.iter().filter(|other| other == &name).count() == 1), "{names:?}");
        let full = scores(&queries, &documents);
        let positives = (full[0][0] + full[1][2] + full[2][5]) / 3.0;
        assert!((number(&loss.positive_score) - positives).abs() < TOLERANCE, "the score of full size");

        let gradients = loss.total.backward();
        for (embeddings, is_query) in [(&of_queries, true), (&of_documents, false)] {
            let found = embeddings.vectors.grad(&gradients).unwrap().to_data().to_vec::<f32>().unwrap();
            for (place, gradient) in found.iter().enumerate() {
                let moved = |by: f64| {
                    let [mut queries, mut documents] = [&queries, &documents]
                        .map(|texts| Texts { vectors: texts.vectors.clone(), tokens: texts.tokens });
                    let texts = if is_query { &mut queries } else { &mut documents };
                    texts.vectors[place / 8][place % 8] += by;
                    // The full size is used as it is: only cut vectors are normalised.
                    let whole = naive(&objective, objective.temperature, &scores(&queries, &documents), &targets);
                    let smaller = [4, 2].map(|dim| {
                        let scores = scores(&queries.cut(dim), &documents.cut(dim));
                        naive(&objective, objective.temperature, &scores, &targets)
                    });
                    whole + smaller.iter().sum::<f64>()
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let difference = (f64::from(*gradient) - slope).abs();
                assert!(difference < 5.0 * TOLERANCE, "{is_query} {place}: {gradient}, not {slope}");
            }
        }
    }
}

/// Blocks of any size add up to the loss of the whole batch.
#[test]
fn blocks_of_queries_add_up() {
    let targets = Targets {
        documents: vec![vec![0, 1], vec![2, 3], vec![4, 5]],
        teacher: None,
        positives: vec![vec![0], vec![2], vec![4]],
        block: None,
    };
    let (queries, documents) = (Texts::new(3, 2, 8, 3), Texts::new(6, 3, 8, 4));
    let objective = sizes(&[8, 3], TrainOptions::default());
    let whole = total(&objective, &queries, &documents, &targets);
    let block = |row: usize| {
        let own = Texts { vectors: queries.vectors[row * 2..row * 2 + 2].to_vec(), tokens: 2 };
        total(&objective, &own, &documents, &Targets { block: Some(row..row + 1), ..targets.clone() })
    };
    let sum: f64 = (0..3).map(block).sum();
    assert!((sum / 3.0 - whole).abs() < TOLERANCE, "{sum} of three blocks, {whole}");
    assert_eq!((objective.scorings(), sizes(&[], TrainOptions::default()).scorings()), (2, 1));
}

/// Cached gradients over micro-batches are those of the batch.
#[test]
fn cached_embeddings_give_the_gradient_of_the_whole_batch() {
    let of = |accumsteps| TrainOptions { dims: NumberList(vec![16, 8, 2]), ..options(accumsteps, IbScope::Batch) };
    let (model, _) = tiny(&of(1), None);
    let whole = gradients(&model, &of(1));
    let plain = gradients(&model, &options(1, IbScope::Batch));
    assert!(whole.0.total > 1.5 * plain.0.total, "three sizes are summed: {} and {}", whole.0.total, plain.0.total);
    for accumsteps in [2, 8] {
        assert_same(&gradients(&model, &of(accumsteps)), &whole);
    }
}

/// The loss of `MatryoshkaLoss` on the same vectors (`tests/losses/make_matryoshka.py`).
#[test]
fn it_is_the_loss_of_sentence_transformers() {
    let text = fs::read_to_string(crate_folder().join("tests/losses/matryoshka.json")).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| recorded[name].as_u64().unwrap() as usize;
    let list = |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let texts = |name: &str, tokens: usize| Texts {
        vectors: recorded[name].as_array().unwrap().iter().map(list).collect(),
        tokens,
    };
    let (queries, documents) =
        (texts("queries", number("query_tokens")), texts("documents", number("document_tokens")));
    let nway = number("nway");
    let rows = queries.vectors.len() / queries.tokens;
    let targets = Targets {
        documents: (0..rows).map(|row| (row * nway..(row + 1) * nway).collect()).collect(),
        teacher: None,
        positives: (0..rows).map(|row| vec![row * nway]).collect(),
        block: None,
    };
    // Its contrastive loss: one softmax over all documents of the batch.
    let options = TrainOptions { ib_own_negatives: true, cross_entropy_weight: Some(0.0), ..TrainOptions::default() };
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let dims: Vec<usize> = list(&case["dims"]).iter().map(|dim| *dim as usize).collect();
        let found = total(&sizes(&dims, options.clone()), &queries, &documents, &targets);
        let expected = case["loss"].as_f64().unwrap();
        assert!((found - expected).abs() < TOLERANCE, "{dims:?}: {found} instead of {expected}");
    }
}

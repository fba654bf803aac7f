//! Hidden states, embeddings and scores against the recorded ones, and the invariances of an encoder.

use colbert_model::{EncodeOptions, EncoderInput, PretrainedEncoder, TokenSequence, Weights, maxsim};

use crate::support::{B, device, json, largest_difference, parity, settings, strings, tiny};

/// `parity/README.md` suggests 1e-5 for embeddings and 1e-4 for scores.
const EMBEDDING_TOLERANCE: f32 = 1e-5;
const SCORE_TOLERANCE: f32 = 1e-4;

struct Recorded {
    queries: Vec<String>,
    docs: Vec<String>,
    tensors: Weights,
    scores: Vec<f32>,
}

fn recorded() -> Recorded {
    let (texts, cases) = (json("tokenization.json"), json("encode_tiny.json"));
    let pick = |list: &str, index: &str| -> Vec<String> {
        let all = strings(&texts[list]);
        cases[index].as_array().unwrap().iter().map(|i| all[i.as_u64().unwrap() as usize].clone()).collect()
    };
    let rows = cases["scores"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    Recorded {
        queries: pick("queries", "query_index"),
        docs: pick("docs", "doc_index"),
        tensors: Weights::read(&parity("encode_tiny.safetensors")).unwrap(),
        scores: rows.map(|v| v.as_f64().unwrap() as f32).collect(),
    }
}

#[test]
fn hidden_states_of_every_layer() {
    let mut recorded = recorded();
    let (model, tokenizer, _) = tiny(&settings(32, 64));
    let sequences = tokenizer.queries(&recorded.queries).unwrap();
    let PretrainedEncoder::Bert(bert) = &model.encoder else { panic!("the tiny model is a BERT") };
    let states = bert.hidden_states(&EncoderInput::new(&sequences, EncodeOptions::default()));
    assert_eq!(states.len(), 3);
    for (layer, state) in states.into_iter().enumerate() {
        let expected = recorded.tensors.take(&format!("query_hidden_{layer}"), &[8, 32, 32]).unwrap();
        let found = state.into_data().to_vec::<f32>().unwrap();
        let difference = largest_difference(&found, &expected.values);
        assert!(difference < EMBEDDING_TOLERANCE, "layer {layer}: {difference}");
    }
}

#[test]
fn embeddings_and_scores() {
    let mut recorded = recorded();
    let (model, tokenizer, _) = tiny(&settings(32, 64));
    let queries = model.encode(&tokenizer.queries(&recorded.queries).unwrap(), &device());
    let documents = model.encode(&tokenizer.documents(&recorded.docs).unwrap(), &device());

    let expected = recorded.tensors.take("Q", &[8, 32, 16]).unwrap();
    let found: Vec<f32> = queries.to_host().into_iter().flat_map(|text| text.values).collect();
    assert!(largest_difference(&found, &expected.values) < EMBEDDING_TOLERANCE);

    let expected = recorded.tensors.take("D", &[12, 64, 16]).unwrap();
    let scored: Vec<Vec<bool>> =
        tokenizer.documents(&recorded.docs).unwrap().into_iter().map(|sequence| sequence.scored).collect();
    for (doc, found) in documents.to_host().iter().enumerate() {
        let rows = (0..scored[doc].len()).filter(|&row| scored[doc][row]);
        let expected: Vec<f32> = rows.flat_map(|row| expected.values[(doc * 64 + row) * 16..][..16].to_vec()).collect();
        let difference = largest_difference(&found.values, &expected);
        assert!(difference < EMBEDDING_TOLERANCE, "document {doc}: {difference}");
    }

    let scores = maxsim(&queries, &documents).into_data().to_vec::<f32>().unwrap();
    let difference = largest_difference(&scores, &recorded.scores);
    assert!(difference < SCORE_TOLERANCE, "{difference}");
}

/// MaxSim in f64 with plain loops over the result of `to_host`.
#[test]
fn maxsim_is_the_sum_of_the_best_similarities() {
    let recorded = recorded();
    let (model, tokenizer, _) = tiny(&settings(32, 64));
    let queries = model.encode(&tokenizer.queries(&recorded.queries).unwrap(), &device());
    let documents = model.encode(&tokenizer.documents(&recorded.docs).unwrap(), &device());
    let scores = maxsim(&queries, &documents).into_data().to_vec::<f32>().unwrap();
    let (queries, documents) = (queries.to_host(), documents.to_host());
    for (i, query) in queries.iter().enumerate() {
        for (j, document) in documents.iter().enumerate() {
            let mut total = 0.0f64;
            for q in query.values.chunks(16) {
                let dot = |d: &[f32]| q.iter().zip(d).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                total += document.values.chunks(16).map(dot).fold(f64::NEG_INFINITY, f64::max);
            }
            let found = f64::from(scores[i * documents.len() + j]);
            assert!((found - total).abs() < 1e-5, "query {i}, document {j}: {found} and {total}");
        }
    }
}

/// A masked token points exactly at the query, every other one away from it: it must not win.
#[test]
fn a_masked_token_never_wins() {
    use burn::tensor::Tensor;
    use colbert_model::Embeddings;
    use colbert_model::kernels::ScoredTexts;
    let one = |vectors: Tensor<B, 2>, scored: Vec<bool>| Embeddings {
        vectors,
        texts: ScoredTexts::new(&[scored.len()], scored),
    };
    let query = one(Tensor::from_data([[1.0, 0.0]], &device()), vec![true]);
    let document = one(Tensor::from_data([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], &device()), vec![false, true, false]);
    let score: f32 = maxsim(&query, &document).into_scalar();
    assert_eq!(score, -1.0);
}

#[test]
fn a_text_alone_equals_the_text_in_a_batch() {
    let recorded = recorded();
    let (model, tokenizer, _) = tiny(&settings(32, 64));
    let sequences = tokenizer.documents(&recorded.docs).unwrap();
    let together = model.encode(&sequences, &device()).to_host();
    for (i, sequence) in sequences.iter().enumerate() {
        let alone = model.encode(std::slice::from_ref(sequence), &device()).to_host();
        assert!(largest_difference(&alone[0].values, &together[i].values) < EMBEDDING_TOLERANCE, "document {i}");
    }
    let reversed: Vec<TokenSequence> = sequences.iter().rev().cloned().collect();
    for (i, text) in model.encode(&reversed, &device()).to_host().iter().rev().enumerate() {
        assert!(largest_difference(&text.values, &together[i].values) < EMBEDDING_TOLERANCE, "document {i} reversed");
    }
}

#[test]
fn relu_leaves_no_negative_component_and_a_finite_gradient_of_zero_vectors() {
    use burn::backend::Autodiff;
    use colbert_model::Pretrained;
    let with_relu = colbert_model::ColbertSettings { use_relu: true, ..settings(32, 64) };
    let pretrained = Pretrained::read(&parity("tiny")).unwrap();
    let (mut model, _) = pretrained.model::<Autodiff<B>>(&with_relu, None, 0, &device()).unwrap();
    // A projection to zero: every vector is 0 before it is normalised.
    let linear = &mut model.head.dense[0].linear;
    linear.weight = linear.weight.clone().map(|weight| (weight * 0.0).detach().require_grad());
    let sequences = pretrained.tokenizer(&with_relu).unwrap().documents(&["one text"]).unwrap();
    let embeddings = model.encode(&sequences, &device());
    let gradients = embeddings.vectors.clone().sum().backward();
    let gradient = model.head.dense[0].linear.weight.val().grad(&gradients).unwrap();
    assert!(gradient.into_data().to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));

    let (model, _) = pretrained.model::<B>(&with_relu, None, 0, &device()).unwrap();
    let text = &model.encode(&sequences, &device()).to_host()[0];
    assert!(text.values.iter().all(|v| *v >= 0.0) && text.values.iter().any(|v| *v > 0.0));
}

//! Evaluation against plain loops in f64 over the embeddings.

use std::sync::Arc;

use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use colbert_config::{Metric, TrainOptions};
use colbert_data::{Candidates, Collection, EvaluationSet, Judgements, Queries};
use colbert_model::TokenSequence;
use colbert_train::{EvaluationLimits, Flow, Task, TrainError, evaluate};

use crate::support::{B, Model, device, lines, tiny, training_set};

fn options() -> TrainOptions {
    TrainOptions { dim: 16, doc_maxlen: 32, ..TrainOptions::default() }
}

/// The fixture's first queries, each judged on its recorded positive, over the whole collection.
pub(crate) fn dev_set(queries: usize) -> EvaluationSet {
    let set = training_set(&lines("triples.jsonl")[..queries]);
    let mut judged = Queries::new();
    let mut judgements = Judgements::new();
    for example in &set.examples {
        let qid = judged.add(set.queries.text(example.query)).unwrap();
        judgements.insert(qid, example.documents[0], 1);
    }
    EvaluationSet { queries: judged, collection: Arc::new(set.collection), judgements }
}

#[test]
fn ranks_as_plain_loops_do() {
    let set = dev_set(12);
    let (model, tokenizer) = tiny(&options(), None);
    let model = model.valid();
    let mut seen = 0;
    let measured = evaluate(&model, &tokenizer, &set, Metric::Mrr(5), &device(), &mut |done| {
        seen = done;
        Flow::Continue
    })
    .unwrap();
    let found = measured.evaluation;
    let mean = measured.queries.iter().map(|query| query.value.unwrap()).sum::<f64>() / 12.0;
    assert!((found.value(Metric::Mrr(5)).unwrap() - mean).abs() < 1e-12);
    assert_eq!(seen, set.collection.len());
    assert_eq!((found.queries, found.documents), (12, set.collection.len()));

    let texts: Vec<&str> = set.queries.iter().collect();
    let queries = model.encode(&tokenizer.queries(&texts).unwrap(), &device()).to_host();
    let texts: Vec<&str> = set.collection.iter().collect();
    let documents = model.encode(&tokenizer.documents(&texts).unwrap(), &device()).to_host();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let mut expected = 0.0;
    for (qid, query) in queries.iter().enumerate() {
        let mut scored: Vec<(f64, u32)> = Vec::new();
        for (pid, document) in documents.iter().enumerate() {
            let best = |q: &[f32]| document.values.chunks(16).map(|d| dot(q, d)).fold(f64::NEG_INFINITY, f64::max);
            scored.push((query.values.chunks(16).map(best).sum(), pid as u32));
        }
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let place = scored.iter().position(|(_, pid)| set.judgements.is_positive(qid as u32, *pid)).unwrap();
        expected += if place < 5 { 1.0 / (place + 1) as f64 / 12.0 } else { 0.0 };
    }
    assert!((found.value(Metric::Mrr(5)).unwrap() - expected).abs() < 1e-9);
    assert!(found.value(Metric::Ndcg(10)).is_some(), "the usual metrics are reported too");
    assert!(found.value(Metric::Ndcg(7)).is_none());
}

/// With candidates, a document is ranked among them alone; a relevant one that is not a candidate counts as not found.
#[test]
fn candidates_are_ranked_as_plain_loops_do() {
    let set = dev_set(12);
    let (model, tokenizer) = tiny(&options(), None);
    let model = model.valid();
    let scores = |texts: &[TokenSequence]| model.encode(texts, &device()).to_host();
    let texts: Vec<&str> = set.queries.iter().collect();
    let queries = scores(&tokenizer.queries(&texts).unwrap());
    let texts: Vec<&str> = set.collection.iter().collect();
    let documents = scores(&tokenizer.documents(&texts).unwrap());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let score = |qid: u32, pid: u32| {
        let document = &documents[pid as usize].values;
        let best = |q: &[f32]| document.chunks(16).map(|d| dot(q, d)).fold(f64::NEG_INFINITY, f64::max);
        queries[qid as usize].values.chunks(16).map(best).sum::<f64>()
    };
    let count = set.collection.len() as u32;
    let some = |qid: u32| (0..count).filter(|pid| (pid * 7 + qid * 3) % 5 < 3).collect::<Vec<u32>>();
    let candidates = Candidates::new((0..12).map(some).collect());
    let measure = |candidates: Option<&Candidates>| {
        let task = Task { set: &set, candidates, chosen: Metric::Mrr(5) };
        task.evaluate(&model, &tokenizer, EvaluationLimits::default(), &device(), &mut |_| Flow::Continue).unwrap()
    };
    let measured = measure(Some(&candidates));
    assert_eq!(measured.evaluation.documents, candidates.mean());
    let mut found = 0;
    for query in &measured.queries {
        let relevant: Vec<u32> = set.judgements.positives(query.qid).collect();
        let own = some(query.qid);
        let ranked =
            |pid: u32| 1 + own.iter().filter(|other| score(query.qid, **other) > score(query.qid, pid)).count();
        let expected = relevant.iter().filter(|pid| own.contains(pid)).map(|pid| ranked(*pid)).min();
        assert_eq!(query.rank, expected, "{query:?}");
        assert!(query.first.iter().all(|pid| own.contains(pid)), "{query:?}");
        assert_eq!(query.value.unwrap() > 0.0, expected.is_some_and(|rank| rank <= 5), "{query:?}");
        found += usize::from(expected.is_some());
    }
    assert!((1..12).contains(&found), "some are found and some are not: {found}");
    let all = Candidates::new(vec![(0..count).collect(); 12]);
    assert_eq!(measure(Some(&all)), measure(None));
}

#[test]
fn a_set_without_relevant_documents_is_an_error() {
    let (model, tokenizer) = tiny(&options(), None);
    let mut set = dev_set(2);
    set.judgements = Judgements::new();
    let run = |set: &EvaluationSet| {
        evaluate(&model.valid(), &tokenizer, set, Metric::default(), &device(), &mut |_| Flow::Continue)
    };
    assert!(matches!(run(&set), Err(TrainError::NothingToEvaluate)));
    set.collection = Arc::new(Collection::new());
    assert!(matches!(run(&set), Err(TrainError::NothingToEvaluate)));
}

/// The model with every parameter filled with a number.
pub(crate) fn filled(model: Model, value: f32) -> Model {
    struct Fill(f32);
    impl ModuleMapper<B> for Fill {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            let filled =
                Tensor::full(tensor.shape(), self.0, &tensor.device()).set_require_grad(tensor.is_require_grad());
            Param::from_mapped_value(id, filled, mapper)
        }
    }
    model.map(&mut Fill(value))
}

/// Every query is judged on the first document of the collection, which sorting by id puts first.
fn first_document_is_relevant() -> EvaluationSet {
    let mut set = dev_set(8);
    set.judgements = Judgements::new();
    (0..8).for_each(|qid| {
        set.judgements.insert(qid, 0, 1);
    });
    set
}

#[test]
fn a_model_that_gives_every_text_the_same_vectors_gains_nothing_by_equal_scores() {
    let set = first_document_is_relevant();
    let (model, tokenizer) = tiny(&options(), None);
    let model = filled(model, 0.0).valid();
    let measured = evaluate(&model, &tokenizer, &set, Metric::Ndcg(10), &device(), &mut |_| Flow::Continue).unwrap();
    for metric in [Metric::Ndcg(10), Metric::Mrr(10), Metric::Recall(10)] {
        assert_eq!(measured.evaluation.value(metric), Some(0.0), "{metric}");
    }
    assert!(measured.queries.iter().all(|query| query.rank == Some(set.collection.len()) && !query.first.contains(&0)));
}

#[test]
fn vectors_that_are_not_finite_end_an_evaluation_and_name_the_query() {
    let set = first_document_is_relevant();
    let (model, tokenizer) = tiny(&options(), None);
    for value in [f32::NAN, f32::INFINITY] {
        let model = filled(model.clone(), value).valid();
        for metric in [Metric::Ndcg(10), Metric::Loss] {
            let error = evaluate(&model, &tokenizer, &set, metric, &device(), &mut |_| Flow::Continue).unwrap_err();
            assert!(matches!(&error, TrainError::NonFiniteVectors { what: "query", id } if id == "0"), "{error}");
        }
    }
}

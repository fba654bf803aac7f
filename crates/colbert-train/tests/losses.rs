//! Every recorded loss variant: scores, loss parts, and the gradient of every parameter.

use std::collections::HashMap;

use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use colbert_config::{TrainOptions, resolve};
use colbert_model::{Weights, maxsim, parameter_names};
use colbert_train::{ColbertObjective, Step};
use serde_json::Value;

use crate::support::{B, Inner, Model, device, json, lines, parity, sum_and_l2, tiny, training_set};

/// `parity/README.md`: 1e-5 for the loss of a first step, 1e-4 for scores, 1e-4 of a tensor's L2 for gradients.
const LOSS: f64 = 1e-5;
const SCORE: f64 = 1e-4;
const GRADIENT: f64 = 1e-4;

/// Gradients by parameter name.
pub(crate) fn gradients_by_name(model: &Model, gradients: &GradientsParams) -> HashMap<String, Vec<f32>> {
    struct Visitor<'a> {
        gradients: &'a GradientsParams,
        found: Vec<Option<Vec<f32>>>,
    }
    impl ModuleVisitor<B> for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let gradient = self.gradients.get::<Inner, D>(param.id);
            self.found.push(gradient.map(|g| g.into_data().to_vec::<f32>().unwrap()));
        }
    }
    let mut visitor = Visitor { gradients, found: Vec::new() };
    burn::module::Module::visit(model, &mut visitor);
    let names = parameter_names::<B, Model>(model);
    assert_eq!(names.len(), visitor.found.len());
    names.iter().zip(visitor.found).filter_map(|(name, g)| Some((model.tensor_name(name), g?))).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    match value.as_array() {
        Some(items) => items.iter().flat_map(floats).collect(),
        None => vec![value.as_f64().unwrap()],
    }
}

#[test]
fn every_variant() {
    let recorded = json("losses.json");
    let mut full = Weights::read(&parity("gradients.safetensors")).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    let mut compared_in_full = 0;
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let batch_size = case["batch"].as_u64().unwrap() as usize;
        let first = case["first"].as_u64().unwrap() as usize;
        let rows = &lines(case["triples"].as_str().unwrap())[first..first + batch_size];
        let set = training_set(rows);
        let options = TrainOptions {
            batch_size,
            nway: case["nway"].as_u64().unwrap() as usize,
            dim: 16,
            doc_maxlen: case["doc_maxlen"].as_u64().unwrap() as usize,
            use_ib_negatives: case["use_ib_negatives"].as_bool().unwrap(),
            ib_skip_known_positives: false,
            distillation_alpha: case["distillation_alpha"].as_f64().unwrap(),
            ignore_scores: case["ignore_scores"].as_bool().unwrap(),
            shuffle: false,
            ..TrainOptions::default()
        };
        let plan = resolve(&options, set.examples.len()).unwrap();
        let (model, tokenizer) = tiny(&options, None);
        let device = device();
        let step = Step::<B, _>::new(&options, &plan, ColbertObjective::from(&options), &device);
        let batch = step.batch(&set, &tokenizer, 0).unwrap();

        let part = &batch.parts[0];
        let (queries, documents) = (model.encode(&part.queries, &device), model.encode(&part.documents, &device));
        let scores = maxsim(&queries, &documents).into_data().to_vec::<f32>().unwrap();
        let recorded_scores = floats(&case["all_pairs_scores"]);
        let slots = part.targets.documents.concat();
        for query in 0..batch_size {
            for (slot, document) in slots.iter().enumerate() {
                let found = f64::from(scores[query * part.documents.len() + document]);
                let expected = recorded_scores[query * slots.len() + slot];
                assert!((found - expected).abs() < SCORE, "{name}: query {query}, slot {slot}: {found} {expected}");
            }
        }

        let gradient = step.gradient(&model, &batch);
        let loss = gradient.loss;
        let close = |what: &str, found: f64, expected: f64, tolerance: f64| {
            assert!((found - expected).abs() <= tolerance, "{name}, {what}: {found} instead of {expected}");
        };
        close("total", loss.total, case["total_loss"].as_f64().unwrap(), LOSS);
        close("main", loss.parts[0].1, case["main_loss"].as_f64().unwrap(), LOSS);
        match case["ib_loss"].as_f64() {
            Some(expected) => close("in-batch", loss.parts[1].1, expected, LOSS),
            None => assert_eq!(loss.parts.len(), 1, "{name}"),
        }
        let norm = case["grad_norm"].as_f64().unwrap();
        close("gradient norm", gradient.norm, norm, GRADIENT * norm);

        let found = gradients_by_name(&model, &gradient.parameters);
        let mut compared = 0;
        for (tensor, numbers) in case["grad"].as_object().unwrap() {
            if tensor.ends_with("attention.self.key.bias") {
                continue;
            }
            if numbers.is_null() {
                assert!(!found.contains_key(tensor), "{name}: {tensor} has a gradient and should have none");
                continue;
            }
            let (sum, l2) = sum_and_l2(&found[tensor]);
            let expected = numbers["l2"].as_f64().unwrap();
            close(&format!("L2 of {tensor}"), l2, expected, GRADIENT * expected + 1e-7);
            let tolerance = GRADIENT * expected * (found[tensor].len() as f64).sqrt() + 1e-7;
            close(&format!("sum of {tensor}"), sum, numbers["sum"].as_f64().unwrap(), tolerance);
            compared += 1;
        }
        assert!(compared > 30, "{name}: only {compared} gradients");

        let prefix = format!("{name}/");
        let own: Vec<String> = full.names().filter(|n| n.starts_with(&prefix)).map(str::to_owned).collect();
        for entry in own {
            let shape = full.shape(&entry).unwrap().to_vec();
            let expected = full.take(&entry, &shape).unwrap().values;
            let tensor = entry.strip_prefix(&prefix).unwrap();
            if tensor.ends_with("attention.self.key.bias") {
                continue;
            }
            let difference: Vec<f32> = found[tensor].iter().zip(&expected).map(|(a, b)| a - b).collect();
            let (distance, l2) = (sum_and_l2(&difference).1, sum_and_l2(&expected).1);
            assert!(distance <= GRADIENT * l2 + 1e-7, "{name}, {tensor}: {distance} of {l2}");
            compared_in_full += 1;
        }
    }
    assert!(compared_in_full > 60, "only {compared_in_full} full gradients compared");
}

//! Gradients of every encoder family.

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use colbert_model::{EncodeOptions, Encoder, EncoderInput, Pretrained, Weights, maxsim, named_parameters};

use crate::families::{FAMILIES, TOLERANCE, recorded_sequences, settings, settings_of};
use crate::support::{B, device, expected, fixture, largest_difference, strings};

struct Missing<'a, A: AutodiffBackend> {
    gradients: &'a A::Gradients,
    path: Vec<String>,
    without: Vec<String>,
    with: usize,
}

impl<A: AutodiffBackend> ModuleVisitor<A> for Missing<'_, A> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        let largest = param.val().grad(self.gradients).map(|gradient| gradient.abs().max().into_data().to_vec::<f32>());
        match largest {
            Some(Ok(largest)) if largest[0] > 0.0 && largest[0].is_finite() => self.with += 1,
            _ => self.without.push(self.path.join(".")),
        }
    }
}

struct Found<'a, A: AutodiffBackend> {
    gradients: &'a A::Gradients,
    found: Vec<Vec<f32>>,
}

impl<A: AutodiffBackend> ModuleVisitor<A> for Found<'_, A> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        let gradient = param.val().grad(self.gradients).expect("every parameter has a gradient");
        self.found.push(gradient.into_data().to_vec::<f32>().unwrap());
    }
}

#[test]
fn every_parameter_of_every_family_can_be_trained() {
    type A = Autodiff<B>;
    for family in FAMILIES {
        let pretrained = Pretrained::read(&fixture(family)).unwrap();
        let settings = settings_of(&pretrained, 16, 40);
        let tokenizer = pretrained.tokenizer(&settings).unwrap();
        let (model, _) = pretrained.model::<A>(&settings, None, 0, &device()).unwrap();
        let texts = strings(&expected(family)["texts"]);
        let queries = model.encode(&tokenizer.queries(&texts).unwrap(), &device());
        let documents = model.encode(&tokenizer.documents(&texts).unwrap(), &device());
        let gradients = maxsim(&queries, &documents).square().sum().backward();
        let mut missing = Missing::<A> { gradients: &gradients, path: Vec::new(), without: Vec::new(), with: 0 };
        model.visit(&mut missing);
        let without: Vec<_> = missing.without.iter().filter(|name| !name.contains("pooler")).collect();
        assert!(without.is_empty() && missing.with > 10, "{family}: {without:?}");
        let dropped = pretrained.model::<A>(&settings, Some(0.1), 0, &device()).unwrap().0;
        let sequences = tokenizer.documents(&texts).unwrap();
        let seed = |seed| {
            let dropout = Some(colbert_model::DropoutSeed::new(seed));
            let options = EncodeOptions { dropout, ..EncodeOptions::default() };
            let vectors = dropped.encode_with(&sequences, options, &device());
            vectors.vectors.into_data().to_vec::<f32>().unwrap()
        };
        assert_eq!(seed(1), seed(1), "{family}");
        assert_ne!(seed(1), seed(2), "{family}");
        assert_eq!(model.valid().encoder.hidden_size(), 32);
    }
}

/// The gradients of DeBERTa's attention by burn's operators are those of PyTorch's autograd.
#[test]
fn gradients_of_deberta_are_those_of_transformers() {
    type A = Autodiff<B>;
    let pretrained = Pretrained::read(&fixture("deberta-v2")).unwrap();
    let (model, _) = pretrained.model::<A>(&settings(16, 40), Some(0.0), 0, &device()).unwrap();
    let expected = expected("deberta-v2");
    let sequences = recorded_sequences(&expected);
    let found = model.encoder.forward(&EncoderInput::new(&sequences, EncodeOptions::default()), &device());
    let gradients = found.powi_scalar(3).sum().backward();
    let mut visitor = Found::<A> { gradients: &gradients, found: Vec::new() };
    model.encoder.visit(&mut visitor);
    let mut recorded = Weights::read(&fixture("deberta-v2").join("expected.safetensors")).unwrap();
    let names: Vec<String> = recorded.names().filter(|name| name.starts_with("gradient.")).map(str::to_owned).collect();
    assert!(names.len() == visitor.found.len() && names.len() > 30, "{} of {}", visitor.found.len(), names.len());
    for ((path, _), values) in named_parameters(&model.encoder).into_iter().zip(visitor.found) {
        let own = Encoder::<A>::tensor_name(&model.encoder, &path);
        let name = format!("gradient.{}", own.strip_prefix("deberta.").unwrap());
        let shape = recorded.shape(&name).unwrap().to_vec();
        let expected = recorded.take(&name, &shape).unwrap();
        // The markers were added here; no text has them.
        let (known, added) = values.split_at(expected.values.len());
        let largest = expected.values.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
        let difference = largest_difference(known, &expected.values) / largest;
        assert!(difference < TOLERANCE && added.iter().all(|value| *value == 0.0), "{name}: {difference}");
    }
}

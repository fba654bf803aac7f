//! An encoder of one's own under the ColBERT head: word vectors mixed with those of their neighbours, not pretrained.
//!
//! Shows how to implement [`Encoder`]; the same loop then trains it, and the loss falls:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_encoder
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use burn::backend::Autodiff;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use burn_flex::{Flex, FlexDevice};
use ragtrainer::config::{TrainOptions, resolve};
use ragtrainer::model::{Colbert, ColbertSettings, Encoder, EncoderInput, Linear as Projection, Pretrained};
use ragtrainer::train::{ColbertObjective, Event, Flow, Training};
use ragtrainer_examples::{MODEL, triples};

/// `own + tanh(W [own, mean of left and right])`
#[derive(Module, Debug)]
struct NeighbourEncoder<B: Backend> {
    words: Embedding<B>,
    mix: Linear<B>,
    hidden_size: usize,
}

impl<B: Backend> NeighbourEncoder<B> {
    fn new(vocabulary: usize, hidden_size: usize, device: &B::Device) -> Self {
        Self {
            words: EmbeddingConfig::new(vocabulary, hidden_size).init(device),
            mix: LinearConfig::new(2 * hidden_size, hidden_size).init(device),
            hidden_size,
        }
    }
}

impl<B: Backend> Encoder<B> for NeighbourEncoder<B> {
    fn forward(&self, input: EncoderInput<B>) -> Tensor<B, 3> {
        let own = self.words.forward(input.ids); // [sequences, length, hidden_size]
        let [count, length, size] = own.dims();
        // Padding counts as nothing, like what lies beyond the ends: a text's vectors do not depend on it.
        let seen = own.clone() * input.attended.float().unsqueeze_dim::<3>(2);
        let beyond = Tensor::zeros([count, 1, size], &own.device());
        let left = Tensor::cat(vec![beyond.clone(), seen.clone().slice([0..count, 0..length - 1])], 1);
        let right = Tensor::cat(vec![seen.slice([0..count, 1..length]), beyond], 1);
        let around = (left + right).div_scalar(2.0);
        own.clone() + tanh(self.mix.forward(Tensor::cat(vec![own, around], 2)))
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// There are no position embeddings, so any length will do.
    fn max_positions(&self) -> usize {
        usize::MAX
    }

    fn tensor_prefix(&self) -> &'static str {
        "neighbours."
    }
}

type B = Autodiff<Flex>;

fn main() -> anyhow::Result<()> {
    let device = FlexDevice;
    B::seed(&device, 7); // burn draws new parameters from a global generator
    let set = triples()?;
    let options = TrainOptions {
        maxsteps: 80,
        learning_rate: 3e-3, // nothing here is pretrained
        dim: 64,
        doc_maxlen: 96,
        ..TrainOptions::default()
    };
    let plan = resolve(&options, set.examples.len())?;
    let settings = ColbertSettings::from(&options);
    // Only the tokenizer of the quickstart's model is used.
    let pretrained = Pretrained::read(Path::new(MODEL))?;
    let tokenizer = pretrained.tokenizer(&settings)?;
    let encoder = NeighbourEncoder::<B>::new(pretrained.config.vocab_size, 96, &device);
    let projection = Tensor::random([settings.dim, encoder.hidden_size()], Distribution::Normal(0.0, 0.1), &device);
    let linear = Projection { weight: Param::from_tensor(projection), bias: None };
    let model = Colbert { encoder, linear, use_relu: settings.use_relu };
    println!("{} parameters\n{plan}", model.num_params());

    let mut losses = Vec::new();
    let mut keep = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.loss);
        }
        Flow::Continue
    };
    let training = Training {
        set: &set,
        dev: None,
        tokenizer: &tokenizer,
        options: &options,
        plan: &plan,
        objective: &ColbertObjective::from(&options),
        folder: None,
        write_model: &|_, _| Ok(()),
        observers: vec![&mut keep],
        device: &device,
    };
    let trained = training.run(model, None)?;
    for (place, losses) in losses.chunks(10).enumerate() {
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        println!("steps {:2} to {:2}: mean loss {mean:.3}", 10 * place + 1, 10 * place + losses.len());
    }
    println!("{} steps in {:.1} s", trained.steps, trained.training_seconds);
    Ok(())
}
